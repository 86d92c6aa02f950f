"""Goes along every chain of the audit log, and says where the past was changed."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator

import msgspec

from kubelore.common.crypto.chain import Fault, Head, Verification, canonical
from kubelore.common.telemetry import get_logger
from kubelore.gateway.audit.heads import SCOPE, HeadStore, Vouchers
from kubelore.gateway.repository import AuditRepository, Written

log = get_logger(__name__)


class ChainReport(msgspec.Struct, kw_only=True):
    """What was found of one chain.

    `first` to `last` are the entries there are, `signed` is how far heads vouch
    for them. A `fault` is the first thing that does not verify.
    """

    chain: str
    ok: bool
    writer: str = ""
    opened_at: float | None = None
    entries: int
    first: int
    last: int
    signed: int
    closed: bool
    fault: Fault | None = None


class Auditor:
    """Verifies. Every method may raise Unavailable and DeadlineExceeded."""

    def __init__(self, repository: AuditRepository, heads: HeadStore) -> None:
        self._repository = repository
        self._heads = heads

    async def chains(self) -> list[str]:
        """Every chain that has entries, or that something vouches for; the oldest first."""
        found = await self._heads.chains()
        found |= {chain async for chain in self._repository.chains()}
        return sorted(found)

    async def reports(self) -> AsyncIterator[ChainReport]:
        """What is found of each chain."""
        for chain in await self.chains():
            yield await self.report(chain)

    async def report(self, chain: str) -> ChainReport:
        """What is found of one chain; looked at again when it was pruned meanwhile."""
        while True:
            # First what vouches, then what is vouched for: the chain may grow between.
            vouchers = await self._heads.vouchers(chain)
            verification, hidden = await self.along(chain, vouchers)
            report = _report(chain, vouchers, verification, hidden)
            if report.ok or (await self._heads.places(chain))[1] == vouchers.places[1]:
                return report

    async def along(
        self, chain: str, vouchers: Vouchers, *, before: float = math.inf
    ) -> tuple[Verification, set[str]]:
        """Verify the entries made `before` a time; with the intents among them that are hidden without an end."""
        verification = Verification(SCOPE, chain, vouchers.heads, vouchers.checkpoint)
        hidden: set[str] = set()
        async for written in self._repository.along(chain, before=before):
            if not verification.add(written.link.number, written.link.hash, _bytes(written)):
                break
            closes = written.content.get("closes")
            if not written.shown:
                hidden.add(written.id)
            if closes and written.shown:
                hidden.discard(closes)
        return verification, hidden


def _bytes(written: Written) -> bytes:
    try:
        return canonical(written.content)
    except (NotImplementedError, TypeError, ValueError, OverflowError):
        # No entry of ours holds such a thing; these are not its bytes, whatever it says.
        return b""


def _report(chain: str, vouchers: Vouchers, verification: Verification, hidden: set[str]) -> ChainReport:
    verdict = verification.finish()
    opening = next((head for head in vouchers.heads if head.serial == 0), None)
    fault = verdict.fault or _other_fault(vouchers, hidden)
    return ChainReport(
        chain=chain,
        ok=fault is None,
        writer=_writer(vouchers.heads),
        opened_at=opening.at if opening else None,
        entries=verdict.entries,
        first=verdict.first,
        last=verdict.last,
        signed=verdict.signed,
        closed=verdict.closed,
        fault=fault,
    )


def _other_fault(vouchers: Vouchers, hidden: set[str]) -> Fault | None:
    if vouchers.spoilt:
        return Fault("heads-missing", 0, vouchers.spoilt[0])
    if hidden:
        first = min(hidden)
        number = int(first.rpartition("/")[2])
        return Fault("hidden", number, f"entry {number} is hidden, and no end of it is there")
    return None


def _writer(heads: list[Head]) -> str:
    return heads[0].writer if heads else ""
