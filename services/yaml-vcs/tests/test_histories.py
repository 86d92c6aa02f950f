"""What is asked of a history: by whom, how it was, what differs, which version set a line."""

from __future__ import annotations

import pytest

from kubelore.common.authz import ADMINISTRATOR, Caller, Grant
from kubelore.common.callers import acting_as
from kubelore.common.contracts.changes import Applied
from kubelore.common.contracts.versions import (
    DiffVersions,
    GetVersion,
    ListVersions,
    TakeSnapshot,
    VerifyHistory,
)
from kubelore.common.errors import BadRequest, NotFound

WEB = "prod:configmaps:shop:web"
UID = "6b1f0f4e-0000-4000-8000-000000000001"
START = 1_700_000_000.0


@pytest.fixture
def asking(histories):
    """Ask as a caller; contexts of fixtures do not reach into tests."""

    async def ask(method: str, request, caller: Caller = ADMINISTRATOR):
        with acting_as(caller):
            return await getattr(histories, method)(request)

    return ask


async def test_a_history_says_who_did_what_when_newest_first(recorder, changed, asking) -> None:
    await recorder.take(
        [changed("created", 1, {"a": "1"}), changed("updated", 2, {"a": "2"}, manager="helm")]
    )
    said = Applied(
        cluster="prod",
        uid=UID,
        rv="3",
        actor="alice",
        reason="",
        change_log="raise a",
        operation_id="op",
        at=1.0,
    )
    await recorder.take([changed("updated", 3, {"a": "3"}), said, changed("deleted", 4, {"a": "3"})])
    page = await asking("list", ListVersions(id=WEB))
    assert [(one.version, one.happened, one.created_by, one.actor.kind) for one in page.items] == [
        (4, "deleted", "", "unknown"),
        (3, "updated", "alice", "user"),
        (2, "updated", "helm", "manager"),
        (1, "created", "kubectl", "manager"),
    ]
    assert [one.is_current for one in page.items] == [True, False, False, False]
    assert page.items[1].change_log == "raise a"
    assert page.items[3].created_at == "2023-11-14T22:13:21.000Z"


async def test_a_deletion_through_kubelore_is_put_down_to_its_user(recorder, changed, asking) -> None:
    def applied(action: str, rv: str) -> Applied:
        return Applied(
            cluster="prod",
            uid=UID,
            rv=rv,
            actor="alice",
            reason="gone for good",
            change_log="",
            operation_id=action,
            at=1.0,
            action=action,
        )

    await recorder.take([changed("created", 1, {}), changed("deleted", 2, {}), applied("apply", "")])
    assert (await asking("list", ListVersions(id=WEB))).items[0].actor.kind == "unknown"
    await recorder.take([applied("delete", "")])
    (gone, made) = (await asking("list", ListVersions(id=WEB))).items
    assert (gone.created_by, gone.change_log, made.created_by) == ("alice", "gone for good", "kubectl")


async def test_a_long_history_comes_in_pages_without_repetition(recorder, changed, asking) -> None:
    await recorder.take(
        [changed("created" if n == 1 else "updated", n, {"a": str(n)}) for n in range(1, 131)]
    )
    seen: list[int] = []
    before = None
    while True:
        page = await asking("list", ListVersions(id=WEB, before=before, limit=50))
        seen += [one.version for one in page.items]
        before = page.next
        if before is None:
            break
    assert seen == list(range(130, 0, -1))
    for number in (1, 64, 65, 130):
        found = await asking("get", GetVersion(id=WEB, version=number))
        assert f"a: '{number}'" in found.yaml_content or f'a: "{number}"' in found.yaml_content


