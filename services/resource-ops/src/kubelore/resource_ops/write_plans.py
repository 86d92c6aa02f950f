"""What is sent to an API server for a write, and what is refused before. Pure; no input or output."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from kubelore.common.contracts.identity import ResourceId
from kubelore.common.contracts.writes import (
    MAX_CHANGE_LOG,
    MAX_MANIFEST,
    MAX_REASON,
    Apply,
    Delete,
    Label,
    Patch,
    PatchType,
    Replace,
    ReplaceMany,
    Restart,
    Scale,
    Write,
    replace_context,
)
from kubelore.common.crypto import Keyring
from kubelore.common.errors import BadRequest, Conflict, Invalid, NotFound, TooLarge, Unsupported
from kubelore.common.kube import ResourceType
from kubelore.common.kube.documents import load_documents
from kubelore.common.kube.object_names import check_namespace_name, check_object_name
from kubelore.common.kube.writing import APPLY_PATCH, JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH
from kubelore.resource_ops.replacing import SECRETS, Replacement, read_replacement

RESTARTED_AT = "kubectl.kubernetes.io/restartedAt"
RESTARTABLE = ("deployments.apps", "statefulsets.apps", "daemonsets.apps")
MAX_REPLICAS = 2**31 - 1

_CONTENT_TYPES: dict[PatchType, str] = {
    "merge": MERGE_PATCH,
    "json": JSON_PATCH,
    "strategic": STRATEGIC_PATCH,
}

Object = dict[str, Any]


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One object as a manifest names it."""

    api_version: str
    kind: str
    namespace: str
    name: str


class Sending(msgspec.Struct, frozen=True):
    """The body of a PATCH, how it is to be read, and where it goes."""

    body: bytes
    content_type: str
    subresource: str | None = None


def read_manifest(write: Apply) -> Object:
    """The one object of a manifest. Raises TooLarge, BadRequest, Invalid."""
    documents = load_documents(write.manifest, max_bytes=MAX_MANIFEST)
    if len(documents) != 1:
        raise BadRequest(
            f"a manifest holds one object, not {len(documents)}", remedy="Send one write for each."
        )
    return documents[0]


def target_of(manifest: Object) -> Target:
    """What a manifest is about. Raises Invalid for one that does not say."""
    metadata = manifest.get("metadata")
    if not isinstance(metadata, dict):
        raise _lacks("metadata")
    texts = {
        "apiVersion": manifest.get("apiVersion"),
        "kind": manifest.get("kind"),
        "metadata.name": metadata.get("name"),
    }
    for field, text in texts.items():
        if not isinstance(text, str) or not text:
            raise _lacks(field)
    namespace = metadata.get("namespace") or ""
    if not isinstance(namespace, str):
        raise Invalid("the manifest's metadata.namespace is no text", field="metadata.namespace")
    return Target(
        api_version=str(texts["apiVersion"]),
        kind=str(texts["kind"]),
        namespace=namespace,
        name=str(texts["metadata.name"]),
    )


def _lacks(field: str) -> Invalid:
    return Invalid(
        f"the manifest has no {field}", remedy="It needs apiVersion, kind and metadata.name.", field=field
    )


def type_of_manifest(target: Target, types: Iterable[ResourceType]) -> ResourceType:
    """The type that a manifest means, in the very version it names. Raises NotFound."""
    group, _, version = target.api_version.rpartition("/")
    for found in types:
        if found.group == group and found.kind == target.kind:
            # Discovery keeps the preferred version; the API server says so when it does not serve this one.
            return msgspec.structs.replace(found, version=version)
    raise NotFound(
        f"the cluster serves no kind {target.kind[:100]!r} in {target.api_version[:100]!r}",
        remedy="Check apiVersion and kind; a custom resource needs its CustomResourceDefinition first.",
    )


def writable(identity: ResourceId, found: ResourceType) -> ResourceId:
    """The id, when an object of the type can have it. Raises BadRequest and Invalid."""
    if found.namespaced != bool(identity.namespace):
        where = "needs a namespace" if found.namespaced else "is in no namespace"
        raise BadRequest(f"{identity} names no object: {found.name} {where}")
    check_object_name(found, identity.name)
    if identity.namespace:
        check_namespace_name(identity.namespace)
    return identity


def opened(write: Replace, identity: ResourceId, found: ResourceType, keyring: Keyring) -> Replacement:
    """The manifest of a Replace, taken out of its box where it is sealed. Raises IntegrityError, BadRequest, Invalid."""
    if bool(write.manifest) == bool(write.sealed):
        raise BadRequest("a replace needs a manifest, in the open or sealed, and not both")
    # Sealed under the id as it was written, which may name the type in another of its forms.
    plain = write.manifest or keyring.open_box(write.sealed, context=replace_context(write.id))
    return read_replacement(plain, identity, found)


def check_words(write: Write | ReplaceMany) -> None:
    """Raise TooLarge for more words about a write than are kept."""
    for what, text, limit in (
        ("reason", write.reason, MAX_REASON),
        ("change log", write.change_log, MAX_CHANGE_LOG),
    ):
        if len(text) > limit:
            raise TooLarge(
                f"the {what} has {len(text)} characters, at most {limit} are kept", remedy="Say less."
            )


