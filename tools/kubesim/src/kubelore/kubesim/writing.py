"""Create, update, patch and delete: compute the next object, check it, then commit (unless dry run)."""

from __future__ import annotations

import secrets
import uuid

from . import deletion, ownership, patches, podlife, quota, rules
from .call import Call
from .cluster import NAME_ALPHABET, ClusterState, timestamp
from .mergekeys import MergeRules
from .resources import ResourceType
from .status import (
    ApiError,
    Json,
    already_exists,
    bad_request,
    conflict,
    forbidden,
    invalid,
    not_found,
    unsupported_media_type,
)
from .store import Entry, encode, object_key

_MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"
_SERVER_OWNED = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation")


def check_type(resource_type: ResourceType, obj: Json) -> None:
    given = obj.get("apiVersion"), obj.get("kind")
    if given != (resource_type.api_version, resource_type.kind):
        wanted = f"{resource_type.api_version}, {resource_type.kind}"
        named = f"{given[0]}, {given[1]}"
        raise bad_request(f"the type in the data ({named}) does not match the expected type ({wanted})")


def _check_namespace(call: Call, obj: Json) -> None:
    given = obj["metadata"].setdefault("namespace", call.namespace)
    if given != call.namespace:
        raise bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    namespace = call.cluster.store.find(call.cluster.types.named("namespaces"), "", call.namespace)
    if namespace is None:
        raise not_found("", "namespaces", call.namespace)
    if b'"phase":"Terminating"' in namespace.body:
        why = f"unable to create new content in namespace {call.namespace} because it is being terminated"
        raise forbidden(call.type.group, call.type.plural, obj["metadata"].get("name", ""), why)


def create(call: Call, obj: Json, *, applied: bool = False) -> Entry:
    check_type(call.type, obj)
    meta = obj.setdefault("metadata", {})
    if meta.get("resourceVersion"):
        raise ApiError(500, "", "resourceVersion should not be set on objects to be created")
    if meta.get("generateName") and not meta.get("name"):
        meta["name"] = meta["generateName"] + "".join(secrets.choice(NAME_ALPHABET) for _ in range(5))
    if not meta.get("name"):
        why = "Required value: name or generateName is required"
        raise invalid(call.type.group, call.type.kind, "", "metadata.name", why)
    rules.check_name(call.type, meta["name"])
    if call.type.namespaced:
        _check_namespace(call, obj)
    else:
        meta.pop("namespace", None)
    if call.cluster.store.find(call.type, call.namespace, meta["name"]) is not None:
        raise already_exists(call.type.group, call.type.plural, meta["name"])
    meta |= {"uid": str(uuid.uuid4()), "creationTimestamp": timestamp()}
    meta |= {"generation": 1} if call.type.has_generation else {}
    for field in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"):
        meta.pop(field, None)
    if not applied:
        ownership.track({}, obj, _manager(call, "Update"), MergeRules.of(call.type))
    obj["apiVersion"] = call.type.stored_api_version
    rules.complete(call.cluster, call.type, obj)
    if call.type.key == "pods":
        why = quota.refusal(call.cluster, call.namespace, obj)
        if why:
            raise forbidden("", "pods", meta["name"], why)
    if call.dry_run:
        return transient(call.type, obj)
    entry = call.cluster.store.put(call.type, obj)
    _after_create(call.cluster, call.type, obj)
    return entry


def _after_create(cluster: ClusterState, resource_type: ResourceType, obj: Json) -> None:
    if resource_type.key == "namespaces":
        rules.furnish_namespace(cluster, obj["metadata"]["name"])
    elif resource_type.kind == "CustomResourceDefinition":
        cluster.types.add_definition(obj)


def transient(resource_type: ResourceType, obj: Json) -> Entry:
    """What a dry run answers: the object as it would be."""
    meta = obj["metadata"]
    key = object_key(meta.get("namespace", ""), meta["name"])
    rv = int(meta.get("resourceVersion") or 0)
    return Entry(key, meta["uid"], rv, meta.get("labels") or {}, encode(resource_type, obj))


def _manager(call: Call, operation: str) -> ownership.Manager:
    return ownership.Manager(call.manager, operation, call.type.api_version, call.subresource)


def update(call: Call, old: Entry, obj: Json, *, applied: bool = False) -> Entry:
    """Commits `obj` as the successor of `old`, keeping what the server owns and what is hidden."""
    check_type(call.type, obj)
    meta, before = obj.setdefault("metadata", {}), old.decode()
    if meta.get("name", old.name) != old.name or meta.get("namespace", old.namespace) != old.namespace:
        raise bad_request("the name of the object does not match the name on the URL")
    if meta.get("uid") not in (None, "", old.uid):
        why = f"Precondition failed: UID in precondition: {meta['uid']}, UID in object meta: {old.uid}"
        raise conflict(call.type.group, call.type.plural, old.name, why)
    if meta.get("resourceVersion") not in (None, "", str(old.rv)):
        raise conflict(call.type.group, call.type.plural, old.name, _MODIFIED)
    obj["apiVersion"] = before["apiVersion"]
    kept = {field: before["metadata"][field] for field in _SERVER_OWNED if field in before["metadata"]}
    fixed = {"name": old.name, **({"namespace": old.namespace} if old.namespace else {})}
    for field in _SERVER_OWNED:
        meta.pop(field, None)
    obj["metadata"] = {**meta, **fixed, **kept}
    _keep_hidden(call, before, obj)
    if not applied:
        ownership.track(before, obj, _manager(call, "Update"), MergeRules.of(call.type))
    return _commit(call, old, before, obj)


