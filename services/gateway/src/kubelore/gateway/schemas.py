"""Request bodies and answers as people see them: pydantic, hence OpenAPI."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from kubelore.common.contracts.clusters import Health, Provider, Status

LINE = r"^[^\x00-\x1f\x7f-\x9f]*$"
"""One line of text: no control character, which a terminal that shows it could take for a command."""

Line = Annotated[str, StringConstraints(max_length=200, pattern=LINE)]
Text = Annotated[str, StringConstraints(max_length=2000, pattern=r"^(?:[^\x00-\x1f\x7f-\x9f]|[\n\t])*$")]
Word = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=r"^[^\x00-\x1f\x7f-\x9f,]*$")]
"""A group or a tag: `clusters=` lists them with commas."""
GroupOrNone = Annotated[str, StringConstraints(max_length=63, pattern=r"^[^\x00-\x1f\x7f-\x9f,]*$")]
Namespace = Annotated[
    str, StringConstraints(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
]
Kubeconfig = Annotated[str, StringConstraints(max_length=1_000_000)]


class AddClusterBody(BaseModel):
    """Onboard a cluster by its kubeconfig."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(description="A DNS label; the cluster's id from now on.", examples=["prod-eu"])
    kubeconfig: Kubeconfig = Field(repr=False, description="The kubeconfig as YAML text, credentials inline.")
    context: str | None = Field(None, max_length=1000, description="Which context, when there are several.")
    display_name: Line | None = None
    provider: Provider | None = Field(None, description="Detected when not given.")
    region: Line | None = Field(None, description="Detected from node labels when not given.")
    group: Word | None = None
    tags: list[Word] = Field([], max_length=50)
    description: Text | None = None
    namespaces: list[Namespace] = Field(
        [], max_length=100, description="Observe these alone; empty means the whole cluster."
    )
    renew_token: bool = Field(
        False,
        description="Renew the service account's token before it expires; its account must be allowed to.",
    )
    allow_duplicate: bool = Field(
        False, description="Add a cluster that is onboarded under another name already."
    )
    new_history: bool = Field(
        False, description="Archive the history of a removed cluster that had this name."
    )


class UpdateClusterBody(BaseModel):
    """Change what is said of a cluster; what is absent or null stays as it is, and empty clears it."""

    model_config = ConfigDict(extra="forbid")

    display_name: Line | None = Field(None, description="Empty: the name.")
    provider: Provider | None = None
    region: Line | None = None
    group: GroupOrNone | None = Field(None, description="Empty: in no group. One that is new is made.")
    tags: list[Word] | None = Field(None, max_length=50, description="All of them; these replace the others.")
    description: Text | None = None
    namespaces: list[Namespace] | None = Field(
        None, max_length=100, description="Observe these alone; empty means the whole cluster."
    )


class RotateBody(BaseModel):
    """Other credentials for the same cluster."""

    model_config = ConfigDict(extra="forbid")

    kubeconfig: Kubeconfig = Field(repr=False, description="The kubeconfig as YAML text, credentials inline.")
    context: str | None = Field(None, max_length=1000, description="Which context, when there are several.")
    renew_token: bool = Field(
        False,
        description="Renew the service account's token before it expires; its account must be allowed to.",
    )


class CreateGroupBody(BaseModel):
    """Make a group without members."""

    model_config = ConfigDict(extra="forbid")

    name: Word
    description: Text = ""


class UpdateGroupBody(BaseModel):
    """Rename a group with all its members, describe it, or both; what is absent or null stays as it is."""

    model_config = ConfigDict(extra="forbid")

    name: Word | None = Field(None, description="The new name.")
    description: Text | None = None


class ClusterGroup(BaseModel):
    """A group of clusters."""

    name: str
    description: str
    clusters: int = Field(description="How many of its clusters the caller sees.")
    created_by: str
    created_at: datetime | None = Field(description="Null for a group that clusters name and nobody made.")
    updated_at: datetime | None


class GroupList(BaseModel):
    """One page of groups by name."""

    items: list[ClusterGroup]
    total: int
    continue_: str | None = Field(None, alias="continue")


class InspectBody(BaseModel):
    """Look into a kubeconfig without storing it."""

    model_config = ConfigDict(extra="forbid")

    kubeconfig: Kubeconfig = Field(repr=False)


