"""Bringing drafts into clusters: checked there, merged three ways with what is live, and written through resource-ops.

The caller's own token goes along with everything that is asked of resource-ops, so
that a merge writes nothing which its caller might not write by hand. What is
written is the live object with the merged fields changed: whatever else it
holds (status, finalizers) stays.
"""

from __future__ import annotations

from typing import Any

import msgspec

from kubelore.common.bus import Bus
from kubelore.common.contracts import live, validation, writes
from kubelore.common.contracts.branches import (
    DraftProblem,
    Merge,
    Merged,
    ValidatedDraft,
    ValidateDraft,
)
from kubelore.common.contracts.live import LiveObject, ReadLive
from kubelore.common.contracts.validation import Validate
from kubelore.common.contracts.writes import Replace, Written
from kubelore.common.errors import BadRequest, Conflict
from kubelore.common.kube.differences import differences, patched, same
from kubelore.common.kube.documents import dump
from kubelore.yaml_vcs import rendering
from kubelore.yaml_vcs.branch_repository import KeptBranch
from kubelore.yaml_vcs.branches import Drafts, told
from kubelore.yaml_vcs.histories import Histories
from kubelore.yaml_vcs.merging import MergeResult, merge
from kubelore.yaml_vcs.normalising import Normaliser, content_hash, decoded
from kubelore.yaml_vcs.repository import Resource, VersionRepository, resource_key

Object = dict[str, Any]
TRIES = 5
"""A write that meets another resourceVersion was not carried out: what was shown may be written upon the next."""


class Wanted(msgspec.Struct, frozen=True):
    """What is to be merged: the content, and what it has in common with the cluster; of which branch, if of one."""

    base: bytes
    base_version: int
    content: bytes
    branch: KeptBranch | None = None
    version: int = 0


