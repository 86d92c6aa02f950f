"""Lines of containers on a terminal: where they are from, and nothing that could command the terminal."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
import typer

from kubelore.cli.logs import LogFormat, Screen, _moment, _place

ITEM = {
    "timestamp": "2026-11-29T17:00:00.000000001Z",
    "cluster": "east",
    "namespace": "shop",
    "pod": "web-0",
    "container": "web",
    "message": "hello",
}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(out: io.StringIO, message: str = "hello", output: LogFormat = LogFormat.TEXT, **more: Any) -> str:
    options = {"timestamps": False, "prefix": True, "clusters": True} | more
    Screen(out, output, **options).event("lines", {"items": [ITEM | {"message": message}]})
    return out.getvalue()


def test_a_line_says_where_it_is_from() -> None:
    assert shown(io.StringIO()) == "east/web-0 web hello\n"
    assert shown(io.StringIO(), clusters=False) == "web-0 web hello\n"
    assert shown(io.StringIO(), prefix=False, timestamps=True) == "2026-11-29T17:00:00.000000001Z hello\n"


def test_raw_is_the_line_alone_and_json_all_of_it() -> None:
    assert shown(io.StringIO(), output=LogFormat.RAW) == "hello\n"
    assert json.loads(shown(io.StringIO(), output=LogFormat.JSON)) == ITEM


def test_a_pipe_gets_what_the_container_wrote() -> None:
    assert shown(io.StringIO(), "\x1b]0;title\x07", prefix=False) == "\x1b]0;title\x07\n"


def test_a_terminal_gets_colours_and_no_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    told = shown(Terminal(), "\x1b[31mred\x1b[0m \x1b]0;title\x07\x1b[2J", prefix=False)
    assert told.startswith("\x1b[31mred\x1b[0m")
    assert "\x1b]" not in told
    assert "\x07" not in told
    assert "\x1b[2J" not in told


def test_pods_have_colours_unless_nobody_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert shown(Terminal()).startswith("\x1b[")
    monkeypatch.setenv("NO_COLOR", "1")
    assert shown(Terminal()) == "east/web-0 web hello\n"


def test_whose_logs_are_meant() -> None:
    path, place = _place(["deploy/cart"], ["east"], "shop", False, "", "")
    assert (path, place["workload"], place["namespace"]) == ("/api/k8s/logs/stream", "deploy/cart", "shop")
    assert _place(["web-0"], None, "", False, "", "")[1]["workload"] == "pods/web-0"
    assert _place(["deploy", "cart"], None, "", False, "", "")[1]["workload"] == "deploy/cart"
    assert _place([], None, "", True, "app=web", "")[1]["namespace"] is None
    assert _place(["east:shop:web-0:web"], None, "", False, "", "")[0].endswith(
        "east:shop:web-0:web/logs/stream"
    )
    with pytest.raises(typer.BadParameter):
        _place(["web-0"], None, "", True, "", "")
    with pytest.raises(typer.BadParameter):
        _place(["web-0"], None, "", False, "app=web", "")


def test_since_is_a_span_or_a_time() -> None:
    assert _moment("2026-01-01T00:00:00Z") == "2026-01-01T00:00:00Z"
    assert _moment("5m").endswith("+00:00")
    with pytest.raises(typer.BadParameter):
        _moment("soon")
