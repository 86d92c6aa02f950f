"""`kubelore logs`: lines of one container, of a workload, or of many over several clusters, read or followed."""

from __future__ import annotations

import json
import os
import re
import sys
import time
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, TextIO
from urllib.parse import quote

import typer

from kubelore.cli.completing import complete_clusters, complete_words
from kubelore.cli.connection import Api, ApiError, connect
from kubelore.cli.log_search import place_of_container, stored_pages
from kubelore.cli.output import warn
from kubelore.cli.selection import AllNamespaces, Namespace, Selector, namespaces
from kubelore.common.durations import parse_duration

RETRY_S = 1.0
RETRY_LIMIT_S = 15.0
_COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
_SGR = re.compile(r"(\x1b\[[0-9;]*m)")
_QUIET_NOTES = frozenset({"run", "ended"})


class LogFormat(StrEnum):
    """What `-o` accepts here."""

    TEXT = "text"
    RAW = "raw"
    JSON = "json"


class Level(StrEnum):
    """What `--level` accepts."""

    TRACE = "trace"
    DEBUG = "debug"
    INFO = "info"
    WARN = "warn"
    ERROR = "error"
    FATAL = "fatal"


Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="POD|TYPE/NAME|ID",
        help="A pod, a workload (deploy/web), or cluster:namespace:pod:container; all pods when empty.",
        autocompletion=complete_words,
    ),
]
Cluster = Annotated[
    list[str] | None,
    typer.Option(
        "--cluster", help="Cluster, group:NAME or tag:NAME; default: all.", autocompletion=complete_clusters
    ),
]
Container = Annotated[str, typer.Option("--container", "-c", help="Names, comma separated; * and ? match.")]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")]
Tail = Annotated[int | None, typer.Option(min=0, help="So many of the last lines of each container.")]
Since = Annotated[str, typer.Option(help="5s, 2m, 3h or 7d back, or a time (ISO 8601).")]
Previous = Annotated[bool, typer.Option("--previous", "-p", help="Of the run before the latest.")]
Grep = Annotated[str, typer.Option(help="Only lines that match this regular expression.")]
Invert = Annotated[bool, typer.Option("--invert", help="Only lines that do not match --grep.")]
AtLeast = Annotated[Level | None, typer.Option(help="Only lines of this level or worse.")]
Fields = Annotated[
    list[str] | None, typer.Option(help="Only JSON lines where it holds: 'status>=500'. Repeat.")
]
Stored = Annotated[
    bool, typer.Option("--stored", help="Search what was collected too, also of pods that are gone.")
]
Until = Annotated[str, typer.Option(help="With --stored: only before; as --since.")]
Word = Annotated[str, typer.Option("--word", "-w", help="With --stored: only lines with this whole word.")]
Timestamps = Annotated[bool, typer.Option(help="The time before each line.")]
Output = Annotated[LogFormat, typer.Option("--output", "-o", help="text, raw (lines alone) or json.")]


def logs(
    context: typer.Context,
    words: Words = None,
    cluster: Cluster = None,
    namespace: Namespace = "",
    all_namespaces: AllNamespaces = False,
    selector: Selector = "",
    container: Container = "",
    follow: Follow = False,
    tail: Tail = None,
    since: Since = "",
    previous: Previous = False,
    grep: Grep = "",
    invert: Invert = False,
    level: AtLeast = None,
    field: Fields = None,
    stored: Stored = False,
    until: Until = "",
    word: Word = "",
    timestamps: Timestamps = False,
    output: Output = LogFormat.TEXT,
) -> None:
    """Show logs as kubectl does, of many pods and clusters at once; with -f go on as pods come and go."""
    if len(words or []) > 2:
        raise typer.BadParameter("name one pod or workload")
    query: dict[str, Any] = {
        "follow": follow,
        "tail": tail,
        "since": _moment(since) if since else None,
        "previous": previous or None,
        "regex": grep or None,
        "inverse": invert or None,
        "level": level.value if level is not None else None,
        "field": field or None,
    }
    if (until or word) and not stored:
        raise typer.BadParameter("--until and --word go with --stored")
    if tail is None and follow and not since and not words:
        query["tail"] = 10
    path, place = _place(words or [], cluster, namespace, all_namespaces, selector, container)
    if stored:
        query |= {
            "until": _moment(until) if until else None,
            "search": word or None,
            "word": bool(word) or None,
        }
        place = place or place_of_container("/".join(words or []))
    alone = path != "/api/k8s/logs/stream"
    screen = Screen(
        sys.stdout, output, timestamps=timestamps, prefix=not alone, clusters=len(cluster or []) != 1
    )
    with connect(context) as api:
        _show(_found(api, path, query, place, stored=stored), screen)


def _show(events: Iterator[tuple[str, dict[str, Any]]], screen: Screen) -> None:
    """Write events as they come, until they end or Ctrl-C ends them."""
    try:
        for name, data in events:
            screen.event(name, data)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    if not screen.lines:
        warn("There are no such lines.")


