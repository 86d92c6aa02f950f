"""What a person reads when the stack is ready: where it is, how to get in, and what to try."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from kubelore.stack.layout import DataDirectory

_TRY = ("clusters list", "get pods -A", "watch -A")


def print_banner(directory: DataDirectory, url: str, *, first_start: bool, took_s: float) -> None:
    """To stdout. The commands run as printed from any directory."""
    kubelore = command_line(directory)
    lines = [
        f"Kubelore is ready after {took_s:.1f} s.",
        "",
        f"  URL    {url}",
        f"  Token  {directory.admin_token.read_text().strip()}",
        f"  Data   {directory.root}",
        "",
    ]
    if first_start:
        lines += [
            f"  The keyring is in {directory.keyring}.",
            "  Without it no backup can be read. Keep a copy apart from this machine:",
            f"    {kubelore} keyring export --output kubelore-keyring.json",
            "",
        ]
    lines += ["Try:", *(f"  {kubelore} {rest}" for rest in _TRY)]
    typer.echo("\n".join(lines))


def command_line(directory: DataDirectory) -> str:
    """How this installation is called from a shell: in full when it is not the one on PATH."""
    from kubelore.stack.layout import usual_data_directory

    installed = Path(sys.executable).parent / "kubelore"
    found = shutil.which("kubelore")
    same = found is not None and installed.exists() and Path(found).resolve() == installed.resolve()
    words = ["kubelore" if same else str(installed)]
    if directory.root != usual_data_directory():
        words += ["--data", str(directory.root)]
    return shlex.join(words)
