"""Where a sealed record lies, as the bytes that authenticate it."""

from __future__ import annotations

MAX_CONTEXT_BYTES = 0xFFFF


def bound(label: bytes, *parts: bytes | str) -> bytes:
    """The parts behind each other, each with its length, so that no two lists of parts give the same bytes.

    A part is at most 65,535 bytes in UTF-8. Raises ValueError.
    """
    out = [label]
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        if len(raw) > MAX_CONTEXT_BYTES:
            raise ValueError(f"a context has at most {MAX_CONTEXT_BYTES} bytes, not {len(raw)}")
        out.append(len(raw).to_bytes(2, "big"))
        out.append(raw)
    return b"".join(out)
