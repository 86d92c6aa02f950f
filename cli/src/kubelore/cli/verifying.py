"""`kubelore versions verify`: whether histories are as they were recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from kubelore.cli.connection import Api, connect
from kubelore.cli.history import object_path, one_cluster
from kubelore.cli.output import print_document, print_table, warn
from kubelore.cli.selection import Format, Output


def verify(
    context: typer.Context,
    object_: Annotated[
        str,
        typer.Argument(
            metavar="[ID|TYPE/NAME]", help="One object; without it everything in the cluster or namespace."
        ),
    ] = "",
    cluster: Annotated[str, typer.Option("-c", "--cluster", help="In which cluster.")] = "",
    namespace: Annotated[
        str | None,
        typer.Option("-n", "--namespace", help="Only in this namespace; empty: what lies in none."),
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Verify that no version was changed, dropped or put in. Ends with 1 when one was, and when there was none."""
    with connect(context) as api:
        found = (
            _one(api, object_, cluster, namespace or "")
            if object_
            else _many(api, one_cluster(api, cluster), namespace)
        )
    if output in (Format.JSON, Format.YAML):
        print_document(found, output)
    elif found["broken"]:
        rows = [(one["id"], str(one["version"]), one["why"]) for one in found["broken"]]
        print_table(("OBJECT", "VERSION", "WHY"), rows)
        warn(f"{len(rows)} {'history does' if len(rows) == 1 else 'histories do'} not verify.")
    elif found["objects"]:
        typer.echo(_fine(found))
    else:
        # A mistyped name must not look like a history that was proved.
        warn("Nothing was verified: nothing is recorded there that you may read.")
    raise typer.Exit(1 if found["broken"] or not found["objects"] else 0)


def _one(api: Api, object_: str, cluster: str, namespace: str) -> dict[str, Any]:
    found = api.get(object_path(api, object_, cluster, namespace) + "/verify")
    broken = {"id": found["id"], "version": found["broken"] or 0, "why": found["why"]}
    return {
        "objects": 1,
        "versions": found["versions"],
        "broken": [] if found["ok"] else [broken],
    }


def _many(api: Api, cluster: str, namespace: str | None) -> dict[str, Any]:
    total: dict[str, Any] = {"objects": 0, "versions": 0, "broken": []}
    with _bar() as seen:
        for page in api.pages("/api/k8s/yaml/verify", cluster=cluster, namespace=namespace):
            for name in total:
                total[name] += page[name]
            seen(total["objects"])
    return total


def _fine(found: dict[str, Any]) -> str:
    return f"Whole: {found['versions']} versions of {found['objects']} objects."


@contextmanager
def _bar() -> Iterator[Callable[[int], None]]:
    """How many objects were verified, on a terminal; nothing elsewhere."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("verified {task.completed:.0f} objects"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("verifying", total=None)
        yield lambda objects: progress.update(task, completed=objects)
