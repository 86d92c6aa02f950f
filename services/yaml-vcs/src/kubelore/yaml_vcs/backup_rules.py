"""What a backup holds when nobody says which types, and the lists that are asked for it: rules as data, no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from kubelore.common.authz import Caller
from kubelore.common.contracts.changes import UNPUBLISHED
from kubelore.common.contracts.resources import TypeInfo

NAMESPACES = "namespaces"
SECRETS = "secrets"

NOT_KEPT = UNPUBLISHED | {
    "componentstatuses",
    "nodes.metrics.k8s.io",
    "pods.metrics.k8s.io",
}
"""Types that clusters make anew by themselves and nobody restores; kept where they are asked for by name."""


class Listing(NamedTuple):
    """One list that is asked of a cluster; `namespace` is empty for all of them. `only` keeps objects of these names."""

    type: str
    namespace: str = ""
    labels: str = ""
    only: frozenset[str] = frozenset()


def listings(
    served: Iterable[TypeInfo], *, types: Sequence[str], namespaces: Sequence[str], labels: str
) -> list[Listing]:
    """What is to be listed in a cluster that serves these types.

    Limited to namespaces, what lies in none is left out, but for the Namespaces
    themselves: without them nothing could be restored. They are told by their
    names, whatever the labels.
    """
    chosen = [found for found in served if (found.name in types if types else found.name not in NOT_KEPT)]
    if not namespaces:
        return [Listing(found.name, labels=labels) for found in chosen]
    made = [
        Listing(found.name, namespace, labels)
        for found in chosen
        if found.namespaced
        for namespace in namespaces
    ]
    if any(found.name == NAMESPACES for found in chosen):
        made.insert(0, Listing(NAMESPACES, only=frozenset(namespaces)))
    return made


def may_read_all(caller: Caller, clusters: Iterable[str], namespaces: Sequence[str]) -> bool:
    """Whether the caller may read all of a scope; without namespaces, that is whole clusters."""
    return all(_covers(caller, cluster, namespaces) for cluster in clusters)


def may_see_values(caller: Caller, cluster: str, namespaces: Sequence[str]) -> bool:
    """Whether the caller may see the values of every Secret of a scope in a cluster."""
    granted = caller.namespaces(cluster, right="secrets")
    return granted.everything or (bool(namespaces) and all(granted.matches(name) for name in namespaces))


def check_backup_right(caller: Caller, clusters: Iterable[str], namespaces: Sequence[str]) -> None:
    """Raise NotFound or Forbidden unless the caller has the right `backup` in all of a scope."""
    for cluster in clusters:
        for namespace in namespaces or ("",):
            caller.check_right("backup", cluster, namespace)


def _covers(caller: Caller, cluster: str, namespaces: Sequence[str]) -> bool:
    granted = caller.namespaces(cluster)
    return granted.everything or (bool(namespaces) and all(granted.matches(name) for name in namespaces))
