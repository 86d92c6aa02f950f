"""How an object is shown: whole, as `PartialObjectMetadata`, or as `Table` rows, by the Accept header."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import msgspec

from . import tables
from .resources import ResourceType
from .status import Json, bad_request, not_acceptable
from .store import Entry

_encode = msgspec.json.Encoder().encode
_METADATA_HEADER = b'{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":'


class _OnlyMetadata(msgspec.Struct):
    metadata: msgspec.Raw


_decode_metadata = msgspec.json.Decoder(_OnlyMetadata).decode


@dataclass(frozen=True, slots=True)
class View:
    """One of the three shapes; `include` says what a Table row carries along."""

    shape: Literal["object", "metadata", "table"]
    include: str = "Metadata"

    def item(self, resource_type: ResourceType, entry: Entry, *, first: bool = True) -> bytes:
        """A single object: for get, writes and watch events (`first` rows bring column definitions)."""
        if self.shape == "object":
            return retyped(resource_type, entry.body)
        if self.shape == "metadata":
            return _metadata(entry)
        table = self._table(resource_type, [entry], {"resourceVersion": str(entry.rv)})
        if not first:
            table["columnDefinitions"] = None
        return _encode(table)

    def listing(self, resource_type: ResourceType, entries: list[Entry], meta: Json) -> bytes:
        if self.shape == "table":
            return _encode(self._table(resource_type, entries, meta))
        if self.shape == "metadata":
            kind, api_version = "PartialObjectMetadataList", "meta.k8s.io/v1"
            items: Iterable[bytes] = map(_metadata, entries)
        else:
            kind, api_version = resource_type.list_kind, resource_type.api_version
            items = (_list_item(resource_type, entry.body) for entry in entries)
        head = _encode({"kind": kind, "apiVersion": api_version, "metadata": meta})
        return head[:-1] + b',"items":[' + b",".join(items) + b"]}"

    def _table(self, resource_type: ResourceType, entries: list[Entry], meta: Json) -> Json:
        rows: list[Json] = []
        for entry in entries:
            row: Json = {"cells": tables.cells(resource_type, entry.decode())}
            if self.include == "Object":
                row["object"] = msgspec.Raw(retyped(resource_type, entry.body))
            elif self.include == "Metadata":
                row["object"] = msgspec.Raw(_metadata(entry))
            rows.append(row)
        return {
            "kind": "Table",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": meta,
            "columnDefinitions": tables.column_definitions(resource_type),
            "rows": rows,
        }


def retyped(resource_type: ResourceType, body: bytes) -> bytes:
    """The stored bytes under the version asked for: CRD versions differ in their name only here."""
    if resource_type.api_version == resource_type.stored_api_version:
        return body
    header = f'{{"apiVersion":"{resource_type.api_version}","kind":"{resource_type.kind}",'.encode()
    return header + body[len(resource_type.header) :]


def _list_item(resource_type: ResourceType, body: bytes) -> bytes:
    # The real server's lists leave out the type of built-in items, and keep it for custom ones.
    if resource_type.custom is not None:
        return retyped(resource_type, body)
    return b"{" + body[len(resource_type.header) :]


def _metadata(entry: Entry) -> bytes:
    return _METADATA_HEADER + bytes(_decode_metadata(entry.body).metadata) + b"}"


def negotiate(accept: str, include: str = "Metadata") -> View:
    """The first media type that is served; ApiError 406 when there is none."""
    if include not in ("", "Metadata", "Object", "None"):
        raise bad_request(f"unsupported includeObject value {include!r}")
    for option in (accept or "*/*").split(","):
        media, *parameters = (part.strip() for part in option.split(";"))
        if media not in ("application/json", "*/*", "application/*"):
            continue
        wanted = {key: value for key, _, value in (parameter.partition("=") for parameter in parameters)}
        match wanted.get("as"), wanted.get("g"), wanted.get("v"):
            case (None, _, _):
                return View("object")
            case ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io", "v1"):
                return View("metadata")
            case ("Table", "meta.k8s.io", "v1"):
                return View("table", include or "Metadata")
            case _:
                continue
    raise not_acceptable()
