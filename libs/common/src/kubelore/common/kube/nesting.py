"""JSON that is nested deeper than can be decoded here.

API servers take 10,000 levels in objects of a free form, and msgspec decodes
no more than Python's recursion limit allows. So who may write one such object
could end every list and every watch that it is in. What is too deep is cut out
here, without recursion; the rest is then read as ever.
"""

from __future__ import annotations

import re

from kubelore.common.errors import UpstreamError

MAX_DEPTH = 500
"""Levels that are left in a document from which something had to be cut."""
UNREADABLE = b"null"
"""What stands in the place of an object that is too deep: whoever decodes it is told that it is none."""

# A string that does not end takes all that is left, or each further quote would be looked for an end of again.
_TOKENS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[{]|[\]}]', re.DOTALL)


def without_depths(document: bytes, keep: int) -> bytes:
    """The document with null for whatever, `keep` levels down, reaches below MAX_DEPTH.

    Takes about 0.1 s per MB: for documents that could not be decoded. Raises
    UpstreamError for one that does not end.
    """
    kept: list[bytes] = []
    copied = begins = depth = deepest = 0
    for token in _TOKENS.finditer(document):
        what = document[token.start()]
        if what in b"[{":
            depth += 1
            if depth == keep + 1:
                begins, deepest = token.start(), depth
            deepest = max(deepest, depth)
        elif what in b"]}":
            if depth == keep + 1 and deepest > MAX_DEPTH:
                kept += [document[copied:begins], UNREADABLE]
                copied = token.end()
            depth -= 1
    if depth:
        raise UpstreamError("the API server sent JSON that does not end")
    return b"".join([*kept, document[copied:]])
