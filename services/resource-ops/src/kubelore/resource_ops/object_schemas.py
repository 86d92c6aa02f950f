"""The schema of one kind as a cluster publishes it (OpenAPI 3.0), made fit to check objects against. Pure.

Kubernetes' schemas say which fields there are and do not refuse others: here a map
with known fields is closed, unless the schema lets unknown ones pass
(`x-kubernetes-preserve-unknown-fields`). Numbers that may be text
(`int-or-string`) may be either, nulls count as absent as they do for the API
server, and formats are left to it. Regular expressions of custom resources run
in an engine without backtracking.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jsonschema_rs

from kubelore.common.contracts.validation import MAX_FAULTS, Fault
from kubelore.common.errors import NotFound, UpstreamError

KIND = "x-kubernetes-group-version-kind"
PRESERVE = "x-kubernetes-preserve-unknown-fields"
INT_OR_STRING = "x-kubernetes-int-or-string"
MAX_MESSAGE = 300
_REF = "#/components/schemas/"
_KEPT = frozenset(
    {
        "type",
        "required",
        "enum",
        "pattern",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "minProperties",
        "maxProperties",
        "uniqueItems",
    }
)
_COMBINED = ("allOf", "anyOf", "oneOf")

Schema = dict[str, Any]


class ObjectSchema:
    """Checks objects of one kind."""

    def __init__(self, document: Mapping[str, Any], group: str, version: str, kind: str) -> None:
        """Take a kind out of an OpenAPI document. Raises NotFound, and UpstreamError for what is no schema."""
        schemas: Mapping[str, Schema] = (document.get("components") or {}).get("schemas") or {}
        root = _of_kind(schemas, {"group": group, "version": version, "kind": kind})
        self._schema = {
            "allOf": [{"$ref": _REF + root}],
            "components": {"schemas": {name: _closed(schemas[name]) for name in _reached(schemas, root)}},
        }
        try:
            self._validator = jsonschema_rs.Draft4Validator(
                self._schema, pattern_options=jsonschema_rs.RegexOptions()
            )
        except ValueError as error:
            raise UpstreamError(
                f"the cluster's schema of {kind} cannot be read: {str(error)[:200]}"
            ) from error

    def faults(self, found: Mapping[str, Any]) -> list[Fault]:
        """What is wrong with an object, at most 100 things."""
        faults: list[Fault] = []
        for error in self._validator.iter_errors(_without_nulls(found)):
            for fault in self._told(error):
                if len(faults) == MAX_FAULTS:
                    return faults
                faults.append(fault)
        return faults

    def _told(self, error: jsonschema_rs.ValidationError) -> Iterator[Fault]:
        at = list(error.instance_path)
        if isinstance(error.kind, jsonschema_rs.ValidationErrorKind.AdditionalProperties):
            known = self._fields_at(error.schema_path)
            for name in error.kind.unexpected:
                meant = difflib.get_close_matches(name, known, n=1)
                yield Fault(
                    path=path_of([*at, name]),
                    message=f"unknown field {name[:100]!r}"
                    + (f", did you mean {meant[0]!r}?" if meant else ""),
                    source="schema",
                    suggestion=meant[0] if meant else "",
                )
            return
        yield Fault(path=path_of(at), message=error.message[:MAX_MESSAGE], source="schema")

    def _fields_at(self, schema_path: Iterable[str | int]) -> list[str]:
        """The fields that there are where an unknown one was found."""
        *way, _ = schema_path
        schema: Any = self._schema
        for step in way:
            schema = schema[step]
        return list(schema["properties"])


def path_of(segments: Iterable[str | int]) -> str:
    """A path as the API server writes it: `spec.containers[0].image`."""
    text = ""
    for one in segments:
        text += f"[{one}]" if isinstance(one, int) else f".{one}" if text else one
    return text


def _of_kind(schemas: Mapping[str, Schema], wanted: dict[str, str]) -> str:
    for name, schema in schemas.items():
        if wanted in (schema.get(KIND) or ()):
            return name
    raise NotFound(f"the cluster publishes no schema of {wanted['kind']}")


def _reached(schemas: Mapping[str, Schema], root: str) -> set[str]:
    """The components that one of them needs."""
    found, waiting = {root}, [root]
    while waiting:
        for name in _references(schemas[waiting.pop()]):
            if name in schemas and name not in found:
                found.add(name)
                waiting.append(name)
    return found


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        target = value.get("$ref")
        if isinstance(target, str):
            yield target.removeprefix(_REF)
        for one in value.values():
            yield from _references(one)
    elif isinstance(value, list):
        for one in value:
            yield from _references(one)


def _closed(schema: Schema, *, close: bool = True) -> Schema:
    """A schema of JSON Schema's draft 4, whose maps take no unknown fields; those that only combine stay open."""
    if "$ref" in schema:
        return {"$ref": schema["$ref"]}
    if schema.get(INT_OR_STRING) or schema.get("format") == "int-or-string":
        return {"type": ["integer", "string"]}
    made: Schema = {name: value for name, value in schema.items() if name in _KEPT}
    properties = schema.get("properties")
    if isinstance(properties, dict):
        made["properties"] = {name: _closed(one, close=close) for name, one in properties.items()}
        if close and not schema.get(PRESERVE) and "additionalProperties" not in schema:
            made["additionalProperties"] = False
    if isinstance(schema.get("additionalProperties"), dict):
        made["additionalProperties"] = _closed(schema["additionalProperties"], close=close)
    if isinstance(schema.get("items"), dict):
        made["items"] = _closed(schema["items"], close=close)
    if schema.get("x-kubernetes-embedded-resource") and "properties" in made:
        made["properties"] = {"apiVersion": {}, "kind": {}, "metadata": {}, **made["properties"]}
    for how in _COMBINED:
        if isinstance(schema.get(how), list):
            made[how] = [_closed(one, close=False) for one in schema[how]]
    if isinstance(schema.get("not"), dict):
        made["not"] = _closed(schema["not"], close=False)
    return made


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_nulls(one) for name, one in value.items() if one is not None}
    return [_without_nulls(one) for one in value] if isinstance(value, list) else value
