"""A stream of changes that is full, and a change that cannot be taken: both are said, and nothing is lost."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
import signal
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kubelore.common.bus import StreamLimits, connect, ensure_streams
from kubelore.lab.waiting import wait_for

from .conftest import NAMESPACE, Writer

pytestmark = [pytest.mark.lab, pytest.mark.timeout(240)]

MIB = 1024 * 1024
FAT = 30_000
"""Random bytes, which no compression makes fewer."""
PARKED = "/api/k8s/yaml/parked"


@contextmanager
def stopped(kubelore: Any, process: str):
    """A process that does nothing for as long as the block runs."""
    pid = kubelore.pid(process)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_a_full_stream_is_said_and_everything_arrives_once_there_is_room(
    own_kubelore, plane, witness, equals_kubectl
) -> None:
    await own_kubelore.onboard("victim", plane.kubeconfig())
    bus = await connect(own_kubelore.bus_settings(), name="witness")
    writer = Writer(plane.kubeconfig(), seed=11, size=FAT)

    async def throttled() -> bool:
        page = await own_kubelore.list(type="configmaps", clusters="victim", view="metadata", limit=1)
        return [state["status"] for state in page["clusters"]] == ["throttled"]

    try:
        with stopped(own_kubelore, "yaml-vcs"):
            await ensure_streams(bus, StreamLimits(changes_bytes=2 * MIB))
            writing = asyncio.create_task(writer.write(250))
            await wait_for(throttled, "the observer to say that it is throttled", 60)
            await writing
            assert not await witness.has_all(writer)()
        await wait_for(witness.has_all(writer), "every confirmed write to reach the witness", 90)
        await wait_for(equals_kubectl, "the read model to equal kubectl", 60)
        await own_kubelore.until_live("victim", 60)
        witness.assert_in_order()
        assert [gap for gap in witness.gaps if gap.type == "configmaps"] == []
    finally:
        await writer.close()
        await bus.close()


async def test_a_change_that_cannot_be_taken_is_missing_where_it_belongs_until_it_is_replayed(
    own_kubelore, plane
) -> None:
    """What it held lies in a blob of its own, which is gone for a while."""
    await own_kubelore.onboard("victim", plane.kubeconfig())
    folder = Path(own_kubelore.data) / "blobs" / "changes"
    data = {"big": base64.b64encode(random.Random(5).randbytes(700_000)).decode()}
    await _put(plane, "create", "large", {"a": "1"})
    await wait_for(lambda: _history(own_kubelore, "large"), "it to be recorded", 30)
    with stopped(own_kubelore, "yaml-vcs"):
        await _put(plane, "replace", "large", data)
        await wait_for(
            lambda: asyncio.to_thread(_holds_something, folder), "the large change to be published", 30
        )
        folder.rename(folder.with_name("away"))
        await _put(plane, "create", "small", {"a": "1"})

    parked = await wait_for(lambda: _parked(own_kubelore), "it to be parked", 60, ignoring=(AssertionError,))
    (one,) = parked
    assert (one["resource_id"], one["happened"]) == (_id("large"), "updated")
    await wait_for(lambda: _history(own_kubelore, "small"), "what came behind it to be recorded", 30)
    happened, missing = await _history(own_kubelore, "large")
    assert happened == ["created"]
    assert [(gap["kind"], gap["after_version"]) for gap in missing] == [("missing", 1)]

    refused = await own_kubelore.http.post(f"{PARKED}/{one['number']}/replay")
    assert refused.status_code >= 400, refused.text
    folder.with_name("away").rename(folder)
    replayed = await own_kubelore.http.post(f"{PARKED}/{one['number']}/replay")
    assert (replayed.status_code, replayed.json()["outcome"]) == (200, "recorded"), replayed.text
    assert await _history(own_kubelore, "large") == (["updated", "created"], [])
    assert await _parked(own_kubelore) == []


async def _put(plane: Any, verb: str, name: str, data: dict[str, str]) -> None:
    manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}
    await plane.kubectl()(verb, "-n", NAMESPACE, "-f", "-", stdin=json.dumps(manifest))


def _holds_something(folder: Path) -> bool:
    return folder.exists() and any(path.is_file() for path in folder.rglob("*"))


async def _parked(kubelore: Any) -> list[dict[str, Any]]:
    answer = await kubelore.http.get(PARKED)
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


async def _history(kubelore: Any, name: str) -> tuple[list[str], list[dict[str, Any]]] | None:
    """What happened to a ConfigMap, newest first, and what is not known of it; None while nothing is recorded."""
    answer = await kubelore.http.get(f"/api/k8s/yaml/versions/{_id(name)}")
    if answer.status_code != 200:
        return None
    return [version["happened"] for version in answer.json()["items"]], answer.json()["gaps"]


def _id(name: str) -> str:
    return f"victim:configmaps:{NAMESPACE}:{name}"
