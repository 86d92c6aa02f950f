"""The two stores: MongoDB for metadata, and a blob store for large sealed things.

Each is loaded when its name is first used: pymongo costs 35 MB and 0.4 s,
obstore 8 MB, and not every process needs both (docs/decisions/0012).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kubelore.common.store.blobs import BlobInfo, BlobStore
    from kubelore.common.store.filters import (
        Condition,
        gt,
        gte,
        lt,
        lte,
        ne,
        not_lt,
        one_of,
        present,
        starts_with,
    )
    from kubelore.common.store.keys import blob_key
    from kubelore.common.store.mongo import Collection, Database, open_database
    from kubelore.common.store.paging import position

__all__ = [
    "BlobInfo",
    "BlobStore",
    "Collection",
    "Condition",
    "Database",
    "blob_key",
    "gt",
    "gte",
    "lt",
    "lte",
    "ne",
    "not_lt",
    "one_of",
    "open_database",
    "position",
    "present",
    "starts_with",
]

_HOMES = {
    "blobs": ("BlobInfo", "BlobStore"),
    "filters": ("Condition", "gt", "gte", "lt", "lte", "ne", "not_lt", "one_of", "present", "starts_with"),
    "keys": ("blob_key",),
    "mongo": ("Collection", "Database", "open_database"),
    "paging": ("position",),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(name)
