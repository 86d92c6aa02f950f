"""`kubelore up`, `down` and `status`: the embedded stack on this machine."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kubelore.cli.connection import Target
from kubelore.common.errors import DeadlineExceeded

if TYPE_CHECKING:
    from kubelore.stack.layout import DataDirectory, RunningStack

STOP_S = 90.0

Data = Annotated[Path | None, typer.Option("--data", help="Data directory; default ~/.local/share/kubelore.")]
Port = Annotated[
    int | None, typer.Option(min=1, max=65535, help="Port of the API and the page; a free one if not given.")
]
Detach = Annotated[
    bool, typer.Option("--detach", "-d", help="Return when it is ready; `kubelore down` stops it.")
]
NoDemo = Annotated[bool, typer.Option("--no-demo", help="Without the two simulated clusters.")]
Replicas = Annotated[
    str,
    typer.Option(
        metavar="SERVICE=N,...",
        help="How many of a service to run, as in resource-ops=2,gateway=2; one of each if not given.",
    ),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show the output of every process.")]


def up(
    context: typer.Context,
    data: Data = None,
    port: Port = None,
    detach: Detach = False,
    no_demo: NoDemo = False,
    replicas: Replicas = "",
    verbose: Verbose = False,
    detached: Annotated[bool, typer.Option("--detached", hidden=True)] = False,
) -> None:
    """Start Kubelore on this machine, with its servers, and keep it in the foreground."""
    directory = _directory(context, data)
    if detach:
        from kubelore.cli.detached import start_detached

        start_detached(directory, port=port, no_demo=no_demo, replicas=replicas)
        return
    from kubelore.cli.foreground import run
    from kubelore.stack.embedded import Choices

    choices = Choices(directory.root, port, not no_demo, _counts(replicas))
    raise typer.Exit(run(choices, verbose=verbose, with_banner=not detached))


def _counts(replicas: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    for part in filter(None, replicas.split(",")):
        service, _, count = part.partition("=")
        if not count.isdecimal() or len(count) > 2:
            raise typer.BadParameter(f"{part!r} is not SERVICE=N", param_hint="--replicas")
        counts[service.strip()] = int(count)
    return counts


def down(context: typer.Context, data: Data = None) -> None:
    """Stop the stack on the data directory: the services first, then the servers."""
    from kubelore.stack.layout import RunningStack
    from kubelore.stack.leftovers import end_leftovers

    directory = _directory(context, data)
    running = RunningStack.now(directory)
    if running is None:
        last = RunningStack.last(directory)
        ended = end_leftovers(last) if last is not None else []
        word = f"ended what a killed stack left running: {', '.join(ended)}" if ended else "nothing runs"
        typer.echo(f"{directory.root}: {word}")
        return
    _stop(running)
    typer.echo(f"{directory.root}: stopped")


def status(
    context: typer.Context,
    data: Data = None,
    output: Annotated[str, typer.Option("--output", "-o", help="table or json.")] = "table",
) -> None:
    """Show what runs on the data directory. Ends with code 1 when nothing does, or when it is not ready."""
    from kubelore.stack.layout import RunningStack
    from kubelore.stack.memory import memory_bytes

    if output not in ("table", "json"):
        raise typer.BadParameter("table or json", param_hint="--output")
    directory = _directory(context, data)
    running = RunningStack.now(directory)
    processes = [
        {**asdict(process), "memory_bytes": memory_bytes(process.pid) if process.identity.process() else None}
        for process in (running.processes if running else ())
    ]
    if output == "json":
        told = {**asdict(running), "processes": processes} if running else {"phase": "stopped"}
        typer.echo(json.dumps({"data": str(directory.root), **told}, indent=2))
    elif running is None:
        typer.echo(f"{directory.root}: nothing runs. Start it with `kubelore up`.")
    else:
        _print_status(directory, running, processes)
    raise typer.Exit(0 if running is not None and running.phase == "ready" else 1)


def _directory(context: typer.Context, data: Path | None) -> DataDirectory:
    from kubelore.stack.layout import DataDirectory

    target = context.find_object(Target) or Target()
    return DataDirectory(data.expanduser().absolute() if data else target.directory())


def _print_status(
    directory: DataDirectory, running: RunningStack, processes: list[dict[str, object]]
) -> None:
    from kubelore.cli.output import print_table

    where = ", ".join(running.urls) or running.url
    typer.echo(f"{running.phase} at {where} (process {running.pid}, data in {directory.root})\n")
    rows = []
    for process in processes:
        memory = process["memory_bytes"]
        since = datetime.fromtimestamp(float(str(process["since"])), UTC).astimezone()
        rows.append(
            (
                str(process["name"]),
                str(process["state"]),
                str(process["pid"]),
                f"{memory / 1024**2:.0f} MB" if isinstance(memory, int) else "-",
                str(process["restarts"]),
                since.isoformat(" ", "seconds"),
            )
        )
    print_table(("NAME", "STATE", "PID", "MEMORY", "RESTARTS", "SINCE"), rows)


def _stop(running: RunningStack) -> None:
    import psutil

    process = running.identity.process()
    if process is None:
        return
    process.terminate()
    try:
        process.wait(STOP_S)
    except psutil.TimeoutExpired as error:
        raise DeadlineExceeded(
            f"process {running.pid} did not stop within {STOP_S:g} s",
            remedy=f"Its log tells more; `kill -9 {running.pid}` ends it and everything it started.",
        ) from error
