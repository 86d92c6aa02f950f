"""Contents at rest: each version as what it differs in from the one before, by zstd.

The content before serves as zstd's dictionary, so that one field changed in 5 KB
costs some forty bytes. After `CHAIN` versions one is kept whole, which bounds
what reading any version costs, and what one damaged frame can take with it. Of
Secrets only hashes and names are packed here, never values.
"""

from __future__ import annotations

from collections.abc import Sequence

import zstandard

from kubelore.common.errors import IntegrityError

CHAIN = 64
"""Versions from one that is whole to the next: 0.6 ms to unpack the last of them at 5 KB each."""
LEVEL = 3
MAX_CONTENT = 16 * 1024 * 1024

_WHOLE_OUT = zstandard.ZstdCompressor(level=LEVEL, write_checksum=False, write_content_size=True)
_WHOLE_IN = zstandard.ZstdDecompressor()


def pack(content: bytes, before: bytes | None) -> bytes:
    """A content as a frame; `before` is what it is told apart from, None for one that stands alone."""
    if before is None:
        return bytes(memoryview(_WHOLE_OUT.compress(content)))
    base = zstandard.ZstdCompressionDict(before, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    out = zstandard.ZstdCompressor(
        level=LEVEL, dict_data=base, write_checksum=False, write_content_size=True, write_dict_id=False
    )
    # Copied: the result as returned keeps the tail of a larger buffer alive.
    return bytes(memoryview(out.compress(content)))


def unpack(frame: bytes, before: bytes | None) -> bytes:
    """The content of a frame. Raises IntegrityError for one that is damaged or has another base."""
    try:
        if before is None:
            return _WHOLE_IN.decompress(frame, max_output_size=MAX_CONTENT)
        base = zstandard.ZstdCompressionDict(before, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
        return zstandard.ZstdDecompressor(dict_data=base).decompress(frame, max_output_size=MAX_CONTENT)
    except zstandard.ZstdError as error:
        raise IntegrityError("The content of a version cannot be unpacked: it is damaged.") from error


def unpack_all(frames: Sequence[bytes]) -> list[bytes]:
    """The contents of a chain that begins with a whole one, each from the one before."""
    contents: list[bytes] = []
    before: bytes | None = None
    for frame in frames:
        before = unpack(frame, before)
        contents.append(before)
    return contents
