"""An object's metadata, decoded once; everything else of the object stays the bytes it came as."""

from __future__ import annotations

import msgspec

from kubelore.common.errors import UpstreamError


class OwnerReference(msgspec.Struct, rename="camel", omit_defaults=True):
    """Who owns an object, as far as a tree of owners needs it."""

    kind: str = ""
    name: str = ""
    uid: str = ""
    api_version: str = ""
    controller: bool | None = None


class ObjectMeta(msgspec.Struct, rename="camel"):
    """The metadata that is asked for all the time, times as sent; `managedFields` is never decoded."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: list[OwnerReference] | None = None
    finalizers: list[str] | None = None


class _WithMeta(msgspec.Struct):
    metadata: ObjectMeta


class _WithRawMeta(msgspec.Struct):
    metadata: msgspec.Raw


_decode = msgspec.json.Decoder(_WithMeta).decode
_decode_raw = msgspec.json.Decoder(_WithRawMeta).decode
_PARTIAL = b'{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":%b}'


def decode_meta(raw: bytes) -> ObjectMeta:
    """The metadata of an object; raises UpstreamError when the bytes are no Kubernetes object."""
    try:
        return _decode(raw).metadata
    except (msgspec.MsgspecError, RecursionError) as error:
        raise UpstreamError(f"this is no Kubernetes object: {error}") from error


def metadata_only(raw: bytes) -> bytes:
    """The object as a PartialObjectMetadata, its metadata byte for byte; raises UpstreamError."""
    try:
        return _PARTIAL % bytes(_decode_raw(raw).metadata)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise UpstreamError(f"this is no Kubernetes object: {error}") from error
