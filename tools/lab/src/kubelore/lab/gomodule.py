"""A Go module that consumes another one, so that its commands can be built outside its repository.

`go install module@version` refuses modules with replace directives, and Kubernetes and etcd have them. So
the lab writes a go.mod of its own: the upstream's complete list of requirements (the pruned module graph
needs no `go mod tidy` then), its godebug settings, and for every requirement that upstream replaces with a
folder the version published for it.
"""

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubelore.lab.errors import LabError, LabUnavailableError
from kubelore.lab.recipes import Recipe

_QUICK_SECONDS = 60
_DOWNLOAD_SECONDS = 600
_BUILD_SECONDS = 3600
# Upstream replaces it with a folder, but no command imports it and no requirement names a version of it.
_UNVERSIONED = "v0.0.0"


@dataclass(frozen=True)
class Go:
    """The Go toolchain of this machine; `fixed` when it may not fetch a newer one of itself."""

    program: str
    version: str
    fixed: bool = True

    @classmethod
    def find(cls) -> "Go":
        """Find `go` on the PATH, under GOROOT or where its installer puts it.

        Raises LabUnavailableError when there is none.
        """
        root = os.environ.get("GOROOT", "/usr/local/go")
        program = shutil.which("go") or shutil.which("go", path=f"{root}/bin")
        if program is None:
            raise LabUnavailableError("no Go toolchain on this machine (go is not on the PATH)")
        answer = _run([program, "env", "GOVERSION", "GOTOOLCHAIN"], Path("/"), _QUICK_SECONDS).split()
        return cls(program, answer[0].removeprefix("go"), "local" in answer[1:])

    def require(self, wanted: str, module: str) -> None:
        """Raise LabUnavailableError when this Go is older than the `go` line of a module says."""
        if self.fixed and _version_tuple(self.version) < _version_tuple(wanted):
            raise LabUnavailableError(f"{module} needs Go {wanted}, this machine has {self.version}")


def build_commands(go: Go, recipe: Recipe, work: Path, output: Path) -> None:
    """Build the recipe's commands into `output`, with `work` for the module that consumes them.

    Raises LabError with the end of Go's own words when it fails, LabUnavailableError when Go is too old.
    """
    if recipe.source:
        shutil.copytree(Path(__file__).parent / recipe.source, work, dirs_exist_ok=True)
        (work / "go.mod").write_text(f"module {recipe.module}\n\ngo 1.21\n")
    else:
        upstream = _upstream_requirements(go, recipe, work)
        go.require(upstream["Go"], recipe.module)
        (work / "go.mod").write_text(consumer_module(recipe, upstream))
    ldflags = " ".join(("-s", "-w", *recipe.ldflags))
    command = [go.program, "build", "-trimpath", "-p", str(os.cpu_count() or 1), "-ldflags", ldflags]
    for name, package in recipe.packages.items():
        _run([*command, "-o", str(output / name), package], work, _BUILD_SECONDS)


def consumer_module(recipe: Recipe, upstream: dict[str, Any]) -> str:
    """The text of a go.mod that requires `recipe.module` and all that it requires.

    `upstream` is what `go mod edit -json` says about the module's own go.mod. Kubernetes requires its staging
    modules as v0.0.0 and other published modules require real versions of them, so the published version is
    forced by a replace.
    """
    lines = ["module kubelore.local/lab", "", f"go {upstream['Go']}", ""]
    lines += [f"godebug {setting['Key']}={setting['Value']}" for setting in upstream.get("Godebug") or []]
    lines.append(f"require {recipe.module} {recipe.version}")
    for requirement in upstream.get("Require") or []:
        path, version = requirement["Path"], requirement["Version"]
        if version == _UNVERSIONED and recipe.staging_version:
            lines.append(f"replace {path} => {path} {recipe.staging_version}")
        lines.append(f"require {path} {version}")
    return "\n".join(lines) + "\n"


def _upstream_requirements(go: Go, recipe: Recipe, work: Path) -> dict[str, Any]:
    module = f"{recipe.module}@{recipe.version}"
    try:
        found = json.loads(_run([go.program, "mod", "download", "-json", module], work, _DOWNLOAD_SECONDS))
    except LabError as error:
        raise LabUnavailableError(f"{module} can't be downloaded: {str(error)[-300:]}") from error
    return json.loads(_run([go.program, "mod", "edit", "-json", found["GoMod"]], work, _QUICK_SECONDS))


def _environment() -> dict[str, str]:
    """The environment that Go runs in: what the machine says, but a module build without C.

    Without cgo the programs are static, run in any image, and no C compiler is needed.
    """
    environment = {key: value for key, value in os.environ.items() if key not in ("GOFLAGS", "GOWORK")}
    home = environment.setdefault("HOME", str(Path.home()))
    environment.setdefault("GOPATH", f"{home}/go")
    environment.setdefault("GOCACHE", f"{home}/.cache/go-build")
    return environment | {"CGO_ENABLED": "0", "GOFLAGS": "-mod=mod -buildvcs=false", "GOWORK": "off"}


def _run(command: list[str], work: Path, seconds: int) -> str:
    prefix = [] if shutil.which("nice") is None else ["nice", "-n", "10"]
    if shutil.which("setpriv"):
        # A killed test run must not leave a compiler working for ten minutes.
        prefix += ["setpriv", "--pdeathsig", "TERM", "--"]
    try:
        done = subprocess.run(
            [*prefix, *command],
            cwd=work,
            env=_environment(),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{' '.join(command[:3])} took longer than {seconds} s") from error
    if done.returncode != 0:
        last = "\n".join((done.stderr or done.stdout).strip().splitlines()[-15:])
        raise LabError(f"{' '.join(command[:3])} failed in the build of the lab:\n{last}")
    return done.stdout


def _version_tuple(version: str) -> tuple[int, ...]:
    """Compare by the numbers only: 1.26rc1 counts as 1.26."""
    numbers = []
    for part in version.split("."):
        digits = ""
        for character in part:
            if not character.isdigit():
                break
            digits += character
        numbers.append(int(digits or 0))
    return tuple(numbers)
