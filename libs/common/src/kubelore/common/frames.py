"""How an object is packed: two zstd frames, so that its metadata comes out alone.

The first frame holds `metadata` without `managedFields`, the second everything
else; a small head says where the cuts are, so that together they give back the
API server's bytes exactly. resource-ops keeps objects like this and sends them
as they lie; whoever answers a person unpacks them. A tenth of the bytes travel.

Frames need the dictionary that they were packed with. A dictionary is known by
a fingerprint of its bytes: one of another replica, or of the same name after a
restart, can never be taken for it.
"""

from __future__ import annotations

import hashlib
import struct
from typing import NamedTuple, TypeAlias

import msgspec
import zstandard

from kubelore.common.errors import IntegrityError

Buffer: TypeAlias = bytes | memoryview

MAX_OBJECT_BYTES = 64 * 1024 * 1024
PARTIAL = b'{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":'
_PARTIAL_END = b"}"

_HEAD = struct.Struct("<BIIII")
HEAD_BYTES = _HEAD.size


class Head(NamedTuple):
    """What stands before the frames: offsets and lengths in bytes.

    `generation` counts the dictionaries of a type within one process; it means
    nothing to others, who are told the fingerprint.
    """

    generation: int
    metadata_len: int
    metadata_at: int
    managed_at: int
    managed_len: int

    def pack(self) -> bytes:
        """As bytes."""
        return _HEAD.pack(*self)


_HeadFields: TypeAlias = tuple[int, int, int, int, int]
"""A `Head` as it is read: making the named one costs as much as unpacking a small frame."""


def generation_of(packed: Buffer) -> int:
    """Which of its type's dictionaries, as counted where it was packed."""
    return packed[0]


def metadata_only(packed: bytes) -> bytes:
    """A packed object without its second frame: all that the metadata view needs."""
    return packed[: HEAD_BYTES + _HEAD.unpack_from(packed)[1]]


def partial_object(metadata: bytes) -> bytes:
    """A PartialObjectMetadata around raw metadata."""
    return PARTIAL + metadata + _PARTIAL_END


class Dictionary(msgspec.Struct, frozen=True):
    """What both frames of an object were compressed with; empty where there was nothing to learn from."""

    metadata: bytes = b""
    rest: bytes = b""

    def fingerprint(self) -> str:
        """The name of exactly these bytes; empty for no dictionary at all."""
        if not self.metadata and not self.rest:
            return ""
        digest = hashlib.sha256(len(self.metadata).to_bytes(8, "big"))
        digest.update(self.metadata)
        digest.update(self.rest)
        return digest.hexdigest()[:32]


class Unpacker:
    """Unpacks what was packed with one dictionary. Raises IntegrityError for what was not."""

    def __init__(self, dictionary: Dictionary) -> None:
        self._metadata = _decompressor(dictionary.metadata)
        self._rest = _decompressor(dictionary.rest)

    def metadata(self, packed: Buffer) -> bytes:
        """The raw `metadata` of a packed object, without managedFields."""
        end = HEAD_BYTES + _HEAD.unpack_from(packed)[1]
        return _decompress(self._metadata, packed[HEAD_BYTES:end])

    def whole(self, packed: bytes) -> bytes:
        """The bytes that were packed."""
        return b"".join(_joined(*self._both(packed)))

    def lean(self, packed: bytes) -> bytes:
        """A packed object without its managedFields: a quarter less to parse."""
        metadata, rest, (_, _, metadata_at, _, managed_len) = self._both(packed)
        outer = len(rest) - managed_len
        return b"".join((rest[:metadata_at], metadata, rest[metadata_at:outer]))

    def whole_pieces(self, packed: Buffer) -> tuple[bytes, ...]:
        """The bytes that were packed, in pieces to be joined with whatever stands around them."""
        return _joined(*self._both(packed))

    def partial_pieces(self, packed: Buffer) -> tuple[bytes, ...]:
        """The object as PartialObjectMetadata, in pieces to be joined."""
        return PARTIAL, self.metadata(packed), _PARTIAL_END

    def _both(self, packed: Buffer) -> tuple[bytes, bytes, _HeadFields]:
        head = _HEAD.unpack_from(packed)
        end = HEAD_BYTES + head[1]
        rest = packed[end:]
        metadata = _decompress(self._metadata, packed[HEAD_BYTES:end])
        return metadata, (_decompress(self._rest, rest) if rest else b""), head


def whole_size(packed: Buffer) -> int:
    """Bytes of the object, told by its frames without unpacking them."""
    end = HEAD_BYTES + _HEAD.unpack_from(packed)[1]
    return _content_size(packed[HEAD_BYTES:end]) + (_content_size(packed[end:]) if end < len(packed) else 0)


def partial_size(packed: Buffer) -> int:
    """Bytes of the object as PartialObjectMetadata."""
    end = HEAD_BYTES + _HEAD.unpack_from(packed)[1]
    return len(PARTIAL) + _content_size(packed[HEAD_BYTES:end]) + len(_PARTIAL_END)


def _joined(metadata: bytes, rest: bytes, head: _HeadFields) -> tuple[bytes, ...]:
    _, _, at, managed_at, managed_len = head
    if not managed_len:
        return rest[:at], metadata, rest[at:]
    outer = len(rest) - managed_len
    return rest[:at], metadata[:managed_at], rest[outer:], metadata[managed_at:], rest[at:outer]


def _decompressor(dictionary: bytes) -> zstandard.ZstdDecompressor:
    return zstandard.ZstdDecompressor(
        dict_data=zstandard.ZstdCompressionDict(dictionary) if dictionary else None
    )


def _decompress(decompressor: zstandard.ZstdDecompressor, frame: Buffer) -> bytes:
    try:
        return decompressor.decompress(frame, max_output_size=MAX_OBJECT_BYTES)
    except zstandard.ZstdError as error:
        raise IntegrityError("an object does not unpack") from error


def _content_size(frame: Buffer) -> int:
    try:
        size = zstandard.frame_content_size(frame)
    except zstandard.ZstdError as error:
        raise IntegrityError("an object does not unpack") from error
    if not 0 <= size <= MAX_OBJECT_BYTES:
        raise IntegrityError("an object does not say how large it is, or is too large")
    return size
