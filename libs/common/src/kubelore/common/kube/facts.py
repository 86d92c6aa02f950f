"""What a query or a watch must know of an object besides its bytes: decoded once, when the object arrives.

The metadata, the images, the phase, and the fields that Kubernetes lets field
selectors use for the type (pkg/apis/*/v1/conversion.go of Kubernetes 1.34).
Everything else stays raw.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Generic, TypeVar

import msgspec

from kubelore.common.errors import Invalid

T = TypeVar("T")


class Metadata(msgspec.Struct, gc=False, rename="camel"):
    """The parts of `metadata` that are indexed."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    creation_timestamp: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    managed_fields: msgspec.Raw = msgspec.Raw(b"")


class Facts(msgspec.Struct, gc=False):
    """What one object says of itself. `created` is in seconds since the epoch, 0 when unknown.

    `metadata` and `managed` are the raw `metadata`, and in it the raw `managedFields`.
    """

    meta: Metadata
    metadata: bytes
    managed: bytes
    created: int
    images: list[str]
    phase: str
    fields: tuple[str, ...]


class _Container(msgspec.Struct, gc=False):
    image: str = ""


class _PodSpec(msgspec.Struct, gc=False, rename="camel"):
    node_name: str = ""
    restart_policy: str = ""
    scheduler_name: str = ""
    service_account_name: str = ""
    host_network: bool = False
    containers: list[_Container] | None = None
    init_containers: list[_Container] | None = None
    ephemeral_containers: list[_Container] | None = None

    def images(self) -> list[str]:
        lists = (self.containers, self.init_containers, self.ephemeral_containers)
        return [container.image for some in lists if some for container in some if container.image]


class _PodStatus(msgspec.Struct, gc=False):
    phase: str = ""
    podIP: str = ""  # noqa: N815 - the API's own name
    nominatedNodeName: str = ""  # noqa: N815


class _Pod(msgspec.Struct, gc=False):
    metadata: msgspec.Raw = msgspec.Raw(b"")
    spec: _PodSpec | None = None
    status: _PodStatus | None = None


class _Template(msgspec.Struct, gc=False):
    spec: _PodSpec | None = None


class _WorkloadSpec(msgspec.Struct, gc=False):
    template: _Template | None = None


class _WorkloadStatus(msgspec.Struct, gc=False):
    replicas: int = 0
    succeeded: int = 0


class _Workload(msgspec.Struct, gc=False):
    metadata: msgspec.Raw = msgspec.Raw(b"")
    spec: _WorkloadSpec | None = None
    status: _WorkloadStatus | None = None

    def images(self) -> list[str]:
        template = self.spec and self.spec.template
        return template.spec.images() if template and template.spec else []


class _JobTemplate(msgspec.Struct, gc=False):
    spec: _WorkloadSpec | None = None


class _CronJobSpec(msgspec.Struct, gc=False, rename="camel"):
    job_template: _JobTemplate | None = None


class _CronJob(msgspec.Struct, gc=False):
    metadata: msgspec.Raw = msgspec.Raw(b"")
    spec: _CronJobSpec | None = None

    def images(self) -> list[str]:
        job = self.spec and self.spec.job_template
        template = job.spec.template if job and job.spec else None
        return template.spec.images() if template and template.spec else []


class _Reference(msgspec.Struct, gc=False, rename="camel"):
    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""
    api_version: str = ""
    resource_version: str = ""
    field_path: str = ""


class _Source(msgspec.Struct, gc=False):
    component: str = ""


class _Event(msgspec.Struct, gc=False, rename="camel"):
    metadata: msgspec.Raw = msgspec.Raw(b"")
    involved_object: _Reference | None = None
    regarding: _Reference | None = None
    reason: str = ""
    reporting_component: str = ""
    reporting_controller: str = ""
    source: _Source | None = None
    type: str = ""


class _Spec(msgspec.Struct, gc=False, rename="camel"):
    unschedulable: bool = False
    cluster_ip: str = msgspec.field(name="clusterIP", default="")
    type: str = ""
    signer_name: str = ""


class _Phase(msgspec.Struct, gc=False):
    phase: str = ""


class _Simple(msgspec.Struct, gc=False):
    metadata: msgspec.Raw = msgspec.Raw(b"")
    spec: _Spec | None = None
    status: _Phase | None = None
    type: str = ""


class _Any(msgspec.Struct, gc=False):
    metadata: msgspec.Raw = msgspec.Raw(b"")
    status: msgspec.Raw = msgspec.Raw(b"")


class Shape(Generic[T]):
    """How one type is read: its structure, and what comes out of it."""

    def __init__(
        self,
        struct: type[T],
        paths: tuple[str, ...] = (),
        fields: Callable[[T], tuple[str, ...]] = lambda _: (),
        images: Callable[[T], list[str]] = lambda _: [],
        phase: Callable[[T], str] = lambda _: "",
    ) -> None:
        self.paths = paths
        self.decode = msgspec.json.Decoder(struct).decode
        self.fields = fields
        self.images = images
        self.phase = phase


def _flag(value: bool) -> str:
    return "true" if value else "false"


def _pod_fields(pod: _Pod) -> tuple[str, ...]:
    spec, status = pod.spec or _PodSpec(), pod.status or _PodStatus()
    return (
        spec.node_name,
        spec.restart_policy,
        spec.scheduler_name,
        spec.service_account_name,
        _flag(spec.host_network),
        status.phase,
        status.podIP,
        status.nominatedNodeName,
    )


