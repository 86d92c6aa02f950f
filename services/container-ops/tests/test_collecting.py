"""Collecting logs from simulated and real containers: every line stored once, whatever dies meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from kubelore.common.bus import Leases
from kubelore.common.contracts.alerts import LOG_ALERT, CloudEvent, alert_subject, source_of
from kubelore.common.contracts.containers import SERVICE
from kubelore.common.contracts.log_policies import LogAlertSpec, LogPolicySpec, LogScope
from kubelore.common.contracts.logs import LogFilter
from kubelore.common.crypto import Keyring
from kubelore.common.settings import CommonSettings
from kubelore.common.store import BlobStore, Database, open_database
from kubelore.container_ops import node_collection
from kubelore.container_ops.alerting import LEFT_S, Alerting
from kubelore.container_ops.collector import Collector, fair_share
from kubelore.container_ops.log_rule_repository import LogRuleRepository
from kubelore.container_ops.log_rules import AlertRule, PolicyRule, iso
from kubelore.container_ops.pod_watch import PodWatch
from kubelore.container_ops.segment_blocks import unpack_block
from kubelore.container_ops.segment_repository import SegmentScope
from kubelore.container_ops.segment_store import SegmentStore
from kubelore.container_ops.segments import StreamGap
from kubelore.container_ops.wanted import WantedContainers
from kubelore.lab.kubectl import Kubectl
from kubelore.lab.waiting import wait_for

CALM_S = 40.0
COUNTING = "i=0; while true; do i=$((i+1)); echo line $i; [ $((i % {burst})) -ne 0 ] || sleep {pause}; done"


@dataclass
class Keep:
    """A store and rules, and replicas that collect by them."""

    scene: Any
    database: Database
    repository: LogRuleRepository
    store: SegmentStore
    replicas: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    collectors: dict[str, Collector] = field(default_factory=dict)

    async def policy(self, name: str = "all", **scope: Any) -> PolicyRule:
        spec = LogPolicySpec(scope=LogScope(clusters=(self.scene.name,), **scope))
        rule = PolicyRule(uid=f"u-{name}", name=name, spec=spec, subject="", created_at=0, updated_at=0)
        await self.repository.policies.insert(rule)
        return rule

    async def alert(self, scope: dict[str, Any], **spec: Any) -> None:
        meant = LogAlertSpec(scope=LogScope(clusters=(self.scene.name,), **scope), **spec)
        rule = AlertRule(uid="alert", name="errors", spec=meant, subject="", created_at=0, updated_at=0)
        await self.repository.alerts.insert(rule)

    def collect(self, replica: str = "one", flush_s: float = 0.5) -> None:
        bus = self.scene.bus
        collector = Collector(
            Leases(bus) if replica == "one" else Leases(_Named(bus, replica)),  # type: ignore[arg-type]
            replica,
            self.scene.reach,
            WantedContainers(self.repository, PodWatch(self.scene.reach)),
            self.repository,
            self.store,
            Alerting(self.repository, bus),
            flush_s=flush_s,
            max_containers=100,
        )
        self.collectors[replica] = collector
        self.replicas[replica] = asyncio.create_task(collector.run())

    async def stop(self, replica: str = "one") -> None:
        task = self.replicas.pop(replica)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def lines(self, policy: str = "u-all") -> dict[str, list[str]]:
        """The stored lines of each container, in the order in which they were stored."""
        found: dict[str, list[tuple[int, str]]] = {}
        segments = await self.store.repository.overlapping(
            SegmentScope(clusters=(self.scene.name,), policy=policy), newest_first=False, limit=1000
        )
        for segment in sorted(segments, key=lambda one: (one.owner, one.sequence)):
            numbers, sealer = range(len(segment.index.blocks)), self.store.sealer(segment)
            pieces = await self.store.read(segment, numbers)
            for number, piece in zip(numbers, pieces, strict=True):
                block = unpack_block(sealer.open(piece, number))
                for line, place in zip(block.lines(), block.columns.streams(), strict=True):
                    key = segment.index.streams[place].key
                    found.setdefault(f"{key.pod}/{key.restart}", []).append((line.at, line.text.decode()))
        return {name: [text for _, text in lines] for name, lines in found.items()}

    async def until(
        self, condition: Callable[[dict[str, list[str]]], bool], policy: str = "u-all"
    ) -> dict[str, list[str]]:
        """What is stored, once it fulfils a condition."""

        async def fulfilled() -> dict[str, list[str]] | None:
            found = await self.lines(policy)
            return found if found and condition(found) else None

        found = await wait_for(fulfilled, "lines to be stored", CALM_S)
        assert found is not None
        return found

    async def kill(self, replica: str = "one") -> None:
        """End a replica as `kill -9` does, for what it kept in memory: nothing more is stored, no lease given back."""
        collector = self.collectors[replica]
        for collection, task in collector._held.values():
            task.cancel()
            for one in collection._tasks.values():
                one.cancel()
            collection._owners.clear()
        await self.stop(replica)

    async def gaps(self) -> list[StreamGap]:
        segments = await self.store.repository.overlapping(
            SegmentScope(clusters=(self.scene.name,)), newest_first=False, limit=1000
        )
        return [gap for one in segments for stream in one.index.streams for gap in stream.gaps]


class _Named:
    """The bus of another replica."""

    def __init__(self, bus: Any, replica: str) -> None:
        self._bus = bus
        self.replica = replica

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)


@contextlib.asynccontextmanager
async def keeping(scene: Any, settings: CommonSettings, folder: Path) -> AsyncIterator[Keep]:
    async with await open_database(settings) as database:
        repository = LogRuleRepository(database)
        await repository.prepare()
        keyring = Keyring.create(folder / "logs.json", "logs")
        (folder / "segments").mkdir()
        store = SegmentStore(database, BlobStore.open((folder / "segments").as_uri()), keyring)
        await store.prepare()
        keep = Keep(scene, database, repository, store)
        try:
            yield keep
        finally:
            for replica in list(keep.replicas):
                await keep.stop(replica)


@pytest_asyncio.fixture(loop_scope="session")
async def keep(simulated: Any, settings: CommonSettings, tmp_path: Path) -> AsyncIterator[Keep]:
    async with keeping(simulated, settings, tmp_path) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="session")
async def real_keep(real: Any, settings: CommonSettings, tmp_path: Path) -> AsyncIterator[Keep]:
    async with keeping(real, settings, tmp_path) as made:
        yield made


async def read_log(keep: Keep, namespace: str, pod: str) -> list[str]:
    whole = b"".join([chunk async for chunk in keep.scene.client.logs(namespace, pod)])
    return whole.decode().splitlines()


async def test_all_pods_of_a_namespace_are_collected_whole(keep: Keep) -> None:
    await keep.policy(namespaces=("team-01",))
    keep.collect()
    await keep.until(lambda found: len(found) == 2)
    await keep.stop()
    for name, lines in (await keep.lines()).items():
        log = await read_log(keep, "team-01", name.partition("/")[0])
        # Meanwhile its first lines may have been rotated away.
        kept = lines[lines.index(log[0]) :]
        assert kept == log[: len(kept)]
        assert len(kept) > 1900


async def test_what_starts_again_repeats_and_loses_nothing(keep: Keep) -> None:
    await keep.policy(namespaces=("team-01",))
    seen = 0
    for _ in range(3):
        keep.collect()
        found = await keep.until(lambda found: sum(map(len, found.values())) > seen)  # noqa: B023
        seen = sum(map(len, found.values()))
        await keep.stop()
    for name, lines in (await keep.lines()).items():
        log = await read_log(keep, "team-01", name.partition("/")[0])
        # Meanwhile its first lines may have been rotated away.
        kept = lines[lines.index(log[0]) :]
        assert kept == log[: len(kept)]
        assert len(kept) > 1900


async def test_a_container_that_two_policies_want_is_collected_once(keep: Keep) -> None:
    await keep.policy("all", namespaces=("team-01",))
    await keep.policy("some", namespaces=("team-0*",))
    keep.collect()
    await keep.until(lambda found: len(found) == 2)
    await keep.until(lambda found: len(found) == 9, "u-some")
    await keep.stop()
    assert not (await keep.lines()).keys() & (await keep.lines("u-some")).keys()


async def test_two_replicas_share_the_nodes_and_store_no_line_twice(keep: Keep) -> None:
    await keep.policy()
    keep.collect("one")
    keep.collect("two")
    await keep.until(lambda found: len(found) == 12)

    async def shared() -> bool:
        holders = await Leases(keep.scene.bus).holders("logs.")
        return len({replica for key, replica in holders.items() if "replica=" not in key}) == 2

    await wait_for(shared, "both to collect", CALM_S)
    await keep.until(lambda found: min(map(len, found.values())) > 3)
    for replica in ("one", "two"):
        await keep.stop(replica)
    for lines in (await keep.lines()).values():
        assert max(Counter(lines).values()) == 1


async def test_other_credentials_of_the_cluster_lose_and_repeat_no_line(keep: Keep) -> None:
    await keep.policy(namespaces=("team-01",))
    keep.collect()
    seen = 0
    for _ in range(3):
        found = await keep.until(lambda found: sum(map(len, found.values())) > seen)  # noqa: B023
        seen = sum(map(len, found.values()))
        await keep.scene.rotate(keep.scene.name)
    await keep.until(lambda found: sum(map(len, found.values())) > seen)
    await keep.stop()
    for name, lines in (await keep.lines()).items():
        log = await read_log(keep, "team-01", name.partition("/")[0])
        kept = lines[lines.index(log[0]) :]
        assert kept == log[: len(kept)]


async def test_a_removed_cluster_is_collected_from_no_more(keep: Keep, monkeypatch) -> None:
    monkeypatch.setattr(node_collection, "GRACE_S", 1.0)
    await keep.policy(namespaces=("team-01",))
    keep.collect()
    await keep.until(lambda found: len(found) == 2)
    assert not await no_node_is_held(keep)
    await keep.scene.remove(keep.scene.name)
    await wait_for(lambda: no_node_is_held(keep), "the nodes to be given back", CALM_S)


async def no_node_is_held(keep: Keep) -> bool:
    holders = await Leases(keep.scene.bus).holders("logs.")
    return all("replica=" in key for key in holders)


async def test_a_paused_policy_collects_no_more(keep: Keep) -> None:
    rule = await keep.policy(namespaces=("team-01",))
    keep.collect()
    await keep.until(lambda found: len(found) == 2)
    assert not await no_node_is_held(keep)
    rule.spec = LogPolicySpec(scope=rule.spec.scope, paused=True)
    rule.revision = 2
    await keep.repository.policies.replace(rule, 1)
    await wait_for(lambda: no_node_is_held(keep), "the nodes to be given back", CALM_S)


async def test_matching_lines_raise_an_alert_once_until_it_has_rested(keep: Keep) -> None:
    heard: list[CloudEvent] = []

    async def listen() -> None:
        alerts = keep.scene.bus.subscribe_events("kubelore.v1.events.alert.>", CloudEvent)
        heard.extend([await anext(alerts)])
        heard.extend([one async for one in alerts])

    listening = asyncio.create_task(listen())
    await keep.alert(
        {"namespaces": ("team-01",)}, filter=LogFilter(regex="."), severity="critical", per="cluster"
    )
    keep.collect()

    async def told() -> bool:
        return bool(heard)

    await wait_for(told, "an alert", CALM_S)
    await keep.stop()
    listening.cancel()
    [alert] = heard
    assert (alert.severity, alert.subject, alert.data["alert"]) == ("critical", keep.scene.name, "errors")
    assert alert.data["container"].startswith(f"{keep.scene.name}:team-01:")


async def test_an_alert_whose_replica_died_before_it_was_told_is_told_by_another(keep: Keep) -> None:
    await keep.alert({"namespaces": ("team-01",)}, filter=LogFilter(regex="."))
    rule, what, now = await keep.repository.alerts.get("errors"), f"{keep.scene.name}:a:b:c", time.time()
    raised = CloudEvent(
        id="an-id",
        source=source_of(SERVICE),
        type=LOG_ALERT,
        subject=keep.scene.name,
        time=iso(now),
        data={"alert": "errors"},
        severity="warning",
    )
    assert await keep.repository.claim_raise(rule, what, now, msgspec.json.encode(raised))

    async def told_by(later_s: float) -> dict[str, int]:
        await Alerting(keep.repository, keep.scene.bus, clock=lambda: now + later_s).tell_left()
        asked = {"subjects_filter": "kubelore.v1.events.alert.>"}
        return (await keep.scene.bus.jetstream("STREAM.INFO.EVENTS", asked))["state"].get("subjects") or {}

    assert await told_by(LEFT_S / 2) == {}
    assert await told_by(LEFT_S + 1) == {alert_subject(raised): 1}
    assert await keep.repository.untold(now + 3600) == []


@pytest.mark.parametrize(
    ("nodes", "replicas", "share"), [(0, 1, 0), (5, 2, 3), (4, 2, 2), (3, 0, 3), (1, 3, 1)]
)
def test_nobody_takes_more_than_a_share(nodes: int, replicas: int, share: int) -> None:
    assert fair_share(nodes, replicas) == share


# on the real cluster


@pytest_asyncio.fixture(loop_scope="session")
async def namespace(real: Any) -> AsyncIterator[str]:
    name = f"keep-{secrets.token_hex(3)}"
    kubectl = real.clusters[real.name].kubectl()
    await kubectl("create", "namespace", name)
    yield name
    await kubectl("delete", "namespace", name, "--wait=false")


async def run_counting(keep: Keep, namespace: str, pod: str, script: str, restart: str = "Never") -> Kubectl:
    kubectl = keep.scene.clusters[keep.scene.name].kubectl()
    await kubectl(
        *("run", pod, "-n", namespace, "--image=kubelore.local/busybox:1", f"--restart={restart}"),
        *("--image-pull-policy=Never", "--labels=app=counting", "--command", "--", "sh", "-c", script),
    )
    return kubectl


@pytest.mark.lab
@pytest.mark.node
async def test_a_killed_collector_loses_and_repeats_nothing_of_a_real_container(
    real_keep: Keep, namespace: str
) -> None:
    await run_counting(real_keep, namespace, "counting", COUNTING.format(burst=200, pause=0.2))
    await real_keep.policy(namespaces=(namespace,))
    for least in (500, 1500, 3000):
        real_keep.collect()
        await real_keep.until(lambda found: len(found.get("counting/0", ())) >= least)  # noqa: B023
        await real_keep.kill()
    lines = (await real_keep.lines())["counting/0"]
    assert lines == [f"line {number + 1}" for number in range(len(lines))]


@pytest.mark.lab
@pytest.mark.node
async def test_the_run_before_a_restart_is_collected_too(real_keep: Keep, namespace: str) -> None:
    script = "for i in $(seq 5); do echo run $i; done; [ -e /tmp/x ] && sleep 600; exit 1"
    kubectl = await run_counting(real_keep, namespace, "restarting", script, "Always")

    async def restarted() -> bool:
        count = "jsonpath={.status.containerStatuses[0].restartCount}"
        return await kubectl("get", "pod", "restarting", "-n", namespace, "-o", count) not in ("", "0")

    await wait_for(restarted, "a restart", CALM_S)
    await real_keep.policy(namespaces=(namespace,))
    real_keep.collect()
    found = await real_keep.until(lambda found: len(found) >= 2)
    assert all(lines[:5] == [f"run {number}" for number in range(1, 6)] for lines in found.values())


@pytest.mark.lab
@pytest.mark.node
async def test_the_logs_of_a_pod_stay_when_it_is_gone(real_keep: Keep, namespace: str) -> None:
    kubectl = await run_counting(real_keep, namespace, "short", "for i in $(seq 1000); do echo line $i; done")
    await real_keep.policy(namespaces=(namespace,), labels="app=counting")
    real_keep.collect()
    await real_keep.until(lambda found: len(found.get("short/0", ())) == 1000)
    await kubectl("delete", "pod", "short", "-n", namespace, "--now")
    await real_keep.stop()
    assert len((await real_keep.lines())["short/0"]) == 1000
