"""Builds the lab's programs, once per machine, into a cache folder.

The cache holds one folder per recipe, named by its version, and is only ever added to by a rename: a build
that dies leaves nothing that looks finished. Two processes that want the same program wait for each other by
a file lock. The first build takes about 15 minutes on two cores; afterwards this is a look at a folder.
"""

import fcntl
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from kubelore.lab.errors import LabUnavailableError
from kubelore.lab.gomodule import Go, build_commands
from kubelore.lab.recipes import Recipe


def cache_folder() -> Path:
    """Where built programs lie: `KUBELORE_LAB_CACHE`, else the user's cache folder."""
    given = os.environ.get("KUBELORE_LAB_CACHE")
    if given:
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "kubelore" / "lab"


def is_built(recipe: Recipe) -> bool:
    """Whether the recipe's programs lie in the cache."""
    return _folder(recipe).is_dir()


def program(recipe: Recipe, name: str) -> Path:
    """The path of a built program; `ensure` made sure that it is there."""
    return _folder(recipe) / name


def ensure(recipes: Sequence[Recipe]) -> None:
    """Build what is not in the cache yet; blocks for minutes the first time.

    Raises LabUnavailableError where nothing can be built, LabError when a build fails.
    """
    if not sys.platform.startswith("linux"):
        raise LabUnavailableError(f"the lab needs Linux, this is {sys.platform}")
    for recipe in recipes:
        if not is_built(recipe):
            _build(recipe)


def _build(recipe: Recipe) -> None:
    go = Go.find()
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(cache / f"{recipe.name}.lock"):
        if is_built(recipe):
            return
        _say(f"building {recipe.key} with Go {go.version}, about {recipe.minutes} minutes, once per machine")
        started = time.monotonic()
        with _scratch(cache, recipe) as scratch:
            work, output = scratch / "module", scratch / "out"
            work.mkdir()
            output.mkdir()
            build_commands(go, recipe, work, output)
            # Kept beside the programs: they say exactly which modules went in.
            for path in work.glob("go.*"):
                shutil.copy(path, output)
            output.rename(_folder(recipe))
        _say(f"built {recipe.key} in {time.monotonic() - started:.0f} s")


def _folder(recipe: Recipe) -> Path:
    return cache_folder() / f"{recipe.key}-{os.uname().machine}"


@contextmanager
def _scratch(cache: Path, recipe: Recipe) -> Iterator[Path]:
    """A folder beside the target, for a rename only works within one file system.

    Whoever holds the recipe's lock may remove what a killed build of it left.
    """
    for leftover in cache.glob(f".{recipe.name}.build-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{recipe.name}.build-", dir=cache))
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _say(line: str) -> None:
    print(f"lab: {line}", file=sys.stderr, flush=True)
