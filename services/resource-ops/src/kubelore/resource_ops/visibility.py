"""What of the read model one caller may see, as rows: decided here again, where the data is."""

from __future__ import annotations

from collections.abc import Callable

from pyroaring import BitMap

from kubelore.common.authz import NAMESPACES, Caller
from kubelore.common.kube.resource_type import ResourceType
from kubelore.resource_ops.index import Index
from kubelore.resource_ops.read_model import ClusterModel

Visible = Callable[[ClusterModel], BitMap]
"""The rows of a cluster that a question may be about; not to be changed by whoever asks."""


def whole(model: ClusterModel) -> BitMap:
    """All of them: what a caller sees who reads every namespace."""
    return model.numbers


def visible_to(caller: Caller, index: Index) -> Visible:
    """The rows that a caller may see: by namespace, and a Namespace object by its own name."""

    def visible(model: ClusterModel) -> BitMap:
        granted = caller.namespaces(model.cluster)
        if granted.everything:
            return model.numbers
        if granted.nothing:
            return BitMap()
        homes = [home for home, _ in index.namespaces.items() if home and granted.matches(home)]
        return index.namespaces.union(homes) & model.numbers

    return whole if caller.unrestricted else visible


def may_list(caller: Caller, cluster: str, found: ResourceType) -> bool:
    """Whether objects of a type could be visible to a caller, so that the type is worth naming."""
    granted = caller.namespaces(cluster)
    return granted.everything or (not granted.nothing and (found.namespaced or found.name == NAMESPACES))
