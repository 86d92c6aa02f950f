"""One observer: what it publishes, what it holds, and what it says of itself when something breaks."""

from __future__ import annotations

import base64
import json
import os

import msgspec
import pytest
import zstandard

from kubelore.common.kube import ResourceType
from kubelore.common.kube.secrets import secret_context
from kubelore.kubesim.faults import Faults
from kubelore.lab.waiting import wait_for

SECRETS = ResourceType(group="", version="v1", plural="secrets", kind="Secret", namespaced=True)
DEFINITIONS = ResourceType(
    group="apiextensions.k8s.io",
    version="v1",
    plural="customresourcedefinitions",
    kind="CustomResourceDefinition",
    namespaced=False,
)


async def test_the_first_sight_of_a_cluster_is_observed_and_then_synced(bench) -> None:
    await bench.create("before")
    async with bench.observing() as observer:
        await bench.until_told(("observed", "before"))
        await wait_for(lambda: _any(bench.published.synced()), "synced")
        synced = bench.published.synced()[0]
        assert synced.count == observer.model.count("configmaps")
        assert {change.kind for change in bench.published.changes()} == {"observed"}


async def test_changes_are_told_with_both_versions_and_the_last_state(bench) -> None:
    async with bench.observing():
        await bench.create("one", k="v")
        await bench.patch("one", {"data": {"k": "w"}})
        await bench.delete("one")
        await bench.until_told(("created", "one"), ("updated", "one"), ("deleted", "one"))
        created, updated, deleted = bench.published.changes()[-3:]
        assert updated.old_rv == created.rv
        assert deleted.old_rv == updated.rv
        assert int(created.rv) < int(updated.rv) < int(deleted.rv)
        last = json.loads(zstandard.ZstdDecompressor().decompress(deleted.object))
        assert last["data"] == {"k": "w"}


async def test_an_update_says_what_selectors_matched_before(bench) -> None:
    async with bench.observing():
        await bench.create("one", labels={"tier": "front"})
        await bench.patch("one", {"metadata": {"labels": {"tier": "back"}}})
        await bench.patch("one", {"data": {"k": "v"}})
        await wait_for(lambda: _count(bench, "updated", 2), "both updates")
        relabelled, changed = [change for change in bench.published.changes() if change.kind == "updated"]
        assert relabelled.was is not None
        assert relabelled.was.labels == {"tier": "front"}
        assert changed.was is None


async def test_what_happened_while_nobody_observed_is_told_as_what_it_was(bench) -> None:
    await bench.create("kept")
    await bench.create("doomed")
    async with bench.observing():
        await bench.until_told(("observed", "kept"), ("observed", "doomed"))
        await bench.create("seen")
        await bench.until_told(("created", "seen"))
    bench.published.records.clear()
    await bench.create("meanwhile")
    await bench.patch("kept", {"data": {"k": "v"}})
    await bench.delete("doomed")
    async with bench.observing() as observer:
        await bench.until_told(("created", "meanwhile"), ("updated", "kept"), ("deleted", "doomed"))
        assert bench.published.gaps() == []
        assert "observed" not in {change.kind for change in bench.published.changes()}
        assert observer.model.count("configmaps") == await _count_there(bench)


async def test_what_was_compacted_away_is_a_gap_then_observed_then_synced(bench) -> None:
    await bench.create("kept")
    await bench.create("doomed")
    async with bench.observing():
        await bench.create("seen")
        await bench.until_told(("created", "seen"))
    bench.published.records.clear()
    await bench.delete("doomed")
    bench.cluster.compact()
    async with bench.observing() as observer:
        await wait_for(lambda: _any(bench.published.synced()), "synced")
        order = [
            type(record).__name__
            for record in bench.published.records
            if getattr(record, "type", "") == "configmaps"
        ]
        assert (order[0], order[-1], set(order[1:-1])) == ("Gap", "Synced", {"Change"})
        names = {name for _, name in bench.published.told()}
        assert "doomed" not in names
        assert {"kept", "seen"} <= names
        assert bench.published.synced()[0].count == observer.model.count("configmaps")


async def test_a_watch_that_expires_in_between_is_a_gap_too(bench) -> None:
    await bench.create("kept")
    async with bench.observing() as observer:
        await bench.until_told(("observed", "kept"))
        await bench.cluster.inject(Faults(expired=True, paths="/configmaps"))
        bench.cluster.drop_watches()
        await wait_for(lambda: _any(bench.published.gaps()), "a gap")
        await bench.cluster.inject(Faults())
        await wait_for(lambda: bench.is_live(observer), "the observer to be live again")
        await bench.create("after")
        await bench.until_told(("created", "after"))


