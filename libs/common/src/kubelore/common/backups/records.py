"""Records in the plain text of a chunk: one object each, its own bytes, behind a small head.

    length of the head (4) | length of the object (4) | length of the sealed values (4) | head | object | sealed

Lengths are big-endian. The head is JSON, the object the API server's JSON (a
Secret's without its values), and `sealed` the box that holds a Secret's values.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import msgspec

from kubelore.common.backups.faults import RecordDamaged
from kubelore.common.errors import TooLarge

MAX_RECORD_BYTES = 12 * 1024 * 1024
"""An API server takes 3 MB at most, and etcd half of that."""

_LENGTHS = struct.Struct(">III")


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One object as it was; `object` is the API server's JSON, `sealed` a Secret's values in their box."""

    cluster: str
    type: str
    namespace: str
    name: str
    uid: str
    rv: str
    object: bytes
    sealed: bytes = b""

    def __repr__(self) -> str:
        return f"Record({self.cluster}:{self.type}:{self.namespace}:{self.name})"


class _Head(msgspec.Struct):
    cluster: str
    type: str
    namespace: str
    name: str
    uid: str
    rv: str


class _Metadata(msgspec.Struct):
    name: str
    namespace: str = ""
    uid: str = ""


class _Object(msgspec.Struct):
    metadata: _Metadata


_encode_head = msgspec.json.Encoder().encode
_decode_head = msgspec.json.Decoder(_Head).decode
_decode_object = msgspec.json.Decoder(_Object).decode


def packed(record: Record) -> tuple[bytes, bytes, bytes]:
    """The record as three pieces to be joined: head with lengths, object, sealed. Raises TooLarge."""
    head = _encode_head(
        _Head(record.cluster, record.type, record.namespace, record.name, record.uid, record.rv)
    )
    if len(head) + len(record.object) + len(record.sealed) > MAX_RECORD_BYTES:
        raise TooLarge(f"{record!r} is over {MAX_RECORD_BYTES} bytes, and does not fit a backup.")
    lengths = _LENGTHS.pack(len(head), len(record.object), len(record.sealed))
    return lengths + head, record.object, record.sealed


def unpacked(plain: bytes, *, parse: bool = False) -> Iterator[Record]:
    """The records of a chunk; `parse` also reads each object and compares its name with the head.

    Raises RecordDamaged where lengths lead over the end, or something is not what it should be.
    """
    view, at, end = memoryview(plain), 0, len(plain)
    while at < end:
        if end - at < _LENGTHS.size:
            raise RecordDamaged("A record of the backup is cut off.")
        head_length, object_length, sealed_length = _LENGTHS.unpack_from(view, at)
        head_end = at + _LENGTHS.size + head_length
        object_end = head_end + object_length
        after = object_end + sealed_length
        if after > end:
            raise RecordDamaged("An object of the backup is cut off.")
        try:
            head = _decode_head(view[at + _LENGTHS.size : head_end])
            if parse:
                _see_same(head, view[head_end:object_end])
        except msgspec.DecodeError as error:
            raise RecordDamaged("A record of the backup cannot be read.") from error
        yield Record(
            cluster=head.cluster,
            type=head.type,
            namespace=head.namespace,
            name=head.name,
            uid=head.uid,
            rv=head.rv,
            object=bytes(view[head_end:object_end]),
            sealed=bytes(view[object_end:after]),
        )
        at = after


def _see_same(head: _Head, raw: memoryview) -> None:
    metadata = _decode_object(raw).metadata
    if (metadata.name, metadata.namespace, metadata.uid) != (head.name, head.namespace, head.uid):
        raise RecordDamaged(
            f"The object recorded as {head.type} {head.namespace}/{head.name} is another one."
        )
