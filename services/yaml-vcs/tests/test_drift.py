"""Drift from tags: found, told once, and told again when it is over."""

from __future__ import annotations

import pytest

from kubelore.common.authz import ADMINISTRATOR, Caller, Grant
from kubelore.common.bus import connect, ensure_streams
from kubelore.common.callers import acting_as
from kubelore.common.contracts.alerts import VERSION_DRIFT
from kubelore.common.contracts.branches import FindDrift, PutTag
from kubelore.common.crypto import Signer
from kubelore.common.errors import BadRequest, NotFound
from kubelore.yaml_vcs.drift import DriftAlerts, Drifting
from kubelore.yaml_vcs.histories import Histories
from kubelore.yaml_vcs.repository import resource_key
from kubelore.yaml_vcs.tags import Tagging

WEB = "prod:configmaps:shop:web"
START = 1_700_000_000.0


@pytest.fixture
def asking(repository):
    histories = Histories(repository)
    tagging, drifting = Tagging(repository, histories, Signer(bytes(32))), Drifting(repository, histories)

    async def ask(request, caller: Caller = ADMINISTRATOR):
        with acting_as(caller):
            return await (tagging.put(request) if isinstance(request, PutTag) else drifting.find(request))

    return ask


@pytest.fixture
async def alerts(repository, settings):
    bus = await connect(settings, name="yaml-vcs")
    await ensure_streams(bus)
    watching = DriftAlerts(bus, repository, Histories(repository), clock=lambda: START)
    yield watching, bus
    await bus.close()


async def test_what_departed_from_a_tag_is_listed_with_its_fields(recorder, changed, asking) -> None:
    await recorder.take([changed("created", 1, {"a": "1"}), changed("created", 2, {}, name="same", uid=2)])
    await recorder.take([changed("created", 3, {"x": "1"}, name="lost", uid=3)])
    for name in ("web", "same", "lost"):
        await asking(PutTag(id=f"prod:configmaps:shop:{name}", name="gold"))
    await recorder.take(
        [changed("updated", 4, {"a": "2", "b": "3"}), changed("deleted", 5, {}, name="lost", uid=3)]
    )
    page = await asking(FindDrift(cluster="prod", namespace="shop", tag="gold"))
    told = {one.id.rpartition(":")[2]: one for one in page.items}
    assert (set(told), page.compared) == ({"web", "lost"}, 3)
    assert [(one.path, one.old, one.new) for one in told["web"].changes] == [
        ("data.a", "1", "2"),
        ("data.b", told["web"].changes[1].old, "3"),
    ]
    assert (told["web"].tagged_version, told["web"].version.version, told["web"].gone) == (1, 2, False)
    assert (told["lost"].gone, told["lost"].changes) == (True, [])
    await recorder.take([changed("updated", 6, {"a": "1"})])
    page = await asking(FindDrift(cluster="prod", tag="gold"))
    assert [one.id.rpartition(":")[2] for one in page.items] == ["lost"]


async def test_drifts_come_in_pages_and_only_to_who_may_read(recorder, changed, asking) -> None:
    ids = [f"prod:configmaps:shop:cm-{number}" for number in range(7)]
    for number in range(7):
        await recorder.take([changed("created", 1 + number, {"a": "1"}, name=f"cm-{number}", uid=number)])
        await asking(PutTag(id=ids[number], name="gold"))
    await recorder.take([changed("updated", 10 + n, {"a": "2"}, name=f"cm-{n}", uid=n) for n in range(7)])
    found: list[str] = []
    after = ""
    while True:
        page = await asking(FindDrift(cluster="prod", tag="gold", limit=3, after=after))
        found += [one.id for one in page.items]
        after = page.next
        if not after:
            break
    assert sorted(found) == ids
    other = Caller(subject="bob", grants=(Grant(role="admin", namespaces=("other",)),))
    page = await asking(FindDrift(cluster="prod", tag="gold", limit=3), other)
    assert (page.items, page.compared, page.next) == ([], 0, "")
    elsewhere = Caller(subject="eve", grants=(Grant(role="admin", clusters=("test",)),))
    with pytest.raises(NotFound):
        await asking(FindDrift(cluster="prod", tag="gold"), elsewhere)
    for limit, position in ((0, ""), (501, ""), (1, "zz")):
        with pytest.raises(BadRequest):
            await asking(FindDrift(cluster="prod", tag="gold", limit=limit, after=position))


async def told(bus) -> list[dict]:
    """Every alert that is kept in the stream EVENTS."""
    import json

    from kubelore.common.contracts.flows import EVENTS

    stream = bus.client.jetstream()
    info = await stream.stream_info(EVENTS)
    found = []
    for sequence in range(max(info.state.first_seq, 1), info.state.last_seq + 1):
        message = await stream.get_msg(EVENTS, sequence)
        if ".alert." in (message.subject or ""):
            found.append(json.loads(message.data or b"{}"))
    return [one for one in found if one["type"] == VERSION_DRIFT]


async def test_a_drift_is_told_once_and_when_it_is_over(recorder, changed, asking, alerts) -> None:
    watching, bus = alerts
    await recorder.take([changed("created", 1, {"a": "1"}), changed("created", 2, {}, name="quiet", uid=2)])
    await asking(PutTag(id=WEB, name="gold", alert=True))
    await asking(PutTag(id="prod:configmaps:shop:quiet", name="gold"))
    await watching.look(None)
    assert await told(bus) == []
    await recorder.take(
        [changed("updated", 3, {"a": "2"}), changed("updated", 4, {"q": "2"}, name="quiet", uid=2)]
    )
    await recorder.take([changed("updated", 5, {"a": "3"})])
    await watching.look({resource_key(WEB)})
    await watching.look(None)
    (alert,) = await told(bus)
    assert (alert["subject"], alert["severity"]) == ("prod", "warning")
    assert {name: alert["data"][name] for name in ("resource_id", "tag", "version", "state", "fields")} == {
        "resource_id": WEB,
        "tag": "gold",
        "version": 3,
        "state": "drifted",
        "fields": ["data.a"],
    }
    await recorder.take([changed("updated", 6, {"a": "1"})])
    await watching.look({resource_key(WEB)})
    await watching.look(None)
    assert [one["data"]["state"] for one in await told(bus)] == ["drifted", "cleared"]
    await recorder.take([changed("deleted", 7, {})])
    await watching.look({resource_key(WEB)})
    assert [one["data"]["state"] for one in await told(bus)] == ["drifted", "cleared", "drifted"]


async def test_objects_that_nobody_changed_are_not_looked_at(recorder, changed, asking, alerts) -> None:
    watching, bus = alerts
    await recorder.take([changed("created", 1, {"a": "1"})])
    await asking(PutTag(id=WEB, name="gold", alert=True))
    await recorder.take([changed("updated", 2, {"a": "2"})])
    await watching.look({resource_key("prod:configmaps:shop:other")})
    assert await told(bus) == []
