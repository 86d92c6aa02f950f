"""Objects that come packed from the replicas go out as the JSON they were, whoever packed them."""

from __future__ import annotations

import json

import pytest

from kubelore.common.frames import Dictionary

MANY = 700


def learned(word: str) -> Dictionary:
    """Raw bytes serve as a dictionary too: zstd takes them for text that came before."""
    return Dictionary(metadata=f"{word}-metadata".encode() * 20, rest=f"{word}-rest".encode() * 20)


def ids_of(cluster: str, count: int) -> list[str]:
    return [f'{cluster}:pods:shop:web"-{number:04d}' for number in range(count)]


async def asked(replica, endpoint: str) -> list:
    return [request for name, request in replica.asked if name == endpoint]


@pytest.mark.parametrize("view", ["object", "metadata"])
@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, MANY])
async def test_an_answer_of_any_size_is_whole_and_as_long_as_it_says(world, count: int, view: str) -> None:
    replica = await world.replica("left")
    replica.dictionary = learned("left")
    replica.hold(*ids_of("left", count), labels={"app": "web"})
    answer = await world.http.get(
        "/api/k8s/unified/resources", params={"type": "pods", "limit": 1000, "view": view}
    )
    assert int(answer.headers["content-length"]) == len(answer.content)
    items = answer.json()["items"]
    assert [item["id"] for item in items] == ids_of("left", count)
    assert {item["cluster"] for item in items} <= {"left"}
    metadata = [item["object"]["metadata"] for item in items]
    assert metadata == [replica.objects[found]["metadata"] for found in ids_of("left", count)]
    kinds = {item["object"].get("kind") for item in items}
    assert kinds <= ({"PartialObjectMetadata"} if view == "metadata" else {None})


async def test_a_dictionary_is_asked_for_once(world) -> None:
    replica = await world.replica("left")
    replica.dictionary = learned("left")
    replica.hold(*ids_of("left", 3))
    for _ in range(3):
        assert len((await world.list(type="pods"))["items"]) == 3
    assert [request.fingerprints for request in await asked(replica, "dictionaries")] == [
        [learned("left").fingerprint()]
    ]


async def test_replicas_with_dictionaries_of_their_own_are_merged(world) -> None:
    left, right = await world.replica("left"), await world.replica("right")
    for replica, cluster in ((left, "left"), (right, "right")):
        replica.dictionary = learned(cluster)
        replica.hold(*ids_of(cluster, 5))
    page = await world.list(type="pods")
    expected = sorted(ids_of("left", 5) + ids_of("right", 5), key=lambda found: (found[-4:], found))
    assert [item["id"] for item in page["items"]] == expected
    names = [json.dumps(item["object"]["metadata"]["name"]) for item in page["items"]]
    assert names == [json.dumps(found.split(":", 3)[3]) for found in expected]
    assert page["partial"] is False


async def test_a_dictionary_learned_anew_under_the_same_name_is_another(world) -> None:
    replica = await world.replica("left")
    replica.hold(*ids_of("left", 3))
    for word in ("before", "after"):
        replica.dictionary = learned(word)
        page = await world.list(type="pods")
        assert [item["id"] for item in page["items"]] == ids_of("left", 3)
    assert len(await asked(replica, "dictionaries")) == 2


async def test_a_replica_that_lost_its_dictionary_counts_as_silent(world) -> None:
    replica = await world.replica("left")
    replica.hold(*ids_of("left", 3))
    replica.dictionary = learned("before")

    async def restart(endpoint: str) -> None:
        if endpoint == "dictionaries":
            replica.dictionary = learned("after")

    replica.before = restart
    page = await world.list(type="pods")
    assert (page["items"], page["partial"]) == ([], True)
    assert page["clusters"][0]["error"] == "its observer does not answer"
    assert [item["id"] for item in (await world.list(type="pods"))["items"]] == ids_of("left", 3)


async def test_a_replica_that_sends_another_dictionary_than_it_named_is_not_believed(world) -> None:
    replica = await world.replica("left")
    replica.hold(*ids_of("left", 1))
    replica.dictionary = learned("left")
    named = replica.dictionary.fingerprint()

    class Impostor(Dictionary, frozen=True):
        def fingerprint(self) -> str:
            return named

    async def lie(endpoint: str) -> None:
        if endpoint == "dictionaries":
            replica.dictionary = Impostor(b"something else" * 10, b"entirely" * 10)

    replica.before = lie
    status, problem = await world.refused(type="pods")
    assert (status, problem["reason"]) == (500, "IntegrityError")
