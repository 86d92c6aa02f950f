"""Which containers' logs are collected or watched, by the rules as they are and the pods as they come and go."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import NamedTuple

import msgspec

from kubelore.common.errors import KubeloreError, NotFound
from kubelore.common.telemetry import get_logger
from kubelore.container_ops.log_rule_repository import LogRuleRepository
from kubelore.container_ops.log_rules import AlertRule, PolicyRule, covers, keeper, selection
from kubelore.container_ops.pod_watch import LoggedContainer, PodWatch

log = get_logger(__name__)

REFRESH_S = 2.0
"""How old what a replica knows of the rules may be, while MongoDB answers."""
RETRY_S = 5.0

ContainerKey = tuple[str, str]
"""What no other container ever has: the uid of its pod, and its name."""


class Node(NamedTuple):
    """A node of a cluster: what one replica collects from at a time."""

    cluster: str
    name: str

    @property
    def lease(self) -> str:
        """The key of its lease; no name of a node has a `_`."""
        return f"logs.{self.cluster}={self.name.replace('.', '_')}"


class Wanted(msgspec.Struct, frozen=True):
    """A container, the policy that collects it (None: nothing is kept), and the alerts that watch it."""

    container: LoggedContainer
    policy: PolicyRule | None
    alerts: tuple[AlertRule, ...]


Plan = dict[Node, dict[ContainerKey, Wanted]]


class WantedContainers:
    """Follows the rules, and the pods that each selects. `changed` is set whenever the plan may be another."""

    def __init__(self, repository: LogRuleRepository, pods: PodWatch) -> None:
        self._repository = repository
        self._pods = pods
        self._rules: dict[str, PolicyRule | AlertRule] = {}
        self._following: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._seen: dict[tuple[str, str], dict[ContainerKey, LoggedContainer]] = {}
        self.policies: frozenset[str] = frozenset()
        """The uids of policies that collect now."""
        self.changed = asyncio.Event()

    async def run(self) -> None:
        """Keep the plan current until cancelled; while MongoDB is away, what was known holds."""
        try:
            while True:
                try:
                    self._take(await self._active())
                except KubeloreError as error:
                    log.info("log rules not read", reason=error.reason)
                await asyncio.sleep(REFRESH_S)
        finally:
            for task in self._following.values():
                task.cancel()
            await asyncio.gather(*self._following.values(), return_exceptions=True)

    def plan(self) -> Plan:
        """What is wanted now, by node."""
        found: dict[ContainerKey, tuple[LoggedContainer, list[PolicyRule | AlertRule]]] = {}
        for (uid, _), containers in self._seen.items():
            rule = self._rules[uid]
            for key, container in containers.items():
                if container.node and covers(rule.spec.scope, container):
                    found.setdefault(key, (container, []))[1].append(rule)
        plan: Plan = {}
        for key, (container, rules) in found.items():
            node = plan.setdefault(Node(container.id.cluster, container.node), {})
            policies = (rule for rule in rules if isinstance(rule, PolicyRule))
            alerts = tuple(rule for rule in rules if isinstance(rule, AlertRule))
            node[key] = Wanted(container, keeper(policies), alerts)
        return plan

    async def _active(self) -> dict[str, PolicyRule | AlertRule]:
        rules = [*await self._repository.policies.all(), *await self._repository.alerts.all()]
        return {rule.uid: rule for rule in rules if not rule.spec.paused}

    def _take(self, rules: dict[str, PolicyRule | AlertRule]) -> None:
        """Watch for what the rules select now, and no longer for what they did."""
        if _said(rules) == _said(self._rules):
            return
        needed = {(uid, cluster) for uid, rule in rules.items() for cluster in rule.spec.scope.clusters}
        for key in list(self._following):
            uid = key[0]
            if key not in needed or selection(rules[uid].spec.scope) != selection(
                self._rules[uid].spec.scope
            ):
                self._following.pop(key).cancel()
                self._seen.pop(key, None)
        self._rules = rules
        self.policies = frozenset(uid for uid, rule in rules.items() if isinstance(rule, PolicyRule))
        for key in needed - self._following.keys():
            self._following[key] = asyncio.create_task(self._follow(*key), name=f"pods of rule {key[0]}")
        self.changed.set()

    async def _follow(self, uid: str, cluster: str) -> None:
        """Keep what a rule selects in a cluster, for as long as the rule is there."""
        while True:
            try:
                stream = self._pods.follow(cluster, selection(self._rules[uid].spec.scope))
                async with aclosing(stream) as batches:
                    seen: dict[ContainerKey, LoggedContainer] = {}
                    async for batch in batches:
                        for one in batch:
                            if one.happening == "ended":
                                seen.pop(one.container.key, None)
                            else:
                                seen[one.container.key] = one.container
                        self._seen[uid, cluster] = seen
                        self.changed.set()
            except NotFound:
                # The cluster is not there (any more): nor is anything to be collected from it.
                self._seen.pop((uid, cluster), None)
                self.changed.set()
            except KubeloreError as error:
                log.info("pods of a rule not watched", cluster=cluster, rule=uid, reason=error.reason)
            await asyncio.sleep(RETRY_S)


def _said(rules: dict[str, PolicyRule | AlertRule]) -> dict[str, int]:
    return {uid: rule.revision for uid, rule in rules.items()}