async def test_versions_are_found_by_time_and_by_author(recorder, changed, asking) -> None:
    await recorder.take(
        [
            changed("created" if n == 1 else "updated", n, {"a": str(n)}, manager=f"m{n % 2}")
            for n in range(1, 9)
        ]
    )
    page = await asking("list", ListVersions(id=WEB, since=START + 3, until=START + 5))
    assert [one.version for one in page.items] == [5, 4, 3]
    page = await asking("list", ListVersions(id=WEB, actor="m1", limit=2))
    assert [one.version for one in page.items] == [7, 5]
    page = await asking("list", ListVersions(id=WEB, actor="m1", limit=2, before=page.next))
    assert [one.version for one in page.items] == [3, 1]


async def test_a_diff_names_the_fields_and_shows_the_lines(recorder, changed, asking) -> None:
    await recorder.take([changed("created", 1, {"a": "x", "b": "y"}), changed("updated", 2, {"a": "z"})])
    found = await asking("diff", DiffVersions(id=WEB))
    assert (found.from_version, found.to_version) == (1, 2)
    assert [one.path for one in found.changes] == ["data.a", "data.b"]
    assert [line for line in found.diff_content.splitlines() if line[:1] in "+-" and line[1:2] == " "] == [
        "-  a: x",
        '-  b: "y"',
        "+  a: z",
    ]
    whole = await asking("diff", DiffVersions(id=WEB, from_version=0, to_version=1))
    assert all(line[:1] in ("+", "-", "@") for line in whole.diff_content.splitlines())


async def test_a_line_is_put_down_to_the_version_that_set_it(recorder, changed, asking) -> None:
    await recorder.take(
        [changed("created", 1, {"a": "x", "b": "v"}), changed("updated", 2, {"a": "x", "b": "w"})]
    )
    await recorder.take([changed("updated", 3, {"a": "x", "b": "w", "c": "v"})])
    found = await asking("blame", GetVersion(id=WEB))
    told = {line.text.strip(): line.version for line in found.lines}
    assert (told["a: x"], told["b: w"], told["c: v"]) == (1, 2, 3)


async def test_a_namespace_can_be_seen_as_it_was(recorder, changed, asking) -> None:
    await recorder.take([changed("created", 1, {"a": "1"}), changed("created", 2, {}, name="old", uid=2)])
    await recorder.take([changed("deleted", 5, {}, name="old", uid=2), changed("updated", 6, {"a": "2"})])
    await recorder.take([changed("created", 7, {}, name="new", uid=3)])

    async def at(moment: float) -> dict[str, int]:
        page = await asking("snapshot", TakeSnapshot(cluster="prod", namespace="shop", at=START + moment))
        return {one.version.name: one.version.version for one in page.items}

    assert await at(0.5) == {}
    assert await at(3) == {"web": 1, "old": 1}
    assert await at(9) == {"web": 2, "new": 1}


async def test_a_snapshot_comes_in_pages(recorder, changed, asking) -> None:
    await recorder.take([changed("created", n, {}, name=f"cm-{n}", uid=n % 9) for n in range(1, 24)])
    names: list[str] = []
    after = ""
    while True:
        request = TakeSnapshot(cluster="prod", namespace="shop", at=START + 99, limit=5, after=after)
        page = await asking("snapshot", request)
        names += [one.version.name for one in page.items]
        after = page.next
        if not after:
            break
    assert sorted(names) == sorted(f"cm-{n}" for n in range(1, 24))


async def test_whoever_may_not_read_an_object_finds_no_history_of_it(recorder, changed, asking) -> None:
    await recorder.take([changed("created", 1, {"a": "1"})])
    other = Caller(subject="bob", grants=(Grant(role="admin", namespaces=("other",)),))
    for method, request in (
        ("list", ListVersions(id=WEB)),
        ("get", GetVersion(id=WEB)),
        ("diff", DiffVersions(id=WEB)),
        ("blame", GetVersion(id=WEB)),
        ("verify", VerifyHistory(id=WEB)),
    ):
        with pytest.raises(NotFound):
            await asking(method, request, other)
    page = await asking("snapshot", TakeSnapshot(cluster="prod", namespace="shop", at=START + 9), other)
    assert page.items == []
    elsewhere = Caller(subject="eve", grants=(Grant(role="admin", clusters=("test",)),))
    with pytest.raises(NotFound):
        await asking("snapshot", TakeSnapshot(cluster="prod", namespace="shop", at=START + 9), elsewhere)


