"""What cluster-registry answers: clusters, their credentials (sealed), tests and health."""

from __future__ import annotations

from typing import Literal

import msgspec

from kubelore.common.contracts.endpoint import Endpoint

SERVICE = "cluster-registry"

Provider = Literal["aws", "huawei", "aliyun", "tencent", "azure", "google", "other"]
Status = Literal["connected", "disconnected", "error"]
Health = Literal["healthy", "degraded", "unhealthy", "unknown"]
Happened = Literal["added", "removed", "updated", "connected", "disconnected", "synced"]


class ClusterConnection(msgspec.Struct, kw_only=True, omit_defaults=False):
    """One onboarded cluster as everybody may see it; its kubeconfig stays sealed with the registry.

    `id` equals `name`. Times are ISO 8601 in UTC. `resource_count` is what the
    observer holds, None until it has said so once.
    """

    id: str
    name: str
    display_name: str
    context: str
    server: str
    provider: Provider = "other"
    region: str = ""
    version: str = ""
    status: Status = "disconnected"
    health_status: Health = "unknown"
    status_detail: str = ""
    created_by: str = ""
    created_at: str = ""
    updated_at: str = ""
    last_sync_time: str | None = None
    resource_count: int | None = None
    tags: list[str] = []
    group: str = ""
    description: str = ""
    namespaces: list[str] = []
    """What of the cluster is observed; empty means all of it."""
    credentials_expire_at: str | None = None
    """When the first of the client certificate and the token stops working; None when neither says."""
    renews_token: bool = False
    """Whether Kubelore renews the service account's token before it expires."""
    kube_system_uid: str = ""
    generation: int = 1
    """Rises with every change of credentials or namespaces; an observer reconnects when it does."""


class Sealed(msgspec.Struct):
    """A kubeconfig sealed to the registry's public key (crypto.Recipient), and the context chosen from it."""

    kubeconfig: bytes
    context: str | None = None


class AddCluster(msgspec.Struct, kw_only=True):
    """Onboard a cluster. The sealed box is bound to the purpose `kubeconfig:<name>`."""

    name: str
    sealed: Sealed
    display_name: str | None = None
    provider: Provider | None = None
    region: str | None = None
    group: str = ""
    tags: list[str] = []
    description: str = ""
    namespaces: list[str] = []
    """Observe these alone, for credentials that reach no further; empty means the whole cluster."""
    renew_token: bool = False
    """Renew the service account's token before it expires; its account must be allowed to."""
    allow_duplicate: bool = False
    new_history: bool = False


class UpdateCluster(msgspec.Struct, kw_only=True):
    """Change what is said of a cluster; what is UNSET stays as it is."""

    id: str
    display_name: str | msgspec.UnsetType = msgspec.UNSET
    provider: Provider | msgspec.UnsetType = msgspec.UNSET
    region: str | msgspec.UnsetType = msgspec.UNSET
    group: str | msgspec.UnsetType = msgspec.UNSET
    tags: list[str] | msgspec.UnsetType = msgspec.UNSET
    description: str | msgspec.UnsetType = msgspec.UNSET
    namespaces: list[str] | msgspec.UnsetType = msgspec.UNSET


class RotateKubeconfig(msgspec.Struct, kw_only=True):
    """Give a cluster other credentials. The sealed box is bound to the purpose `kubeconfig:<id>`."""

    id: str
    sealed: Sealed
    renew_token: bool = False


class InspectKubeconfig(msgspec.Struct):
    """Read a kubeconfig without storing it. The sealed box is bound to the purpose `kubeconfig:inspect`."""

    sealed: Sealed


class ContextReport(msgspec.Struct, kw_only=True):
    """What one context of a kubeconfig holds, and whether it could be added as it is."""

    name: str
    cluster: str
    user: str
    server: str
    namespace: str
    authentication: str
    """token, client-certificate, exec, auth-provider, basic or none."""
    suggested_name: str
    usable: bool
    refusal: str | None = None
    """Machine-readable code, as in KubeconfigRefused.code."""
    detail: str | None = None
    remedy: str | None = None
    certificate_expires_at: str | None = None
    token_expires_at: str | None = None


class Inspection(msgspec.Struct):
    """Every context of a kubeconfig."""

    contexts: list[ContextReport]
    current_context: str | None


class ListClusters(msgspec.Struct, kw_only=True):
    """Filter and page; `after` is the last name of the page before."""

    tag: str | None = None
    group: str | None = None
    provider: str | None = None
    status: str | None = None
    limit: int = 500
    after: str | None = None


class ClusterPage(msgspec.Struct):
    """Clusters by name; `next` is the `after` of the page behind, None at the end."""

    items: list[ClusterConnection]
    total: int
    next: str | None = None


class ClusterRef(msgspec.Struct):
    """Which cluster."""

    id: str


class ListRoster(msgspec.Struct):
    """A page of every cluster, for the services; `after` is the last name of the page before."""

    after: str | None = None


class Group(msgspec.Struct, kw_only=True):
    """A group of clusters, and how many of its members the caller sees."""

    name: str
    description: str = ""
    clusters: int = 0
    created_by: str = ""
    created_at: str | None = None
    updated_at: str | None = None


class GroupRef(msgspec.Struct):
    """Which group."""

    name: str


class ListGroups(msgspec.Struct, kw_only=True):
    """A page of groups; `after` is the last name of the page before."""

    limit: int = 500
    after: str | None = None


