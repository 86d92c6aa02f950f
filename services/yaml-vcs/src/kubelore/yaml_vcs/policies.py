"""What is versioned of each cluster, and for how long: set by its administrators, followed by every replica."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

import msgspec

from kubelore.common.callers import current_caller
from kubelore.common.contracts.identity import check_cluster_name
from kubelore.common.contracts.keeping import (
    ListVersionPolicies,
    PolicyList,
    Retention,
    VersionPolicy,
    VersionPolicyRef,
)
from kubelore.common.errors import BadRequest, KubeloreError
from kubelore.common.telemetry import get_logger
from kubelore.yaml_vcs.keeping_repository import KeepingRepository
from kubelore.yaml_vcs.normalising import DEFAULT, Normaliser, Policy, Rule

log = get_logger(__name__)

AGE_S = 3.0
"""How old what a replica knows of the policies may be, while MongoDB answers."""
MAX_GLOBS = 200
MAX_NAME = 317
MAX_PATH = 16


class Policies:
    """The policies as this replica knows them, read again every three seconds."""

    def __init__(self, repository: KeepingRepository, clock: Callable[[], float] = time.time) -> None:
        self._repository = repository
        self._clock = clock
        self._known: dict[str, VersionPolicy] = {}
        self._normalisers: dict[str, Normaliser] = {}
        self._default = Normaliser()

    def of(self, cluster: str) -> Normaliser:
        """What takes the objects of a cluster apart now."""
        return self._normalisers.get(cluster, self._default)

    def retention(self, cluster: str) -> Retention:
        """How long the versions of a cluster are kept."""
        return self._known[cluster].retention if cluster in self._known else Retention()

    async def refresh(self) -> None:
        """Read every policy. Raises Unavailable."""
        known = {one.cluster: one for one in await self._repository.all()}
        for name, policy in known.items():
            if self._known.get(name) != policy:
                self._normalisers[name] = Normaliser(_compiled(policy))
        for name in self._normalisers.keys() - known.keys():
            del self._normalisers[name]
        self._known = known

    async def run(self) -> None:
        """Follow the policies until cancelled; while MongoDB is away, what was known holds."""
        while True:
            await asyncio.sleep(AGE_S)
            try:
                await self.refresh()
            except KubeloreError as error:
                log.info("policies not read", error=error.reason)

    # what administrators ask

    async def list(self, _request: ListVersionPolicies) -> PolicyList:
        """Every policy of clusters that the caller administers."""
        caller = current_caller()
        found = await self._repository.all()
        return PolicyList([one for one in found if caller.namespaces(one.cluster, "admin").everything])

    async def get(self, request: VersionPolicyRef) -> VersionPolicy:
        """The policy of a cluster, the defaults where it has none. Raises Forbidden, NotFound."""
        _check(request.cluster, "see the policy of")
        return await self._repository.get(request.cluster) or VersionPolicy(cluster=request.cluster)

    async def put(self, request: VersionPolicy) -> VersionPolicy:
        """Set the policy of a cluster. Raises Forbidden, NotFound, BadRequest."""
        _check(request.cluster, "set the policy of")
        _check_policy(request)
        return await self._keep(request)

    async def drop(self, request: VersionPolicyRef) -> VersionPolicy:
        """Go back to the defaults, under a number of their own. Raises Forbidden, NotFound."""
        _check(request.cluster, "set the policy of")
        return await self._keep(VersionPolicy(cluster=request.cluster))

    async def _keep(self, policy: VersionPolicy) -> VersionPolicy:
        by = current_caller().subject
        kept = await self._repository.put(
            msgspec.structs.replace(policy, changed_by=by, changed_at=self._clock())
        )
        log.info("policy set", cluster=kept.cluster, number=kept.number, subject=by)
        await self.refresh()
        return kept


def _check(cluster: str, what: str) -> None:
    current_caller().check_whole_cluster(check_cluster_name(cluster), what, "admin")


def _check_policy(policy: VersionPolicy) -> None:
    globs = [
        *policy.include_types,
        *policy.exclude_types,
        *policy.include_namespaces,
        *policy.exclude_namespaces,
    ]
    names: Iterable[str] = [*globs, *policy.exclude_labels, *policy.exclude_labels.values()]
    paths = [path for rule in policy.rules for path in rule.paths]
    names = [*names, *(rule.types for rule in policy.rules), *(name for path in paths for name in path)]
    if max(len(globs), len(policy.exclude_labels), len(policy.rules), len(paths)) > MAX_GLOBS:
        raise BadRequest(f"a policy has at most {MAX_GLOBS} globs, labels, rules and paths each")
    if any(len(name) > MAX_NAME or not name.isprintable() for name in names):
        raise BadRequest(f"a name in a policy has at most {MAX_NAME} printable characters")
    if any(not 0 < len(path) <= MAX_PATH or not all(path) for path in paths):
        raise BadRequest(f"a path has 1 to {MAX_PATH} names")
    if not (policy.include_types and policy.include_namespaces):
        raise BadRequest("a policy includes at least one type and one namespace", remedy="Write * for all.")
    rules = policy.retention
    if not min(rules.days, rules.max_days, rules.max_versions, rules.max_bytes) >= 0:
        raise BadRequest("a bound of retention is not negative", remedy="Write 0 for none.")
    if rules.max_days and rules.max_days < rules.days:
        raise BadRequest("`max_days` is not less than `days`, for which everything is kept")


def _compiled(policy: VersionPolicy) -> Policy:
    own = tuple(Rule(types=rule.types, paths=tuple(map(tuple, rule.paths))) for rule in policy.rules)
    return Policy(
        rules=(*DEFAULT.rules, *own),
        included_types=tuple(policy.include_types),
        excluded_types=(*DEFAULT.excluded_types, *policy.exclude_types),
        included_namespaces=tuple(policy.include_namespaces),
        excluded_namespaces=tuple(policy.exclude_namespaces),
        excluded_labels=tuple(sorted(policy.exclude_labels.items())),
        number=policy.number,
    )
