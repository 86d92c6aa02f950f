"""Who may do what: grants, and the one matrix that they are read by. Pure; no input or output.

A grant says what its holder may do in the clusters and namespaces that its
globs match (`*` and `?`). Roles contain one another:

- `viewer` reads objects, never values of Secrets;
- `operator` also writes what Kubernetes' own ClusterRole `edit` lets write
  (kubernetes.io/docs/reference/access-authn-authz/rbac/#user-facing-roles):
  objects in namespaces, but for RBAC, quotas, limits, endpoints;
- `admin` writes everything in its scope.

What lies in no namespace (nodes, CRDs, namespaces themselves), and figures of
whole clusters, need the namespaces glob `*`; a Namespace can be read by whoever
reads in it. The rights `exec`, `secrets` and `backup` come on top of a role and
are contained in none but where a grant names them.

The gateway asks here per request, and the service that holds the data asks
again with the caller that the gateway vouched for (`kubelore.common.callers`).
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Literal, TypeAlias

import msgspec

from kubelore.common.errors import Forbidden, Invalid, NotFound

Role: TypeAlias = Literal["viewer", "operator", "admin"]
Right: TypeAlias = Literal["exec", "secrets", "backup"]

EVERYTHING = "*"
MAX_GRANTS = 50
MAX_GLOBS = 100
NAMESPACES = "namespaces"
WITHHELD = "why is told to who may read all of the cluster"

_RANKS: dict[str, int] = {"viewer": 0, "operator": 1, "admin": 2}
_GLOB = re.compile(r"[a-z0-9*?](?:[-a-z0-9*?]{0,61}[a-z0-9*?])?\Z")

NOT_FOR_OPERATORS = frozenset(
    {"resourcequotas", "limitranges", "endpoints", "endpointslices.discovery.k8s.io", "serviceaccounts/token"}
)
"""Types in namespaces that `edit` does not write; endpoints since CVE-2021-25740."""
_RBAC_GROUPS = (".rbac.authorization.k8s.io", ".authorization.openshift.io")
"""OpenShift serves the same roles and bindings by a second API."""


class Grant(msgspec.Struct, frozen=True, kw_only=True, cache_hash=True):
    """What somebody may do where. `clusters` and `namespaces` are globs."""

    role: Role
    rights: tuple[Right, ...] = ()
    clusters: tuple[str, ...] = (EVERYTHING,)
    namespaces: tuple[str, ...] = (EVERYTHING,)

    def check(self) -> None:
        """Raise Invalid for globs that could match no name, or too many of them."""
        for what, globs in (("clusters", self.clusters), ("namespaces", self.namespaces)):
            if not 0 < len(globs) <= MAX_GLOBS:
                raise Invalid(f"a grant needs between 1 and {MAX_GLOBS} {what}", remedy="Write * for all.")
            for glob in globs:
                if not _GLOB.match(glob):
                    raise Invalid(
                        f"{glob[:80]!r} matches no name in {what}",
                        remedy="Use lower-case letters, digits, '-', '*' and '?'.",
                    )


class Namespaces(msgspec.Struct, frozen=True):
    """The namespaces of one cluster that somebody has a role or right in."""

    globs: frozenset[str] = frozenset()

    @property
    def everything(self) -> bool:
        """Whether that is every namespace, and what lies in none."""
        return EVERYTHING in self.globs

    @property
    def nothing(self) -> bool:
        """Whether there is none at all."""
        return not self.globs

    def matches(self, namespace: str) -> bool:
        """Whether a namespace is one of them."""
        return self.everything or any(fnmatch.fnmatchcase(namespace, glob) for glob in self.globs)


class Caller(msgspec.Struct, frozen=True, kw_only=True, cache_hash=True):
    """Somebody who was authenticated, and what was granted to them.

    `subject` is the name that audit and history show; `credential` says how it
    was proved: `admin`, `token:<id>`, `session:<id>` or `oidc`.
    """

    subject: str
    grants: tuple[Grant, ...] = ()
    credential: str = ""

    @property
    def unrestricted(self) -> bool:
        """Whether every object of every cluster may be read."""
        return any(EVERYTHING in grant.clusters and EVERYTHING in grant.namespaces for grant in self.grants)

    @property
    def administers_everything(self) -> bool:
        """Whether the caller is an administrator of all clusters, as adding clusters and making tokens needs."""
        return any(
            grant.role == "admin" and EVERYTHING in grant.clusters and EVERYTHING in grant.namespaces
            for grant in self.grants
        )

    def sees(self, cluster: str) -> bool:
        """Whether anything of a cluster may be read."""
        return not self.namespaces(cluster).nothing

    def namespaces(self, cluster: str, role: Role = "viewer", right: Right | None = None) -> Namespaces:
        """Where in a cluster the caller has at least the role and, when one is asked for, the right."""
        return _namespaces(self.grants, cluster, role, right)

    def may_read(self, cluster: str, type_name: str, namespace: str, name: str) -> bool:
        """Whether an object may be read; `type_name` is canonical (`deployments.apps`)."""
        granted = self.namespaces(cluster)
        if granted.everything:
            return True
        home = name if type_name == NAMESPACES else namespace
        return bool(home) and granted.matches(home)

    def told(self, cluster: str, reason: str) -> str:
        """Why a cluster is not well; withheld from who sees only part of it.

        It may be in the API server's own words, which name Kubelore's account there, types and namespaces.
        """
        return reason if not reason or self.namespaces(cluster).everything else WITHHELD

    def check_cluster(self, cluster: str) -> None:
        """Raise NotFound for a cluster that the caller may not know of."""
        if not self.sees(cluster):
            raise no_such_cluster(cluster)

    def check_whole_cluster(self, cluster: str, what: str, role: Role = "viewer") -> None:
        """Raise NotFound or Forbidden unless the caller has the role in all of a cluster."""
        self.check_cluster(cluster)
        if not self.namespaces(cluster, role).everything:
            raise Forbidden(
                f"{self.subject} may not {what} {cluster}",
                remedy=f"Ask for a grant with the role {role} and the namespaces * on it.",
            )

    def check_write(self, cluster: str, type_name: str, namespace: str) -> None:
        """Raise NotFound or Forbidden unless the caller may change objects of a type there.

        `namespace` is empty for what lies in none.
        """
        self.check_cluster(cluster)
        role: Role = "admin" if not namespace or _only_for_admins(type_name) else "operator"
        granted = self.namespaces(cluster, role)
        if granted.everything or (namespace and granted.matches(namespace)):
            return
        place = f"in {cluster}/{namespace}" if namespace else f"of the whole cluster {cluster}"
        needed = f"the role {role}" + (" there" if namespace else " and the namespaces *")
        raise Forbidden(
            f"{self.subject} may not change {type_name} {place}",
            remedy=f"Ask for a grant with {needed}; `kubelore whoami` shows yours.",
        )

    def check_right(self, right: Right, cluster: str, namespace: str) -> None:
        """Raise NotFound or Forbidden unless the caller has a right in a namespace (empty: the whole cluster)."""
        self.check_cluster(cluster)
        granted = self.namespaces(cluster, right=right)
        if not (granted.everything or (namespace and granted.matches(namespace))):
            place = f"{cluster}/{namespace}" if namespace else f"all of {cluster}"
            raise Forbidden(
                f"{self.subject} does not have the right {right!r} in {place}",
                remedy="Ask for a grant that names the right.",
            )

    def check_admin(self, what: str) -> None:
        """Raise Forbidden unless the caller administers everything (adding clusters, making tokens)."""
        if not self.administers_everything:
            raise Forbidden(
                f"{self.subject} may not {what}",
                remedy="That needs the role admin on the clusters * and the namespaces *.",
            )


ADMINISTRATOR = Caller(
    subject="admin",
    grants=(Grant(role="admin", rights=("exec", "secrets", "backup")),),
    credential="admin",
)
"""Whoever holds the administrator's token of an installation."""


