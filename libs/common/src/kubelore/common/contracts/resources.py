"""What resource-ops answers: queries over the read model, objects, types and the state of observers."""

from __future__ import annotations

from typing import Literal

import msgspec

from kubelore.common.contracts.endpoint import Endpoint
from kubelore.common.frames import Dictionary

SERVICE = "resource-ops"

ObserverStatus = Literal["live", "stale", "syncing", "throttled", "error"]
View = Literal["object", "metadata", "table"]

SortKey = list[str | int | float]
"""The values that order a row: the sort column's value(s), then cluster, type, namespace and name,
so that every row has its own key and a page can start behind any of them."""


class Query(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One page out of the clusters that the asked replica observes.

    `types` are written as kubectl does (short names and singulars too); empty
    means every type. `namespaces` narrow what is in namespaces; a
    cluster-scoped type that is asked for by name comes whole, as with kubectl,
    and with no types named a Namespace counts as in itself. `labels` and
    `fields` are Kubernetes selectors, `search` is matched as a case-insensitive
    substring over name, labels, annotations and images. `sort` is a column (name, namespace, cluster, type, created,
    phase), with `-` before it for descending. `after` is the key of the last
    row of the page before. With `objects` false only keys and ids come back
    (phase one of a fan-out). With `packed` objects come as `Page.packed`
    instead of in rows; tables are never packed.
    """

    clusters: list[str]
    types: list[str] = []
    namespaces: list[str] = []
    labels: str = ""
    fields: str = ""
    search: str = ""
    sort: str = "name"
    limit: int = 500
    after: SortKey | None = None
    view: View = "object"
    objects: bool = True
    exclude_stale: bool = False
    packed: bool = False


class Row(msgspec.Struct, array_like=True):
    """One object of an answer; `object` is raw JSON (whole, PartialObjectMetadata, or table cells)."""

    key: SortKey
    id: str
    object: bytes = b""


class ClusterState(msgspec.Struct, kw_only=True):
    """How far one cluster's rows can be trusted. `as_of` is seconds since the epoch, None before the first sync.

    `count` is how many rows of the cluster match the query. `note` says what is
    not held whole, though nothing is wrong.
    """

    name: str
    status: ObserverStatus
    as_of: float | None = None
    error: str | None = None
    count: int = 0
    note: str | None = None


class Column(msgspec.Struct, kw_only=True):
    """A printer column, as the API server's own Table names it."""

    name: str
    type: str = "string"
    format: str = ""
    priority: int = 0


class Packed(msgspec.Struct, kw_only=True):
    """Objects as they lie in the read model (`kubelore.common.frames`), for whoever unpacks them.

    `frames` holds them one after the other, `lengths` says how many bytes each
    has; none where the object has gone meanwhile. `uses` names for each the
    place in `dictionaries` of the fingerprint it needs, which may be empty. With
    the metadata view the second frame is left out.
    """

    frames: bytes
    lengths: list[int]
    uses: list[int]
    dictionaries: list[str]


class PackedRows(msgspec.Struct, kw_only=True):
    """A page's ids and objects, and the key of the last row, behind which the next page begins."""

    ids: list[str]
    objects: Packed
    last: SortKey | None = None


class Page(msgspec.Struct, kw_only=True):
    """The first `limit` rows behind `after` in the order asked for, and how many match in all.

    With `packed` there are no `rows`.
    """

    rows: list[Row]
    clusters: list[ClusterState]
    total: int
    columns: list[Column] = []
    packed: PackedRows | None = None


class Fetch(msgspec.Struct, kw_only=True):
    """Phase two of a fan-out: the objects of these ids, `packed` as in a query."""

    ids: list[str]
    view: View = "object"
    packed: bool = False


class Objects(msgspec.Struct):
    """Raw JSON per id, in the order asked for; empty bytes where the object has gone meanwhile.

    With `packed` there are no `objects`.
    """

    objects: list[bytes]
    packed: Packed | None = None


class NamedDictionaries(msgspec.Struct):
    """Dictionaries by fingerprint: which are wanted."""

    fingerprints: list[str]


class Dictionaries(msgspec.Struct):
    """Those of the wanted ones that the replica has, by fingerprint.

    They are made of pieces of objects of all clusters, never of Secrets: for
    services, not for anybody outside.
    """

    items: dict[str, Dictionary]


class Get(msgspec.Struct, kw_only=True):
    """One object; with `at_least` the answer waits up to 2 s until that resourceVersion has arrived."""

    id: str
    view: View = "object"
    at_least: str = ""


class Object(msgspec.Struct, kw_only=True):
    """One object as raw JSON, and the state of its cluster's observer."""

    id: str
    object: bytes
    state: ClusterState


class TypeInfo(msgspec.Struct, kw_only=True):
    """A resource type that at least one cluster serves."""

    name: str
    group: str
    version: str
    kind: str
    plural: str
    singular: str
    short_names: list[str]
    namespaced: bool
    clusters: list[str]
    count: int


class ListTypes(msgspec.Struct):
    """Which clusters' types."""

    clusters: list[str] = []


class Types(msgspec.Struct):
    """Types by name."""

    items: list[TypeInfo]


class Counts(msgspec.Struct, kw_only=True):
    """How many of a selection's rows there are by each of four properties; values with none are absent.

    A Namespace object counts under its own name, other cluster-scoped objects
    under the empty namespace; objects without a phase under the empty phase.
    """

    total: int
    clusters: list[ClusterState]
    types: dict[str, int]
    namespaces: dict[str, int]
    phases: dict[str, int]


class ListDigests(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What to compare between clusters, as in a `Query`; `name` narrows to objects of that name.

    `after` is the (type, namespace, name) behind which the page begins.
    """

    clusters: list[str]
    types: list[str]
    namespaces: list[str] = []
    labels: str = ""
    name: str = ""
    after: tuple[str, str, str] | None = None
    limit: int = 1000


class Digest(msgspec.Struct, array_like=True):
    """One object of one cluster, by the cluster's place in the request.

    `digest` are 16 bytes over what was meant (`kube.noise`), empty where only
    the object's metadata is held.
    """

    cluster: int
    digest: bytes


class Digests(msgspec.Struct, array_like=True):
    """One name, and in which clusters there is an object of it."""

    type: str
    namespace: str
    name: str
    held: list[Digest]


class DigestPage(msgspec.Struct, kw_only=True):
    """Names in order. `next` is the last name looked at, None when there are no more behind it."""

    rows: list[Digests]
    clusters: list[ClusterState]
    types: list[str]
    """The types meant, by their canonical names."""
    next: tuple[str, str, str] | None = None


class FetchMeant(msgspec.Struct, kw_only=True):
    """The objects of these ids as they are compared, without what `ignore` (paths) names besides the usual noise."""

    ids: list[str]
    ignore: str = ""


class ResolveTypes(msgspec.Struct):
    """Names of types as people write them: plural, singular, short, kind, with or without a group."""

    names: list[str]


class ResolvedTypes(msgspec.Struct):
    """Their canonical names: `pods`, `deployments.apps`."""

    names: list[str]


class TypeState(msgspec.Struct, kw_only=True):
    """How one type of one cluster is observed."""

    type: str
    status: str
    """live, syncing, stale, skipped (may not be listed), metadata or on-demand (over the budget), or error."""
    count: int
    rv: str = ""
    detail: str = ""


class ObserverReport(msgspec.Struct, kw_only=True):
    """One observer: who holds it, and the state of each type."""

    cluster: str
    replica: str
    status: ObserverStatus
    as_of: float | None
    error: str | None
    objects: int
    published: int
    incarnation: int
    types: list[TypeState] = []
    held_bytes: int = 0
    """Packed bytes of its objects, without rows and indexes."""
    watches: int = 0


class ObserverRef(msgspec.Struct):
    """Which observers of the asked replica; empty means all."""

    clusters: list[str] = []
    types: bool = False


class ObserverReports(msgspec.Struct):
    """Observers by cluster, and what the replica uses of its budgets (0: no limit).

    `memory_bytes` is the estimate of what the read model takes.
    """

    items: list[ObserverReport]
    memory_bytes: int = 0
    memory_budget_bytes: int = 0
    watches: int = 0
    watch_budget: int = 0


class AreYouThere(msgspec.Struct):
    """Asked of a replica that holds leases: when the bus knows nobody of its name, it is dead or cut off."""


class Present(msgspec.Struct):
    """It is, and observes so many clusters."""

    clusters: int


class SyncCluster(msgspec.Struct):
    """Which cluster to look at again now."""

    cluster: str


class ClusterMetricsOf(msgspec.Struct):
    """Whose figures."""

    cluster: str


class Amount(msgspec.Struct, kw_only=True):
    """CPU and memory as Kubernetes writes quantities, and as numbers: cores and bytes.

    `pods` is how many pods fit, where that is counted.
    """

    cpu: str
    memory: str
    cpu_cores: float
    memory_bytes: int
    pods: int | None = None


class Usage(msgspec.Struct, kw_only=True):
    """What `nodes` nodes use together, by metrics.k8s.io, and when the oldest of them was measured."""

    cpu: str
    memory: str
    cpu_cores: float
    memory_bytes: int
    nodes: int
    measured_at: str | None = None


class NodeCount(msgspec.Struct, kw_only=True):
    """Nodes, those that are ready, and those that take new pods."""

    total: int
    ready: int
    schedulable: int


class PodCount(msgspec.Struct, kw_only=True):
    """Pods, and how many are in each phase."""

    total: int
    by_phase: dict[str, int]


class ClusterMetrics(msgspec.Struct, kw_only=True):
    """Figures of a whole cluster. What is None is not known; `missing` says why, by field.

    Capacity, requests and limits are counted over what is observed, as of
    `as_of`; usage is asked of the cluster. Pods that have ended request nothing.
    """

    cluster: str
    status: ObserverStatus
    as_of: float | None
    namespaces: list[str]
    """Pods, requests and limits are those of these namespaces alone; empty means all."""
    nodes: NodeCount | None
    pods: PodCount | None
    capacity: Amount | None
    allocatable: Amount | None
    requests: Amount | None
    limits: Amount | None
    usage: Usage | None
    missing: dict[str, str]


_READERS = ("gateway", "yaml-vcs")
"""The history compares with what is there now, and plans what to write."""

QUERY = Endpoint(SERVICE, "query", Query, Page, scope="replica", deadline_s=1.0, callers=_READERS)
FETCH = Endpoint(SERVICE, "fetch", Fetch, Objects, scope="replica", deadline_s=1.0, callers=_READERS)
GET = Endpoint(SERVICE, "get", Get, Object, scope="replica", deadline_s=3.0, callers=_READERS)
TYPES = Endpoint(SERVICE, "types", ListTypes, Types, scope="replica", deadline_s=1.0, callers=_READERS)
COUNT = Endpoint(SERVICE, "count", Query, Counts, scope="replica", deadline_s=1.0, callers=_READERS)
DIGESTS = Endpoint(SERVICE, "digests", ListDigests, DigestPage, scope="replica", deadline_s=5.0)
MEANT = Endpoint(SERVICE, "meant", FetchMeant, Objects, scope="replica", deadline_s=5.0, callers=_READERS)
RESOLVE = Endpoint(
    SERVICE, "resolve", ResolveTypes, ResolvedTypes, scope="replica", deadline_s=1.0, callers=_READERS
)
OBSERVERS = Endpoint(
    SERVICE, "observers", ObserverRef, ObserverReports, scope="replica", deadline_s=1.0, callers=_READERS
)
DICTIONARIES = Endpoint(
    SERVICE,
    "dictionaries",
    NamedDictionaries,
    Dictionaries,
    scope="replica",
    deadline_s=1.0,
    on_behalf=False,
)
SYNC = Endpoint(SERVICE, "sync", SyncCluster, ObserverReport, scope="replica", deadline_s=15.0)
METRICS = Endpoint(SERVICE, "metrics", ClusterMetricsOf, ClusterMetrics, scope="replica", deadline_s=8.0)

PRESENT = Endpoint(
    *(SERVICE, "present", AreYouThere, Present),
    scope="replica",
    deadline_s=1.0,
    on_behalf=False,
    callers=(SERVICE,),
)

ENDPOINTS = (
    QUERY,
    FETCH,
    GET,
    TYPES,
    COUNT,
    DIGESTS,
    MEANT,
    RESOLVE,
    OBSERVERS,
    DICTIONARIES,
    PRESENT,
    SYNC,
    METRICS,
)


def observer_lease(cluster: str) -> str:
    """The key of the lease (bucket LEASES) whose holder observes a cluster; its value names the replica."""
    return f"observer.{cluster}"
