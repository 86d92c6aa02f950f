"""Work that outlasts its request: the gateway says while it runs whether its caller may still have it."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from kubelore.common.authz import ADMINISTRATOR, Caller, Grant
from kubelore.common.bus import Bus, connect
from kubelore.common.callers import CallerSigner, CallerVerifier, acting_as, current_caller, current_token
from kubelore.common.contracts.vouching import VOUCH, Vouch
from kubelore.common.crypto import Keyring
from kubelore.common.errors import IntegrityError, Unauthenticated, Unavailable
from kubelore.common.mandates import Mandate, acting_under, renewed

SOON_S = 0.1
VIEWER = (Grant(role="viewer"),)


class Clock:
    """The system's clock, some seconds off."""

    def __init__(self, offset_s: float = 0.0) -> None:
        self.offset_s = offset_s

    def __call__(self) -> float:
        return time.time() + self.offset_s


class Worker:
    """A service that works for long, and the words of the gateway that it holds."""

    def __init__(self, bus: Bus, keyring: Keyring) -> None:
        self.bus = bus
        self.keyring = keyring
        self.clock = Clock()
        bus.verifier = CallerVerifier(keyring.signer().verifier, self.clock)

    def mandate(self, credential: str, *, ago_s: float = 0.0, lasting: bool = False) -> Mandate:
        """The gateway's word of some time ago for whoever had this credential."""
        caller = Caller(subject="alice", grants=VIEWER, credential=credential)
        signer = CallerSigner(self.keyring.signer(), Clock(-ago_s))
        return Mandate(signer.token(caller), lasting=lasting)


@pytest_asyncio.fixture(loop_scope="session")
async def worker(world):
    bus = await connect(world.settings, name="yaml-vcs")
    yield Worker(bus, Keyring.load(world.settings.keyring_dir / "gateway.json"))
    await bus.close()


async def until_ended(worker: Worker, mandate: Mandate) -> None:
    """Work for ever, in a task of its own beside, unless the gateway ends it."""
    async with acting_under(worker.bus, mandate, renew_every_s=SOON_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(asyncio.Event().wait())
        await asyncio.Event().wait()


async def test_a_revoked_token_ends_the_work_that_was_begun_with_it(world, worker) -> None:
    made = await world.token("alice")
    working = asyncio.create_task(until_ended(worker, worker.mandate(f"token:{made['id']}")))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(working), 5 * SOON_S)
    assert (await world.http.delete(f"/api/tokens/{made['id']}")).status_code == 204
    with pytest.raises(Unauthenticated, match="not valid") as refused:
        await asyncio.wait_for(working, 10)
    assert refused.value.remedy


async def test_a_token_that_expires_ends_the_work(world, worker, mongo_of) -> None:
    made = await world.token("alice")
    working = asyncio.create_task(until_ended(worker, worker.mandate(f"token:{made['id']}")))
    gone = {"$set": {"expires_at": datetime.now(UTC) - timedelta(seconds=1)}}
    assert mongo_of(world.settings).database["tokens"].update_one({"_id": made["id"]}, gone).matched_count
    with pytest.raises(Unauthenticated):
        await asyncio.wait_for(working, 15)


async def test_work_begins_again_days_later_while_its_token_stands(world, worker) -> None:
    made = await world.token("alice")
    mandate = worker.mandate(f"token:{made['id']}", ago_s=3 * 86400)
    async with acting_under(worker.bus, mandate) as caller:
        assert (caller.subject, current_caller().credential) == ("alice", f"token:{made['id']}")
        assert worker.bus.verifier.caller(current_token()) == caller
    await world.http.delete(f"/api/tokens/{made['id']}")
    with pytest.raises(Unauthenticated):
        async with acting_under(worker.bus, mandate):
            pytest.fail("worked without a credential")


async def test_what_is_granted_anew_holds_in_the_work_and_in_its_tasks(world, worker, mongo_of) -> None:
    made = await world.token("alice", clusters=["prod-*"])
    seen: list[bool] = []
    looked = asyncio.Event()

    async def look() -> None:
        while not seen or seen[-1]:
            seen.append(current_caller().sees("prod-eu"))
            looked.set()
            await asyncio.sleep(SOON_S)

    narrower = {"$set": {"grants.0.clusters": ["dev-*"]}}
    mandate = worker.mandate(f"token:{made['id']}", ago_s=50)
    async with acting_under(worker.bus, mandate, renew_every_s=SOON_S):
        looking = asyncio.create_task(look())
        await asyncio.wait_for(looked.wait(), 5)
        assert (
            mongo_of(world.settings)
            .database["tokens"]
            .update_one({"_id": made["id"]}, narrower)
            .modified_count
        )
        await asyncio.wait_for(looking, 15)
    assert seen[0]


