"""Names and identities: clusters, resource types and resource ids.

A resource id is `cluster:type:namespace:name` with an empty namespace for
cluster-scoped things. Only the last part may contain `:` (names of RBAC
objects do), hence ids are split from the left a fixed number of times.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from kubelore.common.errors import BadRequest

_DNS_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?\Z")
_PATH_SEGMENT = re.compile(r"[^/%\x00-\x1f\x7f]{1,253}\Z")
_RESOURCE_TYPE = re.compile(r"[a-z0-9](?:[-a-z0-9.]{0,250}[a-z0-9])?\Z")


def check_cluster_name(name: str) -> str:
    """Return the name when it is a DNS label (RFC 1123): safe as a NATS token, a host name and a key.

    Raises BadRequest otherwise.
    """
    if not _DNS_LABEL.match(name):
        raise BadRequest(
            f"{name[:80]!r} is no cluster name",
            remedy="Use lower-case letters, digits and '-', at most 63, starting and ending with a letter or digit.",
        )
    return name


def is_cluster_name(name: str) -> bool:
    """Whether the name could be a cluster's."""
    return _DNS_LABEL.match(name) is not None


MAX_NAMESPACES = 100


def check_namespaces(names: Iterable[str]) -> list[str]:
    """The names sorted, each once, when all are names of namespaces (RFC 1123 labels).

    Raises BadRequest for one that is none, and for more than 100.
    """
    found = sorted(set(names))
    for name in found:
        if not _DNS_LABEL.match(name):
            raise BadRequest(f"{name[:80]!r} is no name of a namespace")
    if len(found) > MAX_NAMESPACES:
        raise BadRequest(
            f"{len(found)} namespaces are more than the {MAX_NAMESPACES} that can be named",
            remedy="Give credentials that may list the whole cluster, and name no namespaces.",
        )
    return found


def slug(name: str) -> str:
    """A cluster name made from any context name, such as an EKS ARN; never empty."""
    tail = name.rsplit("/", 1)[-1] or name
    cleaned = re.sub(r"[^a-z0-9]+", "-", tail.lower()).strip("-")[:63].strip("-")
    return cleaned or "cluster"


class ResourceId(msgspec.Struct, frozen=True, order=True):
    """`cluster:type:namespace:name`; `str()` writes it, `parse` reads it."""

    cluster: str
    type: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.cluster}:{self.type}:{self.namespace}:{self.name}"

    @classmethod
    def parse(cls, text: str) -> ResourceId:
        """Read an id; raises BadRequest when it is not one."""
        parts = text.split(":", 3)
        if len(parts) != 4:
            raise BadRequest(
                f"{text[:120]!r} is no resource id",
                remedy="Write cluster:type:namespace:name (namespace may be empty).",
            )
        cluster, kind, namespace, name = parts
        check_cluster_name(cluster)
        if not _RESOURCE_TYPE.match(kind):
            raise BadRequest(
                f"{kind[:80]!r} is no resource type", remedy="Write it as kubectl does: deployments.apps"
            )
        if namespace and not _DNS_LABEL.match(namespace):
            raise BadRequest(f"{namespace[:80]!r} is no namespace")
        if not _PATH_SEGMENT.match(name) or name in (".", ".."):
            raise BadRequest(f"{name[:80]!r} is no object name")
        return cls(cluster, kind, namespace, name)
