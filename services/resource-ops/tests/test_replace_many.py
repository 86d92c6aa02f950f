"""Many objects put back at once: each at most once, with what became of each, sent again or not."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from kubelore.common.authz import ADMINISTRATOR, Caller, Grant
from kubelore.common.contracts.writes import (
    MAX_MANY,
    OPERATIONS,
    REPLACE_MANY,
    ManyResult,
    OperationRef,
    Replace,
    ReplaceMany,
    replace_context,
)
from kubelore.common.errors import BadRequest, NotFound, TooLarge
from kubelore.common.kube import ResourceType
from kubelore.common.operations import new_operation_id, operating
from kubelore.common.store import open_database
from kubelore.kubesim.faults import Faults
from kubelore.lab.waiting import wait_for
from kubelore.resource_ops.repository import Operation, OperationRepository

CLUSTER = "sim-01"
CONFIG_MAPS = ResourceType(group="", version="v1", plural="configmaps", kind="ConfigMap", namespaced=True)
SECRETS = ResourceType(group="", version="v1", plural="secrets", kind="Secret", namespaced=True)
OPERATOR = Caller(subject="olga", grants=(Grant(role="operator", namespaces=("default",)),))


def config_map(name: str, **data: str) -> bytes:
    return json.dumps(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}
    ).encode()


def items(*names: str, value: str = "1", **more: Any) -> list[Replace]:
    return [
        Replace(
            id=f"{CLUSTER}:configmaps:default:{name}", item=number, manifest=config_map(name, a=value), **more
        )
        for number, name in enumerate(names)
    ]


async def many(hand, asked: list[Replace], *, operation: str = "", **more: Any) -> list[ManyResult]:
    hand.operation = operation or new_operation_id()
    with operating(hand.operation):
        request = ReplaceMany(cluster=CLUSTER, items=asked, **more)
        return (await hand.house.bus.request(REPLACE_MANY, request)).results


async def records(hand) -> dict[str, Any]:
    found = await hand.house.bus.request(OPERATIONS, OperationRef(hand.operation))
    return {record.operation.rsplit(".", 1)[1]: record for record in found.items}


def outcomes(results: list[ManyResult]) -> list[str]:
    return [one.result for one in results]


async def test_what_is_not_there_is_created_and_what_is_there_becomes_what_was_asked(hand, applied) -> None:
    made = await many(hand, items("a", "b"), reason="restored")
    assert outcomes(made) == ["created", "created"]
    assert {one.state for one in (await records(hand)).values()} == {"done"}

    async def published() -> bool:
        return {one.rv for one in applied if one.reason == "restored"} >= {one.rv for one in made}

    async with hand.house.replica("b"):
        await wait_for(published, "who restored them to be published", 30)
    kept = await many(hand, items("a", "c", value="2"), on_existing="skip")
    assert outcomes(kept) == ["skipped", "created"]
    assert kept[0].uid == made[0].uid
    refused = await many(hand, items("a", value="2"))
    assert (refused[0].result, refused[0].error) == ("failed", "AlreadyExists")
    assert (await hand.live(CONFIG_MAPS, "a"))["data"] == {"a": "1"}
    changed = await many(hand, items("a", "c", value="2"), on_existing="update")
    assert outcomes(changed) == ["changed", "unchanged"]
    live = await hand.live(CONFIG_MAPS, "a")
    assert (live["data"], live["metadata"]["resourceVersion"]) == ({"a": "2"}, changed[0].rv)


async def test_a_dry_run_of_many_tells_and_neither_does_nor_records(hand) -> None:
    assert outcomes(await many(hand, items("dry"), dry_run=True)) == ["created"]
    assert await hand.is_gone(CONFIG_MAPS, "dry")
    with pytest.raises(NotFound):
        await records(hand)


async def test_one_that_fails_does_not_keep_the_others_from_being_written(hand) -> None:
    asked = items("fine", "elsewhere", "cut", "mine")
    asked[1] = Replace(id=f"{CLUSTER}:configmaps:kube-system:x", item=1, manifest=config_map("x"))
    asked[2] = Replace(id=asked[2].id, item=2, manifest=b"{")
    hand.house.bus.speaks_for = OPERATOR
    results = await many(hand, asked)
    hand.house.bus.speaks_for = ADMINISTRATOR
    assert outcomes(results) == ["created", "failed", "failed", "created"]
    assert [one.error for one in results] == ["", "Forbidden", "BadRequest", ""]


async def test_sent_again_an_item_answers_what_it_answered_and_is_not_written_again(hand) -> None:
    first = await many(hand, items("twice", "thrice"))
    operation = hand.operation
    await hand.client.delete(CONFIG_MAPS, "default", "twice")
    again = await many(hand, items("twice", "thrice", "new"), operation=operation)
    assert again[:2] == first
    assert again[2].result == "created"
    assert await hand.is_gone(CONFIG_MAPS, "twice")
    failed = await many(hand, items("thrice"))
    await hand.client.delete(CONFIG_MAPS, "default", "thrice")
    assert await many(hand, items("thrice"), operation=hand.operation) == failed


@pytest.mark.parametrize("arrived", [True, False])
async def test_one_whose_answer_got_lost_is_looked_for_before_it_is_sent_again(
    hand, settings, arrived
) -> None:
    operation, name = new_operation_id(), f"lost-{str(arrived).lower()}"
    (asked,) = items(name)
    lost = Operation(
        key=f"{operation}.0",
        operation=operation,
        cluster=CLUSTER,
        id=asked.id,
        type="configmaps",
        action="replace",
        actor="admin",
        reason="",
        change_log="",
        at=datetime.now(UTC),
        replica="resource-ops-that-died",
        state="unknown",
        due="",
    )
    async with await open_database(settings) as database:
        await OperationRepository(database).intend(lost)
    uid = ""
    if arrived:
        uid = json.loads(await hand.client.create(CONFIG_MAPS, "default", asked.manifest))["metadata"]["uid"]
    (result,) = await many(hand, [asked], operation=operation)
    live = (await hand.live(CONFIG_MAPS, name))["metadata"]
    assert (result.uid, result.rv) == (live["uid"], live["resourceVersion"])
    record = (await records(hand))["0"]
    if arrived:
        assert (result.result, result.probable, result.uid, record.state) == (
            "changed",
            True,
            uid,
            "probable",
        )
    else:
        assert (result.result, result.probable, record.state) == ("created", False, "done")


async def test_the_same_request_twice_at_once_writes_each_object_once(hand) -> None:
    operation, names = new_operation_id(), [f"raced-{number}" for number in range(40)]

    async def send() -> list[ManyResult] | BaseException:
        try:
            return await many(hand, items(*names), operation=operation)
        except Exception as error:  # noqa: BLE001 - which of the two is refused is open
            return error

    await asyncio.gather(send(), send())
    final = await many(hand, items(*names), operation=operation)
    assert {one.result for one in final} <= {"created", "changed"}
    for one, name in zip(final, names, strict=True):
        assert (await hand.live(CONFIG_MAPS, name))["metadata"]["uid"] == one.uid


async def test_a_sending_that_another_overtook_answers_what_that_one_made(hand) -> None:
    await many(hand, items("warm"))
    operation, cluster = new_operation_id(), hand.house.clusters[0]
    await cluster.inject(Faults(latency=3.0, paths="/configmaps"))
    first = asyncio.create_task(many(hand, items("overtaken"), operation=operation))

    async def intended() -> bool:
        return hand.operation == operation and bool(await records(hand))

    await wait_for(intended, "the first to be on record", ignoring=(NotFound,))
    # Its write, sent with that, is under way after a round trip of another.
    assert await hand.is_gone(SECRETS, "nothing")
    await cluster.inject(Faults())
    (second,) = await many(hand, items("overtaken"), operation=operation)
    (overtaken,) = await first
    assert (second.result, overtaken.result) == ("created", "changed")
    assert overtaken.uid == second.uid
    (final,) = await many(hand, items("overtaken"), operation=operation)
    assert (final.result, final.uid) == ("changed", second.uid)


async def test_secrets_come_sealed_and_nothing_of_them_is_answered_or_recorded(hand) -> None:
    identity, value = f"{CLUSTER}:secrets:default:many", "bWFueS1zZWFsZWQ="
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "many"}, "data": {"key": value}}
    box = hand.house.keyring.recipient().seal(json.dumps(secret).encode(), context=replace_context(identity))
    results = await many(hand, [Replace(id=identity, sealed=box)])
    assert outcomes(results) == ["created"]
    assert (await hand.live(SECRETS, "many"))["data"] == {"key": value}
    assert value.encode() not in msgspec.json.encode([results, list((await records(hand)).values())])


async def test_more_than_a_request_may_hold_is_refused_as_a_whole(hand) -> None:
    with pytest.raises(TooLarge):
        await many(hand, items(*(f"n{number}" for number in range(MAX_MANY + 1))))
    with pytest.raises(BadRequest, match="same number"):
        await many(hand, items("same") + items("number"))
    assert await hand.is_gone(CONFIG_MAPS, "same")
