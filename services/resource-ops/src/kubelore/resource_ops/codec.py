"""How an object lies at rest in the read model: two zstd frames, so that its metadata comes out alone.

The first frame holds `metadata` without `managedFields`, the second everything
else; together they give back the API server's bytes exactly. Answers in the
metadata view (and they are the large ones) then decompress a fifth of the
bytes and parse nothing.

Frames of one type are compressed with a dictionary trained on the first objects
of that type, and once more on later ones. Secrets get no dictionary: a
dictionary is made of pieces of its samples, and would outlive them.
"""

from __future__ import annotations

import struct

import msgspec
import zstandard

LEVEL = 3
TRAIN_AT = (128, 2048)
"""How many objects of a type have been seen when its dictionaries are trained."""
SAMPLES = 256
MIN_SAMPLE_BYTES = 32 * 1024
METADATA_DICTIONARY_BYTES = 8 * 1024
REST_DICTIONARY_BYTES = 64 * 1024
MAX_OBJECT_BYTES = 64 * 1024 * 1024

_ANCHOR = 48
_HEADER = struct.Struct("<BIIII")
_MANAGED = b'"managedFields":'
_PARTIAL = b'{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":'


class Split(msgspec.Struct, gc=False, frozen=True):
    """One object cut in two, and where the cuts are (offsets in bytes)."""

    metadata: bytes
    rest: bytes
    metadata_at: int
    managed_at: int
    managed_len: int


def join(metadata: bytes, rest: bytes, metadata_at: int, managed_at: int, managed_len: int) -> bytes:
    """The object's own bytes again."""
    outer = len(rest) - managed_len
    if not managed_len:
        return b"".join((rest[:metadata_at], metadata, rest[metadata_at:]))
    return b"".join(
        (
            rest[:metadata_at],
            metadata[:managed_at],
            rest[outer:],
            metadata[managed_at:],
            rest[metadata_at:outer],
        )
    )


def split(raw: bytes, metadata: bytes, managed: bytes) -> Split:
    """Cut an object's JSON, given its raw `metadata` and in it the raw `managedFields` (or nothing)."""
    at = _find(raw, metadata)
    outer = raw[:at] + raw[at + len(metadata) :]
    cut, length = _managed_cut(metadata, managed) if managed else (0, 0)
    if not length:
        return Split(metadata, outer, at, 0, 0)
    entry = metadata[cut : cut + length]
    return Split(metadata[:cut] + metadata[cut + length :], outer + entry, at, cut, length)


def _find(text: bytes, part: bytes) -> int:
    """`text.find(part)`, quick for long parts: their first bytes are looked for, the rest is compared."""
    at = text.find(part[:_ANCHOR])
    return at if at < 0 or text.startswith(part, at) else text.find(part)


def _managed_cut(metadata: bytes, managed: bytes) -> tuple[int, int]:
    """Where the entry and its comma stand; (0, 0) when it is not written as the API server writes."""
    start = _find(metadata, _MANAGED + managed)
    if start < 0:
        return 0, 0
    length = len(_MANAGED) + len(managed)
    if metadata[start - 1 : start] == b",":
        return start - 1, length + 1
    if metadata[start + length : start + length + 1] == b",":
        return start, length + 1
    return start, length


def partial_object(metadata: bytes) -> bytes:
    """A PartialObjectMetadata around raw metadata."""
    return _PARTIAL + metadata + b"}"