async def test_pages_of_a_snapshot_do_not_tell_how_much_the_caller_may_not_read(
    recorder, changed, asking
) -> None:
    for start in range(1, 2101, 100):
        await recorder.take([changed("created", n, {}, name=f"cm-{n}") for n in range(start, start + 100)])
    other = Caller(subject="bob", grants=(Grant(role="admin", namespaces=("other",)),))
    request = TakeSnapshot(cluster="prod", namespace="shop", at=START + 9999)
    page = await asking("snapshot", request, other)
    assert (page.items, page.next) == ([], "")
    assert (await asking("snapshot", request)).next


async def test_of_a_secret_only_that_a_value_changed_is_shown(recorder, changed, asking) -> None:
    def secret(rv: int, hmac: bytes):
        made = changed("created" if rv == 1 else "updated", rv, None, type_name="secrets")
        made.hmacs = {"password": hmac, "user": bytes(32)}
        return made

    await recorder.take([secret(1, b"a" * 32), secret(2, b"b" * 32)])
    found = await asking("diff", DiffVersions(id="prod:secrets:shop:web"))
    assert [one.path for one in found.changes] == ["data.password"]


async def test_an_altered_version_is_found(recorder, changed, asking, settings) -> None:
    from kubelore.common.store import open_database
    from kubelore.yaml_vcs.history import MAIN
    from kubelore.yaml_vcs.repository import resource_key, version_id

    await recorder.take([changed("created" if n == 1 else "updated", n, {"a": str(n)}) for n in range(1, 6)])
    assert (await asking("verify", VerifyHistory(id=WEB))).ok
    async with await open_database(settings) as database:
        place = version_id(resource_key(WEB), MAIN, 3)
        await database.collection("versions").update(place, {"t": 1})
    found = await asking("verify", VerifyHistory(id=WEB))
    assert (found.ok, found.broken) == (False, 3)


@pytest.mark.parametrize("limit", [0, -1, 1001])
async def test_a_page_without_bounds_is_refused(recorder, changed, asking, limit: int) -> None:
    await recorder.take([changed("created", 1, {"a": "1"})])
    with pytest.raises(BadRequest):
        await asking("list", ListVersions(id=WEB, limit=limit))


async def test_every_answer_travels_over_the_bus_whole(recorder, histories, changed, settings) -> None:
    from kubelore.common.bus import connect
    from kubelore.common.contracts import versions
    from kubelore.stack.fixtures import speak_as
    from kubelore.yaml_vcs.service import endpoints

    await recorder.take([changed("created", 1, {"a": "x", "n": None}), changed("updated", 2, {"a": "y"})])
    bus = speak_as(await connect(settings, name="yaml-vcs"), settings)
    service = endpoints(bus, histories)
    await service.start()
    assert len((await bus.request(versions.LIST, ListVersions(id=WEB))).items) == 2
    assert "a: x" in (await bus.request(versions.GET, GetVersion(id=WEB, version=1))).yaml_content
    found = await bus.request(versions.DIFF, DiffVersions(id=WEB))
    assert [(one.path, one.old) for one in found.changes] == [("data.a", "x"), ("data.n", None)]
    assert (await bus.request(versions.BLAME, GetVersion(id=WEB))).version == 2
    snapshot = TakeSnapshot(cluster="prod", namespace="shop", at=START + 9)
    assert len((await bus.request(versions.SNAPSHOT, snapshot)).items) == 1
    assert (await bus.request(versions.VERIFY, VerifyHistory(id=WEB))).ok
    await service.stop()
    await bus.close()
