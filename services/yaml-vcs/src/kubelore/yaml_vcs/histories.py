"""The histories as they are asked for: each answer holds what the current caller may read, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from kubelore.common.callers import current_caller
from kubelore.common.contracts import versions
from kubelore.common.contracts.identity import ResourceId, check_cluster_name
from kubelore.common.contracts.versions import (
    Actor,
    Blame,
    DiffVersions,
    GetVersion,
    HistoryGap,
    ListVersions,
    SnapshotItem,
    SnapshotPage,
    TakeSnapshot,
    VerifiedHistory,
    VerifyHistory,
    Version,
    VersionContent,
    VersionDiff,
    VersionPage,
)
from kubelore.common.crypto import Verifier
from kubelore.common.errors import BadRequest, Gone, IntegrityError, NotFound
from kubelore.yaml_vcs import packing, rendering
from kubelore.yaml_vcs.branch_repository import Draft
from kubelore.yaml_vcs.gaps import Gaps
from kubelore.yaml_vcs.history import GONE, MAIN, NO_COMMIT, Entry, first_broken
from kubelore.yaml_vcs.rendering import iso
from kubelore.yaml_vcs.repository import (
    MAX_CHUNK,
    Attribution,
    Resource,
    VersionRepository,
    resource_key,
    version_id,
)
from kubelore.yaml_vcs.statements import Statements

DAMAGED = b"\0"
"""In place of a content that cannot be unpacked: no object has it."""
MAX_PAGE = 1000
BLAMED = 500
"""Versions that a blame goes back: at 1 ms each half a second."""
BLAMED_BYTES = 32 * 1024 * 1024
"""Of their contents together; a blame goes back less far where they are large."""
SNAPSHOT_PAGE = 500
SNAPSHOT_BYTES = 4 * 1024 * 1024
"""A page with contents ends behind the object that goes over it."""
_UNPACKED = 50


class Histories:
    """Every question as a method."""

    def __init__(self, repository: VersionRepository, verifier: Verifier | None = None) -> None:
        self._repository = repository
        self._verifier = verifier
        self._gaps = Gaps(repository)

    async def list(self, request: ListVersions) -> VersionPage:
        """A page of versions, newest first. Raises NotFound for an object without a history."""
        resource = await self.readable(request.id)
        limit = _limit(request.limit)
        key, before = resource_key(request.id), request.before
        branch = await self.branch(request.id, request.branch)
        if request.tag:
            return await self._with_tag(resource, branch, request)
        found: list[Version] = []
        while True:
            page = await self._repository.page(
                key,
                branch,
                before=before,
                since=int(request.since * 1000),
                until=None if request.until is None else int(request.until * 1000),
                limit=limit + 1,
            )
            shown = await self.shown(resource, page[:limit], branch)
            found += [one for one in shown if request.actor in ("", one.actor.name)]
            before = page[limit - 1].number if len(page) > limit else None
            if before is None or len(found) >= limit or not request.actor:
                gaps = await self._gaps_of(resource, page[:limit], branch, request, last=before is None)
                following = found[limit - 1].version if len(found) > limit else before
                return VersionPage(found[:limit], following, gaps)

    async def _gaps_of(
        self, resource: Resource, page: Sequence[Entry], branch: int, request: ListVersions, *, last: bool
    ) -> list[HistoryGap]:
        """What is not known between the versions of a page; where it holds those of one actor only, nothing is said."""
        if branch != MAIN or request.actor:
            return []
        first = last and not request.since
        return await self._gaps.among(resource, page[::-1], first=first)

    async def get(self, request: GetVersion) -> VersionContent:
        """One version with its object. Raises NotFound."""
        resource = await self.readable(request.id)
        branch = await self.branch(request.id, request.branch)
        entry = await self.entry(request.id, request.version, branch)
        (shown,) = await self.shown(resource, [entry], branch)
        text = "" if shown.redacted else await self.text(entry, request.id, branch)
        gaps = await self._gaps.around(resource, entry) if branch == MAIN else []
        return VersionContent(version=shown, yaml_content=text, gaps=gaps)

    async def diff(self, request: DiffVersions) -> VersionDiff:
        """What differs between two versions; without numbers between the newest and the one before it."""
        await self.readable(request.id)
        branch = await self.branch(request.id, request.branch)
        against = await self.branch(request.id, request.against) if request.against else branch
        new = await self.entry(request.id, request.to_version, branch)
        number = request.from_version
        if number is None and against == branch:
            number = await self._before(request.id, branch, new.number)
        old = await self.entry(request.id, number, against) if number != 0 else None
        number = old.number if old is not None else 0
        before = await self.content(old, request.id, against) if old is not None else b""
        after = await self.content(new, request.id, branch)
        names = (
            _named(request.id, request.against or request.branch, number),
            _named(request.id, request.branch, new.number),
        )
        return VersionDiff(
            id=request.id,
            from_version=number,
            to_version=new.number,
            diff_content=rendering.unified(rendering.yaml_of(before), rendering.yaml_of(after), names),
            changes=rendering.changes(before, after),
        )

    async def blame(self, request: GetVersion) -> Blame:
        """Which version set each line."""
        resource = await self.readable(request.id)
        branch = await self.branch(request.id, request.branch)
        last = await self.entry(request.id, request.version, branch)
        if last.redaction is not None:
            raise redacted(request.id, last)
        key, after = resource_key(request.id), max(last.number - BLAMED, 0)
        entries = [
            one
            for one in await self._repository.all_of(key, branch, after=after)
            if one.number <= last.number
        ]
        kept = await self._latest(entries, request.id, branch)
        lines = await asyncio.to_thread(rendering.blame, kept)
        named = {line.version for line in lines}
        shown = await self.shown(resource, [one for one in entries if one.number in named], branch)
        return Blame(id=request.id, version=last.number, lines=lines, versions=shown)

    async def _latest(self, entries: Sequence[Entry], id_: str, branch: int) -> list[tuple[int, bytes]]:
        """The newest of consecutive versions, by number with their contents, as far as 32 MB go."""
        kept: list[tuple[int, bytes]] = []
        for stop in range(len(entries), 0, -_UNPACKED):
            part = entries[max(stop - _UNPACKED, 0) : stop]
            contents = await self.contents(part, id_, branch)
            held = zip(part, contents, strict=True)
            kept[:0] = [(one.number, content) for one, content in held if one.redaction is None]
            if sum(len(content) for _, content in kept) > BLAMED_BYTES:
                break
        return kept

    async def snapshot(self, request: TakeSnapshot) -> SnapshotPage:
        """A page of the objects that a namespace held at a time, in no order that means anything."""
        caller = current_caller()
        caller.check_cluster(check_cluster_name(request.cluster))
        after = bytes.fromhex(_checked_after(request.after)) if request.after else None
        items: list[SnapshotItem] = []
        held: list[tuple[Resource, Entry]] = []
        looked_at = size = 0
        while True:
            found = await self._repository.resources(
                request.cluster, namespace=request.namespace, after=after
            )
            for key, resource in found:
                full = len(items) >= min(_limit(request.limit), SNAPSHOT_PAGE) or size > SNAPSHOT_BYTES
                if full or looked_at >= MAX_PAGE:
                    await self._mark(items, held, request)
                    return SnapshotPage(items, next=after.hex() if after else "")
                after = key
                # What is not the caller's ends no page, or the pages would tell how much of it there is.
                if not caller.may_read(resource.cluster, resource.type, resource.namespace, resource.name):
                    continue
                looked_at += 1
                entry = await self._repository.last(key, until=int(request.at * 1000))
                if entry is None or entry.kind in GONE:
                    continue
                (shown,) = await self.shown(resource, [entry])
                wanted = request.content and not shown.redacted
                text = rendering.yaml_of(await self.content(entry, resource.id)) if wanted else ""
                items.append(SnapshotItem(version=shown, yaml_content=text))
                size += len(text)
                held.append((resource, entry))
            if len(found) < MAX_CHUNK:
                await self._mark(items, held, request)
                return SnapshotPage(items)

    async def _mark(
        self, items: Sequence[SnapshotItem], held: Sequence[tuple[Resource, Entry]], request: TakeSnapshot
    ) -> None:
        """Tell of each object what makes uncertain that it was so then."""
        gaps = await self._gaps.at(held, request.at)
        for item, found in zip(items, gaps, strict=True):
            item.gaps = found

    async def verify(self, request: VerifyHistory) -> VerifiedHistory:
        """Follow the chain of an object's versions from the first that is kept, and see who is said to have made them."""
        resource = await self.readable(request.id)
        key, after, count = resource_key(request.id), 0, 0
        branch = await self.branch(request.id, request.branch)
        parent = await self._begins_at(request.id, branch)
        # Without somebody's key nothing that was signed is believed.
        vouching = Statements(self._verifier, key, branch) if self._verifier is not None else None
        while True:
            entries = await self._repository.all_of(key, branch, after=after)
            if not entries:
                return VerifiedHistory(id=request.id, versions=count, ok=True)
            contents = await self.contents(entries, request.id, branch, damaged=DAMAGED)
            broken = first_broken(entries, contents, parent, after=after, vouching=vouching)
            if broken is not None:
                why = f"version {broken} does not follow from the one before: changed, dropped or put in"
                return VerifiedHistory(id=request.id, versions=count, ok=False, broken=broken, why=why)
            forged = await self._forged(resource, entries, branch, vouching) if vouching else None
            if forged is not None:
                why = f"who made version {forged} is not what was signed when it was heard: changed or put in"
                return VerifiedHistory(id=request.id, versions=count, ok=False, broken=forged, why=why)
            count += len(entries)
            parent, after = entries[-1].commit, entries[-1].number

    async def _forged(
        self, resource: Resource, entries: Sequence[Entry], branch: int, vouching: Statements
    ) -> int | None:
        """The number of the first version that is put down to somebody without a signature; None for none."""
        key = resource_key(resource.id)
        if branch == MAIN:
            written = _written(resource, entries)
            said = await self._repository.attributions(written)
            good = [one not in said or vouching.attribution(said[one]) for one in written]
        else:
            places = [_place(key, branch, entry) for entry in entries]
            drafts = await self._repository.branches.drafts(places)
            good = [one not in drafts or vouching.draft(one, drafts[one]) for one in places]
        return next((entry.number for entry, fine in zip(entries, good, strict=True) if not fine), None)

    async def walk(self, id_: str, branch: str, after: int, limit: int) -> Sequence[tuple[Version, bytes]]:
        """Versions behind a number, oldest first, with their contents (empty when the object was gone).

        Raises NotFound for an object without a history.
        """
        resource = await self.readable(id_)
        number = await self.branch(id_, branch)
        entries = await self._repository.all_of(
            resource_key(id_), number, after=after, limit=min(limit, MAX_PAGE)
        )
        contents = await self.contents(entries, id_, number)
        return list(zip(await self.shown(resource, entries, number), contents, strict=True))

    async def _before(self, id_: str, branch: int, number: int) -> int:
        """The version before one, of those that are kept; 0 where there is none."""
        key = resource_key(id_)
        found = await self._repository.page(key, branch, before=number, since=0, until=None, limit=1)
        return found[0].number if found else 0

    async def readable(self, id_: str) -> Resource:
        """An object that has a history, if the caller may read it; any other does not exist. Raises NotFound."""
        identity = ResourceId.parse(id_)
        caller = current_caller()
        visible = caller.may_read(identity.cluster, identity.type, identity.namespace, identity.name)
        resource = await self._repository.resource(id_) if visible else None
        if resource is None:
            raise NotFound(
                f"{id_} has no history",
                remedy="Write the type as `deployments.apps`; a change shows here within a second of it.",
            )
        return resource

    async def branch(self, id_: str, name: str) -> int:
        """The number of an object's branch. Raises NotFound."""
        if name == versions.MAIN:
            return MAIN
        found = await self._repository.branches.named(resource_key(id_), name)
        if found is None:
            raise NotFound(
                f"{id_} has no branch {name[:63]!r}", remedy="List its branches to see which there are."
            )
        return found.number

    async def entry(self, id_: str, number: int | None, branch: int = MAIN) -> Entry:
        """A version, the newest when none is named. Raises NotFound."""
        key = resource_key(id_)
        if number is not None:
            return await self._repository.get(key, branch, _number(number))
        last = await self._repository.last(key, branch)
        if last is None:
            raise NotFound(f"{id_} has no version yet")
        return last

    async def content(self, entry: Entry, id_: str, branch: int = MAIN) -> bytes:
        """The canonical JSON of a version; empty for a deleted one. Raises Gone for one that was redacted."""
        if entry.redaction is not None:
            raise redacted(id_, entry)
        if entry.kind in GONE:
            return b""
        chain = await self._repository.chain(resource_key(id_), branch, entry)
        return packing.unpack_all([one.frame for one in chain])[-1]

    async def text(self, entry: Entry, id_: str, branch: int = MAIN) -> str:
        """A version as YAML: of a draft as it was written, with its comments."""
        if branch != MAIN:
            place = _place(resource_key(id_), branch, entry)
            drafts = await self._repository.branches.drafts([place])
            if place in drafts:
                return drafts[place].text
        return rendering.yaml_of(await self.content(entry, id_, branch))

    async def contents(
        self, entries: Sequence[Entry], id_: str, branch: int = MAIN, *, damaged: bytes | None = None
    ) -> list[bytes]:
        """The contents of consecutive versions, each unpacked once; `damaged` for those that cannot be, if given."""
        contents: list[bytes] = []
        for entry in entries:
            try:
                contents.append(await self._unpacked(entry, contents, id_, branch))
            except IntegrityError:
                if damaged is None:
                    raise
                contents.append(damaged)
        return contents

    async def _unpacked(self, entry: Entry, before: Sequence[bytes], id_: str, branch: int) -> bytes:
        if entry.kind in GONE or entry.redaction is not None:
            return b""
        if entry.base == entry.number:
            return packing.unpack(entry.frame, None)
        return packing.unpack(entry.frame, before[-1]) if before else await self.content(entry, id_, branch)

    async def _begins_at(self, id_: str, branch: int) -> bytes:
        """The commit that a branch's first version names as the one before it."""
        known = await self._repository.branches.of(resource_key(id_)) if branch != MAIN else []
        return next((one.commit for one in known if one.number == branch), NO_COMMIT)

    async def _with_tag(self, resource: Resource, branch: int, request: ListVersions) -> VersionPage:
        """The page of a single version at most: a tag is unique to an object."""
        key = resource_key(request.id)
        tag = await self._repository.tags.get(key, request.tag)
        if (
            tag is None
            or tag.branch != branch
            or (request.before is not None and tag.number >= request.before)
        ):
            return VersionPage([])
        entry = await self._repository.get(key, branch, tag.number)
        late = request.until is not None and entry.at > request.until * 1000
        (shown,) = await self.shown(resource, [entry], branch)
        fits = request.actor in ("", shown.actor.name) and entry.at >= request.since * 1000 and not late
        return VersionPage([shown] if fits else [])

    async def shown(self, resource: Resource, entries: Sequence[Entry], branch: int = MAIN) -> list[Version]:
        """Versions as they are told: with who made them, and their tags."""
        if not entries:
            return []
        key = resource_key(resource.id)
        last = await self._repository.last(key, branch)
        current = last.number if last is not None else 0
        tags: dict[int, list[str]] = {}
        for tag in await self._repository.tags.of(key):
            if tag.branch == branch:
                tags.setdefault(tag.number, []).append(tag.name)
        if branch != MAIN:
            return await self._drafts_shown(resource, entries, branch, current, tags)
        written = _written(resource, entries)
        said = await self._repository.attributions(written)
        return [
            _version(
                resource,
                entry,
                said.get(place),
                current=entry.number == current,
                tags=tags.get(entry.number, []),
            )
            for entry, place in zip(entries, written, strict=True)
        ]

    async def _drafts_shown(
        self,
        resource: Resource,
        entries: Sequence[Entry],
        branch: int,
        current: int,
        tags: dict[int, list[str]],
    ) -> list[Version]:
        key = resource_key(resource.id)
        places = [_place(key, branch, entry) for entry in entries]
        drafts = await self._repository.branches.drafts(places)
        known = await self._repository.branches.of(key)
        name = next((one.name for one in known if one.number == branch), "")
        return [
            _version(
                resource,
                entry,
                _of_draft(resource, entry, drafts.get(place)),
                current=entry.number == current,
                tags=tags.get(entry.number, []),
                branch=name,
            )
            for entry, place in zip(entries, places, strict=True)
        ]


