"""Bodies and answers of writes as people see them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from kubelore.common.contracts.writes import (
    MAX_CHANGE_LOG,
    MAX_REASON,
    Action,
    OperationState,
    PatchType,
    Propagation,
    Result,
)
from kubelore.gateway.schemas import LINE, Namespace

MAX_ITEMS = 1000

BatchAction: TypeAlias = Literal["apply", "patch", "delete", "scale", "restart", "label"]
"""What people ask for themselves; objects are replaced by rollbacks and restores."""

Reason = Annotated[str, StringConstraints(max_length=MAX_REASON, pattern=LINE)]
ChangeLog = Annotated[
    str, StringConstraints(max_length=MAX_CHANGE_LOG, pattern=r"^(?:[^\x00-\x1f\x7f-\x9f]|[\n\t])*$")
]
Id = Annotated[str, StringConstraints(max_length=1000, pattern=LINE)]
Key = Annotated[str, StringConstraints(min_length=1, max_length=317, pattern=LINE)]
LabelValue = Annotated[str, StringConstraints(max_length=63, pattern=LINE)]
AnnotationValue = Annotated[str, StringConstraints(max_length=256 * 1024)]
Selector = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=LINE)]
Version = Annotated[str, StringConstraints(max_length=64, pattern=r"^[-0-9A-Za-z]*$")]


class WriteBody(BaseModel):
    """One operation of a batch. Which fields count depends on the action."""

    model_config = ConfigDict(extra="forbid")

    action: BatchAction
    id: Id = Field(
        "",
        description="The object, for every action but apply.",
        examples=["prod-eu:deployments.apps:shop:web"],
    )
    cluster: Selector | None = Field(None, description="apply: where to.")
    clusters: list[Selector] = Field(
        [], max_length=100, description="apply: names, group:x and tag:y, one item for each cluster."
    )
    manifest: str | dict[str, Any] | None = Field(
        None, description="apply: YAML or JSON text, of several documents too, or one object."
    )
    namespace: Namespace = Field("default", description="apply: where a manifest goes that names none.")
    force: bool = Field(False, description="apply: take over fields that other managers own.")
    patch: dict[str, Any] | list[Any] | None = Field(None, description="patch: what to change.")
    patch_type: PatchType = "merge"
    replicas: int | None = Field(None, ge=0, le=2**31 - 1, description="scale: how many.")
    labels: dict[Key, LabelValue | None] = Field(
        {}, max_length=100, description="label: what to set; null removes."
    )
    annotations: dict[Key, AnnotationValue | None] = Field({}, max_length=100, description="label: the same.")
    overwrite: bool = Field(True, description="label: whether what has another value may be changed.")
    propagation: Propagation | None = Field(None, description="delete: what becomes of dependents.")
    grace_period_s: int | None = Field(None, ge=0, le=86_400, description="delete: time to end in.")
    uid: Version = Field("", description="Only this very object.")
    rv: Version = Field("", description="Only while it has this resourceVersion.")


class BatchBody(BaseModel):
    """Operations on objects of many clusters, as one."""

    model_config = ConfigDict(extra="forbid")

    operations: list[WriteBody] = Field(min_length=1, max_length=MAX_ITEMS)
    dry_run: bool = Field(False, description="Let the API servers do all but store it.")
    stop_on_error: bool = Field(False, description="Begin nothing more once one has failed.")
    reason: Reason = Field("", description="Why, for the audit and the object's history.")
    change_log: ChangeLog = ""


class Changed(BaseModel):
    """One place of an object before and after. A side that is left out was not there."""

    path: str = Field(examples=["spec.template.spec.containers[name=web].image"])
    old: Any = None
    new: Any = None
    hidden: bool = Field(
        False, description="True: values of a Secret, or too long; a side that is there is null."
    )


class ItemError(BaseModel):
    """Why an item failed, as in a problem document."""

    model_config = ConfigDict(extra="allow")

    reason: str
    status: int
    detail: str
    remedy: str | None = None
    conflicts: list[dict[str, Any]] | None = Field(
        None, description="Who owns which fields: manager, operation, subresource, at, fields."
    )
    outcome: Literal["unknown"] | None = Field(None, description="Nobody knows whether it happened.")
    operation: str | None = Field(None, description="Ask operations/{id} for what became of it.")


class ItemResult(BaseModel):
    """What became of one object of an operation."""

    index: int = Field(description="Which of the operations.")
    id: str
    cluster: str
    action: Action
    ok: bool
    skipped: bool = Field(False, description="Not begun, since another failed or the time was over.")
    result: Result | None = None
    uid: str | None = None
    rv: str | None = Field(None, description="The new resourceVersion, good for `at_least` of a get.")
    operation: str | None = None
    changes: list[Changed] | None = None
    more: int | None = Field(None, description="Changes that are not listed.")
    error: ItemError | None = None


class BatchReport(BaseModel):
    """Every item's result, in the order of the operations."""

    operation: str
    dry_run: bool
    results: list[ItemResult]
    succeeded: int
    failed: int
    skipped: int


class WriteReport(BaseModel):
    """What one write did."""

    operation: str
    id: str
    uid: str
    rv: str
    result: Result
    dry_run: bool = False
    changes: list[Changed] = []
    more: int = 0


class RecordedWrite(BaseModel):
    """One write of an operation, and what became of it."""

    operation: str
    id: str
    action: Action
    actor: str
    at: float = Field(description="Seconds since the epoch.")
    state: OperationState
    reason: str
    change_log: str
    uid: str
    rv: str
    result: str
    error: str


class RecordedWrites(BaseModel):
    """The writes of an operation."""

    items: list[RecordedWrite]