async def test_a_definition_comes_and_goes_with_its_objects(bench) -> None:
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.lore.example"},
        "spec": {
            "group": "lore.example",
            "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": {"type": "object"}},
                }
            ],
        },
    }
    widgets = ResourceType(
        group="lore.example", version="v1", plural="widgets", kind="Widget", namespaced=True
    )
    widget = {"apiVersion": "lore.example/v1", "kind": "Widget", "metadata": {"name": "w"}}
    async with bench.observing() as observer:
        await bench.client.create(DEFINITIONS, None, json.dumps(definition).encode())
        await wait_for(lambda: _knows(observer, "widgets.lore.example"), "the type to be observed")
        await bench.client.create(widgets, "default", json.dumps(widget).encode())
        await bench.until_told(("created", "w"), type_name="widgets.lore.example")
        await bench.client.delete(DEFINITIONS, None, "widgets.lore.example")
        await wait_for(lambda: _any(bench.published.gaps("widgets.lore.example")), "the gap")
        await wait_for(lambda: _last_count(bench, "widgets.lore.example", 0), "synced with nothing left")
        assert "widgets.lore.example" not in observer.model.types


async def test_a_secret_is_held_and_published_without_its_values(bench) -> None:
    value = base64.b64encode(b"correct horse battery").decode()
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"password": value}}
    async with bench.observing() as observer:
        await bench.client.create(SECRETS, "default", json.dumps(secret).encode())
        await bench.until_told(("created", "s"), type_name="secrets")
        change = bench.published.changes("secrets")[-1]
        published = zstandard.ZstdDecompressor().decompress(change.object)
        held = b"".join(row.whole() for row in observer.model)
        assert value.encode() not in published + held
        assert set(change.hmacs or {}) == {"password"}
        context = secret_context("sim", change.uid, change.rv)
        values = msgspec.msgpack.decode(bench.versions.open_box(change.sealed, context=context))
        assert values == {"password": b"correct horse battery"}


async def test_an_object_too_large_to_travel_is_a_sealed_blob(bench) -> None:
    async with bench.observing():
        await bench.create("large", noise=os.urandom(600_000).hex())
        await bench.until_told(("created", "large"))
        change = bench.published.changes()[-1]
        assert change.object == b""
        frame = bench.versions.open_box(await bench.blobs.get(change.blob), context=change.blob)
        assert json.loads(zstandard.ZstdDecompressor().decompress(frame))["metadata"]["name"] == "large"


async def test_events_and_leases_are_held_but_not_published(bench) -> None:
    async with bench.observing() as observer:
        await bench.create("marker")
        await bench.until_told(("created", "marker"))
        assert "events" in observer.model.types
        assert bench.published.changes("events") == []
        assert bench.published.changes("leases.coordination.k8s.io") == []


async def test_a_pulled_plug_is_stale_since_the_last_contact_and_live_again_by_itself(bench) -> None:
    async with bench.observing() as observer:
        await bench.cluster.inject(Faults(refuse=True))
        await wait_for(lambda: _status(observer, "stale"), "the observer to be stale", 15)
        state = observer.state()
        assert state.error
        assert state.as_of is not None
        assert observer.model.total() > 0
        await bench.cluster.inject(Faults())
        await bench.create("after")
        await bench.until_told(("created", "after"))
        await wait_for(lambda: bench.is_live(observer), "the observer to be live again", 40)
        assert bench.published.gaps() == []


async def test_a_type_that_may_not_be_listed_is_skipped_and_said(bench) -> None:
    await bench.cluster.inject(Faults(error_rate=1.0, error_code=403, paths="/configmaps"))
    async with bench.observing() as observer:
        await wait_for(lambda: _type_status(observer, "configmaps", "skipped"), "the type to be skipped")
        assert observer.state(["pods"]).status == "live"


@pytest.mark.parametrize("code", [429, 500, 503])
async def test_a_server_that_refuses_for_a_while_is_waited_out(bench, code: int) -> None:
    async with bench.observing() as observer:
        await bench.cluster.inject(
            Faults(error_rate=1.0, error_code=code, retry_after=1, paths="/configmaps")
        )
        bench.cluster.drop_watches()
        await wait_for(lambda: _type_status(observer, "configmaps", "stale"), "the type to be stale")
        await bench.cluster.inject(Faults())
        await bench.create("after")
        await bench.until_told(("created", "after"))
        assert bench.published.gaps() == []


async def test_the_report_names_every_type_with_its_count(bench) -> None:
    async with bench.observing() as observer:
        report = observer.report(with_types=True)
        states = {state.type: state for state in report.types}
        assert states["pods"].count == 5
        assert states["pods"].status == "live"
        assert report.objects == observer.model.total()


async def _any(found: list[object]) -> bool:
    return bool(found)


async def _count(bench, kind: str, count: int) -> bool:
    return sum(change.kind == kind for change in bench.published.changes()) >= count


async def _count_there(bench) -> int:
    page = await bench.client.list(
        ResourceType(group="", version="v1", plural="configmaps", kind="ConfigMap", namespaced=True), limit=0
    )
    return len(page.items)


async def _knows(observer, name: str) -> bool:
    return name in observer.model.types


async def _last_count(bench, type_name: str, count: int) -> bool:
    synced = bench.published.synced(type_name)
    return bool(synced) and synced[-1].count == count


async def _status(observer, status: str) -> bool:
    return observer.state().status == status


async def _type_status(observer, type_name: str, status: str) -> bool:
    return any(
        state.type == type_name and state.status == status for state in observer.report(with_types=True).types
    )
