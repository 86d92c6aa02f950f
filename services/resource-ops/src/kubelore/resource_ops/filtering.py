"""Which rows match: namespaces, label and field selectors, free text, as intersections of bitmaps."""

from __future__ import annotations

from collections.abc import Iterable

from pyroaring import BitMap

from kubelore.common.errors import BadRequest
from kubelore.common.kube.facts import field_paths, indexed_fields
from kubelore.common.kube.selectors import (
    FieldRequirement,
    FieldSelector,
    LabelRequirement,
    LabelSelector,
    Operator,
)
from kubelore.resource_ops.index import Index

METADATA_PATHS = ("metadata.name", "metadata.namespace")
_ALIASES = {("pods", "spec.host"): "spec.nodeName"}


def match_labels(index: Index, candidates: BitMap, selector: LabelSelector) -> BitMap:
    """The candidates whose labels the selector matches."""
    for requirement in selector.requirements:
        candidates = _match_label(index, candidates, requirement)
    return candidates


def _match_label(index: Index, candidates: BitMap, requirement: LabelRequirement) -> BitMap:
    key = requirement.key
    match requirement.operator:
        case Operator.EXISTS:
            return candidates & index.label_keys.get(key)
        case Operator.DOES_NOT_EXIST:
            return candidates - index.label_keys.get(key)
        case Operator.IN | Operator.EQUALS | Operator.DOUBLE_EQUALS:
            return candidates & _with_any(index, requirement)
        case Operator.NOT_IN | Operator.NOT_EQUALS:
            return candidates - _with_any(index, requirement)
        case Operator.GREATER_THAN | Operator.LESS_THAN:
            rows = index.held(candidates & index.label_keys.get(key))
            return BitMap([row.number for row in rows if requirement.matches(row.label_map())])


def _with_any(index: Index, requirement: LabelRequirement) -> BitMap:
    return BitMap.union(
        BitMap(), *(index.labels.rows(f"{requirement.key}={value}") for value in requirement.values)
    )


def match_fields(index: Index, candidates: BitMap, types: Iterable[str], selector: FieldSelector) -> BitMap:
    """The candidates of these types whose fields the selector matches.

    Raises BadRequest for a field that one of the types does not support.
    """
    if not selector:
        return candidates
    checked = {name: [_place(name, requirement) for requirement in selector.requirements] for name in types}
    found = BitMap()
    for name, places in checked.items():
        rows = candidates & index.types.get(name)
        for requirement, place in zip(selector.requirements, places, strict=True):
            rows = _narrow(index, name, rows, requirement, place)
        found |= rows
    return found


def _place(type_name: str, requirement: FieldRequirement) -> str | int:
    """Where a field of a type is found: a metadata path, or its place in the row's fields."""
    field = _ALIASES.get((type_name, requirement.field), requirement.field)
    paths = field_paths(type_name)
    if field in METADATA_PATHS:
        return field
    if field in paths:
        return paths.index(field)
    supported = ", ".join((*METADATA_PATHS, *paths))
    remedy = f"Field selectors for {type_name} take {supported}."
    if paths:
        raise BadRequest(f"field label not supported: {field[:253]}", remedy=remedy)
    known = ", ".join(f'"{path}"' for path in METADATA_PATHS)
    raise BadRequest(f'"{field[:253]}" is not a known field selector: only {known}', remedy=remedy)


def _narrow(
    index: Index, type_name: str, rows: BitMap, requirement: FieldRequirement, place: str | int
) -> BitMap:
    value, equal = requirement.value, requirement.operator is Operator.EQUALS
    if place == "metadata.name":
        having = BitMap([row.number for row in index.order(type_name, "name").named(value)])
    elif place == "metadata.namespace":
        having = BitMap([row.number for row in index.held(rows) if row.namespace == value])
    elif path := dict(indexed_fields(type_name)).get(int(place)):
        having = index.fields.get(f"{path}={value}")
    else:
        having = BitMap([row.number for row in index.held(rows) if row.fields[int(place)] == value])
    return rows & having if equal else rows - having


def match_text(index: Index, candidates: BitMap, text: str) -> BitMap:
    """The candidates that contain a text; all of them for an empty one."""
    return candidates & index.search(text) if text else candidates
