"""The change contract: what resource-ops publishes about every object of every cluster.

Batches of these records go to `kubelore.v1.events.resource.<cluster>.p<nn>` in
the order of the cluster's watches. The unique key of a change is (cluster,
incarnation, uid, rv): consumers write with it and may see a record twice.
"""

from __future__ import annotations

import zlib
from typing import Literal

import msgspec

PARTITIONS = 16

UNPUBLISHED = frozenset(
    {
        "leases.coordination.k8s.io",
        "events",
        "events.events.k8s.io",
        "endpoints",
        "endpointslices.discovery.k8s.io",
    }
)
"""Types that are read but not published: they change all the time and tell nothing a person would restore."""

Kind = Literal["observed", "created", "updated", "deleted"]


class Was(msgspec.Struct, array_like=True):
    """What a selector could have matched before an update; sent only when it differs from now.

    An update without `old_rv` is one whose past is not known (replayed from a
    checkpoint): then a missing `was` says nothing.
    """

    labels: dict[str, str]
    fields: dict[str, str]


class Change(msgspec.Struct, kw_only=True, omit_defaults=True, tag_field="record", tag="change"):
    """One object at one resourceVersion.

    `object` is the zstd frame of the API server's own JSON after Secrets were
    stripped; for `deleted` it is the last state. When the frame is larger than
    512 KB it is empty and `blob` names the sealed blob that holds it. `at` is
    the observer's time in seconds since the epoch. `hmacs` (Secrets only) maps
    each key to the HMAC of its value, `sealed` holds the values sealed to the
    versions key, bound to (cluster, uid, rv).
    """

    cluster: str
    incarnation: int
    type: str
    uid: str
    id: str
    kind: Kind
    rv: str
    at: float
    old_rv: str = ""
    object: bytes = b""
    blob: str = ""
    was: Was | None = None
    hmacs: dict[str, bytes] | None = None
    sealed: bytes = b""


class Gap(msgspec.Struct, kw_only=True, tag_field="record", tag="gap"):
    """The API server no longer had what happened to a type after `after_rv`: `observed` changes follow.

    With `namespace` it concerns the objects of that namespace alone.
    """

    cluster: str
    incarnation: int
    type: str
    after_rv: str
    at: float
    namespace: str = ""


class Synced(msgspec.Struct, kw_only=True, tag_field="record", tag="synced"):
    """Every object of a type has been published as of `rv`; what a consumer holds and did not see is gone.

    With `namespace` it concerns the objects of that namespace alone.
    """

    cluster: str
    incarnation: int
    type: str
    rv: str
    count: int
    at: float
    namespace: str = ""


class Applied(msgspec.Struct, kw_only=True, tag_field="record", tag="applied"):
    """A write through Kubelore brought an object to `rv`: who, why, and under which operation.

    `operation_id` names the one write, so that a record which comes twice is
    known. For a `delete` that removed the object at once `rv` is empty: it
    belongs to the `deleted` change of the uid. `probable` says that nobody saw
    the API server confirm it: it was found afterwards, by field manager and time;
    `rv` is then empty, too, where somebody else wrote the object since.
    """

    cluster: str
    uid: str
    rv: str
    actor: str
    reason: str
    change_log: str
    operation_id: str
    at: float
    action: str = ""
    probable: bool = False


Record = Change | Gap | Synced | Applied


def partition_of(cluster: str) -> int:
    """The partition (0..15) that carries a cluster; stable across releases (CRC-32 of the name)."""
    return zlib.crc32(cluster.encode()) % PARTITIONS


def change_subject(cluster: str) -> str:
    """The subject all records of one cluster are published on."""
    return f"kubelore.v1.events.resource.{cluster}.p{partition_of(cluster):02d}"
