"""`get -w`: after the list, a line for every change of what was asked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import typer

from kubelore.cli.connection import Api
from kubelore.cli.listing import Answer, row_of
from kubelore.cli.output import print_document, print_table
from kubelore.cli.selection import Format
from kubelore.cli.targets import Target
from kubelore.cli.watch import changes, show

_THERE = ("added", "modified")


def follow_up(
    api: Api,
    targets: Sequence[Target],
    query: dict[str, Any],
    answers: Sequence[Answer],
    output: Format,
    row: Callable[[Answer], list[str]],
) -> None:
    """Show changes from where the list ended, until Ctrl-C. `row` makes a table's line of one object."""
    names = {name for target in targets for name in target.names}
    asked = {
        "type": ",".join(target.types for target in targets),
        "clusters": query["clusters"],
        "namespace": query["namespace"],
        "labels": query["labels"],
        "fields": query["fields"],
        "since": answers[0].watch_from if answers else "",
    }
    try:
        for happened, data in changes(api, asked):
            if "id" not in data:
                show(happened, data, output)
            elif not names or data["id"].split(":", 3)[3] in names:
                _show(api, happened, data, output, row)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _show(
    api: Api, happened: str, data: dict[str, Any], output: Format, row: Callable[[Answer], list[str]]
) -> None:
    if output == Format.NAME:
        typer.echo(data["id"])
    elif output == Format.JSON:
        typer.echo(json.dumps(data["object"], ensure_ascii=False))
    elif output == Format.YAML:
        typer.echo("---")
        print_document(data["object"], output)
    else:
        answer = row_of(api, data["id"]) if happened in _THERE else Answer()
        if answer.items:
            print_table((), [row(answer)])
        else:
            _, kind, namespace, name = data["id"].split(":", 3)
            print_table((), [(data["cluster"], namespace or "-", f"{kind}/{name}", happened.upper())])
