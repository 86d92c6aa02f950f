"""What is said of orphans where nothing can be done for them, in a simulated cluster."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from kubelore.common.authz import Caller, Grant
from kubelore.common.callers import acting_as
from kubelore.common.contracts.container_history import ContainerOperationRef
from kubelore.common.contracts.containers import ContainerId
from kubelore.common.crypto import Keyring
from kubelore.common.kube.resource_type import PODS
from kubelore.common.reach import Reached
from kubelore.common.settings import CommonSettings
from kubelore.common.store import open_database
from kubelore.container_ops.operation_repository import OperationRepository
from kubelore.container_ops.operations import Journal
from kubelore.container_ops.orphans import Orphans
from kubelore.container_ops.past_operations import PastOperations
from kubelore.container_ops.toolbox import Toolboxes
from kubelore.container_ops.transfer_scripts import DROP
from kubelore.kubesim.commands import COMMANDS
from kubelore.kubesim.shell import Process

ANNA = Caller(subject="anna", grants=(Grant(role="operator", rights=("exec",)),))
NOW = -1.0
"""Silence enough for whatever was said by now, be it in this very millisecond."""


async def test_of_what_could_not_be_removed_nobody_says_that_it_was(
    simulated: Any, settings: CommonSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell = COMMANDS["sh"]

    async def on_what_is_read_only(process: Process) -> int:
        if DROP in process.args:
            return await process.complain("Read-only file system")
        return await shell(process)

    monkeypatch.setitem(COMMANDS, "sh", on_what_is_read_only)
    target = await running(simulated)
    async with await open_database(settings) as database:
        repository = OperationRepository(database)
        journal = Journal(
            repository, Keyring.create(tmp_path / "logs.json", "logs"), "replica-1", timedelta(days=1)
        )
        looking = Orphans(repository, journal, simulated.reach, Toolboxes(no_debugging))
        with acting_as(ANNA):
            async with journal.recording("file", target, ["files:write", "/etc/motd"]) as entry:
                await repository.give_up(NOW)
                await looking.look(NOW)
                told = await PastOperations(repository, journal).get(
                    ContainerOperationRef(entry.operation_id)
                )
    assert told.status == "unknown"
    assert "beside /etc/motd is there still: " in told.result["error"]
    assert "Read-only file system" in told.result["error"]


async def running(simulated: Any) -> ContainerId:
    """A container of a pod that runs."""
    pods = [json.loads(raw) for raw in (await simulated.client.list(PODS)).items]
    pod = next(one for one in pods if one["status"]["phase"] == "Running")
    metadata = pod["metadata"]
    name = pod["spec"]["containers"][0]["name"]
    return ContainerId(simulated.name, metadata["namespace"], metadata["name"], name)


async def no_debugging(reached: Reached, target: ContainerId) -> ContainerId:
    raise AssertionError("nobody asked for a debug container")
