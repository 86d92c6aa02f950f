"""What flows over the bus besides requests: who emits which events, who follows them, who holds which leases.

Together with `Endpoint.callers` this is all that a service may do there: the
allow-lists of NATS are made from it (`permissions`). A service that says
something new is entered here first, or the bus refuses it.
"""

from __future__ import annotations

from dataclasses import dataclass

CHANGES = "CHANGES"
FEED = "FEED"
EVENTS = "EVENTS"
PARKED = "PARKED"
LEASES = "LEASES"
CHECKPOINTS = "CHECKPOINTS"

RESOURCE_SUBJECTS = "kubelore.v1.events.resource.*.*"
FENCE_SUBJECTS = "kubelore.v1.fence.*"
EVENT_SUBJECTS = (
    "kubelore.v1.events.cluster.>",
    "kubelore.v1.events.alert.>",
    "kubelore.v1.events.audit.>",
    "kubelore.v1.events.restore.>",
    "kubelore.v1.events.backup.>",
)
PARKED_SUBJECTS = "kubelore.v1.parked.*.*"

FEED_DELIVERY = "kubelore.v1.feed.delivery"
"""The server's own, between CHANGES and FEED."""

STORED = "kubelore.v1.stored"
STORED_SUBJECTS = f"{STORED}.>"
"""The server's own word for each message that CHANGES has on disk, with its subject there behind it."""

CLUSTER_EVENTS = "kubelore.v1.events.cluster.>"
SYNCED_EVENTS = "kubelore.v1.events.cluster.*.synced"


def bucket_stream(bucket: str) -> str:
    """The stream behind a key-value bucket, as every NATS client names it."""
    return f"KV_{bucket}"


def partition_consumer(service: str, partition: int) -> str:
    """The durable of a service for one partition of CHANGES."""
    return f"{service}-p{partition:02d}"


def partition_filter(partition: int) -> str:
    """The subjects of one partition, whatever the cluster."""
    return f"kubelore.v1.events.resource.*.p{partition:02d}"


@dataclass(frozen=True, slots=True)
class Emission:
    """A service publishes events whose subject matches."""

    service: str
    subject: str


@dataclass(frozen=True, slots=True)
class Following:
    """A service reads exactly this pattern of events, from the moment it begins."""

    service: str
    subject: str


@dataclass(frozen=True, slots=True)
class Leasing:
    """A service takes leases whose key matches."""

    service: str
    keys: str


@dataclass(frozen=True, slots=True)
class LeaseWatching:
    """A service follows who holds what under `keys` (a pattern that ends with `>`)."""

    service: str
    keys: str


EMISSIONS = (
    Emission("cluster-registry", "kubelore.v1.events.cluster.*.added"),
    Emission("cluster-registry", "kubelore.v1.events.cluster.*.removed"),
    Emission("cluster-registry", "kubelore.v1.events.cluster.*.updated"),
    Emission("cluster-registry", "kubelore.v1.events.cluster.*.connected"),
    Emission("cluster-registry", "kubelore.v1.events.cluster.*.disconnected"),
    Emission("cluster-registry", "kubelore.v1.events.alert.*.*.cluster-registry"),
    Emission("resource-ops", SYNCED_EVENTS),
    Emission("gateway", "kubelore.v1.events.audit.>"),
    Emission("yaml-vcs", "kubelore.v1.events.restore.*.*"),
    Emission("yaml-vcs", "kubelore.v1.events.backup.*.*"),
    Emission("yaml-vcs", "kubelore.v1.events.alert.*.*.yaml-vcs"),
    Emission("container-ops", "kubelore.v1.events.alert.*.*.container-ops"),
)

FOLLOWINGS = (
    Following("cluster-registry", SYNCED_EVENTS),
    Following("cluster-registry", CLUSTER_EVENTS),
    Following("gateway", CLUSTER_EVENTS),
    Following("resource-ops", CLUSTER_EVENTS),
    Following("container-ops", CLUSTER_EVENTS),
)

LEASINGS = (
    Leasing("cluster-registry", "registry.*"),
    Leasing("gateway", "gateway.*"),
    Leasing("yaml-vcs", "backups.*"),
    Leasing("resource-ops", "observer.*"),
    Leasing("resource-ops", "replica.resource-ops.*"),
    Leasing("yaml-vcs", "restore.*"),
    Leasing("yaml-vcs", "keeping.*"),
    Leasing("container-ops", "logs.*"),
    Leasing("container-ops", "containers.*"),
)

LEASE_WATCHINGS = (
    LeaseWatching("gateway", "observer.>"),
    LeaseWatching("resource-ops", "observer.>"),
    LeaseWatching("resource-ops", "replica.resource-ops.>"),
    LeaseWatching("yaml-vcs", "observer.>"),
    LeaseWatching("container-ops", "logs.>"),
)

CHANGE_PUBLISHERS = ("resource-ops",)
"""Who publishes changes, and keeps their checkpoints."""

CHANGE_CONSUMERS: tuple[str, ...] = ("yaml-vcs",)
"""Who consumes CHANGES, each through durables that are made before anything is published."""

FEED_READERS = ("gateway",)

STATS_READERS = ("gateway",)
"""Who may ask every service for its figures (`$SRV.STATS`)."""
