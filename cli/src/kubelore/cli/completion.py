"""`kubelore completion SHELL`, and `kubectl_complete-kubelore`, which kubectl asks for its plugin's completions."""

from __future__ import annotations

import os
import shlex
import sys
from enum import StrEnum
from typing import Annotated

import typer

PROGRAM = "kubelore"
VARIABLE = "_KUBELORE_COMPLETE"
_NO_FILES = ":4"
"""What kubectl takes from the last line: cobra's directive that no file names are to be offered."""


class Shell(StrEnum):
    """Shells that a script can be written for."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(shell: Annotated[Shell, typer.Argument(help="bash, zsh or fish.")]) -> None:
    """Print a script that teaches your shell the commands, and the names of clusters, types and objects.

    For this session: source <(kubelore completion bash); kubelore completion fish | source
    """
    _answer_shell(f"source_{shell.value}")


def kubectl() -> None:
    """The program `kubectl_complete-kubelore`: a completion a line for the words so far."""
    words = sys.argv[1:] or [""]
    os.environ.update({"COMP_WORDS": shlex.join([PROGRAM, *words]), "COMP_CWORD": str(len(words))})
    try:
        _answer_shell("complete_bash")
    finally:
        typer.echo(_NO_FILES)


def _answer_shell(instruction: str) -> None:
    """Do what a shell asks by this variable of its environment."""
    from kubelore.cli.__main__ import app

    os.environ[VARIABLE] = instruction
    app(prog_name=PROGRAM)
