"""Reads objects as they are now, and writes what versions say, through resource-ops on behalf of the caller."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from kubelore.common.bus import Bus
from kubelore.common.callers import current_caller
from kubelore.common.contracts import live, writes
from kubelore.common.contracts.live import ReadLive
from kubelore.common.contracts.writes import Delete, Replace, ReplaceMode, Written, replace_context
from kubelore.common.crypto import Recipient
from kubelore.common.errors import AlreadyExists, Conflict, Invalid
from kubelore.yaml_vcs.history import Entry
from kubelore.yaml_vcs.normalising import Normalisers, decoded
from kubelore.yaml_vcs.repository import Resource
from kubelore.yaml_vcs.reverting import (
    Intent,
    Live,
    Manifest,
    by_rules,
    creating,
    has_values,
    is_secret,
    replacing,
    with_values,
)

READ_AT_ONCE = 50
TRIES = 4
"""Of a write whose object the cluster itself touched in that very moment, as controllers do with status."""
ITEMS_EACH = 2 * TRIES
"""Numbers that one object takes in its operation: each try is a write of its own."""

ValuesOf = Callable[[Resource, Entry], dict[str, bytes]]


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What was said about a rollback as a whole."""

    dry_run: bool
    reason: str = ""
    change_log: str = ""


class WritingBack:
    """`values_of` opens the values of a Secret's version, `clusters` is whom they are sealed to on the way back."""

    def __init__(self, bus: Bus, normalisers: Normalisers, values_of: ValuesOf, clusters: Recipient) -> None:
        self._bus = bus
        self._normalisers = normalisers
        self._values_of = values_of
        self._clusters = clusters

    async def live(self, cluster: str, ids: Sequence[str]) -> dict[str, Live]:
        """Objects of a cluster as its API server has them now, by id."""
        found: dict[str, Live] = {}
        for start in range(0, len(ids), READ_AT_ONCE):
            asked = ReadLive(cluster=cluster, ids=list(ids[start : start + READ_AT_ONCE]))
            for one in (await self._bus.request(live.LIVE, asked)).items:
                found[one.id] = self._seen(Resource.of(one.id), one)
        return found

    def by_rules(self, resource: Resource, content: bytes, live: Live) -> bytes:
        """What an object is to be, by the rules that its cluster has now."""
        return by_rules(self._normalisers.of(resource.cluster), resource.type, content, live)

    def _seen(self, resource: Resource, one: live.LiveObject) -> Live:
        if not one.object:
            return Live()
        rules = self._normalisers.of(resource.cluster)
        content = rules.content(resource.type, decoded(one.object), one.hmacs)
        return Live(uid=one.uid, rv=one.rv, object=decoded(one.object), content=content)

    async def write(
        self, intent: Intent, wish: Wish, *, item: int = 0, uids: Mapping[str, str] | None = None
    ) -> tuple[Written, tuple[str, ...]]:
        """Carry out an intent; what the write did, and what was knowingly left out.

        Raises Forbidden, Invalid and Conflict as resource-ops does, and Conflict when
        the object changed since it was read in what versions hold.
        """
        if is_secret(intent.resource) and intent.step in ("replace", "create"):
            current_caller().check_right("secrets", intent.resource.cluster, intent.resource.namespace)
        for attempt in range(TRIES):
            try:
                return await self._once(intent, wish, item + 2 * attempt, uids or {})
            except AlreadyExists:
                raise
            except Conflict as error:
                # Refused, so not done: what is another write may be tried, with what it is now.
                if error.extra.get("outcome") == "unknown" or attempt + 1 == TRIES:
                    raise
                now = (await self.live(intent.resource.cluster, [intent.resource.id]))[intent.resource.id]
                if (now.uid, now.content) != (intent.live.uid, intent.live.content):
                    raise _moved(intent) from error
                intent = msgspec.structs.replace(intent, live=now)
        raise _moved(intent)

    async def _once(
        self, intent: Intent, wish: Wish, item: int, uids: Mapping[str, str]
    ) -> tuple[Written, tuple[str, ...]]:
        if intent.step == "delete":
            asked = Delete(
                id=intent.resource.id,
                uid=intent.live.uid,
                rv=intent.live.rv,
                item=item,
                dry_run=wish.dry_run,
                reason=wish.reason,
                change_log=wish.change_log,
            )
            return await self._bus.request(writes.DELETE, asked), ()
        if intent.step == "replace":
            rules = self._normalisers.of(intent.resource.cluster)
            manifest = replacing(intent, rules.paths_of(intent.resource.type))
            return await self._replace(intent, manifest, "replace", wish, item), manifest.notes
        manifest = creating(intent, uids, addresses=True)
        try:
            return await self._replace(intent, manifest, "create", wish, item), manifest.notes
        except Invalid:
            without = creating(intent, uids, addresses=False)
            if without.object == manifest.object:
                raise
            return await self._replace(intent, without, "create", wish, item + 1), without.notes

    async def _replace(
        self, intent: Intent, manifest: Manifest, mode: ReplaceMode, wish: Wish, item: int
    ) -> Written:
        id_ = intent.resource.id
        asked = Replace(
            id=id_,
            mode=mode,
            uid=intent.live.uid,
            rv=intent.live.rv,
            item=item,
            dry_run=wish.dry_run,
            reason=wish.reason,
            change_log=wish.change_log,
        )
        if is_secret(intent.resource) and intent.entry is not None:
            # A Secret without keys has nothing sealed beside it.
            keys = has_values(intent.content)
            values = self._values_of(intent.resource, intent.entry) if keys else {}
            whole = msgspec.json.encode(with_values(manifest, intent.content, values))
            asked.sealed = self._clusters.seal(whole, context=replace_context(id_))
        else:
            asked.manifest = msgspec.json.encode(manifest.object)
        return await self._bus.request(writes.REPLACE, asked)


def _moved(intent: Intent) -> Conflict:
    return Conflict(
        f"{intent.resource.id} changed in this very moment",
        remedy="Look at what it would do now, and try again.",
        code="changed-since-preview",
    )
