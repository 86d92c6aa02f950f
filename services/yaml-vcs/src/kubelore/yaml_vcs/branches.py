"""Drafts: versions that nobody has applied, on branches of their own.

A branch begins with a version that holds what it was branched off, and follows
that version's commit. What cluster and draft have in common is kept with it: the
base of a three-way merge, moved on by an update from the cluster and by a merge
into it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import msgspec

from kubelore.common.callers import current_caller
from kubelore.common.contracts.branches import (
    MAX_DRAFT,
    Branch,
    Branches,
    ListBranches,
    MakeBranch,
    MergeConflict,
    Record,
    RemoveBranch,
    UpdateBranch,
    UpdatedBranch,
)
from kubelore.common.contracts.versions import MAIN as MAIN_NAME
from kubelore.common.contracts.versions import Version
from kubelore.common.contracts.writes import MAX_CHANGE_LOG
from kubelore.common.crypto import Signer
from kubelore.common.errors import BadRequest, Conflict, Invalid, NotFound, TooLarge, Unsupported
from kubelore.common.kube.documents import load_documents
from kubelore.common.operations import current_operation
from kubelore.yaml_vcs import history, rendering
from kubelore.yaml_vcs.branch_repository import Draft, KeptBranch
from kubelore.yaml_vcs.commented import revised
from kubelore.yaml_vcs.histories import Histories
from kubelore.yaml_vcs.history import GONE, Entry, Head
from kubelore.yaml_vcs.merging import Clash, merge
from kubelore.yaml_vcs.normalising import SECRETS, Normaliser, decoded
from kubelore.yaml_vcs.rendering import iso
from kubelore.yaml_vcs.repository import Resource, VersionRepository, resource_key, version_id
from kubelore.yaml_vcs.statements import draft_bytes
from kubelore.yaml_vcs.tags import check_words

Object = dict[str, Any]
Clock = Callable[[], float]
BRANCHED = "branched off version {}"


class Drafts:
    """The questions and requests about branches, each as a method."""

    def __init__(
        self,
        repository: VersionRepository,
        histories: Histories,
        normaliser: Normaliser,
        signer: Signer,
        clock: Clock = time.time,
    ) -> None:
        self._repository = repository
        self._histories = histories
        self._normaliser = normaliser
        self._signer = signer
        self._clock = clock

    async def list(self, request: ListBranches) -> Branches:
        """The drafts of an object. Raises NotFound."""
        await self._histories.readable(request.id)
        known = await self._repository.branches.of(resource_key(request.id))
        return Branches([await self._told(one) for one in sorted(known, key=lambda one: one.name)])

    async def make(self, request: MakeBranch) -> Branch:
        """Branch off a version. Raises NotFound, Forbidden, AlreadyExists, Conflict for a deleted one."""
        await self.changeable(request.id)
        return await self._told(await self._branch_off(request))

    async def remove(self, request: RemoveBranch) -> Branch:
        """Delete a draft; what it was. Raises NotFound, Forbidden, and Conflict while a version of it is tagged."""
        await self.changeable(request.id)
        branch = await self.named(request.id, request.name)
        key = resource_key(request.id)
        tags = [one.name for one in await self._repository.tags.of(key) if one.branch == branch.number]
        if tags:
            raise Conflict(
                f"versions of {branch.name} are tagged: {', '.join(tags[:10])}",
                remedy="Remove the tags first.",
            )
        told = await self._told(branch)
        await self._repository.drop(key, branch.number)
        await self._repository.branches.remove(key, branch.number)
        return told

    async def record(self, request: Record) -> Version:
        """Record a version on a draft without applying it; the branch is made when it is not there.

        Raises NotFound, Forbidden, Invalid for what is another object, BadRequest
        for the branch `main`, and Conflict when the branch has gone on behind `after`.
        """
        resource = await self.changeable(request.id)
        if len(request.change_log) > MAX_CHANGE_LOG:
            raise TooLarge(f"a change log has at most {MAX_CHANGE_LOG} characters", remedy="Say less.")
        found = await self.read(resource, request.content)
        content = self._normaliser.content(resource.type, found)
        branch = await self._repository.branches.named(resource_key(request.id), request.branch)
        if branch is None:
            asked = MakeBranch(id=request.id, name=request.branch)
            branch = await self._branch_off(asked)
        head = await self.head(branch)
        if request.after is not None and head.entry.number != request.after:
            raise Conflict(
                f"{branch.name} is at version {head.entry.number}, and this was edited from {request.after}",
                remedy="Look at what differs, and record it on top of that.",
            )
        entry = await self._append(branch, head, content, request.content, request.change_log)
        (shown,) = await self._histories.shown(resource, [entry], branch.number)
        return shown

    async def update(self, request: UpdateBranch) -> UpdatedBranch:
        """Bring into a draft what the cluster has become since; with open conflicts it stays as it is.

        Raises NotFound, Forbidden, Conflict when the object is deleted.
        """
        resource = await self.changeable(request.id)
        branch = await self.named(request.id, request.branch)
        head = await self.head(branch)
        newest = await self._histories.entry(request.id, None)
        ours = rendering.shown(await self._kept_content(newest, request.id))
        theirs = rendering.shown(head.content)
        merged = merge(rendering.shown(branch.content), ours, theirs, request.resolve)
        changes = rendering.changes_between(theirs, merged.value)
        if not merged.open:
            if changes:
                text = await self._histories.text(head.entry, request.id, branch.number)
                text = await asyncio.to_thread(revised, text, merged.value)
                content = self._normaliser.content(resource.type, decoded(msgspec.json.encode(merged.value)))
                log = request.change_log or f"brought up to version {newest.number} of {MAIN_NAME}"
                await self._append(branch, head, content, text, log)
            branch.base, branch.content = newest.number, self._encoded(resource, ours)
            await self._repository.branches.set_base(resource_key(request.id), branch)
        return UpdatedBranch(
            branch=await self._told(branch),
            conflicts=[told(one) for one in merged.conflicts],
            changes=changes,
        )

    async def changeable(self, id_: str) -> Resource:
        """An object with a history that the caller may change, and that may have drafts.

        Raises NotFound, Forbidden, and Unsupported for Secrets, whose values stand in no version.
        """
        resource = await self._histories.readable(id_)
        current_caller().check_write(resource.cluster, resource.type, resource.namespace)
        if resource.type == SECRETS:
            raise Unsupported(
                "a Secret has no drafts: what is in one would be its values, unsealed",
                remedy="Change it by `kubelore apply` or `kubelore patch`.",
            )
        return resource

    async def named(self, id_: str, name: str) -> KeptBranch:
        """A branch of an object. Raises NotFound, BadRequest for main."""
        if name == MAIN_NAME:
            raise _main()
        found = await self._repository.branches.named(resource_key(id_), name)
        if found is None:
            raise NotFound(
                f"{id_} has no branch {name[:63]!r}", remedy="List its branches to see which there are."
            )
        return found

    async def head(self, branch: KeptBranch) -> Head:
        """The newest version of a branch with its content. Raises NotFound."""
        entry = await self._histories.entry(branch.id, None, branch.number)
        return Head(entry=entry, content=await self._histories.content(entry, branch.id, branch.number))

    async def read(self, resource: Resource, text: str) -> Object:
        """The object that a text holds. Raises TooLarge, BadRequest, Invalid for any but this very object."""
        documents = await asyncio.to_thread(load_documents, text, max_bytes=MAX_DRAFT)
        if len(documents) != 1:
            raise BadRequest(f"a draft holds one object, not {len(documents)}")
        (found,) = documents
        newest = await self._repository.last_there(resource_key(resource.id))
        known = decoded(await self._histories.content(newest, resource.id)) if newest is not None else {}
        check_same_object(resource, known, found)
        return found

    async def _branch_off(self, request: MakeBranch) -> KeptBranch:
        if request.name == MAIN_NAME:
            raise _main()
        check_words(request.name, request.note)
        base = await self._histories.entry(request.id, request.version)
        content = await self._kept_content(base, request.id)
        branch = KeptBranch(
            id=request.id,
            number=0,
            name=request.name,
            base=base.number,
            commit=base.commit,
            content=content,
            note=request.note,
            by=current_caller().subject,
            at=int(self._clock() * 1000),
        )
        branch = await self._repository.branches.add(resource_key(request.id), branch)
        # What a branch of that number held that was deleted while somebody recorded on it.
        await self._repository.drop(resource_key(request.id), branch.number)
        head = history.record(None, base, content, at=self._clock())
        await self._keep(branch, head, rendering.yaml_of(content), BRANCHED.format(base.number))
        return branch

    async def _kept_content(self, entry: Entry, id_: str) -> bytes:
        if entry.kind in GONE:
            raise Conflict(
                f"version {entry.number} says that the object is gone",
                remedy="Name a version before it, or bring the object back first.",
            )
        return await self._histories.content(entry, id_)

    async def _append(self, branch: KeptBranch, head: Head, content: bytes, text: str, log: str) -> Entry:
        following = history.record(head, head.entry, content, at=self._clock())
        return await self._keep(branch, following, text, log)

    async def _keep(self, branch: KeptBranch, head: Head, text: str, log: str) -> Entry:
        """Write a version, what belongs to it before. Raises Conflict when somebody else recorded in its place."""
        key = resource_key(branch.id)
        place = version_id(key, branch.number, head.entry.number) + head.entry.commit
        draft = Draft(
            text=text, by=current_caller().subject, change_log=log, operation_id=current_operation()
        )
        signature = self._signer.sign(draft_bytes(place, draft), context="draft")
        await self._repository.branches.keep_draft(place, msgspec.structs.replace(draft, signature=signature))
        await self._repository.append([(key, branch.number, head.entry)])
        return head.entry

    def _encoded(self, resource: Resource, found: Object) -> bytes:
        return self._normaliser.content(resource.type, decoded(msgspec.json.encode(found)))

    async def _told(self, branch: KeptBranch) -> Branch:
        key = resource_key(branch.id)
        last = await self._repository.last(key, branch.number)
        newest = await self._repository.last(key)
        return Branch(
            id=branch.id,
            name=branch.name,
            base_version=branch.base,
            base_commit=branch.commit.hex(),
            version=last.number if last is not None else 0,
            note=branch.note,
            created_at=iso(branch.at),
            created_by=branch.by,
            behind=max(newest.number - branch.base, 0) if newest is not None else 0,
            merged=branch.merged,
        )


def check_same_object(resource: Resource, known: Object, found: Object) -> None:
    """Raise Invalid when a manifest is of another object than its history; a namespace may be left out."""
    metadata = found.get("metadata")
    if not isinstance(metadata, dict):
        raise Invalid("the draft has no metadata", remedy="It needs apiVersion, kind and metadata.name.")
    wanted = {
        "kind": (found.get("kind"), known.get("kind")),
        "apiVersion": (_group(found.get("apiVersion")), _group(known.get("apiVersion"))),
        "metadata.name": (metadata.get("name"), resource.name),
        "metadata.namespace": (metadata.get("namespace", resource.namespace), resource.namespace),
    }
    for field, (said, expected) in wanted.items():
        if said != expected:
            raise Invalid(
                f"the draft is of another object: its {field} is not that of {resource.id}",
                remedy=f"It is {expected!r}.",
                field=field,
            )
    metadata.setdefault("namespace", resource.namespace)
    if not resource.namespace:
        metadata.pop("namespace", None)


def told(clash: Clash) -> MergeConflict:
    """A conflict as it is told."""
    return MergeConflict(
        path=clash.where,
        base=clash.base,
        ours=clash.ours,
        theirs=clash.theirs,
        resolved=clash.resolved or "",
    )


def _group(api_version: Any) -> str:
    return api_version.rpartition("/")[0] if isinstance(api_version, str) else "?"


def _main() -> BadRequest:
    return BadRequest(
        "the branch main follows the cluster: nothing is recorded there by hand",
        remedy="Record on a draft, and merge it into the cluster.",
    )
