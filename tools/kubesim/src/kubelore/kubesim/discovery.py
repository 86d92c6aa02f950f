"""What a cluster says it serves: the classic lists, the aggregated one, and enough OpenAPI for kubectl."""

from __future__ import annotations

import hashlib

import msgspec

from .resources import ResourceType, ResourceTypes
from .status import Json, no_such_resource

VERSION: Json = {
    "major": "1",
    "minor": "34",
    "gitVersion": "v1.34.4-kubesim",
    "gitCommit": "0000000000000000000000000000000000000000",
    "gitTreeState": "clean",
    "buildDate": "2026-01-05T08:00:00Z",
    "goVersion": "none",
    "compiler": "none",
    "platform": "linux/amd64",
}
# Subresource -> kind that it takes and answers ("" for the parent's own), group/version, verbs.
_SUBRESOURCES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "status": ("", "", ("get", "patch", "update")),
    "scale": ("Scale", "autoscaling/v1", ("get", "patch", "update")),
    "finalize": ("", "", ("update",)),
    "log": ("Pod", "v1", ("get",)),
    "exec": ("PodExecOptions", "v1", ("create", "get")),
    "ephemeralcontainers": ("", "", ("get", "patch", "update")),
    "eviction": ("Eviction", "policy/v1", ("create",)),
}


def _gvk(resource_type: ResourceType, subresource: str = "") -> Json:
    kind, api_version, _ = _SUBRESOURCES.get(subresource, ("", "", ()))
    group, _, version = (api_version or resource_type.api_version).rpartition("/")
    return {"group": group, "version": version, "kind": kind or resource_type.kind}


def _resources(resource_type: ResourceType) -> list[Json]:
    entry: Json = {
        "name": resource_type.plural,
        "singularName": resource_type.singular,
        "namespaced": resource_type.namespaced,
        "kind": resource_type.kind,
        "verbs": list(resource_type.verbs),
    }
    if resource_type.short_names:
        entry["shortNames"] = list(resource_type.short_names)
    if resource_type.categories:
        entry["categories"] = list(resource_type.categories)
    if resource_type.stored:
        entry["storageVersionHash"] = resource_type.storage_hash
    below = [
        {
            "name": f"{resource_type.plural}/{subresource}",
            "singularName": "",
            "namespaced": resource_type.namespaced,
            **_gvk(resource_type, subresource),
            "verbs": list(_SUBRESOURCES[subresource][2]),
        }
        for subresource in resource_type.subresources
    ]
    return [entry, *below]


def _group(group: str, versions: list[str]) -> Json:
    listed = [{"groupVersion": f"{group}/{version}", "version": version} for version in versions]
    return {"name": group, "versions": listed, "preferredVersion": listed[0]}


def classic(types: ResourceTypes, parts: list[str]) -> Json:
    """The documents below /api and /apis; `parts` is the path behind the leading slash."""
    groups = types.groups()
    match parts:
        case ["api"]:
            return {"kind": "APIVersions", "versions": groups[""], "serverAddressByClientCIDRs": []}
        case ["apis"]:
            listed = [_group(group, versions) for group, versions in groups.items() if group]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}
        case ["apis", group] if group in groups:
            return {"kind": "APIGroup", "apiVersion": "v1", **_group(group, groups[group])}
        case ["api", version]:
            return _resource_list(types, "", version)
        case ["apis", group, version]:
            return _resource_list(types, group, version)
    raise no_such_resource()


def _resource_list(types: ResourceTypes, group: str, version: str) -> Json:
    chosen = [t for t in types.all() if (t.group, t.version) == (group, version)]
    if not chosen:
        raise no_such_resource()
    resources = [entry for resource_type in chosen for entry in _resources(resource_type)]
    group_version = f"{group}/{version}" if group else version
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version,
        "resources": resources,
    }


def aggregated(types: ResourceTypes, *, core: bool) -> tuple[Json, str]:
    """The `APIGroupDiscoveryList` (v2) of /api or /apis, with its ETag."""
    items: list[Json] = []
    for group, versions in types.groups().items():
        if (group == "") != core:
            continue
        served: list[Json] = []
        for version in versions:
            chosen = [t for t in types.all() if (t.group, t.version) == (group, version)]
            served.append(
                {
                    "version": version,
                    "resources": [_aggregated_resource(t) for t in chosen],
                    "freshness": "Current",
                }
            )
        metadata = {"name": group, "creationTimestamp": None} if group else {"creationTimestamp": None}
        items.append({"metadata": metadata, "versions": served})
    document: Json = {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    }
    return document, hashlib.sha256(msgspec.json.encode(document)).hexdigest().upper()


def _aggregated_resource(resource_type: ResourceType) -> Json:
    entry: Json = {
        "resource": resource_type.plural,
        "responseKind": _gvk(resource_type),
        "scope": "Namespaced" if resource_type.namespaced else "Cluster",
        "singularResource": resource_type.singular,
        "verbs": list(resource_type.verbs),
        "shortNames": list(resource_type.short_names),
        "categories": list(resource_type.categories),
    }
    if resource_type.subresources:
        entry["subresources"] = [
            {
                "subresource": name,
                "responseKind": _gvk(resource_type, name),
                "verbs": list(_SUBRESOURCES[name][2]),
            }
            for name in resource_type.subresources
        ]
    return {key: value for key, value in entry.items() if value != []}


def openapi_index(types: ResourceTypes) -> Json:
    """/openapi/v3: kubectl looks here whether the server validates fields itself."""
    paths = {"api/v1" if t.group == "" else f"apis/{t.api_version}" for t in types.all()}
    return {"paths": {path: {"serverRelativeURL": f"/openapi/v3/{path}?hash=0"} for path in sorted(paths)}}


def openapi_group(types: ResourceTypes, parts: list[str]) -> Json:
    """/openapi/v3/<group version>: the PATCH operations with `fieldValidation`, and no schemas."""
    group, version = ("", parts[-1]) if parts[0] == "api" else (parts[1], parts[-1])
    parameters = [
        {"name": name, "in": "query"} for name in ("dryRun", "fieldManager", "fieldValidation", "force")
    ]
    prefix = "/" + "/".join(parts)
    paths: Json = {}
    for resource_type in types.all():
        if (resource_type.group, resource_type.version) == (group, version) and resource_type.stored:
            scope = "/namespaces/{namespace}" if resource_type.namespaced else ""
            kind = {"group": group, "version": version, "kind": resource_type.kind}
            patch = {"parameters": parameters, "x-kubernetes-group-version-kind": kind, "responses": {}}
            paths[f"{prefix}{scope}/{resource_type.plural}/{{name}}"] = {"patch": patch}
    return {
        "openapi": "3.0.0",
        "info": {"title": "kubesim", "version": "v1.34.4"},
        "paths": paths,
        "components": {"schemas": {}},
    }
