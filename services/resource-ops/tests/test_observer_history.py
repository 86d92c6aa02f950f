"""What an observer tells of the past: nothing lost, nothing under a wrong name, nothing left standing that has gone."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from kubelore.common.bus import ChangePublisher, Leases
from kubelore.common.kube import ResourceType
from kubelore.kubesim.faults import Faults
from kubelore.lab.waiting import wait_for

DEFINITIONS = ResourceType(
    group="apiextensions.k8s.io",
    version="v1",
    plural="customresourcedefinitions",
    kind="CustomResourceDefinition",
    namespaced=False,
)
WIDGETS = "widgets.lore.example"


def definition(*versions: str) -> bytes:
    names = {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"}
    schema = {"openAPIV3Schema": {"type": "object"}}
    served = [
        {"name": name, "served": True, "storage": name == versions[0], "schema": schema} for name in versions
    ]
    spec = {"group": "lore.example", "scope": "Namespaced", "names": names, "versions": served}
    manifest = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": WIDGETS},
        "spec": spec,
    }
    return json.dumps(manifest).encode()


def widgets(version: str) -> ResourceType:
    return ResourceType(
        group="lore.example", version=version, plural="widgets", kind="Widget", namespaced=True
    )


def widget(name: str, version: str = "v1") -> bytes:
    manifest = {"apiVersion": f"lore.example/{version}", "kind": "Widget", "metadata": {"name": name}}
    return json.dumps(manifest).encode()


async def test_replayed_changes_name_the_version_before_them_and_never_a_later_one(bench) -> None:
    async with bench.observing():
        await bench.create("one")
        await bench.until_told(("created", "one"))
    bench.published.records.clear()
    await bench.patch("one", {"data": {"k": "1"}})
    await bench.patch("one", {"data": {"k": "2"}})
    await bench.create("two")
    await bench.patch("two", {"data": {"k": "1"}})
    await bench.delete("two")
    async with bench.observing():
        await bench.until_told(("updated", "one"), ("deleted", "two"))
        await bench.patch("one", {"data": {"k": "3"}})
        await wait_for(lambda: _told(bench, 6), "the change after the replay")
        first, second, third = [change for change in bench.published.changes() if change.id.endswith(":one")]
        assert (first.old_rv, second.old_rv, third.old_rv) == ("", first.rv, second.rv)
        created, updated, deleted = [
            change for change in bench.published.changes() if change.id.endswith(":two")
        ]
        assert (created.old_rv, updated.old_rv, deleted.old_rv) == ("", created.rv, updated.rv)


async def test_replayed_changes_say_what_selectors_matched_before_where_that_is_known(bench) -> None:
    async with bench.observing():
        await bench.create("one", labels={"tier": "front"})
        await bench.until_told(("created", "one"))
    bench.published.records.clear()
    for tier in ("middle", "middle", "back"):
        await bench.patch("one", {"metadata": {"labels": {"tier": tier}}, "data": {"k": tier}})
    await bench.patch("one", {"data": {"k": "more"}})
    async with bench.observing():
        await wait_for(lambda: _told(bench, 3), "the replay")
        first, second, third = bench.published.changes()
        assert (first.old_rv, first.was) == ("", None)
        assert second.was is not None
        assert second.was.labels == {"tier": "middle"}
        assert (third.old_rv, third.was) == (second.rv, None)


async def test_a_first_list_that_had_to_begin_again_is_a_gap(bench) -> None:
    for number in range(600):
        manifest = {"metadata": {"name": f"c-{number:04}", "namespace": "default"}, "data": {}}
        bench.cluster.state.seed_object("configmaps", manifest)
    await bench.cluster.inject(Faults(expired=True, paths="/configmaps"))
    async with bench.observing(until_live=False) as observer:
        await bench.until_told(("observed", "c-0000"))
        await bench.delete("c-0000")
        await bench.cluster.inject(Faults())
        await wait_for(lambda: bench.is_live(observer), "the observer to be live")
        await wait_for(lambda: _any(bench.published.synced()), "synced")
        order = bench.published.order()
        order = order[: order.index("synced")]
        last_list = order[len(order) - order[::-1].index("gap") :]
        assert last_list == ["observed"] * bench.published.synced()[0].count
        assert order[0] == "observed"


async def test_a_first_list_that_a_dead_observer_left_unfinished_is_a_gap(bench) -> None:
    for number in range(600):
        manifest = {"metadata": {"name": f"c-{number:04}", "namespace": "default"}, "data": {}}
        bench.cluster.state.seed_object("configmaps", manifest)
    await bench.cluster.inject(Faults(expired=True, paths="/configmaps"))
    async with bench.observing(until_live=False):
        await bench.until_told(("observed", "c-0000"))
    bench.published.records.clear()
    await bench.delete("c-0000")
    await bench.cluster.inject(Faults())
    async with bench.observing():
        await wait_for(lambda: _any(bench.published.synced()), "synced")
        # What the dead one had published may be heard this late.
        of_the_heir = bench.published.since_last_gap()
        assert of_the_heir.order()[-1] == "synced"
        assert ("observed", "c-0000") not in of_the_heir.told()


async def test_a_type_removed_while_nobody_observed_leaves_nothing_behind(bench) -> None:
    await bench.client.create(DEFINITIONS, None, definition("v1"))
    await bench.client.create(widgets("v1"), "default", widget("w"))
    async with bench.observing():
        await bench.until_told(("observed", "w"), type_name=WIDGETS)
        await wait_for(lambda: _any(bench.published.synced(WIDGETS)), "synced")
    bench.published.records.clear()
    await bench.client.delete(DEFINITIONS, None, WIDGETS)
    async with bench.observing():
        await wait_for(lambda: _any(bench.published.synced(WIDGETS)), "synced")
        assert bench.published.order(WIDGETS) == ["gap", "synced"]
        assert bench.published.synced(WIDGETS)[0].count == 0
    async with bench.checkpoint() as checkpoint:
        assert WIDGETS not in checkpoint.positions


async def test_a_removed_type_has_no_position_any_more_and_comes_back_as_observed(bench) -> None:
    await bench.client.create(DEFINITIONS, None, definition("v1"))
    await bench.client.create(widgets("v1"), "default", widget("w"))
    async with bench.observing():
        await bench.until_told(("observed", "w"), type_name=WIDGETS)
        await bench.client.delete(DEFINITIONS, None, WIDGETS)
        await wait_for(lambda: _last_count(bench, 0), "synced with nothing left")
    async with bench.checkpoint() as checkpoint:
        assert WIDGETS not in checkpoint.positions
    bench.published.records.clear()
    await bench.client.create(DEFINITIONS, None, definition("v1"))
    await bench.client.create(widgets("v1"), "default", widget("again"))
    async with bench.observing():
        await bench.until_told(("observed", "again"), type_name=WIDGETS)


async def test_a_type_whose_version_is_withdrawn_is_watched_under_the_next(bench) -> None:
    await bench.client.create(DEFINITIONS, None, definition("v1alpha1"))
    await bench.client.create(widgets("v1alpha1"), "default", widget("old", "v1alpha1"))
    async with bench.observing() as observer:
        await bench.until_told(("observed", "old"), type_name=WIDGETS)
        spec = json.loads(definition("v1alpha1", "v1"))["spec"]
        spec["versions"][0]["served"] = False
        await bench.client.patch(DEFINITIONS, None, WIDGETS, json.dumps({"spec": spec}).encode())
        await bench.client.create(widgets("v1"), "default", widget("new"))
        await bench.until_told(("created", "new"), type_name=WIDGETS)
        await wait_for(lambda: _serves(observer, "v1"), "the type to be known in its new version")
        await bench.client.create(widgets("v1"), "default", widget("newer"))
        await bench.until_told(("created", "newer"), type_name=WIDGETS)
        assert bench.published.gaps(WIDGETS) == []
        held = {json.loads(row.whole())["apiVersion"] for row in observer.model.tables[WIDGETS]}
        assert held == {"lore.example/v1"}


async def test_an_api_server_that_lists_no_types_has_not_removed_them(bench) -> None:
    await bench.client.create(DEFINITIONS, None, definition("v1"))
    types = bench.cluster.state.types
    async with bench.observing() as observer:
        served = dict(types._types)
        for key, each in served.items():
            types._types[key] = replace(each, verbs=tuple(verb for verb in each.verbs if verb != "watch"))
        await bench.client.patch(DEFINITIONS, None, WIDGETS, b'{"metadata": {"labels": {"a": "b"}}}')
        await wait_for(lambda: _problem(observer, "lacks the types"), "the discovery to be refused")
        types._types.update(served)
        await bench.create("after")
        await bench.until_told(("created", "after"))
        assert "configmaps" in observer.model.types
        assert bench.published.gaps() == []


async def test_a_type_that_one_discovery_lacks_is_not_withdrawn(bench) -> None:
    await bench.client.create(DEFINITIONS, None, definition("v1"))
    types = bench.cluster.state.types
    async with bench.observing() as observer:
        served = dict(types._types)
        types._types = {key: each for key, each in served.items() if key[0] != "batch"}
        await bench.client.patch(DEFINITIONS, None, WIDGETS, b'{"metadata": {"labels": {"a": "b"}}}')
        await wait_for(lambda: _misses(observer, "jobs.batch"), "the discovery that lacks the type")
        types._types = served
        await wait_for(lambda: _misses_nothing(observer), "the discovery after it", 20)
        assert "jobs.batch" in observer.model.types
        assert bench.published.gaps("jobs.batch") == []


async def test_a_uid_that_may_not_be_read_is_no_other_cluster(bench) -> None:
    async with bench.observing():
        await bench.create("one")
        await bench.until_told(("created", "one"))
    await bench.cluster.inject(Faults(error_rate=1.0, error_code=403, paths="/namespaces/kube-system$"))
    async with bench.observing() as observer:
        assert observer.report(with_types=False).incarnation == 1
    async with bench.checkpoint() as checkpoint:
        assert checkpoint.uid


async def test_a_restored_cluster_is_a_new_incarnation(bench) -> None:
    async with bench.observing():
        await bench.create("one")
        await bench.until_told(("created", "one"))
    bench.published.records.clear()
    _restore(bench)
    async with bench.observing() as observer:
        assert observer.report(with_types=False).incarnation == 2
        await wait_for(lambda: _any(bench.published.synced()), "synced")
        assert {change.incarnation for change in bench.published.changes()} == {2}
    async with bench.checkpoint() as checkpoint:
        assert checkpoint.incarnation == 2


async def test_a_cluster_restored_while_it_was_out_of_reach_ends_its_observer(bench) -> None:
    async with bench.observing() as observer:
        await bench.create("one")
        await bench.until_told(("created", "one"))
        await bench.cluster.inject(Faults(refuse=True))
        await wait_for(lambda: _begins(observer, "cannot connect"), "the cluster to be out of reach")
        _restore(bench)
        await bench.cluster.inject(Faults())
        await asyncio.wait([bench.running], timeout=40)
        assert bench.running.done()
    async with bench.observing() as successor:
        assert successor.report(with_types=False).incarnation == 2


async def test_an_extension_that_counts_its_own_versions_is_no_restored_cluster(bench) -> None:
    async with bench.observing():
        await bench.create("one")
        await bench.until_told(("created", "one"))
    async with bench.checkpoint() as checkpoint:
        checkpoint.positions["things.extension.example"] = "9" * 18
        await checkpoint.save()
    async with bench.observing() as observer:
        assert observer.report(with_types=False).incarnation == 1


async def test_an_observer_whose_records_are_refused_ends_though_nothing_else_changes(bench) -> None:
    async with bench.observing():
        successor = await Leases(bench.bus).wait("observer.successor")
        await ChangePublisher(bench.bus, "sim", successor).fence()
        await bench.create("refused")
        await asyncio.wait([bench.running], timeout=10)
        assert bench.running.done()
        await successor.release()


@pytest.mark.parametrize("code", [404, 429, 503])
async def test_an_identity_that_cannot_be_read_yet_is_waited_for(bench, code: int) -> None:
    await bench.cluster.inject(Faults(error_rate=1.0, error_code=code, retry_after=0, paths="/namespaces$"))
    async with bench.observing(until_live=False) as observer:
        await wait_for(lambda: _problem(observer, "injected"), "the trouble to be said")
        assert not bench.running.done()
        await bench.cluster.inject(Faults())
        await wait_for(lambda: bench.is_live(observer), "the observer to be live", 40)


def _restore(bench) -> None:
    """Set the cluster's clock of versions back, as restoring an old etcd snapshot does."""
    store = bench.cluster.state.store
    store.compact()
    store.rv -= 10_000_000_000
    store._floor = 0
    for collection in store._collections.values():
        collection.floor = 0


async def _any(found: list[object]) -> bool:
    return bool(found)


async def _told(bench, count: int) -> bool:
    return len(bench.published.changes()) >= count


async def _has(observer, name: str) -> bool:
    return any(row.name == name for row in observer.model)


async def _last_count(bench, count: int) -> bool:
    synced = bench.published.synced(WIDGETS)
    return bool(synced) and synced[-1].count == count


async def _begins(observer, text: str) -> bool:
    return (observer.state().error or "").startswith(text)


async def _problem(observer, text: str) -> bool:
    return text in (observer.state().error or "")


async def _serves(observer, version: str) -> bool:
    return observer.model.types[WIDGETS].version == version and await _has(observer, "old")


async def _misses(observer, type_name: str) -> bool:
    return type_name in observer._missing


async def _misses_nothing(observer) -> bool:
    return not observer._missing