_POD_PATHS = (
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.podIP",
    "status.nominatedNodeName",
)
_REFERENCE_PATHS = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")


def _reference(of: _Reference | None) -> tuple[str, ...]:
    of = of or _Reference()
    return (of.kind, of.namespace, of.name, of.uid, of.api_version, of.resource_version, of.field_path)


def _event_fields(event: _Event) -> tuple[str, ...]:
    component = event.source.component if event.source else ""
    source = component or event.reporting_component
    return (*_reference(event.involved_object), event.reason, event.reporting_component, source, event.type)


def _new_event_fields(event: _Event) -> tuple[str, ...]:
    return (*_reference(event.regarding), event.reason, event.reporting_controller, event.type)


def _simple_phase(of: _Simple) -> str:
    return of.status.phase if of.status else ""


def _replicas(of: _Workload) -> tuple[str, ...]:
    return (str(of.status.replicas if of.status else 0),)


_SHAPES: dict[str, Shape[Any]] = {
    "pods": Shape(
        _Pod,
        _POD_PATHS,
        _pod_fields,
        lambda pod: pod.spec.images() if pod.spec else [],
        lambda pod: pod.status.phase if pod.status else "",
    ),
    "deployments.apps": Shape(_Workload, images=_Workload.images),
    "statefulsets.apps": Shape(_Workload, images=_Workload.images),
    "daemonsets.apps": Shape(_Workload, images=_Workload.images),
    "replicasets.apps": Shape(_Workload, images=_Workload.images),
    "replicationcontrollers": Shape(_Workload, ("status.replicas",), _replicas, _Workload.images),
    "jobs.batch": Shape(
        _Workload,
        ("status.successful",),
        lambda job: (str(job.status.succeeded if job.status else 0),),
        _Workload.images,
    ),
    "cronjobs.batch": Shape(_CronJob, images=_CronJob.images),
    "events": Shape(
        _Event,
        (
            *(f"involvedObject.{path}" for path in _REFERENCE_PATHS),
            "reason",
            "reportingComponent",
            "source",
            "type",
        ),
        _event_fields,
    ),
    "events.events.k8s.io": Shape(
        _Event,
        (*(f"regarding.{path}" for path in _REFERENCE_PATHS), "reason", "reportingController", "type"),
        _new_event_fields,
    ),
    "secrets": Shape(_Simple, ("type",), lambda secret: (secret.type,)),
    "namespaces": Shape(_Simple, ("status.phase",), lambda ns: (_simple_phase(ns),), phase=_simple_phase),
    "nodes": Shape(
        _Simple,
        ("spec.unschedulable",),
        lambda node: (_flag(bool(node.spec and node.spec.unschedulable)),),
    ),
    "services": Shape(
        _Simple,
        ("spec.clusterIP", "spec.type"),
        lambda service: (service.spec.cluster_ip, service.spec.type) if service.spec else ("", ""),
    ),
    "certificatesigningrequests.certificates.k8s.io": Shape(
        _Simple, ("spec.signerName",), lambda request: (request.spec.signer_name if request.spec else "",)
    ),
}

_INDEXED = frozenset({"spec.nodeName", "status.phase"})
"""Fields that are asked for often and have few values."""


def _indexed(shape: Shape[Any]) -> tuple[tuple[int, str], ...]:
    return tuple((place, path) for place, path in enumerate(shape.paths) if path in _INDEXED)


_INDEXED_BY_TYPE = {name: _indexed(shape) for name, shape in _SHAPES.items()}

_metadata = msgspec.json.Decoder(Metadata).decode
_phase = msgspec.json.Decoder(_Phase).decode


def _any_phase(of: _Any) -> str:
    """`status.phase` of any type, where it has one that is a string."""
    if not memoryview(of.status):
        return ""
    try:
        return _phase(of.status).phase
    except msgspec.ValidationError:
        return ""


_ANY: Shape[Any] = Shape(_Any, phase=_any_phase)


def field_paths(type_name: str) -> tuple[str, ...]:
    """The fields besides metadata.name and metadata.namespace that selectors may use for a type."""
    return _SHAPES.get(type_name, _ANY).paths


def indexed_fields(type_name: str) -> tuple[tuple[int, str], ...]:
    """Which of a type's fields are indexed: their place among the fields, and their path."""
    return _INDEXED_BY_TYPE.get(type_name, ())


def read(type_name: str, raw: bytes) -> Facts:
    """Decode what is indexed; raises Invalid when the bytes are no object of the Kubernetes API."""
    shape = _SHAPES.get(type_name, _ANY)
    try:
        try:
            found = shape.decode(raw)
        except msgspec.ValidationError:
            # An object of a known type in an unexpected shape still has its metadata.
            shape = Shape(_Any, shape.paths, lambda _: ("",) * len(shape.paths))
            found = shape.decode(raw)
        metadata = bytes(found.metadata)
        decoded = _metadata(metadata)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Invalid(f"no object of {type_name}: its JSON or its metadata cannot be read") from error
    if not decoded.name:
        raise Invalid(f"no object of {type_name}: it has no name")
    return Facts(
        decoded,
        metadata,
        bytes(decoded.managed_fields),
        _seconds(decoded.creation_timestamp),
        shape.images(found),
        shape.phase(found),
        shape.fields(found),
    )


def _seconds(timestamp: str | None) -> int:
    if not timestamp:
        return 0
    try:
        return int(datetime.fromisoformat(timestamp).timestamp())
    except ValueError:
        return 0
