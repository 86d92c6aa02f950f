"""Backup policies over a real database and bus, a clock that the test moves, and the gateway's own vouching."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import settings as trying
from hypothesis import strategies as st

from kubelore.common.authz import ADMINISTRATOR, Caller, Grant
from kubelore.common.bus import Bus, Leases, connect, ensure_streams
from kubelore.common.callers import CallerSigner, CallerVerifier, acting_as
from kubelore.common.contracts.alerts import CloudEvent, alert_subject
from kubelore.common.contracts.backup_policies import (
    BackupPolicy,
    CreatePolicy,
    ListPolicies,
    ListRuns,
    PausePolicy,
    PolicyRef,
    PolicyRun,
    PolicySpec,
    UpdatePolicy,
)
from kubelore.common.contracts.backups import Backup, ClusterProgress, CreateBackup
from kubelore.common.crypto import Keyring
from kubelore.common.errors import (
    AlreadyExists,
    Conflict,
    Forbidden,
    Invalid,
    KubeloreError,
    NotFound,
    Unauthenticated,
    Unavailable,
)
from kubelore.common.mandates import Mandate
from kubelore.common.store import Database, open_database
from kubelore.gateway.credentials import Credentials
from kubelore.gateway.repository import SessionRepository, Token, TokenRepository
from kubelore.gateway.sessions import Sessions
from kubelore.gateway.tokens import Tokens
from kubelore.gateway.vouching import Vouching, vouching_service
from kubelore.lab.waiting import wait_for
from kubelore.yaml_vcs.backup_policies import BackupPolicies
from kubelore.yaml_vcs.policy_repository import PolicyRepository
from kubelore.yaml_vcs.policy_runs import PATIENCE_S, RETRY_S, PolicyRuns, follow_schedules
from kubelore.yaml_vcs.scheduling import DAY_S

MORNING = datetime(2026, 5, 4, 0, 0, tzinfo=UTC).timestamp()
SPEC = PolicySpec(clusters=["prod"], schedule="0 3 * * *", keep_count=3)
OWNER = Caller(
    subject="ann",
    grants=(Grant(role="viewer", rights=("backup",), clusters=("prod",)),),
    credential="token:aa",
)


class Clock:
    def __init__(self) -> None:
        self.now = MORNING

    def __call__(self) -> float:
        return self.now


class Shelf:
    """Stands for the making of backups: they are there at once, and end as the test says."""

    def __init__(self) -> None:
        self.kept: dict[str, Backup] = {}
        self.begun: list[str] = []
        self.subjects: list[str] = []
        self.failure: KubeloreError | None = None
        self.ends = True

    async def begin(self, asked: CreateBackup, caller: Caller, mandate: Mandate, backup_id: str) -> Backup:
        await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure
        if backup_id in self.kept:
            raise AlreadyExists(backup_id)
        assert mandate.token
        self.begun.append(backup_id)
        self.subjects.append(caller.subject)
        self.kept[backup_id] = Backup(
            id=backup_id,
            name=asked.name,
            status="completed" if self.ends else "running",
            partial=False,
            clusters=[ClusterProgress(cluster=name) for name in asked.clusters],
            namespaces=asked.namespaces,
            types=asked.types,
            labels=asked.labels,
            created_by=caller.subject,
            reason=asked.reason,
            policy=asked.policy,
            created_at="",
        )
        await asyncio.sleep(0)
        return self.kept[backup_id]

    async def find(self, backup_id: str) -> Backup | None:
        await asyncio.sleep(0)
        return self.kept.get(backup_id)

    async def remove(self, backup_id: str) -> None:
        if self.kept.pop(backup_id, None) is None:
            raise NotFound(backup_id)


class House:
    """Policies, whoever runs them, and what they tell."""

    def __init__(self, bus: Bus, database: Database, keyrings: Path) -> None:
        self.bus = bus
        self.database = database
        self.keyring = Keyring.load_or_create(keyrings / "versions.json", "versions")
        self.signer = CallerSigner(Keyring.load(keyrings / "gateway.json").signer())
        self.repository = PolicyRepository(database)
        self.kept_tokens = TokenRepository(database)
        self.tokens = Tokens(self.kept_tokens)
        self.clock = Clock()
        self.shelf = Shelf()
        self.policies = BackupPolicies(self.repository, self.keyring, bus, self.clock)
        self.alerts: list[CloudEvent] = []
        self.hears = asyncio.Event()
        self.runner = self.successor()

    def successor(self) -> PolicyRuns:
        """One that knows nothing, as after a start."""
        return PolicyRuns(self.repository, self.shelf, self.keyring, self.bus, self.clock)

    def acting(self, caller: Caller):
        return acting_as(caller, self.signer.token(caller))

    async def create(
        self, name: str = "nightly", spec: PolicySpec = SPEC, caller: Caller = OWNER
    ) -> BackupPolicy:
        with self.acting(caller):
            return await self.policies.create(CreatePolicy(name=name, spec=spec))

    async def get(self, name: str = "nightly", caller: Caller = ADMINISTRATOR) -> BackupPolicy:
        with self.acting(caller):
            return await self.policies.get(PolicyRef(name))

    async def runs(self, name: str = "nightly") -> list[PolicyRun]:
        with self.acting(ADMINISTRATOR):
            return (await self.policies.runs(ListRuns(name=name, limit=100))).items

    async def until(self, moment: float, runner: PolicyRuns | None = None) -> None:
        """Let it be so late, and look until everything that began then has ended."""
        self.clock.now = max(self.clock.now, moment)
        for _ in range(3):
            await (runner or self.runner).tick()
            await (runner or self.runner).settled()

    async def heard(self, count: int) -> list[CloudEvent]:
        async def enough() -> bool:
            return len(self.alerts) >= count

        await wait_for(enough, f"{count} alerts", 10, every=0.02)
        return self.alerts

    async def listen(self) -> None:
        async for alert in self.bus.subscribe_events("kubelore.v1.events.alert.>", CloudEvent):
            self.alerts.extend([alert] if alert.type else [])
            self.hears.set()

    async def is_heard(self) -> bool:
        """Whether an alert that is published now is heard."""
        probe = CloudEvent(
            id=uuid.uuid4().hex, source="/x", type="", subject="x", time="", severity="info", data={}
        )
        await self.bus.publish_alert(alert_subject(probe), probe)
        return self.hears.is_set()


@pytest_asyncio.fixture(loop_scope="session")
async def house(settings) -> AsyncIterator[House]:
    gateway, bus = await connect(settings, name="gateway"), await connect(settings, name="yaml-vcs")
    await ensure_streams(bus)
    async with await open_database(settings) as database:
        made = House(bus, database, settings.keyring_dir)
        await made.repository.prepare()
        sessions = Sessions(SessionRepository(database))
        credentials = Credentials("admin-token", made.tokens, sessions)
        verifier = CallerVerifier.load(settings.keyring_dir)
        service = vouching_service(gateway, Vouching(credentials, verifier, made.signer))
        await service.start()
        await put_token(made, "aa", OWNER.grants)
        listening = asyncio.create_task(made.listen())
        await wait_for(made.is_heard, "the ear", 10, every=0.05)
        yield made
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        await service.stop()
    await gateway.close()
    await bus.close()


async def put_token(house: House, id_: str, grants: tuple[Grant, ...]) -> None:
    later = datetime.now(UTC) + timedelta(days=400)
    await house.kept_tokens.insert(
        Token(
            id=id_,
            name="ann",
            subject="ann",
            digest=b"x" * 32,
            grants=grants,
            created_by="admin",
            created_at=later,
            expires_at=later,
        )
    )


async def test_a_policy_runs_at_its_slots_for_whom_it_was_made(house: House) -> None:
    made = await house.create()
    assert made.next_runs == ["2026-05-04T03:00:00Z", "2026-05-05T03:00:00Z", "2026-05-06T03:00:00Z"]
    assert (made.subject, made.last_run, made.last_success, made.late) == ("ann", None, "", False)
    await house.until(MORNING + 3 * 3600 - 1)
    assert not house.shelf.begun
    await house.until(MORNING + 3 * 3600)
    await house.until(MORNING + 4 * 3600)
    assert (len(house.shelf.begun), house.shelf.subjects) == (1, ["ann"])
    shown = await house.get()
    assert shown.last_run is not None
    assert (shown.last_run.state, shown.last_run.slot) == ("completed", "2026-05-04T03:00:00Z")
    assert shown.last_run.backup_id == house.shelf.begun[0]
    assert (shown.last_success, shown.late) == ("2026-05-04T03:00:00Z", False)
    await house.until(MORNING + DAY_S + 3 * 3600)
    assert len(house.shelf.begun) == 2


async def test_after_a_downtime_the_missed_slots_become_one_run(house: House) -> None:
    await house.create()
    await house.until(MORNING + 5 * DAY_S + 4 * 3600)
    (run,) = await house.runs()
    assert (run.slot, run.state, run.caught_up) == ("2026-05-09T03:00:00Z", "completed", True)
    await house.until(MORNING + 6 * DAY_S + 4 * 3600)
    assert [run.caught_up for run in await house.runs()] == [False, True]


async def test_a_run_that_is_still_going_lets_the_next_be_skipped_visibly(house: House) -> None:
    await house.create()
    house.shelf.ends = False
    await house.until(MORNING + 4 * 3600)
    await house.until(MORNING + DAY_S + 4 * 3600)
    skipped, going = await house.runs()
    assert (going.state, skipped.state, skipped.backup_id) == ("running", "skipped", "")
    assert "still going" in skipped.error
    with house.acting(OWNER), pytest.raises(Conflict):
        await house.policies.run(PolicyRef("nightly"))
    house.shelf.kept[going.backup_id].status = "completed"
    await house.until(MORNING + 2 * DAY_S + 4 * 3600)
    assert len(house.shelf.begun) == 2


async def test_a_paused_policy_rests_and_catches_nothing_up(house: House) -> None:
    await house.create()
    with house.acting(OWNER):
        paused = await house.policies.pause(PausePolicy(name="nightly", paused=True))
    assert (paused.spec.paused, paused.next_runs) == (True, [])
    await house.until(MORNING + 3 * DAY_S)
    with house.acting(OWNER):
        await house.policies.pause(PausePolicy(name="nightly", paused=False))
    await house.until(MORNING + 3 * DAY_S + 60)
    assert not house.shelf.begun
    assert not house.alerts
    await house.until(MORNING + 3 * DAY_S + 3 * 3600)
    assert len(house.shelf.begun) == 1


async def test_a_policy_runs_now_when_it_is_told_to_even_while_it_is_paused(house: House) -> None:
    await house.create(spec=PolicySpec(clusters=["prod"], schedule="0 3 * * *", paused=True))
    with house.acting(OWNER):
        begun = await house.policies.run(PolicyRef("nightly"))
    assert (begun.state, begun.slot) == ("pending", "")
    await house.until(MORNING + 1)
    (run,) = await house.runs()
    assert (run.id, run.state) == (begun.id, "completed")


async def test_a_revoked_token_lets_the_run_fail_and_an_alert_tells_of_it(house: House) -> None:
    await house.create()
    await house.tokens.revoke(ADMINISTRATOR, "aa")
    await house.until(MORNING + 3 * 3600)
    (run,) = await house.runs()
    assert (run.state, house.shelf.begun) == ("failed", [])
    (alert,) = await house.heard(1)
    assert (alert.type, alert.subject, alert.severity) == ("io.kubelore.backup.failed", "prod", "critical")
    assert (alert.data["policy"], alert.data["slot"]) == ("nightly", "2026-05-04T03:00:00Z")
    assert "not valid" in alert.data["message"]
    assert "another one" in alert.data["remedy"]
    await house.until(MORNING + 3 * 3600 + 5, house.successor())
    assert [alert.type for alert in house.alerts].count("io.kubelore.backup.failed") == 1


async def test_grants_that_were_narrowed_since_let_the_run_fail(house: House) -> None:
    await house.create()
    await house.tokens.revoke(ADMINISTRATOR, "aa")
    await put_token(house, "aa", (Grant(role="viewer", clusters=("prod",)),))
    await house.until(MORNING + 4 * 3600)
    (run,) = await house.runs()
    assert (run.state, house.shelf.begun) == ("failed", [])
    assert "does not have the right 'backup'" in run.error


async def test_a_backup_that_fails_alerts_and_one_that_is_late_does_too_each_once(house: House) -> None:
    await house.create()
    house.shelf.ends = False
    await house.until(MORNING + 3 * 3600)
    await house.until(MORNING + 4 * 3600 + 1)
    (late,) = await house.heard(1)
    assert (late.type, late.severity) == ("io.kubelore.backup.late", "warning")
    assert late.data["last_success"] == ""
    assert (await house.get()).late
    (backup,) = house.shelf.kept.values()
    backup.status, backup.error = "failed", "the disk is full"
    await house.until(MORNING + 5 * 3600)
    await house.until(MORNING + 6 * 3600, house.successor())
    assert [alert.type for alert in await house.heard(2)] == [
        "io.kubelore.backup.late",
        "io.kubelore.backup.failed",
    ]
    assert "the disk is full" in house.alerts[1].data["message"]
    house.shelf.ends = True
    await house.until(MORNING + DAY_S + 3 * 3600)
    assert not (await house.get()).late
    assert len(house.alerts) == 2


async def test_what_is_away_for_a_moment_delays_a_run_and_does_not_fail_it(house: House) -> None:
    await house.create()
    house.shelf.failure = Unavailable("the store is away")
    await house.until(MORNING + 3 * 3600)
    house.shelf.failure = None
    await house.until(MORNING + 3 * 3600 + RETRY_S + 1)
    assert [run.state for run in await house.runs()] == ["completed"]
    house.shelf.failure = Unavailable("the store is away")
    await house.until(MORNING + DAY_S + 3 * 3600)
    await house.until(MORNING + DAY_S + 3 * 3600 + PATIENCE_S + 1)
    assert [run.state for run in await house.runs()] == ["failed", "completed"]


async def test_backups_beyond_what_a_policy_keeps_go_and_the_last_good_one_stays(house: House) -> None:
    await house.create()
    for day in range(6):
        await house.until(MORNING + day * DAY_S + 4 * 3600)
    await house.until(MORNING + 6 * DAY_S)
    assert sorted(house.shelf.kept) == sorted(house.shelf.begun[-3:])
    with house.acting(OWNER):
        spec = PolicySpec(clusters=["prod"], schedule="0 3 1 1 *", keep_days=1)
        await house.policies.update(UpdatePolicy(name="nightly", spec=spec))
    await house.until(MORNING + 60 * DAY_S)
    assert sorted(house.shelf.kept) == [house.shelf.begun[-1]]
    by_hand = await house.runs()
    assert next(run.backup_id for run in by_hand if run.state == "completed") == house.shelf.begun[-1]


async def test_a_policy_is_seen_and_changed_by_whom_its_scope_allows(house: House) -> None:
    await house.create()
    reader = Caller(subject="ron", grants=(Grant(role="viewer", clusters=("prod",)),), credential="token:bb")
    tenant = Caller(
        subject="tom",
        grants=(Grant(role="admin", rights=("backup",), clusters=("prod",), namespaces=("shop",)),),
        credential="token:cc",
    )
    with house.acting(reader):
        assert [item.name for item in (await house.policies.list(ListPolicies())).items] == ["nightly"]
        for refused in (
            house.policies.delete(PolicyRef("nightly")),
            house.policies.run(PolicyRef("nightly")),
            house.policies.pause(PausePolicy(name="nightly", paused=True)),
            house.policies.update(UpdatePolicy(name="nightly", spec=SPEC)),
            house.policies.create(CreatePolicy(name="mine", spec=SPEC)),
        ):
            with pytest.raises(Forbidden):
                await refused
    with house.acting(tenant):
        assert not (await house.policies.list(ListPolicies())).items
        for hidden in (
            house.policies.get(PolicyRef("nightly")),
            house.policies.runs(ListRuns(name="nightly")),
            house.policies.delete(PolicyRef("nightly")),
            house.policies.run(PolicyRef("nightly")),
            house.policies.get(PolicyRef("no such name")),
        ):
            with pytest.raises(NotFound):
                await hidden
        with pytest.raises(Forbidden):
            await house.policies.create(CreatePolicy(name="mine", spec=SPEC))
    with house.acting(OWNER):
        own = PolicySpec(clusters=["prod"], namespaces=["shop"], schedule="0 3 * * *")
        await house.policies.create(CreatePolicy(name="shop", spec=own))
    with house.acting(tenant):
        assert [item.name for item in (await house.policies.list(ListPolicies())).items] == ["shop"]


async def test_what_no_policy_can_be_is_refused(house: House) -> None:
    await house.create()
    with pytest.raises(AlreadyExists):
        await house.create()
    with house.acting(OWNER):
        with pytest.raises(Invalid):
            await house.policies.create(CreatePolicy(name="a.b", spec=SPEC))
        with pytest.raises(Conflict):
            await house.policies.update(UpdatePolicy(name="nightly", spec=SPEC, revision=7))
        with pytest.raises(Invalid):
            await house.policies.update(
                UpdatePolicy(name="nightly", spec=PolicySpec(clusters=[], schedule="0 3 * * *"))
            )
    passing = Caller(subject="oidc:eve", grants=OWNER.grants, credential="oidc")
    with pytest.raises(Unauthenticated) as refused:
        await house.create("eves", caller=passing)
    assert "API token" in str(refused.value.remedy)


async def test_a_deleted_policy_leaves_its_backups_and_a_new_one_of_its_name_does_not_touch_them(
    house: House,
) -> None:
    await house.create()
    await house.until(MORNING + 4 * 3600)
    with house.acting(OWNER):
        gone = await house.policies.delete(PolicyRef("nightly"))
    assert gone.backups == 1
    await house.create(spec=PolicySpec(clusters=["prod"], schedule="0 3 * * *", keep_count=1))
    for day in (1, 2):
        await house.until(MORNING + day * DAY_S + 4 * 3600)
    await house.until(MORNING + 3 * DAY_S)
    assert sorted(house.shelf.kept) == sorted([house.shelf.begun[0], house.shelf.begun[-1]])


async def test_one_replica_follows_the_schedules_and_another_takes_over(house: House, settings) -> None:
    await house.create()
    house.clock.now = MORNING + 4 * 3600
    buses = [await connect(settings, name="yaml-vcs") for _ in range(2)]
    following = [asyncio.create_task(follow_schedules(Leases(bus), house.successor())) for bus in buses]

    async def runs(count: int) -> bool:
        return [run.state for run in await house.runs()] == ["completed"] * count

    await wait_for(lambda: runs(1), "the first run", 20)
    following[0].cancel()
    house.clock.now += DAY_S
    await wait_for(lambda: runs(2), "the second run", 20)
    for task in following:
        task.cancel()
    await asyncio.gather(*following, return_exceptions=True)
    for bus in buses:
        await bus.close()
    assert len(house.shelf.begun) == 2


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["one", "both", "killed"]),
        st.integers(0, 3 * 3600),
        st.integers(1, 60),
    ),
    min_size=1,
    max_size=8,
)


async def test_whatever_dies_when_every_slot_is_backed_up_once_at_most_and_the_last_one_is(
    house: House,
) -> None:
    loop, names = asyncio.get_running_loop(), (f"p{number}" for number in itertools.count())

    @trying(max_examples=25, deadline=None)
    @given(STEPS)
    def explore(steps: list[tuple[str, int, int]]) -> None:
        asyncio.run_coroutine_threadsafe(go_through(house, next(names), steps), loop).result(60)

    await asyncio.to_thread(explore)


async def go_through(house: House, name: str, steps: list[tuple[str, int, int]]) -> None:
    house.shelf.begun.clear()
    spec = PolicySpec(clusters=["prod"], schedule="*/30 * * * *", jitter_s=600, keep_count=0)
    await house.create(name, spec)
    runners = [house.successor(), house.successor()]
    for how, passes, life in steps:
        house.clock.now += passes
        if how == "killed":
            await killed_after(runners[0], life)
            runners[0] = house.successor()
        else:
            looking = runners if how == "both" else runners[:1]
            await asyncio.gather(*(runner.tick() for runner in looking))
            await asyncio.gather(*(runner.settled() for runner in looking))
    for _ in range(3):
        house.clock.now += RETRY_S + 1
        await house.until(house.clock.now, runners[0])
    runs = await house.runs(name)
    assert len(set(house.shelf.begun)) == len(house.shelf.begun)
    slots = Counter(run.slot for run in runs if run.backup_id in house.shelf.kept)
    assert all(count == 1 for count in slots.values())
    mine = {backup.id for backup in house.shelf.kept.values() if backup.name == name}
    assert mine == {run.backup_id for run in runs if run.state == "completed"}
    assert not [run for run in runs if run.state in ("pending", "running")]
    with house.acting(OWNER):
        await house.policies.delete(PolicyRef(name))


async def killed_after(runner: PolicyRuns, steps: int) -> None:
    """Look, and die with all that was begun after so many turns of the loop."""
    looking = asyncio.create_task(runner.tick())
    for _ in range(steps):
        await asyncio.sleep(0.0005)
    tasks = [looking, *runner._beginning.values()]  # pyright: ignore[reportPrivateUsage]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