def sending(write: Write, found: ResourceType, live: Object | None, now: datetime) -> Sending:
    """The request of any write but a delete.

    `live` is the object as it is now; None where an apply would create it. Raises
    Invalid, Conflict and Unsupported for what is refused before anything is sent.
    """
    match write:
        case Apply():
            return _apply(write)
        case Patch():
            return _patch(write, found)
        case Scale():
            return _scale(write, found)
        case Restart():
            return _restart(write, found, live or {}, now)
        case Label():
            return _label(write, live or {})
        case Delete() | Replace():
            raise ValueError(f"a {type(write).__name__} is no patch")


def _apply(write: Apply) -> Sending:
    manifest = read_manifest(write)
    # What a get answers must be good to apply: who owned which field then is not for a manifest to say.
    metadata = {key: value for key, value in manifest["metadata"].items() if key != "managedFields"}
    manifest = {**manifest, "metadata": metadata | _preconditions(write)}
    return Sending(msgspec.json.encode(manifest), APPLY_PATCH)


def _patch(write: Patch, found: ResourceType) -> Sending:
    body = _decoded_patch(write)
    if isinstance(body, list):
        if found.name == SECRETS:
            _check_moves_no_value(body)
        paths = {"uid": "/metadata/uid", "resourceVersion": "/metadata/resourceVersion"}
        tests = [
            {"op": "test", "path": paths[field], "value": value}
            for field, value in _preconditions(write).items()
        ]
        return Sending(msgspec.json.encode([*tests, *body]), JSON_PATCH)
    return Sending(_encoded(body, write), _CONTENT_TYPES[write.type])


def _check_moves_no_value(operations: list[Any]) -> None:
    """Raise Invalid for a JSON patch that would show a Secret's value: moved to where values are read, or guessed."""
    for operation in operations:
        told = operation if isinstance(operation, dict) else {}
        kind = told.get("op")
        place = told.get("from") if kind in ("copy", "move") else told.get("path") if kind == "test" else None
        if place is not None and not str(place).startswith("/metadata/"):
            raise Invalid(
                f"a JSON patch of a Secret may not {kind} {str(place)[:100]!r}: that could show a value",
                remedy="Add, replace and remove keys of data instead.",
            )


def _decoded_patch(write: Patch) -> Any:
    if len(write.patch) > MAX_MANIFEST:
        raise TooLarge(f"the patch has {len(write.patch)} bytes, at most {MAX_MANIFEST} are taken")
    # Read as a document's only member, so that the limits of documents hold for a list, too.
    (document,) = load_documents(b'{"patch":' + write.patch + b"}", max_bytes=MAX_MANIFEST + 16) or [{}]
    body = document.get("patch")
    wanted = list if write.type == "json" else dict
    if not isinstance(body, wanted):
        shape = "a list of operations" if write.type == "json" else "an object"
        raise BadRequest(
            f"a {write.type} patch is {shape}", remedy="See `type` for the other kinds of patches."
        )
    return body


def _scale(write: Scale, found: ResourceType) -> Sending:
    if "scale" not in found.subresources:
        raise Unsupported(
            f"{found.name} cannot be scaled: they have no scale subresource",
            remedy="Deployments, StatefulSets, ReplicaSets and some custom resources can.",
        )
    if not 0 <= write.replicas <= MAX_REPLICAS:
        raise Invalid(f"{write.replicas} is no number of replicas", field="replicas")
    return Sending(_encoded({"spec": {"replicas": write.replicas}}, write), MERGE_PATCH, "scale")


def _restart(write: Restart, found: ResourceType, live: Object, now: datetime) -> Sending:
    if found.name not in RESTARTABLE:
        raise Unsupported(f"{found.name} cannot be restarted", remedy=f"These can: {', '.join(RESTARTABLE)}.")
    if (live.get("spec") or {}).get("paused"):
        raise Conflict("a paused deployment cannot be restarted", remedy="Resume its rollout first.")
    at = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    template = {"metadata": {"annotations": {RESTARTED_AT: at}}}
    return Sending(_encoded({"spec": {"template": template}}, write), MERGE_PATCH)


def _label(write: Label, live: Object) -> Sending:
    wanted = {"labels": write.labels, "annotations": write.annotations}
    if not any(wanted.values()):
        raise Invalid("no label and no annotation is named", remedy="Name at least one.")
    metadata = live.get("metadata") or {}
    if not write.overwrite:
        taken = [
            f"{key} (in {what})"
            for what, pairs in wanted.items()
            for key, value in pairs.items()
            if value is not None and (metadata.get(what) or {}).get(key, value) != value
        ]
        if taken:
            raise Conflict(
                f"other values are there already: {', '.join(taken)}",
                remedy="Allow to overwrite them (--overwrite).",
            )
    return Sending(
        _encoded({"metadata": {what: pairs for what, pairs in wanted.items() if pairs}}, write), MERGE_PATCH
    )


def _encoded(body: Mapping[str, Any], write: Write) -> bytes:
    if asked := _preconditions(write):
        metadata = body.get("metadata")
        body = {**body, "metadata": {**(metadata if isinstance(metadata, dict) else {}), **asked}}
    return msgspec.json.encode(body)


def _preconditions(write: Write) -> dict[str, str]:
    return {field: value for field, value in (("uid", write.uid), ("resourceVersion", write.rv)) if value}