async def test_a_browsers_session_carries_work_until_it_is_closed(world, worker) -> None:
    opened = await world.stranger.post("/api/session", headers=world.http.headers)
    cookie, csrf = opened.headers["set-cookie"].partition(";")[0], opened.json()["csrf_token"]
    credential = opened.json()["credential"]
    working = asyncio.create_task(until_ended(worker, worker.mandate(credential)))
    schedule = await renewed(worker.bus, worker.mandate(credential, lasting=True))
    headers = {"Cookie": cookie, "X-CSRF-Token": csrf, "Origin": world.url}
    assert (await world.stranger.delete("/api/session", headers=headers)).status_code == 204
    with pytest.raises(Unauthenticated, match="session has ended"):
        await asyncio.wait_for(working, 15)
    async with acting_under(worker.bus, schedule) as caller:
        assert caller == ADMINISTRATOR


async def test_a_provider_is_believed_for_a_day_and_carries_nothing_that_lasts(worker) -> None:
    async with acting_under(worker.bus, worker.mandate("oidc", ago_s=3600)) as caller:
        assert caller.grants == VIEWER
    with pytest.raises(Unauthenticated, match="over a day ago"):
        await renewed(worker.bus, worker.mandate("oidc", ago_s=86400 + 120))
    with pytest.raises(Unauthenticated) as refused:
        await renewed(worker.bus, worker.mandate("oidc", lasting=True))
    assert "API token" in str(refused.value.remedy)


async def test_the_gateway_trades_its_own_words_only(world, worker, tmp_path: Path) -> None:
    other = Keyring.create(tmp_path / "other" / "gateway.json", "gateway")
    word = worker.mandate("admin").token
    foreign = [
        CallerSigner(other.signer()).token(ADMINISTRATOR),
        word[:-4] + "AAAA",
        "",
        "nonsense",
        "x" * 300_000,
        worker.mandate("").token,
        worker.mandate("token").token,
        worker.mandate("token:0123456789abcdef").token,
        worker.mandate("session:0123456789abcdef").token,
        worker.mandate("root").token,
    ]
    for token in foreign:
        with pytest.raises(Unauthenticated):
            await worker.bus.request(VOUCH, Vouch(token=token))
    assert (await worker.bus.request(VOUCH, Vouch(token=word))).token


async def test_while_the_gateway_is_away_work_goes_on_for_as_long_as_its_word_is_good(world, worker) -> None:
    working = asyncio.create_task(until_ended(worker, worker.mandate("admin")))
    await world.stop()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(working), 1)
    worker.clock.offset_s = 61
    with pytest.raises(Unavailable, match="could not be asked") as refused:
        await asyncio.wait_for(working, 15)
    assert refused.value.remedy


async def test_what_ends_the_work_otherwise_stays_what_it_is(worker) -> None:
    with pytest.raises(ZeroDivisionError):
        async with acting_under(worker.bus, worker.mandate("admin")):
            raise ZeroDivisionError
    working = asyncio.create_task(until_ended(worker, worker.mandate("admin")))
    await asyncio.sleep(0)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    with pytest.raises(Unauthenticated):
        current_caller()


async def test_a_mandate_is_kept_sealed_and_opens_for_its_own_job_only(worker, tmp_path: Path) -> None:
    keyring = Keyring.create(tmp_path / "other" / "versions.json", "versions")
    with acting_as(ADMINISTRATOR, worker.mandate("admin").token):
        mandate = Mandate.of_request(lasting=True)
    sealed = mandate.seal(keyring, context="job/1")
    assert mandate.token.encode() not in sealed
    assert mandate.token not in repr(mandate)
    opened = Mandate.open(keyring, sealed, context="job/1")
    assert (opened.token, opened.lasting) == (mandate.token, True)
    with pytest.raises(IntegrityError):
        Mandate.open(keyring, sealed, context="job/2")
    with pytest.raises(Unauthenticated):
        Mandate.of_request()
