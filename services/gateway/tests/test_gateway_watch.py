"""Server-sent events: what a watcher sees, what makes it list again, how it resumes, and that nothing is left behind."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from kubelore.common.authz import WITHHELD
from kubelore.common.contracts.changes import Gap, Was
from kubelore.gateway import watch
from kubelore.gateway.roster import Roster
from kubelore.lab.waiting import wait_for

WATCH = "/api/k8s/unified/watch"


@pytest.fixture
def watching(world):
    @asynccontextmanager
    async def open_watch(last_event_id: str = "", **query):
        stream = world.watching(last_event_id, **query)
        try:
            yield await anext(stream)
        finally:
            await stream.aclose()

    return open_watch


async def told(events, count: int) -> list[tuple[str, str]]:
    """(event, object's name) of the next events."""
    found = [await events.next() for _ in range(count)]
    return [
        (name, data.get("id", "::" + data.get("cluster", "")).rpartition(":")[2]) for name, _, data in found
    ]


async def statuses(events) -> tuple[str, str]:
    """(cluster, status) of the next event."""
    name, _, data = await events.next()
    assert name == "status"
    return data["cluster"], data["status"]


async def test_changes_arrive_as_they_are_published(world, watching, make_change) -> None:
    replica = await world.replica("one")
    async with watching() as events:
        pod = "one:pods:shop:web"
        await replica.publish(
            "one",
            make_change("created", pod, "1"),
            make_change("updated", pod, "2"),
            make_change("deleted", pod, "3"),
        )
        name, event_id, data = await events.next()
        assert (name, data["id"], data["cluster"], data["type"], data["rv"]) == (
            "added",
            pod,
            "one",
            "pods",
            "1",
        )
        assert data["object"]["metadata"]["name"] == "web"
        assert event_id.count(".") == 2
        assert await told(events, 2) == [("modified", "web"), ("deleted", "web")]


async def test_first_sight_of_an_object_is_no_change(world, watching, make_change) -> None:
    replica = await world.replica("one")
    async with watching() as events:
        await replica.publish(
            "one", make_change("observed", "one:pods:a:old"), make_change("created", "one:pods:a:new")
        )
        assert await told(events, 1) == [("added", "new")]


async def test_a_watch_is_narrowed_by_type_cluster_namespace_and_field(world, watching, make_change) -> None:
    replica = await world.replica("one", "two")
    query = {"type": "po", "clusters": "two", "namespace": "a,b", "fields": "metadata.name!=hidden"}
    async with watching(**query) as events:
        await replica.publish("one", make_change("created", "one:pods:a:elsewhere"))
        await replica.publish(
            "two",
            make_change("created", "two:configmaps:a:no-pod"),
            make_change("created", "two:pods:c:other-namespace"),
            make_change("created", "two:pods:a:hidden"),
            make_change("created", "two:pods:b:seen"),
        )
        assert await told(events, 1) == [("added", "seen")]


async def test_a_namespace_counts_as_in_itself(world, watching, make_change) -> None:
    replica = await world.replica("one")
    async with watching(namespace="shop") as events:
        await replica.publish(
            "one",
            make_change("created", "one:namespaces::other"),
            make_change("created", "one:namespaces::shop"),
        )
        assert await told(events, 1) == [("added", "shop")]


async def test_what_enters_and_leaves_the_selector_is_added_and_removed(world, watching, make_change) -> None:
    replica = await world.replica("one")
    pod, web, api = "one:pods:a:x", {"app": "web"}, {"app": "api"}
    async with watching(labels="app=web") as events:
        await replica.publish(
            "one",
            make_change("created", pod, "1", labels=api),
            make_change("updated", pod, "2", labels=web, was=Was(api, {})),
            make_change("updated", pod, "3", labels=web),
            make_change("updated", pod, "4", labels=api, was=Was(web, {})),
            make_change("updated", pod, "5", labels=api),
            make_change("deleted", pod, "6", labels=api),
            make_change("created", "one:pods:a:y", "7", labels=web),
            make_change("deleted", "one:pods:a:y", "8", labels=web),
        )
        found = [(name, data["rv"]) for name, _, data in [await events.next() for _ in range(5)]]
        assert found == [
            ("added", "2"),
            ("modified", "3"),
            ("removed", "4"),
            ("added", "7"),
            ("deleted", "8"),
        ]


async def test_what_may_have_left_the_selection_while_nobody_observed_is_removed(
    world, watching, make_change
) -> None:
    replica = await world.replica("one")
    web, api = {"app": "web"}, {"app": "api"}
    async with watching(labels="app=web") as events:
        await replica.publish(
            "one",
            make_change("updated", "one:pods:a:x", "4", labels=api, old_rv=""),
            make_change("updated", "one:pods:a:y", "5", labels=web, old_rv=""),
            make_change("updated", "one:pods:a:x", "6", labels=api, old_rv="4"),
            make_change("created", "one:pods:a:z", "7", labels=web),
        )
        assert await told(events, 3) == [("removed", "x"), ("modified", "y"), ("added", "z")]


async def test_a_watch_begins_where_a_list_ended(world, watching, make_change) -> None:
    replica = await world.replica("one")
    earlier = (await world.list())["watch_from"]
    await replica.publish("one", make_change("created", "one:pods:a:before"))

    async def later() -> str:
        since = (await world.list())["watch_from"]
        return since if since != earlier else ""

    since = await wait_for(later, "a list whose position is not of a moment ago")
    await replica.publish("one", make_change("created", "one:pods:a:after"))
    async with watching(since=since) as events:
        assert await told(events, 1) == [("added", "after")]


async def test_a_watch_resumes_behind_the_last_event_that_was_read(world, watching, make_change) -> None:
    replica = await world.replica("one")
    since = (await world.list())["watch_from"]
    await replica.publish("one", *(make_change("created", f"one:pods:a:p{n}", str(n)) for n in range(6)))
    seen, last = [], ""
    for _ in range(3):
        async with watching(last, since=since) as events:
            for _ in range(2):
                _, last, data = await events.next()
                seen.append(data["rv"])
    assert seen == ["0", "1", "2", "3", "4", "5"]


async def test_an_id_of_another_feed_makes_the_client_list_again_and_go_on(
    world, watching, make_change
) -> None:
    replica = await world.replica("one")
    async with watching("1.2.3") as events:
        name, event_id, data = await events.next()
        assert (name, data["reason"], data["cluster"]) == ("reset", "missed", "")
        assert event_id != "1.2.3"
        await replica.publish("one", make_change("created", "one:pods:a:x"))
        assert await told(events, 1) == [("added", "x")]


async def test_a_gap_makes_the_client_list_that_type_again(world, watching, make_change) -> None:
    replica = await world.replica("one")

    def gap(name: str) -> Gap:
        return Gap(cluster="one", incarnation=1, type=name, after_rv="1", at=0.0)

    async with watching(type="pods") as events:
        await replica.publish("one", gap("configmaps"), gap("pods"))
        name, _, data = await events.next()
        assert (name, data) == ("reset", {"cluster": "one", "type": "pods", "reason": "missed"})


async def test_a_gap_in_a_namespace_concerns_only_who_watches_and_may_read_it(
    world, watching, make_change
) -> None:
    replica = await world.replica("one")

    def gap(namespace: str) -> Gap:
        return Gap(cluster="one", incarnation=1, type="pods", after_rv="1", at=0.0, namespace=namespace)

    made = await world.token("nora", clusters=["one"], namespaces=["a"])
    headers = {"Authorization": f"Bearer {made['token']}"}
    async with (
        httpx.AsyncClient(base_url=world.url, headers=headers, timeout=20) as nora,
        watching(client=nora) as granted,
        watching(namespace="a") as chosen,
    ):
        await replica.publish("one", gap("b"), make_change("created", "one:pods:a:x"), gap("a"))
        for events in (granted, chosen):
            assert await told(events, 1) == [("added", "x")]
            assert (await events.next())[0] == "reset"


async def test_an_object_too_large_for_the_feed_makes_the_client_list_again(
    world, watching, make_change
) -> None:
    replica = await world.replica("one")
    large = make_change("updated", "one:configmaps:a:huge")
    large.object, large.blob = b"", "changes/one/huge/1"
    async with watching(labels="a=b") as events:
        await replica.publish("one", large)
        _, _, data = await events.next()
        assert (data["type"], data["reason"]) == ("configmaps", "too-large")


async def test_an_object_that_cannot_be_read_is_passed_over_once_and_for_all(
    world, watching, make_change
) -> None:
    replica = await world.replica("one")
    broken, good = make_change("updated", "one:pods:a:broken"), make_change("created", "one:pods:a:good")
    broken.object = b"this is no zstd frame"
    async with watching() as events:
        await replica.publish("one", broken, good)
        name, last, _ = await events.next()
        assert name == "reset"
    async with watching(last) as events:
        assert await told(events, 1) == [("added", "good")]


async def test_clusters_that_come_and_go_are_told(world, watching, make_change) -> None:
    await world.replica("one")
    async with watching() as events:
        await world.registry.put("two", tags=["x"])
        assert (await events.next())[2] == {"cluster": "two", "type": "", "reason": "joined"}
        name, _, data = await events.next()
        assert (name, data["cluster"], data["status"]) == ("status", "two", "error")
        await world.registry.drop("one")
        assert (await events.next())[2] == {"cluster": "one", "type": "", "reason": "left"}


async def test_a_cluster_that_is_no_longer_live_is_told_and_that_it_is_so_again(
    world, watching, make_change
) -> None:
    replica = await world.replica("one", "two")
    async with watching(clusters="one") as events, watching() as more:
        await replica.report("two", "stale", "cannot connect")
        await replica.report("one", "stale", "cannot connect")
        await replica.report("one", "live")
        stale = {
            "cluster": "one",
            "status": "stale",
            "as_of": "1970-01-01T00:00:01Z",
            "error": "cannot connect",
        }
        name, event_id, data = await events.next()
        assert (name, data) == ("status", stale)
        assert (await events.next())[2] == {**stale, "status": "live", "error": None}
        assert [await statuses(more) for _ in range(3)] == [
            ("two", "stale"),
            ("one", "stale"),
            ("one", "live"),
        ]
        await replica.publish("one", make_change("created", "one:pods:a:x"))
        assert await told(events, 1) == [("added", "x")]
    async with watching(event_id) as later:
        assert await statuses(later) == ("two", "stale")


async def test_a_cluster_that_was_never_reached_is_told_as_that(world, watching) -> None:
    replica = await world.replica("one")
    async with watching() as events:
        await replica.report("one", "error", "cannot connect", as_of=None)
        name, _, data = await events.next()
    assert name == "status"
    assert data == {"cluster": "one", "status": "error", "as_of": None, "error": "cannot connect"}


async def test_why_a_cluster_is_not_live_is_told_only_to_who_reads_all_of_it(world, watching) -> None:
    replica = await world.replica("one")
    made = await world.token("nora", clusters=["one"], namespaces=["a"])
    headers = {"Authorization": f"Bearer {made['token']}"}
    async with (
        httpx.AsyncClient(base_url=world.url, headers=headers, timeout=20) as nora,
        watching(client=nora) as narrow,
        watching() as whole,
    ):
        await replica.report("one", "stale", 'User "system:serviceaccount:ops:kubelore" cannot list')
        told = [(await events.next())[2] for events in (narrow, whole)]
        await replica.release("one")
        assert (await narrow.next())[2]["error"] == "no observer holds this cluster yet"
    assert [one["status"] for one in told] == ["stale", "stale"]
    assert told[0]["error"] == WITHHELD
    assert "kubelore" in told[1]["error"]


async def test_a_cluster_that_nobody_observes_any_more_is_told(world, watching) -> None:
    replica = await world.replica("one")
    async with watching() as events:
        await replica.release("one")
        _, _, data = await events.next()
        assert (data["status"], data["error"]) == ("error", "no observer holds this cluster yet")
        await replica.observe("one")
        await replica.report("one", "live")
        assert await statuses(events) == ("one", "live")


async def test_a_cluster_that_was_removed_and_added_again_is_another(world, watching) -> None:
    await world.replica("one")
    async with watching(clusters="one") as events:
        await world.registry.put("one")
        assert (await events.next())[2]["reason"] == "joined"


async def test_a_watch_of_a_group_follows_those_who_join_it(world, watching, make_change) -> None:
    replica = await world.replica("one", "two")
    async with watching(clusters="group:g") as events:
        await world.registry.put("two", group="g")
        assert (await events.next())[2]["cluster"] == "two"
        await replica.publish("one", make_change("created", "one:pods:a:outside"))
        await replica.publish("two", make_change("created", "two:pods:a:inside"))
        assert await told(events, 1) == [("added", "inside")]


@pytest.mark.parametrize("steps", range(8))
async def test_what_comes_in_the_moment_of_news_of_the_clusters_is_told_or_left_for_later(steps: int) -> None:
    news, begun, passed = asyncio.Event(), asyncio.Event(), list[bytes]()

    async def source():
        begun.set()
        await news.wait()
        for _ in range(steps):
            await asyncio.sleep(0)
        passed.append(b"one")
        yield b"one"

    nobody: Any = None
    standing: Any = SimpleNamespace(caller=SimpleNamespace(unrestricted=True))
    asked = watch.WatchRequest(
        standing=standing, types=[], clusters=[], namespaces=[], labels="", fields="", since=""
    )
    stream = watch._Stream(nobody, Roster(nobody, nobody), nobody, asked, "1.1.0")
    lapse = asyncio.get_running_loop().create_future()

    async def told_until_news() -> list[bytes]:
        return [chunk async for chunk in stream._until(news, lapse, source())]

    telling = asyncio.create_task(told_until_news())
    await begun.wait()
    news.set()
    assert await telling == passed


@pytest.mark.parametrize("query", [{"type": "pods"}, {"clusters": "two"}])
async def test_a_quiet_watch_keeps_its_place(world, watching, make_change, monkeypatch, query) -> None:
    monkeypatch.setattr(watch, "HEARTBEAT_S", 0.1)
    replica = await world.replica("one", "two")
    async with watching(**query) as events:
        _, before, _ = await events.next(bookmarks=True)
        await replica.publish("one", make_change("created", "one:configmaps:a:unseen"))

        async def moved() -> bool:
            name, event_id, _ = await events.next(bookmarks=True)
            assert name == "bookmark"
            return event_id != before

        await wait_for(moved, "the bookmark to move", 10, every=0)


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"since": "nonsense"}, 400),
        ({"since": "-1.2.3"}, 400),
        ({"labels": "a in ("}, 400),
        ({"fields": "status.phase=Running"}, 400),
        ({"type": "configmaps", "fields": "status.phase=Running"}, 400),
        ({"type": "gizmos"}, 400),
        ({"clusters": "nothing"}, 404),
    ],
    ids=str,
)
async def test_a_watch_that_cannot_be_is_refused_before_it_begins(world, query, status: int) -> None:
    await world.replica("one")
    assert (await world.refused(WATCH, **query))[0] == status


