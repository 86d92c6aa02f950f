"""`kubelore exec`: a command in a container, or in many at once."""

from __future__ import annotations

import base64
import sys
from typing import Annotated, Any
from urllib.parse import quote

import typer

from kubelore.cli import terminal
from kubelore.cli.connection import Api, Target, at
from kubelore.cli.container_names import ContainerName, OneCluster, OneNamespace, container_id
from kubelore.cli.output import note, print_document, warn
from kubelore.cli.selection import AllNamespaces, Format, Output, Selector
from kubelore.common.errors import BadRequest

PREFIX = "/api/k8s/containers"
OUTPUT_BYTES = 16 * 1024 * 1024
ANSWER_S = 20.0
LONGEST_S = 3600.0
TIMED_OUT = 124
"""What `timeout` of coreutils exits with."""

Words = Annotated[
    list[str] | None, typer.Argument(metavar="[POD] -- COMMAND...", help="A pod or a container id.")
]
Timeout = Annotated[float, typer.Option(min=0.1, max=3600, help="Seconds after which it is stopped.")]
Reason = Annotated[str, typer.Option(help="Why, for the history; a policy may ask for it.")]
Debug = Annotated[
    bool, typer.Option("--debug", help="In an ephemeral debug container beside it, which stays in the pod.")
]


def execute(
    context: typer.Context,
    words: Words = None,
    container: ContainerName = "",
    namespace: OneNamespace = "",
    cluster: OneCluster = "",
    stdin: Annotated[bool, typer.Option("--stdin", "-i", help="Pass stdin on.")] = False,
    tty: Annotated[
        bool, typer.Option("--tty", "-t", help="At a terminal; with -i and without a command a shell.")
    ] = False,
    selector: Selector = "",
    workload: Annotated[str, typer.Option(help="In all pods of a workload, as deployments.apps/web.")] = "",
    all_namespaces: AllNamespaces = False,
    parallel: Annotated[int, typer.Option(min=1, max=32, help="Of many containers, so many at once.")] = 10,
    timeout: Timeout = LONGEST_S,
    reason: Reason = "",
    debug: Debug = False,
    output: Output = Format.TABLE,
) -> None:
    """Run a command in a container, and exit as it does. With -l or --workload, in all that are selected."""
    said = list(words or [])
    options: dict[str, Any] = {"timeout_s": timeout, "reason": reason, "debug": debug}
    streamed = (
        (tty or (stdin and timeout == LONGEST_S)) and not (selector or workload) and output == Format.TABLE
    )
    if stdin and not streamed:
        options |= {"stdin": base64.b64encode(sys.stdin.buffer.read()).decode(), "stdin_encoding": "base64"}
    url, token = (context.find_object(Target) or Target()).resolve()
    with at(url, token) as api:
        if selector or workload:
            selection = {
                "clusters": [cluster] if cluster else [],
                "namespaces": [] if all_namespaces else [namespace or "default"],
                "labels": selector,
                "workload": workload,
                "container": container,
            }
            body = {**options, "command": _command(said), "parallel": parallel, "selection": selection}
            raise typer.Exit(_in_many(api, body, timeout, output))
        target = container_id(api, _pod(said), cluster, namespace, container)
        if streamed:
            tty = tty and stdin and terminal.usable_terminal()
            command = said[1:] if tty else _command(said[1:])
            asked = terminal.Asked(str(target), command, tty=tty, stdin=stdin, reason=reason, debug=debug)
            raise typer.Exit(terminal.run(url, token, asked))
        body = {**options, "command": _command(said[1:]), "output_bytes": OUTPUT_BYTES}
        path = f"{PREFIX}/{quote(str(target), safe=':')}/exec"
        raise typer.Exit(_told(api.post(path, body, timeout_s=timeout + ANSWER_S), output))


def _pod(said: list[str]) -> str:
    if not said:
        raise BadRequest("which pod?", remedy="kubelore exec POD -- COMMAND, or -l SELECTOR -- COMMAND.")
    return said[0]


def _command(said: list[str]) -> list[str]:
    if not said:
        raise BadRequest("which command?", remedy="Write it behind --, as in kubelore exec web-0 -- ls -l.")
    return said


def _told(report: dict[str, Any], output: Format) -> int:
    """Pass on what a command said, and the exit code that it means here."""
    if output in (Format.JSON, Format.YAML):
        print_document(report, output)
    else:
        for stream, text in ((sys.stdout, report["stdout"]), (sys.stderr, report["stderr"])):
            raw = base64.b64decode(text) if report["encoding"] == "base64" else text.encode()
            stream.flush()
            stream.buffer.write(raw)
            stream.buffer.flush()
    if report["truncated"]:
        warn("more was said than is passed on: write it to a file, and copy that (kubelore cp)")
    if report["timed_out"]:
        ended = "it was stopped" if report["stopped"] else "nobody could see it end: it may still run"
        warn(f"the command took too long; {ended}")
        return TIMED_OUT
    return int(report["exit_code"])


def _in_many(api: Api, body: dict[str, Any], timeout: float, output: Format) -> int:
    """The command in many containers; 1 unless it ended with 0 in each."""
    found = api.post(f"{PREFIX}/exec", body, timeout_s=timeout + ANSWER_S)
    if output in (Format.JSON, Format.YAML):
        print_document(found, output)
        return 1 if found["failed"] else 0
    if not found["results"]:
        warn("No running container is selected.")
    for one in found["results"]:
        _told_of_one(one)
    if found["results"]:
        note(f"{found['succeeded']} succeeded, {found['failed']} failed")
    return 1 if found["failed"] else 0


def _told_of_one(one: dict[str, Any]) -> None:
    report = one["report"]
    if report is None:
        warn(f"{one['container']}: {one['error']['detail']}")
        return
    for stream, text in ((sys.stdout, report["stdout"]), (sys.stderr, report["stderr"])):
        raw = base64.b64decode(text) if report["encoding"] == "base64" else text.encode()
        for line in raw.splitlines():
            stream.flush()
            stream.buffer.write(f"{one['container']}: ".encode() + line + b"\n")
            stream.buffer.flush()
    if report["timed_out"]:
        warn(f"{one['container']}: took too long")
    elif report["exit_code"]:
        warn(f"{one['container']}: exit code {report['exit_code']}")
