"""What may leave an observer of a Secret: everything but its values.

`data`, `stringData` and the annotation in which kubectl keeps a copy of them
are taken out of the object. Each value leaves an HMAC, by which one can tell
whether the same key held the same value at two times or in two clusters, and
nothing else; the values themselves are sealed for the one service that may
open them.
"""

from __future__ import annotations

import base64
import binascii
from typing import Protocol

import msgspec

from kubelore.common.errors import UpstreamError

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


class Hmac(Protocol):
    """A keyed hash, such as `Keyring.hmac`."""

    def __call__(self, data: bytes, *, context: str) -> bytes:
        """The hash of `data`; another context gives another hash."""
        ...


class Seal(Protocol):
    """Seals to somebody who holds the private half, such as `Recipient.seal`."""

    def __call__(self, plaintext: bytes, *, context: str) -> bytes:
        """A box that opens only under the same context."""
        ...


class StrippedSecret(msgspec.Struct, frozen=True):
    """A Secret without its values.

    `hmacs` maps each key to the HMAC of its decoded value. `sealed` is the
    msgpack of `{key: value bytes}`, sealed under `secret_context`; empty when
    there were no values.
    """

    object: bytes
    hmacs: dict[str, bytes]
    sealed: bytes


class _Metadata(msgspec.Struct, rename="camel"):
    uid: str = ""
    resource_version: str = ""


_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_texts = msgspec.json.Decoder(dict[str, str] | None).decode
_metadata = msgspec.json.Decoder(_Metadata).decode


def secret_context(cluster: str, uid: str, rv: str) -> str:
    """What sealed values are bound to: this very version of this very Secret."""
    return f"secret:{cluster}:{uid}:{rv}"


def strip_secret(raw: bytes, *, cluster: str, hmac: Hmac, seal: Seal) -> StrippedSecret:
    """Take the values out of a Secret's JSON. Raises UpstreamError when it is no object.

    The HMAC is taken under the key's name, so that equal values under one key
    compare equal in every Secret of every cluster, and equal values under two
    keys do not show that they are equal.
    """
    try:
        fields = _fields(raw)
        values = _values(fields)
        metadata = fields.get("metadata", msgspec.Raw(b"{}"))
        identity = _metadata(metadata)
        fields["metadata"] = _without_copy(metadata)
    except msgspec.MsgspecError:
        # Not chained: the decoder's message may quote what it could not decode.
        raise UpstreamError("the API server sent something that is no Secret") from None
    context = secret_context(cluster, identity.uid, identity.resource_version)
    return StrippedSecret(
        object=msgspec.json.encode(fields),
        hmacs={key: hmac(value, context=f"secret-value:{key}") for key, value in values.items()},
        sealed=seal(msgspec.msgpack.encode(values), context=context) if values else b"",
    )


def _values(fields: dict[str, msgspec.Raw]) -> dict[str, bytes]:
    """Take both maps of values out. `stringData` wins, as it does in the API server."""
    data = fields.pop("data", None)
    texts = fields.pop("stringData", None)
    values = {key: _decoded(value) for key, value in (_texts(data) or {}).items()} if data else {}
    if texts:
        values |= {key: value.encode() for key, value in (_texts(texts) or {}).items()}
    return values


def _decoded(value: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return value.encode()


def _without_copy(metadata: msgspec.Raw) -> msgspec.Raw:
    if LAST_APPLIED.encode() not in bytes(metadata) and b"\\u" not in bytes(metadata):
        return metadata
    parts = _fields(metadata)
    annotations = _texts(parts["annotations"]) if "annotations" in parts else None
    if annotations is None or LAST_APPLIED not in annotations:
        return metadata
    del annotations[LAST_APPLIED]
    parts["annotations"] = msgspec.Raw(msgspec.json.encode(annotations))
    return msgspec.Raw(msgspec.json.encode(parts))
