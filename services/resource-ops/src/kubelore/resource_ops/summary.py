"""Counts over the read model: per type, cluster, namespace and phase, from the bitmaps alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pyroaring import BitMap

from kubelore.common.contracts.resources import ClusterState, Counts, TypeInfo
from kubelore.common.kube.resource_type import ResourceType
from kubelore.resource_ops.read_model import ReadModel
from kubelore.resource_ops.visibility import Visible, whole


def count(models: ReadModel, rows: BitMap, clusters: list[ClusterState]) -> Counts:
    """Counts over the rows of a selection, and the states of its clusters (see `query.select`)."""
    index = models.index
    return Counts(
        total=len(rows),
        clusters=clusters,
        types=_count(rows, index.types.items()),
        namespaces=_count(rows, index.namespaces.items()),
        phases=_count(rows, index.phases.items()),
    )


def _count(rows: BitMap, groups: Iterable[tuple[str, BitMap]]) -> dict[str, int]:
    counted = ((value, rows.intersection_cardinality(members)) for value, members in groups)
    return {value: number for value, number in counted if number}


def _always(*_: object) -> bool:
    return True


def describe_types(
    models: ReadModel,
    clusters: Iterable[str] = (),
    *,
    visible: Visible = whole,
    may_list: Callable[[str, ResourceType], bool] = _always,
) -> list[TypeInfo]:
    """The types that these clusters serve (all held ones when empty), by name, with their counts.

    Only what is `visible` is counted, and types that `may_list` does not let through are not named.
    """
    asked = set(clusters)
    chosen = [model for name, model in sorted(models.clusters.items()) if not asked or name in asked]
    served: dict[str, tuple[ResourceType, list[str], int]] = {}
    for model in chosen:
        rows = visible(model)
        for name, found in model.types.items():
            if not may_list(model.cluster, found):
                continue
            kept, names, number = served.get(name, (found, [], 0))
            more = rows.intersection_cardinality(models.index.types.get(name))
            served[name] = (kept, [*names, model.cluster], number + more)
    return [_info(*parts) for _, parts in sorted(served.items())]


def _info(found: ResourceType, clusters: list[str], number: int) -> TypeInfo:
    return TypeInfo(
        name=found.name,
        group=found.group,
        version=found.version,
        kind=found.kind,
        plural=found.plural,
        singular=found.singular,
        short_names=list(found.short_names),
        namespaced=found.namespaced,
        clusters=clusters,
        count=number,
    )
