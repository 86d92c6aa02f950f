"""Taking a content out of a history: that it was there stays, and what it was does not.

The chain names contents by their hashes, so it verifies without one of them. Who
took it out is signed beside it: a content that is gone without that is damage.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from kubelore.common.callers import current_caller
from kubelore.common.contracts.keeping import RedactedVersions, RedactVersion
from kubelore.common.crypto import Signer
from kubelore.common.errors import BadRequest, Conflict, Forbidden
from kubelore.common.telemetry import get_logger
from kubelore.yaml_vcs import packing
from kubelore.yaml_vcs.histories import Histories, redacted
from kubelore.yaml_vcs.history import GONE, MAIN, Entry, Redaction
from kubelore.yaml_vcs.normalising import content_hash
from kubelore.yaml_vcs.repository import Resource, VersionRepository, resource_key
from kubelore.yaml_vcs.statements import redaction_bytes

log = get_logger(__name__)

MAX_REASON = 1000


class Redacting:
    """Takes contents out, for administrators of where the object is."""

    def __init__(
        self,
        repository: VersionRepository,
        histories: Histories,
        signer: Signer,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._repository = repository
        self._histories = histories
        self._signer = signer
        self._clock = clock

    async def redact(self, request: RedactVersion) -> RedactedVersions:
        """Take the content of a version out, wherever the object's history holds it.

        Raises Forbidden, Gone for a version that was redacted before, Conflict
        for what is in the cluster now or in a draft, and BadRequest for a tombstone or without a reason.
        """
        resource = await self._histories.readable(request.id)
        _check_admin(resource)
        reason = request.reason.strip()
        if not 0 < len(reason) <= MAX_REASON:
            raise BadRequest(f"say in 1 to {MAX_REASON} characters why it is redacted")
        entry = await self._histories.entry(request.id, request.version)
        if entry.kind in GONE:
            raise BadRequest(f"version {entry.number} says that the object was deleted: it has no content")
        same = await self._same(request.id, entry)
        if not same:
            # Whoever began it may have been stopped before its end.
            await self._repository.marks.redact(request.id, entry.hash)
            raise redacted(request.id, entry)
        await self._check_drafts(request.id, entry)
        said = Redaction(current_caller().subject, int(self._clock() * 1000), reason)
        for one in reversed(same):
            await self._take_out(resource, one, said)
        await self._repository.marks.redact(request.id, entry.hash)
        numbers = [one.number for one in same]
        log.info("versions redacted", subject=said.by, id=request.id, versions=numbers)
        return RedactedVersions(id=request.id, versions=numbers)

    async def _same(self, id_: str, entry: Entry) -> list[Entry]:
        """The versions with the content of one. Raises Conflict when the newest is one of them."""
        key, after, same = resource_key(id_), 0, list[Entry]()
        last = await self._repository.last(key)
        while page := await self._repository.all_of(key, after=after):
            same += [one for one in page if one.hash == entry.hash and one.redaction is None]
            after = page[-1].number
        # Its frame is what the next version is packed upon, by whoever records it.
        if last is None or any(one.number >= last.number for one in same):
            raise Conflict(
                f"the newest version of {id_} holds this content: it is what is in the cluster",
                remedy="Change the object first, then redact.",
            )
        return same

    async def _check_drafts(self, id_: str, entry: Entry) -> None:
        """Raise Conflict when a draft holds the content too, in a version or as what it was branched off."""
        key = resource_key(id_)
        holding = [
            branch.name
            for branch in await self._repository.branches.of(key)
            if content_hash(branch.content) == entry.hash
            or await self._repository.holds(key, branch.number, entry.hash)
        ]
        if holding:
            raise Conflict(
                f"drafts of {id_} hold this content too: {', '.join(holding[:10])}",
                remedy="Delete these drafts first, then redact.",
            )

    async def _take_out(self, resource: Resource, entry: Entry, said: Redaction) -> None:
        key = resource_key(resource.id)
        following = next(iter(await self._repository.all_of(key, after=entry.number)))
        if following.frame and following.base != following.number:
            content = await self._histories.content(following, resource.id)
            await self._repository.make_whole(key, MAIN, following.number, packing.pack(content, None))
        body = redaction_bytes(key, MAIN, entry, said)
        signature = self._signer.sign(body, context="redaction")
        await self._repository.redact(
            key, MAIN, entry.number, msgspec.structs.replace(said, signature=signature)
        )


def _check_admin(resource: Resource) -> None:
    caller = current_caller()
    granted = caller.namespaces(resource.cluster, "admin")
    if not (granted.everything or (resource.namespace and granted.matches(resource.namespace))):
        raise Forbidden(
            f"{caller.subject} may not redact versions of {resource.id}",
            remedy="Ask for a grant with the role admin there.",
        )
