"""Commands in containers of a real node that have to be ended, also when whoever carried them was killed."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from kubelore.common.authz import Caller, Grant
from kubelore.common.callers import acting_as
from kubelore.common.contracts.container_history import ContainerOperation, ContainerOperationRef
from kubelore.common.contracts.containers import ContainerId
from kubelore.common.crypto import Keyring
from kubelore.common.errors import Unavailable
from kubelore.common.kube import Channel
from kubelore.common.reach import Reached
from kubelore.common.settings import CommonSettings
from kubelore.common.store import open_database
from kubelore.container_ops.operation_repository import OperationRepository
from kubelore.container_ops.operations import Entry, Journal
from kubelore.container_ops.orphans import Orphans
from kubelore.container_ops.past_operations import PastOperations
from kubelore.container_ops.running import Command, run_command
from kubelore.container_ops.stopping import Process, processes
from kubelore.container_ops.toolbox import Toolboxes
from kubelore.lab.images import BUSYBOX
from kubelore.lab.waiting import wait_for

pytestmark = [pytest.mark.lab, pytest.mark.node]

ANNA = Caller(subject="anna", grants=(Grant(role="operator", rights=("exec",)),))
NOW = -1.0
"""Silence enough for whatever was said by now, be it in this very millisecond."""


@dataclass
class Box:
    """A container of a real node, a journal, and who looks after orphans."""

    reached: Reached
    target: ContainerId
    repository: OperationRepository
    journal: Journal
    orphans: Orphans
    past: PastOperations

    async def begin(self, *command: str) -> Any:
        target = self.target
        return await self.reached.client.exec(target.namespace, target.pod, target.container, list(command))

    async def output(self, *command: str) -> str:
        out = b""
        async with await self.begin(*command) as stream:
            async for _, data in stream:
                out += data
        return out.decode()

    async def runs(self, words: str) -> bool:
        return words in await self.output("ps", "-o", "args")

    async def newest(self) -> Process:
        found = [row for row in await processes(self.reached, self.target) if row.pid != 1]
        return max(found, key=lambda row: row.began).process

    async def orphaned(self, entry: Entry) -> ContainerOperation:
        """What the history says of an operation whose replica died, and that was looked after."""
        await self.repository.give_up(NOW)
        await self.orphans.look(NOW)
        return await self.past.get(ContainerOperationRef(entry.operation_id))


@pytest_asyncio.fixture(loop_scope="session")
async def box(real: Any, settings: CommonSettings, tmp_path: Path) -> AsyncIterator[Box]:
    namespace = f"boxes-{secrets.token_hex(3)}"
    kubectl = real.clusters[real.name].kubectl()
    await kubectl("create", "namespace", namespace)
    try:
        at = ("-n", namespace)

        async def has_account() -> bool:
            return (await kubectl.run(*at, "get", "serviceaccount", "default")).code == 0

        await wait_for(has_account, "the namespace's service account", 30)
        await kubectl(*at, "run", "box", f"--image={BUSYBOX}", "--image-pull-policy=Never")
        await kubectl(*at, "wait", "--for=condition=Ready", "pod/box", "--timeout=60s")
        async with await open_database(settings) as database:
            repository = OperationRepository(database)
            keyring = Keyring.create(tmp_path / "logs.json", "logs")
            journal = Journal(repository, keyring, "replica-1", timedelta(days=1))
            with acting_as(ANNA):
                yield Box(
                    Reached(real.client, 1),
                    ContainerId(real.name, namespace, "box", "box"),
                    repository,
                    journal,
                    Orphans(repository, journal, real.reach, Toolboxes(_no_debugging)),
                    PastOperations(repository, journal),
                )
    finally:
        await kubectl("delete", "namespace", namespace, "--wait=false")


async def test_a_command_that_lasts_is_on_record_with_its_process_and_ended_for_a_dead_replica(
    box: Box,
) -> None:
    command = Command(box.target, ["sh", "-c", "sleep 7771 & sleep 7772"], 600)
    async with box.journal.recording("exec", box.target, list(command.words)) as entry:
        # Neither stopped nor cancelled before its process was ended: as when its replica is killed.
        running = asyncio.create_task(
            run_command(box.reached, command, _nothing, seen=box.journal.seen(entry))
        )

        async def on_record() -> bool:
            return (await box.repository.get(entry.operation_id)).process is not None

        await wait_for(on_record, "its process to be on record", 30)
        async with await box.begin("sleep", "7773"):
            told = await box.orphaned(entry)
            assert (told.status, told.result["stopped"]) == ("cancelled", True)
            assert await box.runs("sleep 7773")
            for word in ("7771", "7772"):
                assert not await box.runs(f"sleep {word}")
        await running


async def test_of_an_orphan_that_ended_by_itself_nobody_says_how(box: Box) -> None:
    async with box.journal.recording("exec", box.target, ["sleep", "1"]) as entry:
        async with await box.begin("sleep", "1") as stream:
            await box.repository.seen(entry.operation_id, await box.newest())
            async for _ in stream:
                pass
        told = await box.orphaned(entry)
        assert (told.status, told.result["stopped"]) == ("unknown", True)


async def test_an_orphan_that_died_with_its_pod_is_gone(box: Box) -> None:
    elsewhere = ContainerId(box.target.cluster, box.target.namespace, "nobody", "box")
    async with box.journal.recording("exec", elsewhere, ["sleep", "1"]) as entry:
        await box.repository.seen(entry.operation_id, Process(7, 7))
        told = await box.orphaned(entry)
        assert (told.status, told.result["stopped"]) == ("unknown", True)


async def test_nothing_is_ended_for_an_orphan_whose_process_nobody_knows(box: Box) -> None:
    async with box.journal.recording("exec", box.target, ["sleep", "1"]) as entry:
        told = await box.orphaned(entry)
        assert (told.status, told.result["stopped"]) == ("unknown", False)


async def test_an_orphan_in_a_cluster_that_is_gone_is_not_said_to_have_ended(box: Box) -> None:
    gone = ContainerId("no-such-cluster", "shop", "web", "web")
    async with box.journal.recording("exec", gone, ["sleep", "1"]) as entry:
        await box.repository.seen(entry.operation_id, Process(7, 7))
        told = await box.orphaned(entry)
        assert told.status == "unknown"
        assert "stopped" not in told.result
        assert "no-such-cluster" in told.result["error"]


async def test_what_an_upload_and_a_write_left_is_removed_for_a_dead_replica(box: Box) -> None:
    await box.output("mkdir", "-p", "/tmp/place/in")
    await box.output("ln", "-s", "/tmp/place/file", "/tmp/link")
    for command, path, left in (
        ("files:upload", "/tmp/place/file", "/tmp/place/"),
        ("files:upload", "/tmp/place", "/tmp/place/"),
        ("files:upload", "/tmp/place", "/tmp/place/in/"),
        ("files:write", "/tmp/link", "/tmp/place/"),
    ):
        async with box.journal.recording("file", box.target, [command, path]) as entry:
            await box.output("touch", "/tmp/place/file", f"{left}.kubelore-{entry.operation_id}")
            await box.output("touch", "/tmp/place/.kubelore-anothers")
            told = await box.orphaned(entry)
            assert (told.status, "nothing left" in told.result["error"]) == ("unknown", True)
        assert await box.output("sh", "-c", "find /tmp/place -type f | sort") == (
            "/tmp/place/.kubelore-anothers\n/tmp/place/file\n"
        )


async def test_another_that_began_with_a_command_that_has_ended_is_not_taken_for_it(box: Box) -> None:
    async def take(channel: Channel, data: bytes) -> None:
        """As a caller who leaves without hearing the command's end."""

        async def alone() -> bool:
            return await box.runs("sleep 7774") and not await box.runs("echo done")

        await wait_for(alone, "only the other to run", 20)
        raise Unavailable("the caller left")

    await box.output("true")  # A first connection takes longer, and both have to begin together.
    command = Command(box.target, ["echo", "done"], 60)
    both = asyncio.gather(
        run_command(box.reached, command, take), box.begin("sleep", "7774"), return_exceptions=True
    )
    ended, other = await both
    async with other:
        assert isinstance(ended, Unavailable)
        assert await box.runs("sleep 7774")


async def _no_debugging(reached: Reached, target: ContainerId) -> ContainerId:
    raise AssertionError("nobody asked for a debug container")


async def _nothing(channel: Channel, data: bytes) -> None:
    return None
