"""Tags: names that people give to versions, kept by retention, compared with what is live by `drift`."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import msgspec

from kubelore.common.callers import current_caller
from kubelore.common.contracts.branches import (
    MAX_NOTE,
    MAX_TAGGED,
    MAX_TAGS,
    ListTags,
    PutTag,
    RemoveTag,
    Tag,
    TaggedSnapshot,
    Tags,
    TagSnapshot,
)
from kubelore.common.contracts.identity import check_cluster_name
from kubelore.common.contracts.versions import MAIN as MAIN_NAME
from kubelore.common.crypto import Signer
from kubelore.common.errors import AlreadyExists, Forbidden, Invalid, NotFound, TooLarge
from kubelore.yaml_vcs.histories import Histories, iso
from kubelore.yaml_vcs.history import GONE, MAIN, Entry
from kubelore.yaml_vcs.repository import MAX_CHUNK, Resource, VersionRepository, resource_key
from kubelore.yaml_vcs.tag_repository import KeptTag

_NAME = re.compile(r"[A-Za-z0-9](?:[-._A-Za-z0-9]{0,61}[A-Za-z0-9])?\Z")
Clock = Callable[[], float]


class Tagging:
    """The questions and requests about tags, each as a method."""

    def __init__(
        self, repository: VersionRepository, histories: Histories, signer: Signer, clock: Clock = time.time
    ) -> None:
        self._repository = repository
        self._histories = histories
        self._signer = signer
        self._clock = clock

    async def list(self, request: ListTags) -> Tags:
        """The tags of an object. Raises NotFound."""
        await self._histories.readable(request.id)
        key = resource_key(request.id)
        names = await self._branch_names(key)
        return Tags([_told(tag, names) for tag in await self._repository.tags.of(key)])

    async def put(self, request: PutTag) -> Tag:
        """Tag a version.

        Raises NotFound, Forbidden, AlreadyExists when the object has a tag of that
        name on another version, and TooLarge for more than 100 tags.
        """
        resource = await self._changeable(request.id)
        check_words(request.name, request.note)
        branch = await self._histories.branch(request.id, request.branch)
        entry = await self._histories.entry(request.id, request.version, branch)
        key = resource_key(request.id)
        tag = self._made(resource, branch, entry, request)
        known = {one.name: one for one in await self._repository.tags.of(key)}
        self._check_free(tag, known, move=request.move)
        await self._repository.tags.put(key, tag)
        return _told(tag, await self._branch_names(key))

    async def remove(self, request: RemoveTag) -> Tag:
        """Take a tag away; what it was. Raises NotFound, Forbidden."""
        await self._changeable(request.id)
        key = resource_key(request.id)
        tag = await self._repository.tags.get(key, request.name)
        if tag is None:
            raise NotFound(
                f"{request.id} has no tag {request.name[:63]!r}",
                remedy="List its tags to see which there are.",
            )
        names = await self._branch_names(key)
        await self._repository.tags.remove(key, request.name)
        return _told(tag, names)

    async def put_on_snapshot(self, request: TagSnapshot) -> TaggedSnapshot:
        """Tag everything that a namespace held at a time.

        An object that has the tag keeps it where it is, unless it is to move. Raises
        NotFound, Forbidden when the caller may change nothing there, TooLarge.
        """
        current_caller().check_cluster(check_cluster_name(request.cluster))
        check_words(request.name, request.note)
        found = await self._held(request)
        wanted = [(key, resource, entry) for key, resource, entry in found if _may_change(resource)]
        if found and not wanted:
            raise Forbidden(
                f"{current_caller().subject} may change nothing in {request.cluster}/{request.namespace}",
                remedy="Ask for a grant with the role operator there.",
            )
        made = [(key, self._made(resource, MAIN, entry, request)) for key, resource, entry in wanted]
        if request.move:
            for key, tag in made:
                await self._repository.tags.put(key, tag)
            tagged = len(made)
        else:
            tagged = await self._repository.tags.add(made)
        return TaggedSnapshot(tagged=tagged, kept=len(made) - tagged, skipped=len(found) - len(made))

    async def _held(self, request: TagSnapshot) -> list[tuple[bytes, Resource, Entry]]:
        """What the namespace held then, of what the caller may read."""
        held: list[tuple[bytes, Resource, Entry]] = []
        after: bytes | None = None
        while True:
            page = await self._repository.resources(request.cluster, namespace=request.namespace, after=after)
            for key, resource in page:
                after = key
                if not _may_read(resource):
                    continue
                entry = await self._repository.last(key, until=int(request.at * 1000))
                if entry is not None and entry.kind not in GONE:
                    held.append((key, resource, entry))
                if len(held) > MAX_TAGGED:
                    raise TooLarge(
                        f"{request.cluster}/{request.namespace} held more than {MAX_TAGGED} objects",
                        remedy="Tag what matters one by one.",
                    )
            if len(page) < MAX_CHUNK:
                return held

    async def _changeable(self, id_: str) -> Resource:
        """An object with a history that the caller may change. Raises NotFound, Forbidden."""
        resource = await self._histories.readable(id_)
        current_caller().check_write(resource.cluster, resource.type, resource.namespace)
        return resource

    def _made(self, resource: Resource, branch: int, entry: Entry, asked: PutTag | TagSnapshot) -> KeptTag:
        tag = KeptTag(
            id=resource.id,
            cluster=resource.cluster,
            namespace=resource.namespace,
            name=asked.name,
            branch=branch,
            number=entry.number,
            commit=entry.commit,
            note=asked.note,
            alert=asked.alert,
            by=current_caller().subject,
            at=int(self._clock() * 1000),
        )
        return msgspec.structs.replace(tag, signature=self._signer.sign(tag_bytes(tag), context="tag"))

    def _check_free(self, tag: KeptTag, known: dict[str, KeptTag], *, move: bool) -> None:
        held = known.get(tag.name)
        if held is None and len(known) >= MAX_TAGS:
            raise TooLarge(f"{tag.id} has {MAX_TAGS} tags", remedy="Remove those that nobody needs.")
        if held is not None and not move and (held.branch, held.number) != (tag.branch, tag.number):
            raise AlreadyExists(
                f"{tag.id} has the tag {tag.name} on version {held.number}",
                remedy="Move it there, or choose another name.",
            )

    async def _branch_names(self, key: bytes) -> dict[int, str]:
        known = await self._repository.branches.of(key)
        return {MAIN: MAIN_NAME, **{one.number: one.name for one in known}}


def check_words(name: str, note: str) -> None:
    """Raise Invalid for what is no name of a tag or branch, TooLarge for too long a note."""
    if not _NAME.match(name):
        raise Invalid(
            f"{name[:63]!r} cannot be a name here",
            remedy="Use up to 63 letters, digits, '-', '.' and '_', with a letter or digit at either end.",
            field="name",
        )
    if len(note) > MAX_NOTE:
        raise TooLarge(
            f"the note has {len(note)} characters, at most {MAX_NOTE} are kept", remedy="Say less."
        )


def tag_bytes(tag: KeptTag) -> bytes:
    """What a tag's signature covers."""
    return msgspec.msgpack.encode(
        [tag.id, tag.name, tag.branch, tag.number, tag.commit, tag.note, tag.alert, tag.by, tag.at]
    )


def _told(tag: KeptTag, branches: dict[int, str]) -> Tag:
    return Tag(
        id=tag.id,
        name=tag.name,
        version=tag.number,
        branch=branches.get(tag.branch, ""),
        note=tag.note,
        alert=tag.alert,
        created_at=iso(tag.at),
        created_by=tag.by,
        drifted=tag.drifted,
    )


def _may_read(resource: Resource) -> bool:
    return current_caller().may_read(resource.cluster, resource.type, resource.namespace, resource.name)


def _may_change(resource: Resource) -> bool:
    try:
        current_caller().check_write(resource.cluster, resource.type, resource.namespace)
    except (Forbidden, NotFound):
        return False
    return True
