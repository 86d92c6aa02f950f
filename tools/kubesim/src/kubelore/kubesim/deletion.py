"""Deleting: preconditions, finalizers, namespaces with their content, and dependents by owner reference."""

from __future__ import annotations

from .cluster import ClusterState, timestamp
from .resources import ResourceType
from .status import Json, conflict
from .store import Entry

_OWN_NOTHING = {"pods", "events", "leases.coordination.k8s.io", "configmaps", "secrets"}


def check_preconditions(resource_type: ResourceType, entry: Entry, options: Json) -> None:
    """409 when uid or resourceVersion are not the expected ones."""
    expected = options.get("preconditions") or {}
    for field, label, actual in (
        ("uid", "UID", entry.uid),
        ("resourceVersion", "ResourceVersion", str(entry.rv)),
    ):
        wanted = expected.get(field)
        if wanted and wanted != actual:
            why = f"Precondition failed: {label} in precondition: {wanted}, {label} in object meta: {actual}"
            raise conflict(resource_type.group, resource_type.plural, entry.name, why)


def delete(
    cluster: ClusterState, resource_type: ResourceType, entry: Entry, propagation: str = ""
) -> Entry | None:
    """Removes an object, or marks it while finalizers hold it and returns it so; None when it is gone."""
    obj = entry.decode()
    meta = obj["metadata"]
    if meta.get("finalizers"):
        if "deletionTimestamp" in meta:
            return entry
        meta["deletionTimestamp"] = timestamp()
        meta["deletionGracePeriodSeconds"] = 0
        return cluster.store.put(resource_type, obj)
    if resource_type.key == "namespaces":
        return _delete_namespace(cluster, resource_type, entry, obj)
    remove(cluster, resource_type, entry, propagation)
    return None


def remove(cluster: ClusterState, resource_type: ResourceType, entry: Entry, propagation: str = "") -> None:
    """Removes for good, with what depends on it, and frees a namespace that waited for it."""
    if resource_type.key == "customresourcedefinitions.apiextensions.k8s.io":
        _drop_definition(cluster, entry.decode())
    cluster.store.remove(resource_type, entry)
    if resource_type.key not in _OWN_NOTHING and propagation != "Orphan":
        _delete_dependents(cluster, entry)
    if entry.namespace:
        _finish_namespace(cluster, entry.namespace)


def _delete_dependents(cluster: ClusterState, owner: Entry) -> None:
    needle = owner.uid.encode()
    for resource_type in filter(lambda t: t.stored, cluster.types.all()):
        entries = cluster.store.of(resource_type).entries
        for entry in [entry for entry in entries.values() if needle in entry.body]:
            owners = entry.decode()["metadata"].get("ownerReferences", ())
            if any(reference.get("uid") == owner.uid for reference in owners) and entry.key in entries:
                delete(cluster, resource_type, entry)


def _drop_definition(cluster: ClusterState, crd: Json) -> None:
    for resource_type in cluster.types.all():
        if (resource_type.group, resource_type.plural) == (
            crd["spec"]["group"],
            crd["spec"]["names"]["plural"],
        ):
            for entry in list(cluster.store.of(resource_type).entries.values()):
                cluster.store.remove(resource_type, entry)
            cluster.store.drop(resource_type)
    cluster.types.remove_definition(crd)


def _content(cluster: ClusterState, namespace: str) -> list[tuple[ResourceType, Entry]]:
    content: dict[tuple[str, str], tuple[ResourceType, Entry]] = {}
    for resource_type in cluster.types.all():
        if resource_type.namespaced and resource_type.stored:
            collection = cluster.store.of(resource_type)
            for entry in collection.within(collection.entries, namespace):
                content[resource_type.key, entry.key] = resource_type, entry
    return list(content.values())


def _delete_namespace(
    cluster: ClusterState, resource_type: ResourceType, entry: Entry, obj: Json
) -> Entry | None:
    if obj["status"].get("phase") != "Terminating":
        obj["metadata"]["deletionTimestamp"] = timestamp()
        obj["status"]["phase"] = "Terminating"
        entry = cluster.store.put(resource_type, obj)
    for content_type, content in _content(cluster, entry.name):
        if content.key in cluster.store.of(content_type).entries:
            delete(cluster, content_type, content)
    _finish_namespace(cluster, entry.name)
    return entry


def _finish_namespace(cluster: ClusterState, namespace: str) -> None:
    namespaces = cluster.types.named("namespaces")
    entry = cluster.store.find(namespaces, "", namespace)
    if entry is None or b'"phase":"Terminating"' not in entry.body or _content(cluster, namespace):
        return
    cluster.store.remove(namespaces, entry)
