"""What a replica answers on the bus over a cluster that lives."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

import msgspec
import pytest

from kubelore.common.authz import ADMINISTRATOR, WITHHELD, Caller, Grant
from kubelore.common.contracts import resources
from kubelore.common.contracts.resources import (
    ClusterState,
    Fetch,
    FetchMeant,
    Get,
    ListDigests,
    ListTypes,
    NamedDictionaries,
    ObserverRef,
    ObserverReport,
    Query,
    ResolveTypes,
)
from kubelore.common.errors import BadRequest, DeadlineExceeded, KubeloreError, NotFound, Unavailable
from kubelore.common.frames import Dictionary, Unpacker
from kubelore.common.kube import ResourceType
from kubelore.kubesim.faults import Faults
from kubelore.lab.waiting import wait_for
from kubelore.resource_ops.__main__ import main
from kubelore.resource_ops.answers import AT_LEAST_S
from kubelore.resource_ops.settings import ResourceOpsSettings

CONFIG_MAPS = ResourceType(group="", version="v1", plural="configmaps", kind="ConfigMap", namespaced=True)


async def test_a_query_answers_rows_and_names_clusters_that_moved(asker) -> None:
    page = await asker.ask(resources.QUERY, Query(clusters=["sim-01", "sim-09"], types=["po"]))
    assert len(page.rows) == 5
    states = {state.name: (state.status, state.count) for state in page.clusters}
    assert states == {"sim-01": ("live", 5), "sim-09": ("error", 0)}


async def test_objects_are_fetched_by_id_in_the_order_asked_for(asker) -> None:
    page = await asker.ask(resources.QUERY, Query(clusters=["sim-01"], types=["pods"], objects=False))
    ids = [row.id for row in page.rows]
    found = await asker.ask(resources.FETCH, Fetch(ids=[ids[1], "sim-01:pods:default:none", ids[0]]))
    names = [json.loads(raw)["metadata"]["name"] if raw else "" for raw in found.objects]
    assert names == [ids[1].rsplit(":", 1)[1], "", ids[0].rsplit(":", 1)[1]]


@pytest.mark.parametrize("view", ["object", "metadata"])
async def test_packed_objects_unpack_to_what_is_answered_otherwise(asker, view) -> None:
    asked = Query(clusters=["sim-01"], view=view)
    plain = await asker.ask(resources.QUERY, asked)
    page = await asker.ask(resources.QUERY, msgspec.structs.replace(asked, packed=True))
    # A probe may have come between the two.
    for one in (*page.clusters, *plain.clusters):
        one.as_of = None
    assert (page.rows, page.total, page.clusters) == ([], plain.total, plain.clusters)
    assert page.packed.ids == [row.id for row in plain.rows]
    assert page.packed.last == plain.rows[-1].key
    expected = [row.object for row in plain.rows]
    assert await unpacked(asker, page.packed.objects, view) == expected
    ids = ["sim-01:pods:default:none", *page.packed.ids]
    fetched = await asker.ask(resources.FETCH, Fetch(ids=ids, view=view, packed=True))
    assert fetched.objects == []
    assert await unpacked(asker, fetched.packed, view) == [b"", *expected]


async def unpacked(asker, packed, view) -> list[bytes]:
    answer = await asker.ask(resources.DICTIONARIES, NamedDictionaries(packed.dictionaries))
    named = [answer.items.get(name, Dictionary()) for name in packed.dictionaries]
    assert [found.fingerprint() for found in named] == packed.dictionaries
    frames, found = packed.frames, []
    for length, use in zip(packed.lengths, packed.uses, strict=True):
        frame, frames = frames[:length], frames[length:]
        unpacker = Unpacker(named[use])
        pieces = unpacker.whole_pieces if view == "object" else unpacker.partial_pieces
        found.append(b"".join(pieces(frame)) if frame else b"")
    assert not frames
    return found


async def test_a_table_is_never_packed(asker) -> None:
    page = await asker.ask(
        resources.QUERY, Query(clusters=["sim-01"], types=["pods"], view="table", packed=True)
    )
    assert (len(page.rows), page.packed) == (5, None)


async def test_a_get_waits_for_the_version_that_was_just_written(asker) -> None:
    written = await asker.create("fresh")
    rv = written["metadata"]["resourceVersion"]
    answer = await asker.ask(resources.GET, Get(id="sim-01:cm:default:fresh", at_least=rv))
    assert json.loads(answer.object)["metadata"]["resourceVersion"] == rv
    assert (answer.id, answer.state.status) == ("sim-01:configmaps:default:fresh", "live")


async def test_a_get_that_waits_in_vain_says_so_within_its_deadline(asker) -> None:
    await asker.create("old")
    waiting = Get(id="sim-01:configmaps:default:old", at_least="9" * 18)
    with pytest.raises(DeadlineExceeded, match="has not arrived"):
        await asker.ask(resources.GET, waiting, deadline_s=20)
    assert resources.GET.deadline_s > AT_LEAST_S


@pytest.mark.parametrize("version", ["latest", "-1", "9" * 5_000])
async def test_what_is_no_version_is_refused(asker, version: str) -> None:
    with pytest.raises(BadRequest, match="no resourceVersion"):
        await asker.ask(resources.GET, Get(id="sim-01:configmaps:default:x", at_least=version))


async def test_an_object_that_is_not_there_is_not_found(asker) -> None:
    with pytest.raises(NotFound, match=r"there is no sim-01:configmaps:default:nothing$"):
        await asker.ask(resources.GET, Get(id="sim-01:configmap:default:nothing"))


async def test_an_object_of_a_cluster_that_moved_is_not_said_to_be_missing(asker) -> None:
    with pytest.raises(Unavailable, match="moved to another replica"):
        await asker.ask(resources.GET, Get(id="sim-09:configmaps:default:x"))


async def test_types_are_those_of_the_clusters_asked_for_and_of_no_other(asker) -> None:
    everything = await asker.ask(resources.TYPES, ListTypes())
    pods = next(found for found in everything.items if found.name == "pods")
    assert (pods.count, pods.clusters, pods.short_names) == (5, ["sim-01"], ["po"])
    assert await asker.ask(resources.TYPES, ListTypes(["sim-01"])) == everything
    assert (await asker.ask(resources.TYPES, ListTypes(["sim-09"]))).items == []


async def test_names_of_types_are_resolved_as_kubectl_does(asker) -> None:
    answer = await asker.ask(resources.RESOLVE, ResolveTypes(["deploy", "po,Service"]))
    assert answer.names == ["deployments.apps", "pods", "services"]
    with pytest.raises(BadRequest, match="doesn't have a resource type"):
        await asker.ask(resources.RESOLVE, ResolveTypes(["unicorns"]))


async def test_observers_report_their_types_when_asked_to(asker) -> None:
    short = await asker.ask(resources.OBSERVERS, ObserverRef())
    assert [(one.cluster, one.status, one.types) for one in short.items] == [("sim-01", "live", [])]
    long = await asker.ask(resources.OBSERVERS, ObserverRef(["sim-01"], types=True))
    assert {"pods", "secrets"} <= {state.type for state in long.items[0].types}
    assert (await asker.ask(resources.OBSERVERS, ObserverRef(["sim-09"]))).items == []


async def test_who_sees_one_namespace_is_told_no_figure_of_the_whole_cluster(asker) -> None:
    asker.house.bus.speaks_for = Caller(
        subject="nora", grants=(Grant(role="viewer", namespaces=("default",)),)
    )
    try:
        found = await asker.ask(resources.OBSERVERS, ObserverRef(types=True))
    finally:
        asker.house.bus.speaks_for = ADMINISTRATOR
    (report,) = found.items
    figures = (report.objects, report.published, report.held_bytes, report.watches)
    assert (report.status, report.types, figures) == ("live", [], (0, 0, 0, 0))
    assert (found.memory_bytes, found.watches) == (0, 0)


async def test_what_an_api_server_said_is_told_only_to_who_reads_all_of_the_cluster(asker) -> None:
    await asker.create("seen")
    await asker.house.clusters[0].inject(Faults(error_rate=1.0, error_code=403, paths="/configmaps"))
    asker.house.clusters[0].drop_watches()

    async def alone_refused() -> bool:
        return asker.replica.fleet.observer("sim-01").state().error == "configmaps: injected fault"

    await wait_for(alone_refused, "the type to be refused, and the others to be well again", 20)
    assert {(state.status, state.error) for state in await _states(asker)} == {
        ("stale", "configmaps: injected fault")
    }
    grant = Grant(role="admin", namespaces=("default",))
    asker.house.bus.speaks_for = Caller(subject="nora", grants=(grant,))
    try:
        assert {(state.status, state.error) for state in await _states(asker)} == {("stale", WITHHELD)}
    finally:
        asker.house.bus.speaks_for = ADMINISTRATOR


async def _states(asker) -> list[ClusterState | ObserverReport]:
    """The state of the cluster in every answer that has one."""
    asked = Query(clusters=["sim-01"], types=["configmaps"])
    answers = [await asker.ask(endpoint, asked) for endpoint in (resources.QUERY, resources.COUNT)]
    digests = await asker.ask(resources.DIGESTS, ListDigests(clusters=["sim-01"], types=["configmaps"]))
    one = await asker.ask(resources.GET, Get(id="sim-01:configmaps:default:seen"))
    observers = await asker.ask(resources.OBSERVERS, ObserverRef())
    states = [state for answer in (*answers, digests) for state in answer.clusters]
    return [*states, one.state, *observers.items]


async def test_a_cluster_that_is_no_longer_live_says_so_of_what_it_does_not_hold(asker) -> None:
    await asker.house.clusters[0].close()
    await wait_for(lambda: _status(asker.replica, "stale"), "the cluster to be stale", 20)
    with pytest.raises(NotFound, match="which is stale"):
        await asker.ask(resources.GET, Get(id="sim-01:configmaps:default:nothing"))


async def test_the_process_answers_until_it_is_stopped_and_gives_its_clusters_back(house) -> None:
    house.add(0)
    stopping = asyncio.Event()
    settings = house.settings.model_copy(update={"replica": "resource-ops-main"})
    running = asyncio.create_task(main(ResourceOpsSettings(**settings.model_dump()), stopping))

    async def observed() -> bool:
        with suppress(KubeloreError):
            reports = await house.bus.request(resources.OBSERVERS, ObserverRef(), target="resource-ops-main")
            return [one.status for one in reports.items] == ["live"]
        return False

    await wait_for(observed, "the cluster to be live", 20)
    stopping.set()
    await asyncio.wait_for(running, 15)
    assert await house.leases.holders("observer.") == {}


async def _status(replica, status: str) -> bool:
    return [observer.state().status for observer in replica.fleet.observers()] == [status]


async def test_counts_digests_and_what_is_meant_are_of_what_the_caller_sees(asker) -> None:
    await asker.create("seen")
    bus = asker.house.bus
    everything = await asker.ask(resources.COUNT, Query(clusters=["sim-01"]))
    assert everything.total > everything.types["configmaps"] > 0
    id = "sim-01:configmaps:default:seen"  # noqa: A001
    whole = await asker.ask(resources.DIGESTS, ListDigests(clusters=["sim-01"], types=["pods", "cm"]))
    assert len({row.namespace for row in whole.rows}) > 1
    administrator = bus.speaks_for
    grant = Grant(role="viewer", clusters=("sim-01",), namespaces=("default",))
    try:
        bus.speaks_for = Caller(subject="vera", grants=(grant,))
        counted = await asker.ask(resources.COUNT, Query(clusters=["sim-01"]))
        assert set(counted.namespaces) == {"default"}
        assert counted.total == counted.clusters[0].count < everything.total
        page = await asker.ask(
            resources.DIGESTS, ListDigests(clusters=["sim-09", "sim-01"], types=["pods", "cm"])
        )
        assert {(row.namespace, one.cluster) for row in page.rows for one in row.held} == {("default", 1)}
        assert [state.name for state in page.clusters] == ["sim-01"]
        hidden = next(row for row in whole.rows if row.namespace != "default")
        other = f"sim-01:{hidden.type}:{hidden.namespace}:{hidden.name}"
        meant = await asker.ask(resources.MEANT, FetchMeant(ids=[other, id]))
        assert meant.objects[0] == b""
        assert json.loads(meant.objects[1])["metadata"]["name"] == "seen"
        bus.speaks_for = Caller(subject="sam", grants=(Grant(role="admin", clusters=("other-*",)),))
        assert (await asker.ask(resources.COUNT, Query(clusters=["sim-01"]))).total == 0
    finally:
        bus.speaks_for = administrator
