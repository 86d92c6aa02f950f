"""How an object lies at rest in the read model: packed in two frames (`kubelore.common.frames`).

Answers in the metadata view (and they are the large ones) need a fifth of the
bytes and parse nothing.

Frames of one type are compressed with a dictionary trained on the first objects
of that type, and once more on later ones. Secrets get no dictionary: a
dictionary is made of pieces of its samples, and would outlive them.
"""

from __future__ import annotations

import msgspec
import zstandard

from kubelore.common.frames import PARTIAL, Dictionary, Head, Unpacker, generation_of, partial_object

LEVEL = 3
TRAIN_AT = (128, 2048)
"""How many objects of a type have been seen when its dictionaries are trained."""
SAMPLES = 256
MIN_SAMPLE_BYTES = 32 * 1024
METADATA_DICTIONARY_BYTES = 8 * 1024
REST_DICTIONARY_BYTES = 64 * 1024

_ANCHOR = 48
_MANAGED = b'"managedFields":'


class Split(msgspec.Struct, gc=False, frozen=True):
    """One object cut in two, and where the cuts are (offsets in bytes)."""

    metadata: bytes
    rest: bytes
    metadata_at: int
    managed_at: int
    managed_len: int


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


class _Generation:
    """One pair of dictionaries (or none), and what packs and unpacks with it."""

    def __init__(self, number: int, samples: list[Split] | None = None) -> None:
        self.number = number
        self.dictionary = Dictionary()
        if samples:
            self.dictionary = Dictionary(
                _train(METADATA_DICTIONARY_BYTES, [sample.metadata for sample in samples]),
                _train(REST_DICTIONARY_BYTES, [sample.rest for sample in samples]),
            )
        self.fingerprint = self.dictionary.fingerprint()
        self.unpacker = Unpacker(self.dictionary)
        self._metadata = _compressor(self.dictionary.metadata, 1024)
        self._rest = _compressor(self.dictionary.rest, 4096)

    def pack(self, parts: Split) -> bytes:
        metadata = self._metadata.compress(parts.metadata)
        head = Head(self.number, len(metadata), parts.metadata_at, parts.managed_at, parts.managed_len)
        # Joining copies: the result that zstandard returns keeps the tail of a larger buffer alive.
        return b"".join((head.pack(), metadata, self._rest.compress(parts.rest) if parts.rest else b""))


def _train(size: int, samples: list[bytes]) -> bytes:
    """A dictionary, empty where the samples are too small or too few for one."""
    if sum(map(len, samples)) < max(MIN_SAMPLE_BYTES, 2 * size):
        return b""
    try:
        return zstandard.train_dictionary(size, samples, k=512, d=8).as_bytes()  # pyright: ignore[reportArgumentType] - the stub's list is invariant
    except zstandard.ZstdError:
        return b""


def _compressor(dictionary: bytes, size: int) -> zstandard.ZstdCompressor:
    parameters = zstandard.ZstdCompressionParameters.from_level(
        LEVEL, source_size=size, dict_size=len(dictionary), write_dict_id=False, write_checksum=False
    )
    learned = zstandard.ZstdCompressionDict(dictionary) if dictionary else None
    return zstandard.ZstdCompressor(dict_data=learned, compression_params=parameters)


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
        whole = Split(metadata, PARTIAL + b"}", len(PARTIAL), 0, 0)
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
        return self._unpacker(packed).whole(packed)

    def metadata(self, packed: bytes) -> bytes:
        """The raw `metadata` of a packed object, without managedFields."""
        return self._unpacker(packed).metadata(packed)

    def lean(self, packed: bytes) -> bytes:
        """A packed object without its managedFields: a quarter less to parse."""
        return self._unpacker(packed).lean(packed)

    def partial(self, packed: bytes) -> bytes:
        """A packed object as PartialObjectMetadata."""
        return partial_object(self.metadata(packed))

    def fingerprint(self, packed: bytes) -> str:
        """Which dictionary a packed object needs; empty for none."""
        return self._generations[generation_of(packed)].fingerprint

    def dictionaries(self) -> dict[str, Dictionary]:
        """What was learned so far, by fingerprint."""
        return {one.fingerprint: one.dictionary for one in self._generations if one.fingerprint}

    def _unpacker(self, packed: bytes) -> Unpacker:
        return self._generations[generation_of(packed)].unpacker
