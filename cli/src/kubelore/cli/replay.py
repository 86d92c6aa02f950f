"""`kubelore replay` and `kubelore attach`: what terminals showed, and those that still run."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from typing import Annotated, Any
from urllib.parse import quote

import typer

from kubelore.cli import terminal
from kubelore.cli.connection import Target, at, connect
from kubelore.common.errors import Conflict, NotFound

OPERATIONS = "/api/k8s/containers/operations"


def replay(
    context: typer.Context,
    operation: Annotated[str, typer.Argument(metavar="OPERATION", help="As `kubelore operations` shows it.")],
    speed: Annotated[float, typer.Option(min=0.01, help="So many times as fast.")] = 1.0,
    idle_limit: Annotated[
        float, typer.Option(min=0, help="Longest pause, in seconds; 0 for none at all.")
    ] = 2.0,
    raw: Annotated[
        bool, typer.Option("--raw", help="Print the recording itself (asciicast v2), as for asciinema.")
    ] = False,
) -> None:
    """Play what a terminal showed. Ctrl-C ends it."""
    with connect(context) as api:
        lines = api.lines(f"{OPERATIONS}/{quote(operation, safe='')}/recording")
        if raw:
            for line in lines:
                typer.echo(json.dumps(line, ensure_ascii=False))
            return
        for pause, text in paced(lines, speed, idle_limit):
            time.sleep(pause)
            sys.stdout.write(text)
            sys.stdout.flush()


def paced(lines: Iterator[Any], speed: float, idle_limit: float) -> Iterator[tuple[float, str]]:
    """What a recording shows, each with the seconds to wait before it."""
    at_ = 0.0
    for line in lines:
        if not isinstance(line, list):
            continue
        when, code, text = line
        pause, at_ = max(0.0, when - at_), when
        if code == "o":
            yield min(pause, idle_limit) / speed, text
        elif code == "m":
            yield 0.0, f"\r\n[{text}]\r\n"


def attach(
    context: typer.Context,
    session: Annotated[
        str, typer.Argument(metavar="SESSION", help="A terminal's session, or the id of its operation.")
    ],
    watch: Annotated[bool, typer.Option("--watch", help="Only look, as several may.")] = False,
) -> None:
    """Take up a terminal that still runs, or watch it."""
    url, token = (context.find_object(Target) or Target()).resolve()
    with at(url, token) as api:
        query = {"session": session} if "." in session else {}
        path = OPERATIONS if query else f"{OPERATIONS}/{quote(session, safe='')}"
        answer = api.get(path, **query)
        found = answer["items"] if query else [answer]
    if not found or not found[0]["session_id"]:
        raise NotFound("there is no such terminal", remedy="`kubelore operations --type exec` lists them.")
    one = found[0]
    if one["status"] != "running":
        raise Conflict(
            f"that terminal has ended ({one['status']})", remedy=f"Look at it: kubelore replay {one['id']}"
        )
    container = ":".join(one[name] for name in ("cluster_id", "namespace", "pod_name", "container_name"))
    asked = terminal.Asked(container, [], tty=True, session=one["session_id"], watch=watch)
    if not watch and not terminal.usable_terminal():
        raise typer.Exit(1)
    raise typer.Exit(terminal.run(url, token, asked))
