"""pytest fixtures with real clusters, a pytest plugin by entry point: name a fixture and it is there.

Started when the first test asks, shared by the whole run and ended with it. Programs that aren't built yet
are built after collection, before the first test, so that no test's timeout pays for it. Where a lab can't
be, tests are skipped with the reason; under CI=true that is a failure, for a suite that silently proves
nothing is worse than a red one.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import NoReturn

import pytest
import pytest_asyncio

from kubelore.lab import build, recipes
from kubelore.lab.cluster import ControlPlane
from kubelore.lab.errors import LabError, LabUnavailableError
from kubelore.lab.minio import Minio
from kubelore.lab.recipes import Recipe

_WANTED_BY: dict[str, tuple[Recipe, ...]] = {
    "lab_or_skip": recipes.CONTROL_PLANE,
    "lab_pair": recipes.CONTROL_PLANE,
    "minio": (recipes.MINIO,),
}
_problems = pytest.StashKey[dict[str, Exception]]()


@dataclass(frozen=True)
class LabPair:
    """Two control planes without nodes."""

    first: ControlPlane
    second: ControlPlane


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build what the collected tests need; what can't be built is remembered for the fixtures."""
    problems = session.config.stash.setdefault(_problems, {})
    if session.config.option.collectonly:
        return
    named = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    for fixture, wanted in _WANTED_BY.items():
        if fixture in named:
            try:
                build.ensure(wanted)
            except LabError as error:
                problems[fixture] = error


@pytest.fixture(scope="session")
def lab_or_skip(request: pytest.FixtureRequest) -> Callable[[Exception], NoReturn]:
    """Skips where no control plane can be. Its value ends a test in the same way for any other reason."""
    _refuse_if_problem(request, "lab_or_skip")
    return give_up


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def lab_pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[LabPair]:
    """Two running control planes without nodes. Whoever kills or pauses a part brings it back."""
    _refuse_if_problem(request, "lab_pair")
    folder = tmp_path_factory.mktemp("lab-pair")
    pair = LabPair(ControlPlane(folder / "alpha", "alpha"), ControlPlane(folder / "beta", "beta"))
    try:
        await asyncio.gather(pair.first.start(), pair.second.start())
        yield pair
    finally:
        await asyncio.gather(pair.first.stop(), pair.second.stop())


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def minio(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Minio]:
    """A running MinIO with a bucket and credentials."""
    _refuse_if_problem(request, "minio")
    async with Minio(tmp_path_factory.mktemp("minio")) as store:
        yield store


def give_up(error: Exception) -> NoReturn:
    """Skip with the reason when the lab can't be here; fail when it should, or under CI=true."""
    reason = f"no lab on this machine: {error}"
    if isinstance(error, LabUnavailableError) and os.environ.get("CI", "").lower() != "true":
        pytest.skip(reason)
    pytest.fail(reason, pytrace=False)


def _refuse_if_problem(request: pytest.FixtureRequest, fixture: str) -> None:
    problem = request.config.stash[_problems].get(fixture)
    if problem is not None:
        give_up(problem)
