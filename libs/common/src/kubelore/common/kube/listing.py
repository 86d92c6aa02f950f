"""Splits a list into its objects without decoding them, each as the bytes that a get would return.

The API server leaves `kind` and `apiVersion` out of the items of built-in
types' lists, but not out of watch events; they are put back in front, where the
server itself writes them, so that the same object is the same bytes whichever
way it came.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from kubelore.common.errors import UpstreamError
from kubelore.common.kube.nesting import UNREADABLE, without_depths


class Items:
    """The objects of one page, each copied out of the page when its turn comes.

    Copied all at once, the thousand small blocks of a page leave a hole in the
    heap as large as the page.
    """

    __slots__ = ("_head", "_raw")

    def __init__(self, raw: Sequence[msgspec.Raw], head: bytes) -> None:
        self._raw = raw
        self._head = head

    def __len__(self) -> int:
        return len(self._raw)

    def __iter__(self) -> Iterator[bytes]:
        head = self._head
        return (with_type(bytes(raw), head) for raw in self._raw)


class ListPage(msgspec.Struct, frozen=True):
    """One page of a list: raw objects and where to go on.

    `rv` is the resourceVersion of the list as a whole (the same on every page
    of it); `continue_` is empty on the last page; `remaining` is the server's
    estimate, None where it gives none.
    """

    rv: str
    continue_: str
    remaining: int | None
    items: Items


class _ListMeta(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")
    remaining_item_count: int | None = None


class _List(msgspec.Struct, rename="camel"):
    metadata: _ListMeta
    kind: str = ""
    api_version: str = ""
    items: list[msgspec.Raw] | None = None


class _TypeMeta(msgspec.Struct, rename="camel"):
    kind: str = ""
    api_version: str = ""


_decode_list = msgspec.json.Decoder(_List).decode
_decode_type = msgspec.json.Decoder(_TypeMeta).decode


def parse_list(body: bytes) -> ListPage:
    """The page in an API server's answer; raises UpstreamError when it is no list.

    An item that is nested too deep to be decoded is UNREADABLE.
    """
    try:
        answer = _decoded(body)
    except msgspec.MsgspecError as error:
        raise UpstreamError("the API server's answer is no list") from error
    if not answer.kind.endswith("List"):
        raise UpstreamError(f"the API server answered a list with {answer.kind[:80]!r}")
    head = type_head(answer.kind.removesuffix("List"), answer.api_version)
    return ListPage(
        rv=answer.metadata.resource_version,
        continue_=answer.metadata.continue_,
        remaining=answer.metadata.remaining_item_count,
        items=Items(answer.items or (), head),
    )


def _decoded(body: bytes) -> _List:
    try:
        return _decode_list(body)
    except RecursionError:
        return _decode_list(without_depths(body, 2))


def single(body: bytes) -> bytes:
    """The object of an answer with one, without the newline that a list and a watch do not have."""
    return body.removesuffix(b"\n")


def type_head(kind: str, api_version: str) -> bytes:
    """How the API server begins an object of a built-in type: `{"kind":"Pod","apiVersion":"v1",`."""
    return b'{"kind":%b,"apiVersion":%b,' % (msgspec.json.encode(kind), msgspec.json.encode(api_version))


def with_type(raw: bytes, head: bytes) -> bytes:
    """The object with `head` in front, unless it says its kind itself or is none."""
    if raw.startswith((b'{"kind":', b'{"apiVersion":')) or raw == UNREADABLE:
        return raw
    if not raw.startswith(b'{"metadata":') and _decode_type(raw).kind:
        return raw
    return head + raw[1:]
