"""Schemas as clusters publish them: unknown fields are named, and what Kubernetes lets pass does."""

from __future__ import annotations

from typing import Any

import pytest

from kubelore.common.errors import NotFound, UpstreamError
from kubelore.resource_ops.object_schemas import ObjectSchema

KIND = "x-kubernetes-group-version-kind"


def document(spec: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A document as an API server publishes it, with one kind of this spec."""
    thing = {
        "type": "object",
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "spec": {"allOf": [{"$ref": "#/components/schemas/Spec"}], "default": {}},
        },
        KIND: [{"group": "shop", "version": "v1", "kind": "Thing"}],
    }
    return {"components": {"schemas": {"Thing": thing, "Spec": spec, **more}}}


def faults(spec: dict[str, Any], value: Any, **more: Any) -> list[tuple[str, str]]:
    schema = ObjectSchema(document(spec, **more), "shop", "v1", "Thing")
    found = schema.faults({"apiVersion": "shop/v1", "kind": "Thing", "spec": value})
    return [(one.path, one.suggestion) for one in found]


def fields(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def test_an_unknown_field_is_named_with_the_one_that_was_meant() -> None:
    ports = {"type": "array", "items": fields(containerPort={"type": "integer"})}
    spec = fields(replicas={"type": "integer"}, ports=ports)
    assert faults(spec, {"replicsa": 1}) == [("spec.replicsa", "replicas")]
    assert faults(spec, {"ports": [{}, {"containerport": 1}]}) == [
        ("spec.ports[1].containerport", "containerPort")
    ]
    assert faults(spec, {"wholly-other": 1}) == [("spec.wholly-other", "")]


@pytest.mark.parametrize(
    ("spec", "value"),
    [
        (fields(port={"x-kubernetes-int-or-string": True}), {"port": "http"}),
        (fields(port={"format": "int-or-string", "oneOf": [{"type": "integer"}]}), {"port": "http"}),
        ({**fields(a={}), "x-kubernetes-preserve-unknown-fields": True}, {"b": 1}),
        ({"type": "object", "additionalProperties": {"type": "string"}}, {"any": "thing"}),
        (fields(a={"type": "string"}), {"a": None, "b": None}),
        ({**fields(a={}, b={}), "oneOf": [{"properties": {"a": {}}, "required": ["a"]}]}, {"a": 1, "b": 2}),
        (fields(at={"type": "string", "format": "date-time"}), {"at": "whenever"}),
    ],
)
def test_what_kubernetes_lets_pass_is_no_fault(spec, value) -> None:
    assert faults(spec, value) == []


def test_types_and_bounds_are_told_by_their_path() -> None:
    spec = fields(
        replicas={"type": "integer", "minimum": 0, "exclusiveMinimum": True}, names={"type": "array"}
    )
    assert faults(spec, {"replicas": 0}) == [("spec.replicas", "")]
    assert faults(spec, {"names": "one"}) == [("spec.names", "")]


def test_a_schema_may_need_itself() -> None:
    spec = fields(inner={"$ref": "#/components/schemas/Spec"}, a={"type": "string"})
    assert faults(spec, {"inner": {"inner": {"b": 1}}}) == [("spec.inner.inner.b", "")]


def test_a_pattern_that_would_take_forever_does_not() -> None:
    spec = fields(name={"type": "string", "pattern": "^(a+)+$"})
    assert faults(spec, {"name": "a" * 50_000 + "!"}) == [("spec.name", "")]


def test_a_hundred_faults_are_enough() -> None:
    assert len(faults(fields(), {f"f{number}": 1 for number in range(500)})) == 100


def test_a_kind_that_is_not_there_and_a_schema_that_is_none_are_said_so() -> None:
    with pytest.raises(NotFound):
        ObjectSchema(document(fields()), "shop", "v2", "Thing")
    with pytest.raises(UpstreamError):
        ObjectSchema(document(fields(a={"type": "string", "pattern": "("})), "shop", "v1", "Thing")
