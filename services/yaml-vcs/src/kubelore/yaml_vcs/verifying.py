"""Verifies the histories of a namespace or cluster, in pages that are bounded in objects and in time."""

from __future__ import annotations

from contextlib import aclosing
from time import monotonic

from kubelore.common.callers import current_caller
from kubelore.common.contracts.identity import check_cluster_name
from kubelore.common.contracts.verifying import BrokenHistory, VerifiedMany, VerifyMany
from kubelore.common.contracts.versions import VerifyHistory
from kubelore.common.errors import BadRequest
from kubelore.yaml_vcs.histories import Histories
from kubelore.yaml_vcs.readable import readable
from kubelore.yaml_vcs.repository import KEY_BYTES, MAX_CHUNK, VersionRepository

PAGE_S = 5.0
"""A page ends behind the history that goes over it."""


class Verifying:
    """Answers page by page; `histories` knows how one is verified."""

    def __init__(self, repository: VersionRepository, histories: Histories) -> None:
        self._repository = repository
        self._histories = histories

    async def many(self, request: VerifyMany) -> VerifiedMany:
        """Verify the next histories that the caller may read. Raises NotFound and BadRequest."""
        caller = current_caller()
        caller.check_cluster(check_cluster_name(request.cluster))
        if not 1 <= request.limit <= MAX_CHUNK:
            raise BadRequest(f"limit {request.limit} is not between 1 and {MAX_CHUNK}")
        after = _key(request.after) if request.after else None
        done, started, last = VerifiedMany(broken=[]), monotonic(), b""
        found = readable(self._repository, caller, request.cluster, namespace=request.namespace, after=after)
        async with aclosing(found):
            async for key, one in found:
                # At least one: however slow the database is, a page goes on from where it came to.
                if last and (done.objects >= request.limit or monotonic() - started > PAGE_S):
                    done.next = last.hex()
                    break
                verified = await self._histories.verify(VerifyHistory(id=one.id))
                last = key
                done.objects += 1
                done.versions += verified.versions
                if not verified.ok:
                    done.broken.append(
                        BrokenHistory(id=one.id, version=verified.broken or 0, why=verified.why)
                    )
        return done


def _key(text: str) -> bytes:
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise _no_position()
    return key


def _no_position() -> BadRequest:
    return BadRequest("`after` is no position in a verification")
