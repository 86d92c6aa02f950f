"""What log policies and alerts say, checked and read. Pure.

A rule names clusters; whoever makes, changes or sees one administers all of
each of them. Collecting acts for nobody: what a rule collects or watches is
what the installation itself may read there.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TypeVar

import msgspec

from kubelore.common.authz import Caller
from kubelore.common.contracts.identity import check_cluster_name, is_cluster_name
from kubelore.common.contracts.log_policies import LogAlertSpec, LogPolicySpec, LogScope
from kubelore.common.errors import BadRequest, Forbidden, Invalid, NotFound
from kubelore.common.kube.selectors import LabelSelector
from kubelore.container_ops.log_filter import LineFilter
from kubelore.container_ops.pod_watch import LoggedContainer
from kubelore.container_ops.targets import PodSelection

MAX_CLUSTERS = 100
MAX_GLOBS = 100
MAX_GLOB = 253
MAX_DAYS = 3650
MAX_BYTES = 1 << 50
MAX_COUNT = 1_000_000
MAX_SECONDS = 86_400

_WILD = frozenset("*?[")


class PolicyRule(msgspec.Struct, kw_only=True):
    """A policy as it is kept. `uid` is its own for good: a later one of the same name has another.

    Times are seconds since 1970; `gone` says that it collects no more and what it
    held goes by its limits.
    """

    uid: str
    name: str
    spec: LogPolicySpec
    subject: str
    created_at: float
    updated_at: float
    revision: int = 1
    gone: bool = False


class AlertRule(msgspec.Struct, kw_only=True):
    """An alert as it is kept; `raised` and `last_raised` are its figures."""

    uid: str
    name: str
    spec: LogAlertSpec
    subject: str
    created_at: float
    updated_at: float
    revision: int = 1
    raised: int = 0
    last_raised: float = 0.0


Rule = TypeVar("Rule", PolicyRule, AlertRule)


def check_name(name: str) -> str:
    """Raise Invalid for what no rule can be called."""
    if not is_cluster_name(name):
        raise Invalid(f"{name[:80]!r} is no name for this", remedy="Use lower-case letters, digits and '-'.")
    return name


def check_policy(spec: LogPolicySpec) -> None:
    """Raise Invalid or BadRequest for what no policy can be."""
    check_scope(spec.scope)
    if not 1 <= spec.days <= MAX_DAYS:
        raise Invalid(f"logs are kept between 1 and {MAX_DAYS} days")
    if not 0 <= spec.max_bytes <= MAX_BYTES:
        raise Invalid("max_bytes is a number of bytes", remedy="Write 0 for no limit.")


def check_alert(spec: LogAlertSpec) -> None:
    """Raise Invalid or BadRequest for what no alert can be."""
    check_scope(spec.scope)
    if spec.filter.since or spec.filter.until:
        raise Invalid("an alert is about lines as they are written", remedy="Leave the times out.")
    LineFilter(spec.filter)
    for what, number, least, most in (
        ("count", spec.count, 1, MAX_COUNT),
        ("window_s", spec.window_s, 1, MAX_SECONDS),
        ("rest_s", spec.rest_s, 0, MAX_SECONDS),
    ):
        if not least <= number <= most:
            raise Invalid(f"{what} lies between {least} and {most}")


def check_scope(scope: LogScope) -> None:
    """Raise Invalid or BadRequest for a scope that can mean nothing."""
    if not 0 < len(scope.clusters) <= MAX_CLUSTERS:
        raise Invalid(
            f"a rule is about 1 to {MAX_CLUSTERS} clusters, not {len(scope.clusters)}",
            remedy="Name some that are onboarded; `kubelore clusters list` shows them.",
        )
    for cluster in scope.clusters:
        check_cluster_name(cluster)
    for globs in (scope.namespaces, scope.containers):
        if len(globs) > MAX_GLOBS or any(not 0 < len(glob) <= MAX_GLOB for glob in globs):
            raise Invalid(f"at most {MAX_GLOBS} globs of at most {MAX_GLOB} characters each")
    if scope.labels:
        LabelSelector.parse(scope.labels)


def check_administers(caller: Caller, scope: LogScope, what: str) -> None:
    """Raise NotFound or Forbidden unless somebody administers all of every cluster of a scope."""
    for cluster in scope.clusters:
        caller.check_whole_cluster(check_cluster_name(cluster), what, "admin")


def administers(caller: Caller, scope: LogScope) -> bool:
    """Whether somebody administers all of every cluster of a scope, and so sees the rule."""
    try:
        check_administers(caller, scope, "see the rules of")
    except (Forbidden, NotFound, BadRequest):
        return False
    return True


def selection(scope: LogScope) -> PodSelection:
    """The pods that have to be watched for a scope; what `covers` then narrows."""
    exact = not any(_WILD & set(glob) for glob in scope.namespaces)
    return PodSelection(namespaces=tuple(sorted(set(scope.namespaces))) if exact else (), labels=scope.labels)


def covers(scope: LogScope, container: LoggedContainer) -> bool:
    """Whether a container of the selection is meant."""
    named = container.id
    return _fits(named.namespace, scope.namespaces) and _fits(named.container, scope.containers)


def keeper(policies: Iterable[PolicyRule]) -> PolicyRule | None:
    """Of policies that want the same container, the one that collects it: what keeps longest, then most."""

    def rank(policy: PolicyRule) -> tuple[int, float, str]:
        return -policy.spec.days, -(policy.spec.max_bytes or float("inf")), policy.name

    return min(policies, key=rank, default=None)


def iso(at: float) -> str:
    """A time in UTC by the second; empty for 0."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z") if at else ""


def _fits(name: str, globs: tuple[str, ...]) -> bool:
    return not globs or any(fnmatch.fnmatchcase(name, glob) for glob in globs)
