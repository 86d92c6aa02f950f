"""What a list or watch asks for: namespace, labels, fields, and which revision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kubelore.common.errors import BadRequest
from kubelore.common.kube.selectors import FieldRequirement, FieldSelector, LabelSelector, Operator

from .resources import ResourceType
from .status import bad_request, invalid
from .store import Entry

# The selectable fields that the API server registers per type, beside metadata.name and .namespace.
_FIELDS: dict[str, tuple[str, ...]] = {
    "pods": (
        *("spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName"),
        *("spec.hostNetwork", "status.phase", "status.podIP", "status.nominatedNodeName"),
    ),
    "events": (
        *("involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid"),
        *("involvedObject.apiVersion", "involvedObject.resourceVersion", "involvedObject.fieldPath"),
        *("reason", "reportingComponent", "source", "type"),
    ),
    "nodes": ("spec.unschedulable",),
    "namespaces": ("status.phase",),
    "secrets": ("type",),
    "replicasets.apps": ("status.replicas",),
    "replicationcontrollers": ("status.replicas",),
    "jobs.batch": ("status.successful",),
}


def selectable_fields(resource_type: ResourceType) -> tuple[str, ...]:
    if resource_type.custom is not None:
        declared = resource_type.custom.get("selectableFields", ())
        return tuple(field["jsonPath"].lstrip(".") for field in declared)
    return _FIELDS.get(resource_type.key, ())


def lookup(obj: Any, path: str) -> Any:
    """The value under a dotted path, or None."""
    for part in path.split("."):
        if not isinstance(obj, dict):
            return None
        obj = obj.get(part)
    return obj


def _field_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


@dataclass(frozen=True, slots=True)
class Selection:
    """Decides which entries belong to a list or watch."""

    namespace: str
    labels: LabelSelector | None
    fields: FieldSelector | None
    paths: tuple[str, ...]  # of the object that `fields` needs decoded

    @classmethod
    def parse(
        cls, resource_type: ResourceType, namespace: str, name: str, query: Mapping[str, str]
    ) -> Selection:
        """From the query; ApiError 400 for selectors that the real server refuses."""
        try:
            labels = LabelSelector.parse(query.get("labelSelector", ""))
            fields = FieldSelector.parse(query.get("fieldSelector", ""))
        except BadRequest as error:
            raise bad_request(error.detail) from error
        if name:
            named = FieldRequirement("metadata.name", Operator.EQUALS, name)
            fields = FieldSelector((*fields.requirements, named))
        known = ("metadata.name", *(("metadata.namespace",) if resource_type.namespaced else ()))
        deeper = tuple(term.field for term in fields.requirements if term.field not in known)
        for field in deeper:
            if field not in selectable_fields(resource_type):
                raise bad_request(f"field label not supported: {field}")
        return cls(namespace, labels or None, fields or None, deeper)

    @property
    def everything(self) -> bool:
        """Whether only the namespace narrows, so that counting needs no look at the objects."""
        return self.labels is None and self.fields is None

    def matches(self, entry: Entry) -> bool:
        if self.namespace and entry.namespace != self.namespace:
            return False
        if self.labels is not None and not self.labels.matches(entry.labels):
            return False
        if self.fields is None:
            return True
        values = {"metadata.name": entry.name, "metadata.namespace": entry.namespace}
        if self.paths:
            obj = entry.decode()
            values |= {path: _field_text(lookup(obj, path)) for path in self.paths}
            if "source" in values:
                values["source"] = _field_text(lookup(obj, "source.component"))
        return self.fields.matches(values)


def asked_version(query: Mapping[str, str]) -> tuple[str, str]:
    """(resourceVersion, resourceVersionMatch) of a list; ApiError 422 for combinations that make no sense."""
    version, match = query.get("resourceVersion", ""), query.get("resourceVersionMatch", "")
    why = ""
    if match and not version and "sendInitialEvents" not in query:
        why = "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"
    elif match == "Exact" and version == "0":
        why = 'Forbidden: resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
    elif match not in ("", "Exact", "NotOlderThan"):
        why = f'Unsupported value: "{match}": supported values: "Exact", "NotOlderThan", ""'
    if why:
        raise invalid("meta.k8s.io", "ListOptions", "", "resourceVersionMatch", why)
    if version and not version.isdigit():
        raise invalid(
            *("meta.k8s.io", "ListOptions", "", "resourceVersion"),
            f'Invalid value: "{version}": not a number',
        )
    return version, match
