"""One simulated cluster without its network: what it serves and what it holds."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime

from .resources import ResourceTypes
from .status import Json
from .store import Store

BEAT = "kubesim.kubelore.dev/beat"  # the annotation that generated load counts up
NAME_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"  # of apimachinery's utilrand, which generateName uses
BORN = "2026-01-05T08:00:00Z"  # when every simulated cluster was made


def clock_revision() -> int:
    """A first revision above every one of an earlier process: microseconds of the wall clock."""
    return time.time_ns() // 1000


def timestamp() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(slots=True)
class ClusterState:
    """Names and uids follow from `name` and `seed`, so a restarted cluster is the same cluster."""

    name: str
    seed: int = 0
    bookmark_interval_s: float = 30.0
    types: ResourceTypes = field(default_factory=ResourceTypes)
    store: Store = field(default_factory=lambda: Store(clock_revision()))

    def uid(self, *parts: str) -> str:
        """A uid that is the same in every run."""
        return str(uuid.uuid5(uuid.NAMESPACE_DNS, "/".join((str(self.seed), self.name, *parts))))

    def seed_object(self, key: str, obj: Json) -> None:
        """Puts an object of the initial world: its uid follows from its name, its age from `BORN`."""
        resource_type = self.types.named(key)
        meta = obj["metadata"]
        meta.setdefault("uid", self.uid(key, meta.get("namespace", ""), meta["name"]))
        meta.setdefault("creationTimestamp", BORN)
        self.store.put(resource_type, obj)
