"""`kubelore operations`: what was done in containers, and by whom."""

from __future__ import annotations

import itertools
import json
import shlex
from typing import Annotated, Any
from urllib.parse import quote

import typer

from kubelore.cli.completing import complete_clusters
from kubelore.cli.connection import connect
from kubelore.cli.output import print_document, print_lines, print_table, warn
from kubelore.cli.selection import Format, Output

OPERATIONS = "/api/k8s/containers/operations"
SHOWN = 50
_WIDE = 60


def operations(
    context: typer.Context,
    operation: Annotated[str, typer.Argument(metavar="[OPERATION]", help="Show this one, whole.")] = "",
    cluster: Annotated[str, typer.Option(help="In this cluster.", autocompletion=complete_clusters)] = "",
    namespace: Annotated[str, typer.Option("-n", "--namespace", help="In this namespace.")] = "",
    pod: Annotated[str, typer.Option(help="In this pod.")] = "",
    container: Annotated[str, typer.Option("-c", "--container", help="In this container.")] = "",
    type_: Annotated[str, typer.Option("--type", help="exec, log or file.")] = "",
    user: Annotated[str, typer.Option(help="By this person.")] = "",
    status: Annotated[str, typer.Option(help="running, completed, failed, cancelled or unknown.")] = "",
    grep: Annotated[str, typer.Option(help="With this text in command, reason or result.")] = "",
    since: Annotated[str, typer.Option(metavar="TIME", help="Not before (RFC 3339).")] = "",
    until: Annotated[str, typer.Option(metavar="TIME", help="Before (RFC 3339).")] = "",
    limit: Annotated[int, typer.Option(min=1, help="At most so many, newest first.")] = SHOWN,
    output: Output = Format.TABLE,
) -> None:
    """Show what was done in containers: commands, terminals, files, readings of logs. Newest first."""
    asked = {
        "cluster": cluster,
        "namespace": namespace,
        "pod": pod,
        "container": container,
        "type": type_,
        "user": user,
        "status": status,
        "text": grep,
        "since": since,
        "until": until,
    }
    with connect(context) as api:
        if operation:
            _show(api.get(f"{OPERATIONS}/{quote(operation, safe='')}"), output)
            return
        query = {name: value or None for name, value in asked.items()}
        found = list(itertools.islice(api.items(OPERATIONS, limit=min(limit, 500), **query), limit))
    if output in (Format.JSON, Format.YAML):
        print_document({"items": found}, output)
    elif output == Format.NAME:
        print_table((), [(one["id"],) for one in found])
    elif not found:
        warn("Nothing was done in containers that you may see, or none of it fits.")
    else:
        print_table(("WHEN", "WHO", "TYPE", "CONTAINER", "STATUS", "WHAT", "ID"), map(_row, found))


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    code = one["result"].get("exit_code")
    what = shlex.join(one["command"])
    return (
        one["executed_at"][:19] + "Z",
        one["executed_by"],
        one["operation_type"],
        _place(one),
        one["status"] + (f" ({code})" if code else ""),
        what if len(what) <= _WIDE else what[: _WIDE - 1] + "…",
        one["id"],
    )


def _place(one: dict[str, Any]) -> str:
    return f"{one['cluster_id']}:{one['namespace']}:{one['pod_name']}:{one['container_name']}"


def _show(one: dict[str, Any], output: Format) -> None:
    if output in (Format.JSON, Format.YAML):
        print_document(one, output)
        return
    result = {name: value for name, value in one["result"].items() if name not in ("stdout", "stderr")}
    print_table(
        (),
        [
            ("Container:", _place(one)),
            ("Type:", one["operation_type"]),
            ("Command:", shlex.join(one["command"])),
            ("By:", one["executed_by"]),
            ("Reason:", one["reason"] or "-"),
            ("Began:", one["executed_at"]),
            ("Ended:", one["finished_at"] or "-"),
            ("Status:", one["status"]),
            ("Session:", one["session_id"] or "-"),
            ("Request:", one["request_id"] or "-"),
            ("Result:", json.dumps(result, ensure_ascii=False)),
        ],
    )
    for name in ("stdout", "stderr"):
        if text := one["result"].get(name):
            print_lines(["", f"{name}:", *text.splitlines()])
