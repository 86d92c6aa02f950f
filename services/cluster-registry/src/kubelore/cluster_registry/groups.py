"""Groups of clusters, as things of their own: described, renamed with all their members.

Which cluster is in which group stands with the clusters, so that `group:x`
chooses by one lookup. A group that clusters name without its having been made
is there all the same.

A rename is three writes. Dying between them leaves the group under its old name,
marked; whoever touches the groups next brings the rest of its members over.
"""

from __future__ import annotations

import time

from kubelore.cluster_registry.announcements import REGISTRY, Announcements
from kubelore.cluster_registry.lifetimes import iso_utc
from kubelore.cluster_registry.repository import ClusterRepository, GroupRepository, StoredGroup
from kubelore.common.authz import Caller
from kubelore.common.callers import current_caller
from kubelore.common.contracts.clusters import (
    CreateGroup,
    Empty,
    Group,
    GroupPage,
    GroupRef,
    ListGroups,
    UpdateGroup,
)
from kubelore.common.errors import AlreadyExists, Conflict, NotFound

MAX_PAGE = 1000


class Groups:
    """What the bus endpoints about groups call."""

    def __init__(
        self, groups: GroupRepository, clusters: ClusterRepository, announcements: Announcements
    ) -> None:
        self._groups = groups
        self._clusters = clusters
        self._announcements = announcements

    async def list(self, request: ListGroups) -> GroupPage:
        """One page by name: what the caller sees members of, and for who sees everything the empty ones too."""
        found = await self._visible(current_caller())
        names = sorted(name for name in found if name > (request.after or ""))
        limit = max(1, min(request.limit, MAX_PAGE))
        shown = names[:limit]
        more = len(names) > limit
        return GroupPage([found[name] for name in shown], total=len(found), next=shown[-1] if more else None)

    async def get(self, request: GroupRef) -> Group:
        """One group; raises NotFound."""
        found = (await self._visible(current_caller())).get(request.name)
        if found is None:
            raise _no_such_group(request.name)
        return found

    async def create(self, request: CreateGroup) -> Group:
        """Make a group without members; raises AlreadyExists."""
        current_caller().check_admin("make groups")
        if request.name in await self._visible(current_caller()):
            raise AlreadyExists(
                f"a group named {request.name!r} exists already", remedy="Choose another name."
            )
        await self._groups.insert(_new(request.name, current_caller().subject, request.description))
        return await self.get(GroupRef(request.name))

    async def update(self, request: UpdateGroup) -> Group:
        """Describe and rename a group; raises NotFound, and AlreadyExists when the new name is taken."""
        caller = current_caller()
        caller.check_admin("change groups")
        group = await self.get(GroupRef(request.name))
        now = iso_utc(time.time())
        if isinstance(request.description, str):
            group.description = request.description
            await self._make(request.name, caller.subject)
            await self._groups.update(request.name, description=request.description, updated_at=now)
        if isinstance(request.rename, str) and request.rename != request.name:
            await self._rename(group, request.rename, caller)
            return await self.get(GroupRef(request.rename))
        return await self.get(GroupRef(request.name))

    async def delete(self, request: GroupRef) -> Empty:
        """Remove a group that has no members; raises NotFound and Conflict."""
        current_caller().check_admin("delete groups")
        group = await self.get(request)
        if group.clusters:
            raise Conflict(
                f"the group {request.name!r} has {group.clusters} clusters",
                remedy="Move them first: `kubelore clusters update NAME --group OTHER`.",
            )
        await self._groups.delete(request.name)
        return Empty()

    async def join(self, name: str) -> str:
        """The group that a cluster is put into: made when it is new, and under its new name while it is renamed."""
        if not name:
            return name
        held = await self._groups.get(name)
        if held is not None and held.renaming_to:
            return held.renaming_to
        if held is None:
            await self._make(name, current_caller().subject)
        return name

    async def finish_renames(self) -> None:
        """Bring over what a process that died in a rename left behind."""
        for group in (await self._groups.all()).values():
            if group.renaming_to:
                await self._move(group.name, group.renaming_to, REGISTRY)

    async def _rename(self, group: Group, to: str, caller: Caller) -> None:
        if to in await self._visible(caller):
            raise AlreadyExists(
                f"a group named {to!r} exists already",
                remedy="Choose another name, or move the clusters: `kubelore clusters update NAME --group GROUP`.",
            )
        await self._make(group.name, caller.subject)
        await self._groups.update(group.name, renaming_to=to)
        await self._move(group.name, to, caller.subject)

    async def _move(self, name: str, to: str, actor: str) -> None:
        held = await self._groups.get(name)
        now = iso_utc(time.time())
        if held is not None and await self._groups.get(to) is None:
            renamed = StoredGroup(
                name=to,
                description=held.description,
                created_by=held.created_by,
                created_at=held.created_at,
                updated_at=now,
            )
            await self._insert_once(renamed)
        moved = await self._clusters.move(name, to, now)
        await self._groups.delete(name)
        # Who read the old name a moment ago may have put a cluster into it meanwhile.
        moved += await self._clusters.move(name, to, now)
        for cluster in moved:
            await self._announcements.tell(
                cluster, "updated", detail=f"group {name} is now {to}", actor=actor
            )

    async def _make(self, name: str, subject: str) -> None:
        """Keep a group that so far only clusters name."""
        if await self._groups.get(name) is None:
            await self._insert_once(_new(name, subject))

    async def _insert_once(self, group: StoredGroup) -> None:
        try:
            await self._groups.insert(group)
        except AlreadyExists:
            return

    async def _visible(self, caller: Caller) -> dict[str, Group]:
        """The groups that a caller may know of, by name."""
        await self.finish_renames()
        kept, members = await self._groups.all(), await self._clusters.groups_of()
        found: dict[str, Group] = {}
        for name in kept.keys() | members.keys():
            seen = sum(caller.sees(cluster) for cluster in members.get(name, ()))
            if seen or caller.unrestricted:
                found[name] = _shown(kept.get(name) or StoredGroup(name=name), seen)
        return found


def _new(name: str, subject: str, description: str = "") -> StoredGroup:
    now = iso_utc(time.time())
    return StoredGroup(name=name, description=description, created_by=subject, created_at=now, updated_at=now)


def _shown(group: StoredGroup, clusters: int) -> Group:
    return Group(
        name=group.name,
        description=group.description,
        clusters=clusters,
        created_by=group.created_by,
        created_at=group.created_at,
        updated_at=group.updated_at,
    )


def _no_such_group(name: str) -> NotFound:
    return NotFound(
        f"there is no group named {name[:80]!r}", remedy="`kubelore clusters groups list` shows their names."
    )