def no_such_cluster(name: str) -> NotFound:
    """What a caller is told of a cluster that does not exist, or that is not for them: the same."""
    return NotFound(
        f"there is no cluster named {name!r}", remedy="`kubelore clusters list` shows their names."
    )


def covers(held: Iterable[Grant], asked: Grant) -> bool:
    """Whether one of the grants held contains all of another: nobody may hand out more than they have."""
    return any(
        _RANKS[grant.role] >= _RANKS[asked.role]
        and set(asked.rights) <= set(grant.rights)
        and _contain(grant.clusters, asked.clusters)
        and _contain(grant.namespaces, asked.namespaces)
        for grant in held
    )


def _contain(held: tuple[str, ...], asked: tuple[str, ...]) -> bool:
    # A glob is contained in itself and in *; whether other globs contain one another is not decided here.
    return EVERYTHING in held or set(asked) <= set(held)


def _only_for_admins(type_name: str) -> bool:
    return type_name in NOT_FOR_OPERATORS or type_name.endswith(_RBAC_GROUPS)


@lru_cache(maxsize=8192)
def _namespaces(grants: tuple[Grant, ...], cluster: str, role: Role, right: Right | None) -> Namespaces:
    globs: set[str] = set()
    for grant in grants:
        fits = _RANKS[grant.role] >= _RANKS[role] and (right is None or right in grant.rights)
        if fits and any(fnmatch.fnmatchcase(cluster, glob) for glob in grant.clusters):
            globs.update(grant.namespaces)
    return Namespaces(frozenset(globs))