class Cluster(BaseModel):
    """One onboarded cluster; its kubeconfig is never shown."""

    id: str
    name: str
    display_name: str
    context: str
    server: str
    provider: Provider
    region: str
    version: str
    status: Status
    health_status: Health
    status_detail: str
    created_by: str
    created_at: datetime
    updated_at: datetime
    last_sync_time: datetime | None
    resource_count: int | None
    tags: list[str]
    group: str
    description: str
    namespaces: list[str] = Field(description="What of it is observed; empty means all.")
    credentials_expire_at: datetime | None = Field(
        description="When the client certificate or the token stops working, where one of them says."
    )
    renews_token: bool = Field(
        description="Whether the service account's token is renewed before it expires."
    )


class ClusterList(BaseModel):
    """One page of clusters by name."""

    items: list[Cluster]
    total: int
    continue_: str | None = Field(None, alias="continue")


class Context(BaseModel):
    """One context of a kubeconfig."""

    name: str
    cluster: str
    user: str
    server: str
    namespace: str
    authentication: str
    suggested_name: str
    usable: bool
    refusal: str | None = None
    detail: str | None = None
    remedy: str | None = None
    certificate_expires_at: str | None = None
    token_expires_at: str | None = None


class InspectionReport(BaseModel):
    """Every context of a kubeconfig and whether it could be added."""

    contexts: list[Context]
    current_context: str | None


class Step(BaseModel):
    """One step of a connection test."""

    name: str
    ok: bool | None = Field(description="None: not tried, since an earlier step failed.")
    detail: str
    remedy: str | None = None
    latency_ms: float | None = None


class TestReport(BaseModel):
    """A connection test, step by step."""

    __test__ = False
    cluster: str
    ok: bool
    steps: list[Step]
    version: str
    latency_ms: float | None = None
    certificate_expires_at: str | None = None
    certificate_days_left: int | None = Field(None, description="Below zero once it has expired.")
    token_expires_at: str | None = None
    token_days_left: int | None = Field(None, description="Below zero once it has expired.")
    namespaces: list[str] = Field([], description="Where rights were judged; empty: across the cluster.")
    verbs: dict[str, list[str]] = Field(
        {}, description="The verbs allowed, by main type; `*` alone where all are allowed on everything."
    )
    skipped_types: list[str] = Field([], description="Types that may not be listed and watched.")


class TypeSync(BaseModel):
    """How one type of a cluster is observed."""

    type: str
    status: str = Field(description="live, syncing, stale, skipped (may not be listed), metadata or error.")
    count: int
    rv: str
    detail: str


class SyncReport(BaseModel):
    """How a cluster is observed, after it was looked at again."""

    cluster: str
    status: Literal["live", "stale", "syncing", "throttled", "error"]
    as_of: datetime | None = Field(description="When the cluster was last heard of.")
    error: str | None
    objects: int
    incarnation: int = Field(description="Rises when another cluster is found under the name.")
    types: list[TypeSync]


class NodeFigures(BaseModel):
    """Nodes, those that are ready, and those that take new pods."""

    total: int
    ready: int
    schedulable: int


class PodFigures(BaseModel):
    """Pods, and how many are in each phase."""

    total: int
    by_phase: dict[str, int]


class AmountFigures(BaseModel):
    """CPU and memory as Kubernetes writes them, and as numbers."""

    cpu: str = Field(examples=["7800m"])
    memory: str = Field(examples=["16Gi"])
    cpu_cores: float
    memory_bytes: int
    pods: int | None = Field(None, description="How many pods fit, with capacity and allocatable.")


class UsageFigures(BaseModel):
    """What the nodes use together, by metrics.k8s.io."""

    cpu: str
    memory: str
    cpu_cores: float
    memory_bytes: int
    nodes: int = Field(description="How many nodes were measured.")
    measured_at: str | None


class MetricsReport(BaseModel):
    """Figures of a cluster; what is null is not known, and `missing` says why."""

    cluster: str
    status: Literal["live", "stale", "syncing", "throttled", "error"]
    as_of: datetime | None = Field(description="Of all but `usage`, which is asked for now.")
    namespaces: list[str] = Field(description="Pods, requests and limits are of these alone; empty: of all.")
    nodes: NodeFigures | None
    pods: PodFigures | None
    capacity: AmountFigures | None
    allocatable: AmountFigures | None
    requests: AmountFigures | None = Field(description="Of all pods that have not ended.")
    limits: AmountFigures | None
    usage: UsageFigures | None
    missing: dict[str, str] = Field(description="Why a field is null, by field.")


class ClusterFreshness(BaseModel):
    """How far the rows of one cluster can be trusted."""

    name: str
    status: Literal["live", "stale", "syncing", "throttled", "error"]
    as_of: datetime | None = Field(description="When the cluster was last heard of.")
    error: str | None
    count: int = Field(description="Rows of this cluster that match, on all pages.")
    note: str | None = Field(
        None, description="What is held as metadata only or listed on demand, over the observer's budgets."
    )