def _found(
    api: Api, path: str, query: dict[str, Any], place: dict[str, Any], *, stored: bool
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The events of a stream, or what a search of stored lines finds as such."""
    if not stored:
        yield from _events(api, path, query | place)
        return
    if query["follow"] or query["previous"]:
        raise typer.BadParameter("--stored goes with neither -f nor --previous")
    filter_ = {name: value for name, value in query.items() if name not in ("follow", "previous", "tail")}
    for items in stored_pages(api, place, filter_, query["tail"]):
        yield "lines", {"items": items}


def _place(
    words: list[str],
    cluster: list[str] | None,
    namespace: str,
    every: bool,
    selector: str,
    container: str,
) -> tuple[str, dict[str, Any]]:
    """The path that is asked, and what of the query says whose logs."""
    named = "/".join(words)
    if named.count(":") >= 2:
        return f"/api/k8s/containers/{quote(named, safe=':')}/logs/stream", {}
    if named and selector:
        raise typer.BadParameter("say a name or a selector, not both")
    if named and every:
        raise typer.BadParameter("a name is in one namespace: say which with -n")
    workload = named if not named or "/" in named else f"pods/{named}"
    place = {
        "clusters": ",".join(cluster or []) or None,
        "namespace": namespaces(namespace, every) or None,
        "labels": selector or None,
        "workload": workload or None,
        "container": container or None,
    }
    return "/api/k8s/logs/stream", place


def _moment(since: str) -> str:
    if re.match(r"\d{4}-\d\d-\d\d", since):
        return since
    try:
        return (datetime.now(UTC) - timedelta(seconds=parse_duration(since))).isoformat()
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(f"--since: {error}") from error


def _events(api: Api, path: str, query: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Events by name with their data, the connection made anew behind the last event whenever it is lost."""
    position, delay = "", RETRY_S
    while True:
        try:
            for event_id, name, data in api.events(path, last_event_id=position, **query):
                position, delay = event_id or position, RETRY_S
                if name == "error":
                    warn(f"the stream ended: {data['detail']}")
                    break
                yield name, data
                if name == "end":
                    return
        except ApiError as error:
            if not error.transient or not (position or query["follow"]):
                raise
            warn(f"connection lost ({error.message()}), trying again")
        time.sleep(delay)
        delay = min(delay * 2, RETRY_LIMIT_S)


class Screen:
    """Writes lines, each with where it comes from: in a colour of its pod on a terminal."""

    def __init__(
        self, out: TextIO, output: LogFormat, *, timestamps: bool, prefix: bool, clusters: bool
    ) -> None:
        self._out = out
        self._output = output
        self._timestamps = timestamps
        self._prefix = prefix
        self._clusters = clusters
        self._terminal = out.isatty()
        self._coloured = self._terminal and not os.environ.get("NO_COLOR")
        self._heads: dict[tuple[str, str, str, str], str] = {}
        self.lines = 0

    def event(self, name: str, data: dict[str, Any]) -> None:
        """One event of the stream."""
        if name == "lines":
            self.lines += len(data["items"])
            self._out.write("".join(self._line(item) for item in data["items"]))
            self._out.flush()
        elif name == "gap":
            warn(data["text"])
        elif name == "note" and data["kind"] not in _QUIET_NOTES:
            where = f"{data['pod']} {data['container']}: " if "pod" in data else ""
            warn(where + data["text"])

    def _line(self, item: dict[str, Any]) -> str:
        if self._output == LogFormat.JSON:
            return json.dumps(item, ensure_ascii=self._terminal) + "\n"
        text = item["message"]
        if self._terminal and not text.isprintable():
            text = _tame(text)
        if self._timestamps:
            text = f"{item['timestamp']} {text}"
        head = self._head(item) if self._prefix and self._output == LogFormat.TEXT else ""
        return f"{head}{text}\n"

    def _head(self, item: dict[str, Any]) -> str:
        key = (item["cluster"], item["namespace"], item["pod"], item["container"])
        head = self._heads.get(key)
        if head is None:
            pod = f"{item['cluster']}/{item['pod']}" if self._clusters else item["pod"]
            head = f"{pod} {item['container']} "
            if self._coloured:
                colour = _COLOURS[zlib.crc32(item["pod"].encode()) % len(_COLOURS)]
                head = f"\x1b[{colour}m{head.rstrip()}\x1b[0m "
            if len(self._heads) > 10_000:
                self._heads.clear()
            self._heads[key] = head
        return head


def _tame(text: str) -> str:
    """Colours stay; no other control character of a container reaches the terminal."""
    if not (parts := _SGR.split(text)):
        return text
    shown = [
        part
        if place % 2
        else "".join(c if c.isprintable() or c == "\t" else "\N{REPLACEMENT CHARACTER}" for c in part)
        for place, part in enumerate(parts)
    ]
    return "".join(shown) + ("\x1b[0m" if len(parts) > 1 else "")
