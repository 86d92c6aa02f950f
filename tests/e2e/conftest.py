"""Whoever sits at a terminal: `kubelore`, typed with a URL and a token."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


class CommandLine:
    """Runs `kubelore` with a URL and a token in the environment, as on an operator's own machine."""

    def __init__(self, url: str, token: str) -> None:
        self._environment = {**os.environ, "KUBELORE_URL": url, "KUBELORE_TOKEN": token, "NO_COLOR": "1"}

    async def start(
        self, *arguments: str, program: str = "kubelore", stdin: int = asyncio.subprocess.DEVNULL
    ) -> asyncio.subprocess.Process:
        """A command that runs on; whoever starts it ends it."""
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            BIN / program, *arguments, stdout=pipe, stderr=pipe, stdin=stdin, env=self._environment
        )

    async def __call__(self, *arguments: str, program: str = "kubelore", stdin: str = "") -> Outcome:
        """A command, to its end."""
        given = asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL
        process = await self.start(*arguments, program=program, stdin=given)
        async with asyncio.timeout(60):
            out, err = await process.communicate(stdin.encode() or None)
        return Outcome(process.returncode or 0, out.decode(), err.decode())


@pytest.fixture(scope="session")
def command_line() -> type[CommandLine]:
    """`command_line(url, token)` is somebody at a terminal."""
    return CommandLine