class Item(BaseModel):
    """One object of one cluster."""

    id: str = Field(examples=["prod-eu:pods:shop:web-0"])
    cluster: str
    object: dict[str, Any] | list[Any] = Field(
        description="As the API server sent it; with view=table the cells, in the order of `columns`."
    )


class OneItem(Item):
    """One object, and how far its cluster's rows can be trusted."""

    state: ClusterFreshness = Field(description="`count` is 0 here.")


class ResourceList(BaseModel):
    """One page of objects across clusters."""

    items: list[Item]
    clusters: list[ClusterFreshness]
    partial: bool = Field(description="True when any chosen cluster is not live.")
    total: int
    continue_: str | None = Field(None, alias="continue")
    watch_from: str = Field(description="Pass as `since` to unified/watch to miss nothing after this answer.")
    columns: list[dict[str, Any]] | None = Field(None, description="With view=table: the printer columns.")


class ComparedChange(BaseModel):
    """One place where objects differ."""

    path: str = Field(examples=["spec.template.spec.containers[name=web].image"])
    values: dict[str, Any] = Field(
        description="By cluster; one whose object does not have it is absent. "
        "For values of Secrets a number, equal where they are equal."
    )
    truncated: bool = Field(False, description="Long values are the beginning of their JSON.")


class ComparedItem(BaseModel):
    """One name in the clusters."""

    type: str
    namespace: str
    name: str
    status: Literal["same", "different", "missing", "unknown"] = Field(
        description="missing: in some of them only (where it is, it may differ as well). "
        "unknown: fewer than two clusters can tell."
    )
    clusters: dict[str, Literal["present", "absent", "unknown"]]
    changes: list[ComparedChange]
    more_changes: int = Field(0, description="Differences that are not listed.")


class ComparisonPage(BaseModel):
    """One page of a comparison, by type, namespace and name."""

    items: list[ComparedItem]
    summary: dict[str, int] = Field(description="Every name that was looked at for this page, by status.")
    clusters: list[ClusterFreshness]
    partial: bool = Field(description="True when any chosen cluster is not live.")
    ignored: list[str] = Field(description="Paths that are left out of objects of the types on this page.")
    continue_: str | None = Field(None, alias="continue")


class Summary(BaseModel):
    """Counts of the objects that match."""

    total: int
    types: dict[str, int]
    namespaces: dict[str, int] = Field(
        description="A Namespace counts as in itself; what lies in none is under the empty name."
    )
    namespaces_left_out: int = Field(description="Namespaces with fewer objects than the 2,000 named.")
    phases: dict[str, int] = Field(description="Objects without a phase are under the empty name.")
    clusters: list[ClusterFreshness]
    partial: bool = Field(description="True when any chosen cluster is not live.")


class ResourceTypeItem(BaseModel):
    """A type that some of the clusters serve."""

    name: str = Field(examples=["deployments.apps"])
    group: str
    version: str
    kind: str
    plural: str
    singular: str
    short_names: list[str]
    namespaced: bool
    clusters: list[str] = Field(description="Those that serve it.")
    count: int


class TypeList(BaseModel):
    """Types by name."""

    items: list[ResourceTypeItem]
    clusters: list[ClusterFreshness]
    partial: bool = Field(description="True when any chosen cluster is not live.")


class AuditEntry(BaseModel):
    """One act, or one kind of refusal."""

    id: str = Field(description="The chain and the number of the entry in it.")
    at: datetime
    actor: str = Field(description="Who; empty when nobody was recognised.")
    credential: str = Field(description="How that was proved: admin, token:<id>, session:<id>, oidc.")
    action: str = Field(examples=["clusters.add"])
    resource: str = Field(examples=["prod-eu", "prod-eu:deployments.apps:shop:web", "tokens/1a2b"])
    cluster: str
    address: str = Field(description="Where the request came from.")
    user_agent: str
    outcome: Literal["ok", "refused", "failed", "unknown"] = Field(
        description="unknown: begun, and its end was not seen; perhaps it is under way."
    )
    status: int = Field(description="What the request was answered with; 0 without an end.")
    reason: str
    operation_id: str
    trace_id: str
    took_ms: int
    count: int = Field(description="How many refusals it stands for.")
    since: datetime | None = Field(description="With a count: when the first of them was.")


class AuditList(BaseModel):
    """One page of the audit log, newest first. It may hold fewer than `limit`, and still not be the last."""

    items: list[AuditEntry]
    continue_: str | None = Field(None, alias="continue")