class _Generation:
    """One pair of dictionaries (or none) and the contexts that use it."""

    def __init__(self, number: int, samples: list[Split] | None = None) -> None:
        self.number = number
        meta = rest = None
        if samples:
            meta = _train(METADATA_DICTIONARY_BYTES, [sample.metadata for sample in samples])
            rest = _train(REST_DICTIONARY_BYTES, [sample.rest for sample in samples])
        self._meta_out = _compressor(meta, 1024)
        self._rest_out = _compressor(rest, 4096)
        self._meta_in = zstandard.ZstdDecompressor(dict_data=meta)
        self._rest_in = zstandard.ZstdDecompressor(dict_data=rest)

    def pack(self, parts: Split) -> bytes:
        meta = self._meta_out.compress(parts.metadata)
        header = _HEADER.pack(self.number, len(meta), parts.metadata_at, parts.managed_at, parts.managed_len)
        # Joining copies: the result that zstandard returns keeps the tail of a larger buffer alive.
        return b"".join((header, meta, self._rest_out.compress(parts.rest) if parts.rest else b""))

    def metadata(self, packed: bytes, length: int) -> bytes:
        end = _HEADER.size + length
        return self._meta_in.decompress(packed[_HEADER.size : end], max_output_size=MAX_OBJECT_BYTES)

    def rest(self, packed: bytes, length: int) -> bytes:
        frame = packed[_HEADER.size + length :]
        return self._rest_in.decompress(frame, max_output_size=MAX_OBJECT_BYTES) if frame else b""


def _train(size: int, samples: list[bytes]) -> zstandard.ZstdCompressionDict | None:
    """A dictionary, or None where the samples are too small or too few for one."""
    if sum(map(len, samples)) < max(MIN_SAMPLE_BYTES, 2 * size):
        return None
    try:
        return zstandard.train_dictionary(size, samples, k=512, d=8)  # pyright: ignore[reportArgumentType] - the stub's list is invariant
    except zstandard.ZstdError:
        return None


def _compressor(dictionary: zstandard.ZstdCompressionDict | None, size: int) -> zstandard.ZstdCompressor:
    dict_size = len(dictionary.as_bytes()) if dictionary else 0
    parameters = zstandard.ZstdCompressionParameters.from_level(
        LEVEL, source_size=size, dict_size=dict_size, write_dict_id=False, write_checksum=False
    )
    return zstandard.ZstdCompressor(dict_data=dictionary, compression_params=parameters)


class Codec:
    """Packs and unpacks the objects of one type. Pure but for the dictionaries it learns.

    With `learn` false (Secrets) nothing of an object is kept beyond its own frames.
    """

    def __init__(self, *, learn: bool = True) -> None:
        self._learn = learn
        self._seen = 0
        self._samples: list[Split] = []
        self._generations = [_Generation(0)]

    def pack(self, parts: Split) -> bytes:
        """The object at rest."""
        if self._learn and len(self._generations) <= len(TRAIN_AT):
            self._sample(parts)
        return self._generations[-1].pack(parts)

    def pack_metadata(self, metadata: bytes) -> bytes:
        """Only raw metadata, as PartialObjectMetadata, for a type that is over the budget."""
        whole = Split(metadata, _PARTIAL + b"}", len(_PARTIAL), 0, 0)
        return self._generations[-1].pack(whole)

    def _sample(self, parts: Split) -> None:
        self._seen += 1
        at = TRAIN_AT[len(self._generations) - 1]
        if self._seen > at - SAMPLES:
            self._samples.append(parts)
        if self._seen >= at:
            self._generations.append(_Generation(len(self._generations), self._samples))
            self._samples = []

    def whole(self, packed: bytes) -> bytes:
        """The bytes that were packed."""
        number, length, at, managed_at, managed_len = _HEADER.unpack_from(packed)
        generation = self._generations[number]
        metadata, rest = generation.metadata(packed, length), generation.rest(packed, length)
        return join(metadata, rest, at, managed_at, managed_len)

    def metadata(self, packed: bytes) -> bytes:
        """The raw `metadata` of a packed object, without managedFields."""
        number, length, *_ = _HEADER.unpack_from(packed)
        return self._generations[number].metadata(packed, length)

    def lean(self, packed: bytes) -> bytes:
        """A packed object without its managedFields: a quarter less to parse."""
        number, length, at, _, managed_len = _HEADER.unpack_from(packed)
        generation = self._generations[number]
        rest = generation.rest(packed, length)
        outer = len(rest) - managed_len
        return b"".join((rest[:at], generation.metadata(packed, length), rest[at:outer]))

    def partial(self, packed: bytes) -> bytes:
        """A packed object as PartialObjectMetadata."""
        return partial_object(self.metadata(packed))