class GroupPage(msgspec.Struct):
    """Groups by name; `next` is the `after` of the page behind, None at the end."""

    items: list[Group]
    total: int
    next: str | None = None


class CreateGroup(msgspec.Struct, kw_only=True):
    """Make a group without members."""

    name: str
    description: str = ""


class UpdateGroup(msgspec.Struct, kw_only=True):
    """Describe a group, or give it another name with all its members; what is UNSET stays as it is."""

    name: str
    rename: str | msgspec.UnsetType = msgspec.UNSET
    description: str | msgspec.UnsetType = msgspec.UNSET


class TestStep(msgspec.Struct, kw_only=True):
    """One step of a connection test: dns, tcp, tls, authentication, authorization or version."""

    __test__ = False
    name: str
    ok: bool | None
    """None when an earlier step failed and this one was not tried."""
    detail: str
    remedy: str | None = None
    latency_ms: float | None = None


class ConnectionTest(msgspec.Struct, kw_only=True):
    """The outcome of a connection test, step by step."""

    cluster: str
    ok: bool
    steps: list[TestStep]
    version: str = ""
    latency_ms: float | None = None
    certificate_expires_at: str | None = None
    certificate_days_left: int | None = None
    """Whole days until the client certificate expires; below zero once it has."""
    token_expires_at: str | None = None
    token_days_left: int | None = None
    namespaces: list[str] = []
    """Where rights were judged; empty means across the cluster."""
    verbs: dict[str, list[str]] = {}
    """The verbs allowed, by main type; `*` alone where all are allowed on everything."""
    skipped_types: list[str] = []
    """Types that may not be listed and watched, and are therefore left out."""


class Credentials(msgspec.Struct, kw_only=True):
    """The sealed kubeconfig of a cluster, for the services that hold the `clusters` keyring.

    `sealed` opens with `Keyring.open(sealed, context=f"cluster:{id}")` to the
    msgpack of `kube.ClusterAccess`.
    """

    id: str
    generation: int
    kube_system_uid: str
    sealed: bytes
    namespaces: list[str] = []
    """What may be observed; empty means the whole cluster."""


class PublicKey(msgspec.Struct):
    """The registry's X25519 public key (32 raw bytes)."""

    key: bytes


class Empty(msgspec.Struct):
    """Nothing to say."""


class Removed(msgspec.Struct):
    """The cluster is gone from the registry; its history stays."""

    id: str


RECIPIENT = Endpoint(SERVICE, "recipient", Empty, PublicKey, on_behalf=False)
INSPECT = Endpoint(SERVICE, "inspect", InspectKubeconfig, Inspection)
ADD = Endpoint(SERVICE, "add", AddCluster, ClusterConnection, deadline_s=20.0)
LIST = Endpoint(SERVICE, "list", ListClusters, ClusterPage, callers=("gateway", "yaml-vcs"))
ROSTER = Endpoint(
    SERVICE,
    "roster",
    ListRoster,
    ClusterPage,
    on_behalf=False,
    callers=("gateway", "resource-ops", "container-ops"),
)
UPDATE = Endpoint(SERVICE, "update", UpdateCluster, ClusterConnection)
ROTATE = Endpoint(SERVICE, "rotate", RotateKubeconfig, ClusterConnection, deadline_s=20.0)
LIST_GROUPS = Endpoint(SERVICE, "list-groups", ListGroups, GroupPage)
GET_GROUP = Endpoint(SERVICE, "get-group", GroupRef, Group)
CREATE_GROUP = Endpoint(SERVICE, "create-group", CreateGroup, Group)
UPDATE_GROUP = Endpoint(SERVICE, "update-group", UpdateGroup, Group)
DELETE_GROUP = Endpoint(SERVICE, "delete-group", GroupRef, Empty)
GET = Endpoint(SERVICE, "get", ClusterRef, ClusterConnection, callers=("gateway", "yaml-vcs"))
REMOVE = Endpoint(SERVICE, "remove", ClusterRef, Removed)
TEST = Endpoint(SERVICE, "test", ClusterRef, ConnectionTest, deadline_s=20.0)
CREDENTIALS = Endpoint(
    SERVICE,
    "credentials",
    ClusterRef,
    Credentials,
    on_behalf=False,
    callers=("resource-ops", "container-ops"),
)

ENDPOINTS = (
    RECIPIENT,
    INSPECT,
    ADD,
    LIST,
    ROSTER,
    GET,
    UPDATE,
    ROTATE,
    REMOVE,
    TEST,
    CREDENTIALS,
    LIST_GROUPS,
    GET_GROUP,
    CREATE_GROUP,
    UPDATE_GROUP,
    DELETE_GROUP,
)


class ClusterEvent(msgspec.Struct, kw_only=True):
    """What happened to a cluster: published on `kubelore.v1.events.cluster.<cluster>.<happened>`."""

    cluster: str
    happened: Happened
    at: float
    """Seconds since the epoch, UTC."""
    actor: str = ""
    generation: int = 0
    detail: str = ""
    as_of: float | None = None
    """With `synced`: until when the cluster answered, None when it never did; `detail` is the observer's status then."""
    resource_count: int | None = None
    """With `synced`: how many objects the observer holds; None while it has not read them once."""
    error: str = ""
    """With `synced`: why the observer is not live."""


def cluster_event_subject(event: ClusterEvent) -> str:
    """The subject an event about a cluster is published on."""
    return f"kubelore.v1.events.cluster.{event.cluster}.{event.happened}"
