"""An observer limited to namespaces: what it holds, what it leaves out, and that narrowing and widening lose nothing."""

from __future__ import annotations

import json

import pytest_asyncio

from kubelore.common.kube.well_known import NAMESPACES
from kubelore.kubesim.faults import Faults
from kubelore.lab.waiting import wait_for


@pytest_asyncio.fixture(loop_scope="session", autouse=True)
async def _another_namespace(bench) -> None:
    manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}}
    await bench.client.create(NAMESPACES, None, json.dumps(manifest).encode())


async def test_only_the_named_namespaces_are_observed(bench) -> None:
    await bench.create("in", namespace="default")
    await bench.create("out", namespace="other")
    async with bench.observing(namespaces=["default"]) as observer:
        await bench.create("out-later", namespace="other")
        await bench.create("in-later", namespace="default")
        await bench.until_told(("created", "in-later"))
        assert {row.namespace for row in observer.model if row.home.type != "namespaces"} == {"default"}
        assert not {"out", "out-later"} & {name for _, name in bench.published.told()}


async def test_what_is_in_no_namespace_is_left_out_and_named_but_for_the_namespaces_themselves(bench) -> None:
    async with bench.observing(namespaces=["default", "other"]) as observer:
        states = {state.type: state for state in observer.report(with_types=True).types}
        assert states["nodes"].status == "skipped"
        assert "default, other" in states["nodes"].detail
        assert (states["namespaces"].status, states["namespaces"].count) == ("live", 2)
        assert observer.state(["nodes"]).status == "error"
        assert observer.state().status == "live"


async def test_each_namespace_has_its_own_position_and_misses_nothing(bench) -> None:
    async with bench.observing(namespaces=["default", "other"]):
        await bench.create("one", namespace="default")
        await bench.create("two", namespace="other")
        await bench.until_told(("created", "one"), ("created", "two"))
    async with bench.checkpoint() as checkpoint:
        held = {key for key in checkpoint.positions if key.startswith("configmaps")}
        assert held == {"configmaps@default", "configmaps@other"}
    bench.published.records.clear()
    await bench.patch("one", {"data": {"k": "v"}})
    await bench.create("three", namespace="other")
    async with bench.observing(namespaces=["default", "other"]):
        await bench.until_told(("updated", "one"), ("created", "three"))
        assert bench.published.gaps() == []


async def test_an_object_of_one_namespace_is_not_taken_for_gone_after_a_list_of_another(bench) -> None:
    async with bench.observing(namespaces=["default", "other"]) as observer:
        await bench.create("one", namespace="default")
        await bench.until_told(("created", "one"))
        await bench.cluster.inject(Faults(expired=True, paths="/namespaces/other/configmaps"))
        bench.cluster.drop_watches()
        await wait_for(lambda: _gaps(bench), "the other namespace to be listed anew")
        await bench.cluster.inject(Faults())
        await bench.create("two", namespace="default")
        await bench.until_told(("created", "two"))
        assert {gap.namespace for gap in bench.published.gaps()} == {"other"}
        assert {"one", "two"} <= {row.name for row in observer.model.tables["configmaps"]}


async def test_narrowing_goes_on_from_where_the_whole_was_published(bench) -> None:
    async with bench.observing():
        await bench.create("one", namespace="other")
        await bench.until_told(("created", "one"))
    bench.published.records.clear()
    await bench.create("meanwhile", namespace="other")
    async with bench.observing(namespaces=["other"]):
        await bench.until_told(("created", "meanwhile"))
        assert bench.published.gaps() == []
        assert "observed" not in {change.kind for change in bench.published.changes()}
    bench.published.records.clear()
    await bench.create("again", namespace="other")
    await bench.create("elsewhere", namespace="default")
    async with bench.observing():
        await bench.until_told(("created", "again"), ("created", "elsewhere"))
        assert bench.published.gaps() == []


async def test_widening_to_what_was_never_observed_is_a_gap_and_everything_anew(bench) -> None:
    await bench.create("never-seen", namespace="default")
    async with bench.observing(namespaces=["other"]):
        await bench.create("seen", namespace="other")
        await bench.until_told(("created", "seen"))
    bench.published.records.clear()
    async with bench.observing():
        await wait_for(lambda: _synced(bench), "synced")
        assert (bench.published.order()[0], bench.published.order()[-1]) == ("gap", "synced")
        assert {("observed", "never-seen"), ("observed", "seen")} <= set(bench.published.told())


async def test_a_namespace_that_may_not_be_read_does_not_hide_the_others(bench) -> None:
    refused = Faults(error_rate=1.0, error_code=403, paths="/namespaces/other")
    await bench.cluster.inject(refused)
    async with bench.observing(namespaces=["default", "other"]) as observer:
        await wait_for(lambda: _names_refusal(observer), "the refusal to be named")
        assert observer.state(["configmaps"]).status == "live"
        await bench.create("one", namespace="default")
        await bench.until_told(("created", "one"))
        states = {state.type: state for state in observer.report(with_types=True).types}
        assert "other" in states["namespaces"].detail
        assert states["namespaces"].count == 1


async def _gaps(bench) -> bool:
    return bool(bench.published.gaps())


async def _synced(bench) -> bool:
    return bool(bench.published.synced())


async def _names_refusal(observer) -> bool:
    states = {state.type: state for state in observer.report(with_types=True).types}
    return "injected" in states["configmaps"].detail and states["configmaps"].status == "live"
