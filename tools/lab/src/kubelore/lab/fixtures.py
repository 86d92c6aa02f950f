"""pytest fixtures with real clusters, a pytest plugin by entry point: name a fixture and it is there.

Started when the first test asks, shared by the whole run and ended with it. Programs that aren't built yet
are built after collection, before the first test, so that no test's timeout pays for it. Where a lab can't
be, tests are skipped with the reason; under CI=true that is a failure, for a suite that silently proves
nothing is worse than a red one.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import NoReturn

import pytest
import pytest_asyncio

from kubelore.lab import attached, build, recipes, session
from kubelore.lab.attached import AttachedNode, AttachedPlane
from kubelore.lab.cluster import ControlPlane
from kubelore.lab.errors import LabError, LabUnavailableError
from kubelore.lab.minio import Minio
from kubelore.lab.node import Node, prepare_node

_PREPARE: dict[str, Callable[[], None]] = {
    "lab_or_skip": lambda: build.ensure(recipes.CONTROL_PLANE),
    "lab_pair": lambda: build.ensure(recipes.CONTROL_PLANE),
    "lab_node": prepare_node,
    "minio": lambda: build.ensure([recipes.MINIO]),
}
_PROBLEMS = pytest.StashKey[dict[str, Exception]]()


@dataclass(frozen=True)
class LabPair:
    """Two control planes without nodes."""

    first: ControlPlane
    second: ControlPlane


@dataclass(frozen=True)
class LabNode:
    """A control plane with the machine's node, metrics-server included."""

    plane: ControlPlane | AttachedPlane
    node: Node | AttachedNode


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build what the collected tests need; what can't be built is remembered for the fixtures."""
    problems = session.config.stash.setdefault(_PROBLEMS, {})
    if session.config.option.collectonly:
        return
    named = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    for fixture, prepare in _PREPARE.items():
        if fixture in named:
            try:
                prepare()
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
async def lab_node(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[LabNode]:
    """A running control plane with a Ready node; `node.wait_for_metrics()` before the first `top`."""
    _refuse_if_problem(request, "lab_node")
    if os.environ.get(attached.VARIABLE):
        yield LabNode(AttachedPlane(session.kubeconfig_files()[0]), AttachedNode())
        return
    folder = tmp_path_factory.mktemp("lab-node")
    async with AsyncExitStack() as stack:
        plane = await stack.enter_async_context(ControlPlane(folder, "gamma"))
        try:
            node = await stack.enter_async_context(Node(plane))
        except LabUnavailableError as error:
            give_up(error)
        yield LabNode(plane, node)


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
    problem = request.config.stash[_PROBLEMS].get(fixture)
    if problem is not None:
        give_up(problem)
