"""What may leave an observer of a Secret: everything but its values.

`data`, `stringData`, any top-level field that no Secret has, and annotations that
hold a copy of the object or of a value are taken out. Each value leaves an HMAC,
by which one can tell whether the same key held the same value at two times or in
two clusters, and nothing else; the values themselves are sealed for the one
service that may open them, bound to the cluster, the uid and the
resourceVersion. managedFields name keys, never values, and stay.

The other parts keep the API server's bytes. Stripping twice changes nothing.
"""

from __future__ import annotations

import base64
import binascii
from typing import Protocol

import msgspec

from kubelore.common.errors import UpstreamError

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"

COPIES = frozenset(
    {
        LAST_APPLIED,
        "kapp.k14s.io/original",
        "kopf.zalando.org/last-handled-configuration",
        "objectset.rio.cattle.io/applied",
    }
)
"""Annotations in which tools keep a whole object, some of them compressed."""

_SECRET_FIELDS = frozenset({"apiVersion", "kind", "metadata", "type", "immutable"})
_LEAST_PLAIN = 16
"""Characters from which on a value repeated in an annotation is taken for a copy, not for a common word."""
_LEAST_ENCODED = 8
"""The same for its base64, which no common word looks like."""
_MOST_SEARCHED = 10**8
"""Values times characters of annotations that are searched for copies (20 ms); over it all annotations go."""


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


class StrippedList(msgspec.Struct, frozen=True):
    """A list without the values of its Secrets, and what each Secret became, in the order of the list."""

    object: bytes
    secrets: list[StrippedSecret]


class _Metadata(msgspec.Struct, rename="camel"):
    uid: str = ""
    resource_version: str = ""


_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_items = msgspec.json.Decoder(list[msgspec.Raw] | None).decode
_texts = msgspec.json.Decoder(dict[str, str | None] | None).decode
_text = msgspec.json.Decoder(str).decode
_metadata = msgspec.json.Decoder(_Metadata).decode


def secret_context(cluster: str, uid: str, rv: str) -> str:
    """What sealed values are bound to: this very version of this very Secret."""
    return f"secret:{cluster}:{uid}:{rv}"


def strip_secret(raw: bytes, *, cluster: str, hmac: Hmac, seal: Seal | None = None) -> StrippedSecret:
    """Take the values out of a Secret's JSON. Raises UpstreamError when it is no object.

    The HMAC is taken under the key's name, so that equal values under one key
    compare equal in every Secret of every cluster, and equal values under two
    keys do not show that they are equal. Without `seal` the values end here.
    """
    try:
        fields = _fields(raw)
        values = _values(fields)
        metadata = fields.get("metadata", msgspec.Raw(b"{}"))
        identity = _metadata(metadata)
        kept = {name: value for name, value in fields.items() if name in _SECRET_FIELDS}
        kept["metadata"] = _without_copies(metadata, values)
    except msgspec.MsgspecError:
        # Not chained: the decoder's message may quote what it could not decode.
        raise UpstreamError("the API server sent something that is no Secret") from None
    context = secret_context(cluster, identity.uid, identity.resource_version)
    return StrippedSecret(
        object=msgspec.json.encode(kept),
        hmacs={key: hmac(value, context=f"secret-value:{key}") for key, value in values.items()},
        sealed=seal(msgspec.msgpack.encode(values), context=context) if values and seal else b"",
    )


def strip_list(raw: bytes, *, cluster: str, hmac: Hmac, seal: Seal) -> StrippedList:
    """Take the values out of every Secret of a SecretList, a List of anything, or a Table of Secrets.

    An item that says another kind stays as it is; one that says none, as the
    items of a SecretList, is a Secret. Raises UpstreamError when it is no list.
    """
    stripped: list[StrippedSecret] = []

    def strip_item(item: msgspec.Raw) -> msgspec.Raw:
        kind = _text(_fields(item).get("kind", b'"Secret"'))
        if kind not in ("Secret", "PartialObjectMetadata"):
            return item
        stripped.append(strip_secret(bytes(item), cluster=cluster, hmac=hmac, seal=seal))
        return msgspec.Raw(stripped[-1].object)

    def strip_row(row: msgspec.Raw) -> dict[str, msgspec.Raw]:
        parts = _fields(row)
        return {name: strip_item(part) if name == "object" else part for name, part in parts.items()}

    try:
        fields: dict[str, object] = dict(_fields(raw))
        if (items := fields.get("items")) is not None:
            fields["items"] = [strip_item(item) for item in _items(_raw(items)) or []]
        if (rows := fields.get("rows")) is not None:
            fields["rows"] = [strip_row(row) for row in _items(_raw(rows)) or []]
    except msgspec.MsgspecError:
        raise UpstreamError("the API server sent something that is no list of Secrets") from None
    return StrippedList(msgspec.json.encode(fields), stripped)


def _values(fields: dict[str, msgspec.Raw]) -> dict[str, bytes]:
    """Both maps of values as one. `stringData` wins, as it does in the API server; null is the empty value."""
    data = _texts(fields.get("data", b"null")) or {}
    texts = _texts(fields.get("stringData", b"null")) or {}
    values = {key: _decoded(value or "") for key, value in data.items()}
    return values | {key: (value or "").encode() for key, value in texts.items()}


def _decoded(value: str) -> bytes:
    """The bytes that base64 stands for, line ends ignored as in Go; the text itself when it is no base64."""
    try:
        return base64.b64decode(value.replace("\n", "").replace("\r", ""), validate=True)
    except (binascii.Error, ValueError):
        return value.encode()


def _without_copies(metadata: msgspec.Raw, values: dict[str, bytes]) -> msgspec.Raw:
    parts = _fields(metadata)
    if "annotations" not in parts:
        return metadata
    # Always decoded and encoded anew: an escape or a name given twice must not hide a copy.
    annotations = _texts(parts["annotations"]) or {}
    traces = _traces(values)
    if len(traces) * sum(len(text or "") for text in annotations.values()) > _MOST_SEARCHED:
        annotations = {}
    kept = {
        name: text
        for name, text in annotations.items()
        if name not in COPIES and not (text and any(trace in text for trace in traces))
    }
    parts["annotations"] = msgspec.Raw(msgspec.json.encode(kept))
    return msgspec.Raw(msgspec.json.encode(parts))


def _traces(values: dict[str, bytes]) -> set[str]:
    """The texts by which a copy of a value is known: base64, plain, and plain as it stands in JSON."""
    traces = {base64.b64encode(value).decode() for value in values.values()}
    traces = {trace for trace in traces if len(trace) >= _LEAST_ENCODED}
    for value in values.values():
        plain = value.decode(errors="ignore")
        if len(plain) >= _LEAST_PLAIN:
            traces |= {plain, msgspec.json.encode(plain)[1:-1].decode()}
    return traces


def _raw(value: object) -> msgspec.Raw:
    return value if isinstance(value, msgspec.Raw) else msgspec.Raw(b"null")