async def test_a_type_that_only_a_silent_observer_could_know_is_asked_for_again_later(world) -> None:
    await world.replica("one")
    silent = await world.replica("two")

    async def never(endpoint: str) -> None:
        await asyncio.Event().wait()

    silent.before = never
    assert (await world.refused(WATCH, type="gizmos"))[0] == 504
    async with world.http.stream("GET", WATCH, params={"type": "pods"}) as answer:
        assert answer.status_code == 200


async def test_types_of_which_each_replica_knows_one_can_be_watched_together(
    world, watching, make_change
) -> None:
    one, two = await world.replica("one"), await world.replica("two")
    one.types, two.types = {"widgets"}, {"gadgets"}
    async with watching(type="widgets,gadgets") as events:
        await one.publish("one", make_change("created", "one:widgets:a:w"))
        assert await told(events, 1) == [("added", "w")]
        await two.publish("two", make_change("created", "two:gadgets:a:g"))
        assert await told(events, 1) == [("added", "g")]


async def test_watches_are_bounded_and_a_client_that_leaves_makes_room(world, watching) -> None:
    await world.replica("one")
    async with watching(), watching():
        answer = await world.http.get(WATCH)
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "10")

    async def room() -> bool:
        async with world.http.stream("GET", WATCH) as answer:
            return answer.status_code == 200

    for _ in range(5):
        await wait_for(room, "a slot", 10, every=0.02)


