"""Tables, documents and warnings on the terminal: data to stdout, everything else to stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import typer


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns padded with three spaces between them, as kubectl prints; no header when it is empty."""
    lines = [list(header)] if header else []
    lines += [[_printable(cell) for cell in row] for row in rows]
    if not lines:
        return
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        typer.echo("   ".join(padded).rstrip())


def print_document(value: Any, output: str) -> None:
    """JSON or YAML, as kubectl indents them."""
    if output == "json":
        # On a terminal without the control characters beyond ASCII, which JSON leaves as they are.
        typer.echo(json.dumps(value, indent=4, ensure_ascii=sys.stdout.isatty()))
        return
    from kubelore.common.kube.documents import dump

    typer.echo(dump(value), nl=False)


def print_lines(lines: Iterable[str]) -> None:
    """Text that may quote what comes from clusters, line by line."""
    for line in lines:
        typer.echo(_printable(line))


def note(message: str) -> None:
    """One line to stderr."""
    typer.echo(_printable(message), err=True)


def warn(message: str) -> None:
    """One line to stderr, yellow on a terminal."""
    print_coloured(_printable(message), "yellow", err=True)


def print_coloured(text: str, colour: str | None, *, err: bool = False) -> None:
    """Text in a colour on a terminal (unless NO_COLOR says otherwise, https://no-color.org), else as it is."""
    stream = sys.stderr if err else sys.stdout
    if colour and stream.isatty() and not os.environ.get("NO_COLOR"):
        typer.secho(text, err=err, fg=colour)
    else:
        typer.echo(text, err=err)


def _printable(text: str) -> str:
    """Names and messages come from clusters: no control character of theirs reaches the terminal."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