def _keep_hidden(call: Call, before: Json, obj: Json) -> None:
    if call.subresource == "status":
        status = obj.get("status")
        for field in [field for field in obj if field not in ("apiVersion", "kind", "metadata")]:
            del obj[field]
        obj |= {key: value for key, value in before.items() if key != "status"}
        if status is not None:
            obj["status"] = status
    elif call.subresource == "ephemeralcontainers":
        added = (obj.get("spec") or {}).get("ephemeralContainers") or []
        spec = {**before["spec"], "ephemeralContainers": added}
        obj.clear()
        obj |= {**before, "spec": spec}
        obj["status"] = {**before.get("status", {}), **podlife.debugged(obj, timestamp())}
    elif "status" in call.type.subresources:
        obj.pop("status", None)
        if "status" in before:
            obj["status"] = before["status"]


def _commit(call: Call, old: Entry, before: Json, obj: Json) -> Entry:
    obj["metadata"]["resourceVersion"] = before["metadata"]["resourceVersion"]
    if obj == before:
        return old
    desired = [
        {key: value for key, value in state.items() if key not in ("metadata", "status")}
        for state in (before, obj)
    ]
    if desired[0] != desired[1] and "generation" in before["metadata"]:
        obj["metadata"]["generation"] = before["metadata"]["generation"] + 1
    if call.dry_run:
        return transient(call.type, obj)
    entry = call.cluster.store.put(call.type, obj)
    if call.type.kind == "CustomResourceDefinition":
        call.cluster.types.add_definition(obj)
    if "deletionTimestamp" in obj["metadata"] and not obj["metadata"].get("finalizers"):
        deletion.remove(call.cluster, call.type, entry)
    return entry


async def patch(call: Call) -> tuple[int, Entry]:
    """The HTTP status (201 when an apply created it) and the object."""
    body = await call.json()
    if call.content_type == "application/apply-patch+yaml":
        return _apply(call, body)
    old = call.found()
    before = old.decode()
    before["apiVersion"] = call.type.api_version
    match call.content_type:
        case "application/json-patch+json":
            after = patches.json_patch(before, body)
        case "application/merge-patch+json":
            after = patches.merge(before, body)
        case "application/strategic-merge-patch+json" if call.type.custom is None:
            after = patches.strategic(before, body, MergeRules.of(call.type))
        case other:
            raise unsupported_media_type(other)
    if not isinstance(after, dict):
        raise bad_request("the patched object is no object")
    return 200, update(call, old, after)


def _apply(call: Call, config: object) -> tuple[int, Entry]:
    if not isinstance(config, dict):
        raise bad_request("the body must be one object")
    check_type(call.type, config)
    if not call.request.query.get("fieldManager"):
        why = "Required value: is required for apply patch"
        raise invalid("meta.k8s.io", "PatchOptions", "", "fieldManager", why)
    meta = config.setdefault("metadata", {})
    if meta.setdefault("name", call.name) != call.name:
        raise bad_request("the name of the object does not match the name on the URL")
    if meta.pop("managedFields", None):
        raise bad_request("metadata.managedFields must be nil")
    if call.subresource != "status" and "status" in call.type.subresources:
        config.pop("status", None)
    old = call.cluster.store.find(call.type, call.namespace, call.name)
    before = old.decode() if old is not None else {}
    force = call.request.query.get("force") == "true"
    merge_rules = MergeRules.of(call.type)
    after = ownership.apply(before, config, _manager(call, "Apply"), merge_rules, force=force)
    if old is not None:
        return 200, update(call, old, after, applied=True)
    if call.subresource:
        call.found()
    return 201, create(call, after, applied=True)


async def delete(call: Call) -> Entry | Json:
    """The object while finalizers hold it, else a `Status` of success."""
    options = await call.document() if call.request.can_read_body else {}
    entry = call.found()
    deletion.check_preconditions(call.type, entry, options)
    propagation = options.get("propagationPolicy") or call.request.query.get("propagationPolicy", "")
    dry = call.dry_run or "All" in (options.get("dryRun") or ())
    remaining = None if dry else deletion.delete(call.cluster, call.type, entry, propagation)
    if remaining is not None:
        return remaining
    details = {"name": entry.name, "kind": call.type.plural, "uid": entry.uid}
    details |= {"group": call.type.group} if call.type.group else {}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


async def evict(call: Call) -> Json:
    """The eviction of a pod: deletes it, under preconditions; disruption budgets are not looked at."""
    options = (await call.document()).get("deleteOptions") or {}
    entry = call.found()
    deletion.check_preconditions(call.type, entry, options)
    if not call.dry_run:
        deletion.delete(call.cluster, call.type, entry)
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