class DraftMerging:
    """Validating and merging, over the bus to resource-ops."""

    def __init__(
        self,
        bus: Bus,
        repository: VersionRepository,
        histories: Histories,
        drafts: Drafts,
        normaliser: Normaliser,
    ) -> None:
        self._bus = bus
        self._repository = repository
        self._histories = histories
        self._drafts = drafts
        self._normaliser = normaliser

    async def validate(self, request: ValidateDraft) -> ValidatedDraft:
        """What is wrong with a draft, by the cluster's schema and a dry run. Raises NotFound, Forbidden."""
        resource = await self._drafts.changeable(request.id)
        if request.content:
            found = await self._drafts.read(resource, request.content)
        else:
            head = await self._drafts.head(await self._drafts.named(request.id, request.branch))
            found = rendering.shown(head.content)
        asked = Validate(id=resource.id, manifest=msgspec.json.encode(found))
        answer = await self._bus.request(validation.VALIDATE, asked)
        problems = [
            DraftProblem(path=one.path, message=one.message, source=one.source, suggestion=one.suggestion)
            for one in answer.faults
        ]
        return ValidatedDraft(valid=not problems, problems=problems, unchecked=answer.unchecked)

    async def merge(self, request: Merge) -> Merged:
        """Bring a draft into the cluster, or show what that would change.

        Raises NotFound, Forbidden, Conflict while conflicts are open (`conflicts`
        names them), when the object is gone, or was changed since the preview, and
        what the API server refuses.
        """
        resource = await self._drafts.changeable(request.id)
        wanted = await self._wanted(resource, request)
        current = await self._live(resource)
        # Decoded twice: normalising takes its object apart.
        ours_content = self._normaliser.content(resource.type, decoded(current.object))
        ours, theirs = rendering.shown(ours_content), rendering.shown(wanted.content)
        seen = content_hash(ours_content).hex()
        if request.seen and request.seen != seen:
            raise Conflict(
                f"{resource.id} was changed since the merge was shown",
                remedy="Look at what the merge would change now, and merge again.",
            )
        result = merge(rendering.shown(wanted.base), ours, theirs, request.resolve)
        if result.open and not request.dry_run:
            raise _open(result)
        written = None
        if not result.open:
            written = await self._write_on(resource, current, ours, result.value, request)
            if wanted.branch is not None and not request.dry_run:
                await self._note_merged(wanted)
        return _merged(resource, wanted, result, ours, seen, written, dry_run=request.dry_run)

    async def _wanted(self, resource: Resource, request: Merge) -> Wanted:
        if bool(request.branch) == bool(request.content):
            raise BadRequest("a merge is of a branch, or of a content", remedy="Name one of the two.")
        if request.branch:
            branch = await self._drafts.named(request.id, request.branch)
            head = await self._drafts.head(branch)
            return Wanted(branch.content, branch.base, head.content, branch, head.entry.number)
        if request.base is None:
            raise BadRequest(
                "a content needs the version that it was edited from", remedy="Say which in `base`."
            )
        found = await self._drafts.read(resource, request.content)
        entry = await self._histories.entry(request.id, request.base)
        base = await self._histories.content(entry, request.id)
        if not base:
            raise BadRequest(f"version {entry.number} says that the object is gone")
        return Wanted(base, entry.number, self._normaliser.content(resource.type, found))

    async def _live(self, resource: Resource) -> LiveObject:
        answer = await self._bus.request(live.LIVE, ReadLive(cluster=resource.cluster, ids=[resource.id]))
        (found,) = answer.items
        if not found.object:
            raise Conflict(
                f"{resource.id} is not in the cluster now",
                remedy="Bring it back first: `kubelore rollback`, or apply the draft as a manifest.",
            )
        return found

    async def _write_on(
        self, resource: Resource, current: LiveObject, ours: Object, value: Object, request: Merge
    ) -> Written | None:
        """Write on what was merged; read again while only what controllers count up (status) has moved."""
        for attempt in range(TRIES - 1):
            try:
                return await self._write(resource, current, ours, value, request, attempt)
            except Conflict:
                current = await self._live(resource)
                now = rendering.shown(self._normaliser.content(resource.type, decoded(current.object)))
                if not same(now, ours):
                    raise
        return await self._write(resource, current, ours, value, request, TRIES - 1)

    async def _write(
        self,
        resource: Resource,
        current: LiveObject,
        ours: Object,
        value: Object,
        request: Merge,
        attempt: int,
    ) -> Written | None:
        """What the API server made of it; None when there is nothing to change."""
        changes = differences(ours, value)
        if not changes:
            return None
        whole = patched(decoded(current.object), changes)
        return await self._bus.request(
            writes.REPLACE,
            Replace(
                id=resource.id,
                item=attempt,
                manifest=msgspec.json.encode(whole),
                uid=current.uid,
                rv=current.rv,
                dry_run=request.dry_run,
                reason=request.reason,
                change_log=request.change_log,
            ),
        )

    async def _note_merged(self, wanted: Wanted) -> None:
        """From now on the cluster holds what the draft says: that is what they have in common."""
        branch = wanted.branch
        if branch is None:
            return
        key = resource_key(branch.id)
        newest = await self._repository.last(key)
        branch.content, branch.merged = wanted.content, wanted.version
        branch.base = newest.number if newest is not None else branch.base
        await self._repository.branches.set_base(key, branch)


def _open(result: MergeResult) -> Conflict:
    paths = [clash.where for clash in result.open]
    return Conflict(
        f"cluster and draft changed {len(paths)} places to different values: {', '.join(paths[:5])}",
        remedy="Say for each whose value counts, in `resolve`: ours is the cluster's, theirs the draft's.",
        conflicts=[msgspec.to_builtins(told(clash)) for clash in result.open[:100]],
    )


def _merged(
    resource: Resource,
    wanted: Wanted,
    result: MergeResult,
    ours: Object,
    seen: str,
    written: Written | None,
    *,
    dry_run: bool,
) -> Merged:
    names = (f"{resource.id} live", f"{resource.id} merged")
    made = Merged(
        id=resource.id,
        base_version=wanted.base_version,
        conflicts=[told(clash) for clash in result.conflicts],
        changes=rendering.changes_between(ours, result.value),
        diff_content=rendering.unified(dump(ours), dump(result.value), names),
        live=seen,
        dry_run=dry_run,
    )
    if written is not None:
        made.result, made.operation, made.uid, made.rv = (
            written.result,
            written.operation,
            written.uid,
            written.rv,
        )
    elif not result.open:
        made.result = "unchanged"
    return made
