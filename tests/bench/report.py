"""The table: for a terminal, and for docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from tests.bench.figures import Row, ratio_text

BEGIN, END = "<!-- begin: python -m tests.bench -->", "<!-- end -->"
_HEADINGS = ("work", "reach", "Kubelore", "met", "instead", "that takes", "ratio", "client's part")
_MET = {True: "yes", False: "no", None: ""}


def _cells(row: Row) -> tuple[str, ...]:
    met = _MET[row.met]
    return (row.work, row.reach, row.reached, met, row.instead, row.that, ratio_text(row.ratio), row.client)


def print_table(rows: Sequence[Row]) -> None:
    """To stdout."""
    table = Table(show_lines=True)
    for heading in _HEADINGS:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(cell.replace("[", r"\[") for cell in _cells(row)))
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    console.print(table)


def markdown(rows: Sequence[Row], facts: Sequence[str]) -> str:
    """Facts and table."""
    lines = [f"- {fact}" for fact in facts]
    lines += ["", _line(_HEADINGS), _line(["---"] * len(_HEADINGS))]
    lines += [_line([cell.replace("|", r"\|") for cell in _cells(row)]) for row in rows]
    return "\n".join(lines)


def write(path: Path, rows: Sequence[Row], facts: Sequence[str]) -> None:
    """Replace what stands between the marks, and leave what people wrote around them."""
    written = path.read_text() if path.exists() else f"{BEGIN}\n{END}\n"
    before, _, rest = written.partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}\n{markdown(rows, facts)}\n{END}{after}")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