def _written(resource: Resource, entries: Sequence[Entry]) -> list[tuple[str, str, str]]:
    """Where it stands who wrote versions of main."""
    # Of an object that is gone at once, whoever deleted it cannot know its last resourceVersion.
    return [(resource.cluster, entry.uid, "" if entry.kind == "deleted" else entry.rv) for entry in entries]


def _place(key: bytes, branch: int, entry: Entry) -> bytes:
    """Where what belongs to a version of a draft is kept."""
    return version_id(key, branch, entry.number) + entry.commit


def _of_draft(resource: Resource, entry: Entry, draft: Draft | None) -> Attribution | None:
    if draft is None:
        return None
    return Attribution(
        cluster=resource.cluster,
        uid=entry.uid,
        rv=entry.rv,
        actor=draft.by,
        change_log=draft.change_log,
        operation_id=draft.operation_id,
    )


def _version(
    resource: Resource,
    entry: Entry,
    said: Attribution | None,
    *,
    current: bool,
    tags: list[str],
    branch: str = versions.MAIN,
) -> Version:
    if said is not None:
        actor = Actor(kind="user", name=said.actor, probable=said.probable)
    elif entry.manager and entry.kind not in ("vanished", "deleted"):
        actor = Actor(kind="manager", name=entry.manager, operation=entry.operation)
    else:
        actor = Actor(kind="unknown")
    return Version(
        resource_id=resource.id,
        resource_type=resource.type,
        cluster=resource.cluster,
        namespace=resource.namespace,
        name=resource.name,
        version=entry.number,
        branch=branch,
        happened=entry.kind,
        created_at=iso(entry.at),
        created_by=actor.name,
        actor=actor,
        uid=entry.uid,
        resource_version=entry.rv,
        commit_hash=entry.commit.hex(),
        is_current=current,
        tags=tags,
        change_log=said.change_log or said.reason if said is not None else "",
        operation_id=said.operation_id if said is not None else "",
        rules=entry.rules,
        redacted=entry.redaction is not None,
    )


def redacted(id_: str, entry: Entry) -> Gone:
    """What whoever asks for a content that was taken out is told, with who did it, and when."""
    said = entry.redaction
    who = f" by {said.by} at {iso(said.at)}" if said is not None else ""
    return Gone(
        f"version {entry.number} of {id_} was redacted{who}: its content is not kept any more",
        remedy="Take another version; `kubelore history` shows which there are.",
    )


def _named(id_: str, branch: str, number: int) -> str:
    """What a diff calls one of its sides."""
    return f"{id_} version {number}" + ("" if branch == versions.MAIN else f" of {branch}")


def _limit(asked: int) -> int:
    if not 1 <= asked <= MAX_PAGE:
        raise BadRequest(f"limit {asked} is not between 1 and {MAX_PAGE}")
    return asked


def _number(asked: int) -> int:
    if not 0 < asked < 1 << 32:
        raise BadRequest(f"{asked} is no number of a version")
    return asked


def _checked_after(text: str) -> str:
    if len(text) != 20 or any(character not in "0123456789abcdef" for character in text):
        raise BadRequest("`after` is no position in a snapshot")
    return text