async def test_clients_that_leave_before_their_answer_begins_take_no_slot(world) -> None:
    await world.replica("one")
    port = world.settings.gateway_port
    head = f"GET {WATCH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a-token-for-tests-only\r\n\r\n"
    for _ in range(10):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head.encode())
        await writer.drain()
        writer.transport.abort()

    async def room() -> bool:
        async with world.http.stream("GET", WATCH) as first, world.http.stream("GET", WATCH) as second:
            return {first.status_code, second.status_code} == {200}

    await wait_for(room, "both slots", 10, every=0.02)


async def test_a_reader_that_does_not_read_holds_up_nobody(world, watching, make_change) -> None:
    replica = await world.replica("one")
    port = world.settings.gateway_port
    head = f"GET {WATCH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a-token-for-tests-only\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    writer.write(head.encode())
    await reader.readuntil(b"connected")
    async with watching() as events:
        for part in range(10):
            wanted = [
                make_change("created", f"one:pods:a:p{part}-{n}", annotations={"filler": "x" * 20_000})
                for n in range(50)
            ]
            await replica.publish("one", *wanted)
            assert await told(events, 50) == [("added", f"p{part}-{n}") for n in range(50)]
    writer.transport.abort()
    with suppress(ConnectionError):
        await writer.wait_closed()
