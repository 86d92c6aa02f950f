"""Versions beside the object of now, under rules that came after them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest_asyncio

from kubelore.common.authz import ADMINISTRATOR
from kubelore.common.bus import Service, connect
from kubelore.common.callers import acting_as
from kubelore.common.contracts.live import LIVE, LiveObject, LiveObjects, ReadLive
from kubelore.common.contracts.rollbacks import DiffLive, RollBack
from kubelore.common.contracts.writes import REPLACE, Replace, Written
from kubelore.common.crypto import Keyring
from kubelore.common.settings import CommonSettings
from kubelore.stack.fixtures import speak_as
from kubelore.yaml_vcs.histories import Histories
from kubelore.yaml_vcs.normalising import RULES, Normaliser, Policy, Rule
from kubelore.yaml_vcs.repository import VersionRepository
from kubelore.yaml_vcs.rollbacks import Rollbacks
from kubelore.yaml_vcs.writing_back import WritingBack

WEB = "prod:configmaps:shop:web"


class Cluster:
    """Answers for resource-ops: what there is now, and what was written."""

    def __init__(self) -> None:
        self.object: bytes = b""
        self.written: bytes = b""

    async def live(self, request: ReadLive) -> LiveObjects:
        there = bool(self.object)
        return LiveObjects(
            [LiveObject(id=id_, uid="u" * there, rv="9" * there, object=self.object) for id_ in request.ids]
        )

    async def replace(self, request: Replace) -> Written:
        self.written = request.manifest
        return Written(operation="o", id=request.id, uid="v", rv="10", result="created")


@pytest_asyncio.fixture(loop_scope="session")
async def cluster(settings: CommonSettings) -> AsyncIterator[Cluster]:
    made, bus = Cluster(), await connect(settings, name="resource-ops")
    service = Service(bus, "resource-ops", "0.1.0")
    service.serve(LIVE, made.live)
    service.serve(REPLACE, made.replace)
    await service.start()
    yield made
    await service.stop()
    await bus.close()


@pytest_asyncio.fixture(loop_scope="session")
async def rollbacks(
    settings: CommonSettings, repository: VersionRepository, cluster: Cluster
) -> AsyncIterator[Rollbacks]:
    bus = speak_as(await connect(settings, name="yaml-vcs"), settings)
    rules = Normaliser(Policy(rules=(*RULES, Rule(paths=(("data", "scaled"),)))))
    clusters = Keyring.create(settings.keyring_dir / "clusters.json", "clusters").recipient()
    writing = WritingBack(bus, rules, lambda *_: {}, clusters)
    yield Rollbacks(repository, Histories(repository), writing)
    await bus.close()


def config_map(**data: str) -> bytes:
    metadata = {"name": "web", "namespace": "shop"}
    return json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}).encode()


async def test_what_a_later_rule_leaves_out_is_no_difference_to_the_object_of_now(
    recorder, changed, rollbacks, cluster
) -> None:
    await recorder.take([changed("created", 1, {"a": "1", "scaled": "3"})])
    cluster.object = config_map(a="2", scaled="5")
    with acting_as(ADMINISTRATOR):
        told = await rollbacks.diff_live(DiffLive(id=WEB))
    assert [one.path for one in told.changes] == ["data.a"]


async def test_what_is_gone_is_made_anew_with_what_a_later_rule_leaves_out(
    recorder, changed, rollbacks, cluster
) -> None:
    await recorder.take([changed("created", 1, {"a": "1", "scaled": "3"})])
    with acting_as(ADMINISTRATOR):
        told = await rollbacks.roll_back(RollBack(id=WEB, version=1))
    assert told.method == "create"
    assert json.loads(cluster.written)["data"] == {"a": "1", "scaled": "3"}
