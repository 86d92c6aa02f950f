"""One object as one of its versions was: shown, and written to the cluster."""

from __future__ import annotations

import msgspec

from kubelore.common.callers import current_caller
from kubelore.common.contracts.rollbacks import DiffLive, LiveDiff, RollBack, RolledBack
from kubelore.common.errors import BadRequest, KubeloreError, NotFound
from kubelore.yaml_vcs import rendering
from kubelore.yaml_vcs.histories import Histories
from kubelore.yaml_vcs.history import GONE
from kubelore.yaml_vcs.repository import VersionRepository, resource_key
from kubelore.yaml_vcs.reverting import Intent, Live, check_expected, refusal, with_remedy
from kubelore.yaml_vcs.writing_back import Wish, WritingBack

LIVE = "live"


class Rollbacks:
    """The endpoints about single objects."""

    def __init__(self, repository: VersionRepository, histories: Histories, writing: WritingBack) -> None:
        self._repository = repository
        self._histories = histories
        self._writing = writing

    async def diff_live(self, request: DiffLive) -> LiveDiff:
        """What differs between a version and the object as the cluster has it. Raises NotFound."""
        resource = await self._histories.readable(request.id)
        before, number = b"", 0
        if request.from_version != 0:
            entry = await self._histories.entry(request.id, request.from_version)
            before, number = await self._histories.content(entry, request.id), entry.number
        live = (await self._writing.live(resource.cluster, [request.id]))[request.id]
        before = self._writing.by_rules(resource, before, live)
        names = (f"{request.id} version {number}", f"{request.id} {LIVE}")
        return LiveDiff(
            id=request.id,
            from_version=number,
            resource_version=live.rv,
            diff_content=_unified(before, live.content, names),
            changes=rendering.changes(before, live.content),
        )

    async def roll_back(self, request: RollBack) -> RolledBack:
        """Make an object what a version says, or show what that would do.

        Raises NotFound, BadRequest for a version that says the object was deleted
        unless `delete` is said, Conflict when the object changed since the preview,
        Forbidden for who may not write it (even where nothing is to be done), and
        what resource-ops refuses; a dry run tells the latter.
        """
        intent = await self._intent(request)
        resource = intent.resource
        current_caller().check_write(resource.cluster, resource.type, resource.namespace)
        if not request.force:
            check_expected(request.id, intent.live, request.expected)
        answer = _shown(intent, request)
        if intent.step == "none":
            return answer
        wish = Wish(dry_run=request.dry_run, reason=request.reason, change_log=request.change_log)
        try:
            written, notes = await self._writing.write(intent, wish, uids=await self._owners(intent))
        except KubeloreError as error:
            known = with_remedy(error, intent)
            if request.dry_run and error.status in (409, 422):
                return msgspec.structs.replace(answer, refusal=refusal(known))
            raise known from error
        answer = msgspec.structs.replace(answer, notes=list(notes))
        if request.dry_run:
            return answer
        return msgspec.structs.replace(
            answer, operation=written.operation, uid=written.uid, new_resource_version=written.rv
        )

    async def _intent(self, request: RollBack) -> Intent:
        resource = await self._histories.readable(request.id)
        entry = await self._histories.entry(request.id, request.version)
        if entry.kind == "missing":
            raise NotFound(
                f"version {entry.number} of {request.id} could not be taken: what it held is not known",
                remedy="Roll back to another version.",
            )
        if entry.kind in GONE and not request.delete:
            raise BadRequest(
                f"version {entry.number} says that {request.id} was deleted",
                remedy="Roll back to the version before it, or say `delete` to delete the object.",
                code="deleted-version",
            )
        held = await self._histories.content(entry, request.id)
        live = (await self._writing.live(resource.cluster, [request.id]))[request.id]
        content = self._writing.by_rules(resource, held, live)
        return Intent(resource=resource, entry=entry, content=content, live=live)

    async def _owners(self, intent: Intent) -> dict[str, str]:
        """The uids of its owners that are there now, where it is to be made anew."""
        if intent.step != "create":
            return {}
        metadata = msgspec.json.decode(intent.content).get("metadata") or {}
        owners: dict[str, str] = {}
        for reference in metadata.get("ownerReferences") or ():
            for found in await self._repository.named(intent.resource.cluster, str(reference.get("name"))):
                last = await self._repository.last(resource_key(found.id))
                if last is not None and last.kind not in GONE and last.uid == reference.get("uid"):
                    owners[last.uid] = last.uid
        return owners


def _shown(intent: Intent, request: RollBack) -> RolledBack:
    live: Live = intent.live
    names = (f"{request.id} {LIVE}", f"{request.id} version {request.version}")
    return RolledBack(
        id=request.id,
        version=request.version,
        method=intent.step,
        dry_run=request.dry_run,
        resource_version=live.rv,
        content_hash=live.content_hash,
        diff_content=_unified(live.content, intent.content, names),
        changes=rendering.changes(live.content, intent.content),
        recreates=intent.step == "create",
    )


def _unified(old: bytes, new: bytes, names: tuple[str, str]) -> str:
    return rendering.unified(rendering.yaml_of(old), rendering.yaml_of(new), names)
