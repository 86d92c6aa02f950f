"""Containers: how they are named, and which ones a pod has."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from kubelore.common.contracts.endpoint import Endpoint
from kubelore.common.contracts.identity import check_cluster_name, is_cluster_name
from kubelore.common.errors import BadRequest

SERVICE = "container-ops"

_SUBDOMAIN = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*\Z"
)

ContainerKind = Literal["container", "init", "sidecar", "ephemeral"]
ContainerCondition = Literal["waiting", "running", "terminated"]


class ContainerId(msgspec.Struct, frozen=True, order=True):
    """`cluster:namespace:pod:container`; `str()` writes it, `parse` reads it. An empty container is the pod's default."""

    cluster: str
    namespace: str
    pod: str
    container: str = ""

    def __str__(self) -> str:
        return f"{self.cluster}:{self.namespace}:{self.pod}:{self.container}"

    @classmethod
    def parse(cls, text: str) -> ContainerId:
        """Read an id, of which the last part may be left out. Raises BadRequest when it is none."""
        parts = text.split(":")
        if len(parts) not in (3, 4):
            raise BadRequest(
                f"{text[:120]!r} is no container id", remedy="Write cluster:namespace:pod:container."
            )
        return cls(*parts).checked()

    def checked(self) -> ContainerId:
        """Itself, when each part is a name of its kind. Raises BadRequest."""
        check_cluster_name(self.cluster)
        if not is_cluster_name(self.namespace):
            raise BadRequest(f"{self.namespace[:80]!r} is no name of a namespace")
        if not _SUBDOMAIN.match(self.pod):
            raise BadRequest(f"{self.pod[:80]!r} is no name of a pod")
        if self.container and not is_cluster_name(self.container):
            raise BadRequest(f"{self.container[:80]!r} is no name of a container")
        return self


class PodRef(msgspec.Struct, frozen=True, kw_only=True):
    """One pod of a cluster."""

    cluster: str
    namespace: str
    pod: str


class ContainerInfo(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One container of a pod as the kubelet last said. `id` is a container id; times are RFC 3339."""

    id: str
    name: str
    kind: ContainerKind
    image: str
    condition: ContainerCondition = "waiting"
    reason: str = ""
    ready: bool = False
    restarts: int = 0
    started_at: str = ""
    finished_at: str = ""
    exit_code: int | None = None
    previous: bool = False
    """Whether a former run of it is there, whose log may still be read."""


class PodContainers(msgspec.Struct, kw_only=True):
    """The containers of a pod in the order of its spec: init containers first, ephemeral ones last.

    `default` is the one that is meant when none is named, by kubectl's rule.
    """

    cluster: str
    namespace: str
    pod: str
    uid: str
    phase: str
    node: str
    default: str
    containers: list[ContainerInfo]


CONTAINERS = Endpoint(SERVICE, "containers", PodRef, PodContainers, deadline_s=10.0)

ENDPOINTS = (CONTAINERS,)
