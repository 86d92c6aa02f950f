"""What of the change feed one watcher sees, and as which event. No input or output here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec
import zstandard

from kubelore.common.authz import Caller
from kubelore.common.contracts.changes import Change
from kubelore.common.contracts.identity import ResourceId
from kubelore.common.errors import BadRequest
from kubelore.common.kube import facts
from kubelore.common.kube.selectors import FieldSelector, LabelSelector

MAX_OBJECT = 16 * 1024 * 1024
_METADATA_FIELDS = frozenset({"metadata.name", "metadata.namespace"})

Happening = Literal["added", "modified", "deleted", "removed", "reset"]


class Seen(msgspec.Struct, frozen=True):
    """One event of a watcher; `object` is raw JSON, empty with `reset`."""

    happening: Happening
    object: bytes = b""


class Selection:
    """Types by canonical name, namespaces, label and field selectors; what is empty restricts nothing.

    Of that, what the caller may read.

    Raises BadRequest for a selector that is none, or a field that one of the types does not have.
    """

    def __init__(
        self, types: Iterable[str], namespaces: Iterable[str], labels: str, fields: str, caller: Caller
    ) -> None:
        self._caller = caller
        self._types = frozenset(types)
        self._namespaces = frozenset(namespaces)
        self._labels = LabelSelector.parse(labels)
        self._fields = FieldSelector.parse(fields)
        self._decompress = zstandard.ZstdDecompressor().decompress
        self._check_fields()

    def concerns(self, type_name: str) -> bool:
        """Whether anything of this type can be part of the selection."""
        return not self._types or type_name in self._types

    def reaches(self, cluster: str, namespace: str) -> bool:
        """Whether anything in a namespace can be part of the selection; empty stands for the whole cluster."""
        if not namespace:
            return True
        chosen = not self._namespaces or namespace in self._namespaces
        return chosen and self._caller.namespaces(cluster).matches(namespace)

    def see(self, change: Change) -> Seen | None:
        """The event of a change, None when the watcher does not see it.

        An object too large for the feed becomes `reset`: the list has it. Raises
        Invalid or zstandard.ZstdError for an object that cannot be read.
        """
        if change.kind == "observed" or not self.concerns(change.type):
            return None
        identity = ResourceId.parse(change.id)
        if not self._caller.may_read(change.cluster, change.type, identity.namespace, identity.name):
            return None
        # A Namespace counts as in itself, as it does in lists.
        namespace = identity.name if change.type == "namespaces" else identity.namespace
        if self._namespaces and namespace not in self._namespaces:
            return None
        if not change.object:
            return Seen("reset")
        raw = self._decompress(change.object, max_output_size=MAX_OBJECT)
        if not self._labels and not self._fields:
            return Seen(_HAPPENINGS[change.kind], raw)
        return self._selected(change, identity, raw)

    def _selected(self, change: Change, identity: ResourceId, raw: bytes) -> Seen | None:
        found = facts.read(change.type, raw)
        metadata = {"metadata.name": identity.name, "metadata.namespace": identity.namespace}
        fields = dict(zip(facts.field_paths(change.type), found.fields, strict=True))
        now = before = self._matches(found.meta.labels or {}, metadata | fields)
        if change.was is not None:
            before = self._matches(change.was.labels, metadata | change.was.fields)
        if change.kind in ("created", "deleted"):
            return Seen(_HAPPENINGS[change.kind], raw) if now else None
        if now:
            return Seen("modified" if before else "added", raw)
        # A replayed update that names no version before it may have left: who never had it loses nothing.
        return Seen("removed", raw) if before or not change.old_rv else None

    def _matches(self, labels: dict[str, str], fields: dict[str, str]) -> bool:
        return self._labels.matches(labels) and self._fields.matches(fields)

    def _check_fields(self) -> None:
        known = [_METADATA_FIELDS.union(facts.field_paths(name)) for name in sorted(self._types)]
        for requirement in self._fields.requirements:
            for fields in known or [_METADATA_FIELDS]:
                if requirement.field not in fields:
                    raise BadRequest(
                        f"field label not supported: {requirement.field[:253]}",
                        remedy=f"Every type of the watch must have the field; these do: {', '.join(sorted(fields))}.",
                    )


_HAPPENINGS: dict[str, Happening] = {"created": "added", "updated": "modified", "deleted": "deleted"}
