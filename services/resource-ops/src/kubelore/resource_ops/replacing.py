"""What a Replace sends, and what is said of its refusal: manifests made fit to be written whole. Pure.

Only the outermost two levels of a manifest are decoded; everything below goes to
the API server as the bytes that came, which checks it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from kubelore.common.contracts.identity import ResourceId
from kubelore.common.contracts.writes import MAX_MANIFEST, Replace
from kubelore.common.errors import (
    AlreadyExists,
    BadRequest,
    Conflict,
    Invalid,
    KubeloreError,
    NotFound,
    TooLarge,
)
from kubelore.common.kube import ResourceType
from kubelore.common.kube.differences import ABSENT, differences, render
from kubelore.resource_ops.write_outcomes import without_quotes

MAX_FIELDS = 20
REPLACE_TRIES = 5
"""How often an object is written over that somebody else changes in the moment between reading and writing."""
SECRETS = "secrets"

SERVER_SET = frozenset(
    {
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "managedFields",
        "selfLink",
    }
)
"""What the API server writes into metadata itself, and takes a write amiss that says otherwise."""

_UNCHANGEABLE = re.compile(
    r"immutable|may not (?:change|be changed|update)|can(?:not| not) (?:change|be changed|be updated)|"
    r"updates? to .*forbidden|not allowed to be (?:changed|updated)|may not be (?:updated|modified)",
    re.IGNORECASE | re.DOTALL,
)
_QUOTED = re.compile(r"'([^']*)'")

Object = dict[str, Any]

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_text = msgspec.json.Decoder(str | None).decode


class Replacement(msgspec.Struct, frozen=True):
    """A manifest ready to be sent, as the type and version that it names."""

    type: ResourceType
    fields: dict[str, msgspec.Raw]
    metadata: dict[str, msgspec.Raw]

    def body(self, *, uid: str = "", rv: str = "") -> bytes:
        """The JSON to send; with `uid` and `rv`, good only for that very object in that very state."""
        asked = {"uid": uid, "resourceVersion": rv}
        metadata = self.metadata | {field: _encoded(value) for field, value in asked.items() if value}
        return msgspec.json.encode(self.fields | {"metadata": _encoded(metadata)})

    def decoded(self) -> Object:
        """The whole manifest."""
        return msgspec.json.decode(self.body(), type=dict[str, Any])


def read_replacement(manifest: bytes, identity: ResourceId, found: ResourceType) -> Replacement:
    """The manifest of the object that `identity` names. Raises TooLarge, and Invalid for one of another object."""
    if len(manifest) > MAX_MANIFEST:
        raise TooLarge(f"the manifest has {len(manifest)} bytes, at most {MAX_MANIFEST} are taken")
    try:
        fields = _fields(manifest)
        metadata = _fields(fields.get("metadata", b"{}"))
        said = {
            "apiVersion": _text(fields.get("apiVersion", b"null")),
            "kind": _text(fields.get("kind", b"null")),
            "metadata.name": _text(metadata.get("name", b"null")),
            "metadata.namespace": _text(metadata.get("namespace", b"null")),
        }
    except (msgspec.MsgspecError, RecursionError):
        # Not chained: the decoder's message may quote what it could not decode.
        raise BadRequest("the manifest is no JSON object of Kubernetes") from None
    _check_same(said, identity, found)
    group, _, version = (said["apiVersion"] or found.api_version).rpartition("/")
    if group != found.group:
        raise _other("apiVersion", said["apiVersion"], found.api_version)
    kept = {name: value for name, value in metadata.items() if name not in SERVER_SET}
    kept |= {"name": _encoded(identity.name)}
    if identity.namespace:
        kept |= {"namespace": _encoded(identity.namespace)}
    versioned = msgspec.structs.replace(found, version=version)
    kind = {"apiVersion": _encoded(versioned.api_version), "kind": _encoded(found.kind)}
    return Replacement(versioned, {**fields, **kind}, kept)


def _check_same(said: Mapping[str, str | None], identity: ResourceId, found: ResourceType) -> None:
    meant = {
        "kind": found.kind,
        "metadata.name": identity.name,
        "metadata.namespace": identity.namespace,
    }
    for field, value in meant.items():
        if (told := said[field]) and told != value:
            raise _other(field, told, value)


def _other(field: str, said: str | None, meant: str) -> Invalid:
    return Invalid(
        f"the manifest's {field} is {str(said)[:300]!r}, and the write is about {meant[:300]!r}",
        remedy="Name the object that the manifest is of.",
        field=field,
    )


def _encoded(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def check_there(write: Replace, identity: ResourceId, metadata: Mapping[str, Any] | None) -> None:
    """Raise NotFound, AlreadyExists or Conflict when what is there is not what the write is for.

    `metadata` is that of the live object, None when there is none.
    """
    if metadata is None:
        if write.mode == "replace" or write.uid or write.rv:
            raise NotFound(f"there is no {identity}")
        return
    if write.mode == "create":
        raise AlreadyExists(f"there is a {identity} already", remedy="Replace it, or choose another name.")
    uid, rv = metadata.get("uid", ""), metadata.get("resourceVersion", "")
    if write.uid and write.uid != uid:
        raise Conflict(
            f"{identity} is another object now: it was deleted and made anew",
            remedy="Look at what is there, and say whether to write over it.",
            uid=uid,
            rv=rv,
        )
    if write.rv and write.rv != rv:
        raise changed_since(identity, write.rv, rv)


def goes_over(write: Replace, error: Conflict) -> bool:
    """Whether a write that was refused, for certain, since the object changed, is meant for what is there now."""
    said = error.extra.get("kubernetes_reason")
    return not write.rv and (said == "Conflict" or (said == "AlreadyExists" and write.mode == "either"))


def changed_since(identity: ResourceId, rv: str, newest: str = "") -> Conflict:
    """What is said when the object changed after the state that a write was made for."""
    extra = {"rv": newest} if newest else {}
    return Conflict(
        f"{identity} has changed since {rv}", remedy="Look at what it is now, and write again.", **extra
    )


def with_fields(error: KubeloreError, live: Object | None, wanted: Object | None) -> KubeloreError:
    """An API server's refusal to change what cannot be changed, with the paths in `fields`; others as they are.

    Where the API server names no more than a whole part (`spec` of a
    StatefulSet), what differs there between the live object and the manifest is
    told instead. Paths only, no values.
    """
    if not isinstance(error, Invalid):
        return error
    causes = [
        cause
        for cause in error.extra.get("causes", ())
        if cause.get("field") and _UNCHANGEABLE.search(cause.get("message", ""))
    ]
    fields = list(dict.fromkeys(field for cause in causes for field in _paths(cause, live, wanted)))[
        :MAX_FIELDS
    ]
    if not fields:
        return error
    return Invalid(
        f"these cannot be changed once they are set: {', '.join(fields)}",
        remedy="Leave them as they are, or delete the object and create it anew.",
        **error.extra,
        fields=fields,
    )


def refused(
    error: KubeloreError, identity: ResourceId, *, rv: str, live: Object | None, replacement: Replacement
) -> KubeloreError:
    """An API server's refusal of a replacement, made plain: what cannot be changed, or that somebody was faster.

    `rv` is the state that was to be written over. Of a Secret nothing of the
    API server's words is left.
    """
    if type(error) is Conflict and rv and error.extra.get("kubernetes_reason") == "Conflict":
        return changed_since(identity, rv)
    found = with_fields(error, live, replacement.decoded() if isinstance(error, Invalid) else None)
    if identity.type != SECRETS:
        return found
    if "fields" in found.extra:
        found.extra.pop("causes", None)
        return found
    return without_quotes(error)


def _paths(cause: Mapping[str, str], live: Object | None, wanted: Object | None) -> Iterator[str]:
    field = cause.get("field", "")
    # A refusal of a whole part may name what it does take: only in ways other than these it may not differ.
    taken = set(_QUOTED.findall(cause.get("message", "")))
    found = [
        render((field, *difference.path))
        for difference in differences((live or {}).get(field), (wanted or {}).get(field))
        # What the manifest does not say, the API server fills in.
        if difference.path and difference.new is not ABSENT and difference.path[0] not in taken
    ]
    yield from found or [field]
