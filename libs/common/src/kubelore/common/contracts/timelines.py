"""What yaml-vcs answers to who goes through whole histories: which objects have one, and versions in their order."""

from __future__ import annotations

import msgspec

from kubelore.common.contracts.endpoint import Endpoint
from kubelore.common.contracts.versions import MAIN, SERVICE, HistoryGap, Version


class ListObjects(msgspec.Struct, kw_only=True):
    """A page of the objects that have a history, those that are gone among them, narrowed to a namespace or type.

    Without a namespace (None) it is the whole cluster; an empty one is what lies in none.
    """

    cluster: str
    namespace: str | None = None
    type: str = ""
    after: str = ""
    limit: int = 500


class VersionedObject(msgspec.Struct, kw_only=True):
    """An object that has a history, and its newest version."""

    id: str
    type: str
    namespace: str
    name: str
    live: bool
    version: int
    commit_hash: str
    created_at: str


class ObjectPage(msgspec.Struct):
    """Objects in no order that means anything, and the `after` of the page behind; empty at the end."""

    items: list[VersionedObject]
    next: str = ""


class ReadHistory(msgspec.Struct, kw_only=True):
    """An object's versions behind a number, oldest first, with their contents."""

    id: str
    branch: str = MAIN
    after: int = 0
    limit: int = 100


class VersionStep(msgspec.Struct, kw_only=True):
    """A version, the object as it was (YAML, empty when it was gone), and what it changed (unified diff)."""

    version: Version
    yaml_content: str
    diff_content: str


class HistoryPage(msgspec.Struct):
    """Versions oldest first, and the `after` of the page behind; None at the end."""

    items: list[VersionStep]
    next: int | None = None
    gaps: list[HistoryGap] = []
    """Between them, and behind the last; at the beginning also before the first."""


OBJECTS = Endpoint(SERVICE, "objects", ListObjects, ObjectPage, deadline_s=15.0)
HISTORY = Endpoint(SERVICE, "history", ReadHistory, HistoryPage, deadline_s=15.0)

ENDPOINTS = (OBJECTS, HISTORY)
