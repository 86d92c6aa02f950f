"""From a body's operations to single writes: manifests read, selectors resolved, one item for each object and cluster."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec

from kubelore.common.authz import Caller
from kubelore.common.contracts.identity import ResourceId
from kubelore.common.contracts.writes import Action, Apply, Delete, Label, Patch, Restart, Scale, Write
from kubelore.common.errors import BadRequest, Forbidden, Invalid, KubeloreError, TooLarge
from kubelore.common.kube.documents import load_documents
from kubelore.gateway.batch import Item
from kubelore.gateway.roster import Roster
from kubelore.gateway.write_schemas import MAX_ITEMS, BatchBody, WriteBody

_NEEDED: dict[Action, str] = {"apply": "manifest", "patch": "patch", "scale": "replicas"}


def read_operations(body: BatchBody) -> list[list[dict[str, Any]]]:
    """The objects of every operation's manifest, none for other actions. Takes its time: call it in a thread.

    Raises what `load_documents` does, and BadRequest for an operation that lacks
    what its action needs; `index` in `extra` names the operation.
    """
    found: list[list[dict[str, Any]]] = []
    for index, operation in enumerate(body.operations):
        try:
            _check_complete(operation)
            found.append(read_manifests(operation.manifest) if operation.action == "apply" else [])
        except KubeloreError as error:
            error.extra["index"] = index
            raise
    return found


def read_manifests(manifest: str | bytes | dict[str, Any] | None) -> list[dict[str, Any]]:
    """The objects in a text of YAML or JSON documents, or of one object; a List counts as its items."""
    text = manifest if isinstance(manifest, str | bytes) else as_json(manifest)
    objects = [each for document in load_documents(text) for each in _unlisted(document)]
    if not objects:
        raise BadRequest("the manifest holds no object", remedy="Give apiVersion, kind and metadata.name.")
    return objects


def as_json(value: Any) -> bytes:
    """A parsed body as JSON again, for the reader that checks it. Raises Invalid for one nested too deep."""
    try:
        # ASCII, so that half a surrogate pair reaches the reader, which refuses it.
        return json.dumps(value).encode()
    except RecursionError as error:
        raise Invalid("the object is nested too deep", code="too-deep") from error


def _unlisted(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    items = document.get("items")
    if document.get("kind") != "List" or not isinstance(items, list):
        yield document
        return
    for item in items:
        if not isinstance(item, dict):
            raise Invalid("an item of a List is no object", code="not-an-object")
        yield item


def _check_complete(operation: WriteBody) -> None:
    action = operation.action
    needed = _NEEDED.get(action)
    if needed and getattr(operation, needed) is None:
        raise BadRequest(f"{action} needs {needed}")
    if action == "apply" and not (operation.cluster or operation.clusters):
        raise BadRequest("apply needs a cluster", remedy="Give `cluster`, or selectors in `clusters`.")
    if action != "apply":
        if not operation.id:
            raise BadRequest(f"{action} needs the id of an object")
        ResourceId.parse(operation.id)


def expand(
    body: BatchBody, manifests: list[list[dict[str, Any]]], roster: Roster, caller: Caller
) -> list[Item]:
    """One item for each object and cluster, numbered in their order. Raises TooLarge for more than 1,000.

    A cluster that is not there, or not for the caller, is an item's own failure.
    """
    items: list[Item] = []
    for index, (operation, objects) in enumerate(zip(body.operations, manifests, strict=True)):
        for made in _items_of(index, operation, objects, body, roster, caller):
            if len(items) == MAX_ITEMS:
                raise TooLarge(
                    f"the batch comes to more than {MAX_ITEMS} writes", remedy="Send it in several parts."
                )
            if isinstance(made.write, KubeloreError):
                items.append(made)
                continue
            numbered = msgspec.structs.replace(made.write, item=len(items))
            items.append(_with(made, numbered))
    return items


def _with(item: Item, write: Write) -> Item:
    return Item(item.index, item.cluster, item.id, item.action, write, item.name, item.kind)


def _items_of(
    index: int,
    operation: WriteBody,
    objects: list[dict[str, Any]],
    body: BatchBody,
    roster: Roster,
    caller: Caller,
) -> Iterator[Item]:
    if operation.action != "apply":
        identity = ResourceId.parse(operation.id)
        write = _allowed(roster, caller, identity.cluster) or _by_id(operation, body)
        yield Item(index, identity.cluster, operation.id, operation.action, write, identity.name)
        return
    selectors = [*operation.clusters, *([operation.cluster] if operation.cluster else [])]
    try:
        chosen = roster.select(caller, selectors)
    except KubeloreError as error:
        yield Item(index, ",".join(selectors)[:200], "", "apply", error)
        return
    if not chosen:
        nothing = BadRequest(f"no cluster is chosen by {', '.join(selectors)[:200]}")
        yield Item(index, "", "", "apply", nothing)
    for cluster in chosen:
        refusal = _allowed(roster, caller, cluster)
        for one in objects:
            yield _applied(index, operation, one, body, cluster, refusal)


def _applied(
    index: int,
    operation: WriteBody,
    one: dict[str, Any],
    body: BatchBody,
    cluster: str,
    refusal: KubeloreError | None,
) -> Item:
    metadata = one.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    write = refusal or Apply(
        cluster=cluster,
        manifest=as_json(one),
        namespace=operation.namespace,
        force=operation.force,
        uid=operation.uid,
        rv=operation.rv,
        dry_run=body.dry_run,
        reason=body.reason,
        change_log=body.change_log,
    )
    kind = one.get("kind")
    return Item(
        index,
        cluster,
        shown_id(cluster, one, operation.namespace),
        "apply",
        write,
        name if isinstance(name, str) else "",
        kind if isinstance(kind, str) else "",
    )


def shown_id(cluster: str, one: dict[str, Any], namespace: str) -> str:
    """How an object is named as long as the cluster has not said its type: by its kind."""
    metadata = one.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    parts = (one.get("kind"), metadata.get("namespace") or namespace, metadata.get("name"))
    return ":".join([cluster, *(str(part or "")[:253] for part in parts)])


def _allowed(roster: Roster, caller: Caller, cluster: str) -> KubeloreError | None:
    """Why the caller may change nothing at all there, None when that is for the object to decide."""
    try:
        roster.select(caller, [cluster])
    except KubeloreError as error:
        return error
    if caller.namespaces(cluster, "operator").nothing:
        return Forbidden(
            f"{caller.subject} may change nothing in {cluster}",
            remedy="Ask for a grant with the role operator there; `kubelore whoami` shows yours.",
        )
    return None


def _by_id(operation: WriteBody, body: BatchBody) -> Write:
    common: dict[str, Any] = {
        "id": operation.id,
        "uid": operation.uid,
        "rv": operation.rv,
        "dry_run": body.dry_run,
        "reason": body.reason,
        "change_log": body.change_log,
    }
    match operation.action:
        case "patch":
            return Patch(patch=as_json(operation.patch), type=operation.patch_type, **common)
        case "delete":
            return Delete(
                propagation=operation.propagation, grace_period_s=operation.grace_period_s, **common
            )
        case "scale":
            return Scale(replicas=operation.replicas or 0, **common)
        case "restart":
            return Restart(**common)
        case _:
            return Label(
                labels=dict(operation.labels),
                annotations=dict(operation.annotations),
                overwrite=operation.overwrite,
                **common,
            )
