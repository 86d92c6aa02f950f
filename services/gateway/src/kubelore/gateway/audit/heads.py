"""Where heads and checkpoints of the audit's chains lie: create-only in the blob store, apart from the entries."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TypeVar

from kubelore.common.crypto.chain import Checkpoint, Head, Statement, read, sign
from kubelore.common.crypto.signing import Signer
from kubelore.common.errors import AlreadyExists, IntegrityError, NotFound
from kubelore.common.store import BlobStore, blob_key

SCOPE = "audit"
MAX_BYTES = 4096
AT_ONCE = 16

S = TypeVar("S", Head, Checkpoint)


@dataclass
class Vouchers:
    """What is known of one chain from the blob store; `spoilt` are those that do not verify."""

    heads: list[Head] = field(default_factory=list)
    checkpoint: Checkpoint | None = None
    places: tuple[list[int], list[int]] = field(default_factory=lambda: ([], []))
    spoilt: list[str] = field(default_factory=list)


class HeadStore:
    """Signs, stores and reads what vouches for chains.

    Every method may raise Unavailable and DeadlineExceeded.
    """

    def __init__(self, blobs: BlobStore, signer: Signer) -> None:
        self._blobs = blobs
        self._signer = signer

    async def put(self, statement: Statement) -> bool:
        """Store a statement create-only; whether its place was free, or held the same already."""
        key = _key(statement)
        stored = sign(statement, self._signer, SCOPE)
        try:
            await self._blobs.put(key, stored, create_only=True)
        except AlreadyExists:
            return await self._blobs.get(key, max_bytes=MAX_BYTES) == stored
        return True

    async def chains(self) -> set[str]:
        """Every chain that something vouches for."""
        return {
            info.key.split("/")[2]
            for kind in ("heads", "checkpoints")
            async for info in self._blobs.list(blob_key(SCOPE, kind))
        }

    async def places(self, chain: str) -> tuple[list[int], list[int]]:
        """The serials of the heads of a chain, and the numbers of its checkpoints."""
        found: tuple[list[int], list[int]] = ([], [])
        for places, kind in zip(found, ("heads", "checkpoints"), strict=True):
            async for info in self._blobs.list(blob_key(SCOPE, kind, chain)):
                place = info.key.rpartition("/")[2]
                if place.isdecimal():
                    places.append(int(place))
        return found

    async def newest(self, chain: str) -> Head | None:
        """The newest head of a chain; None where there is none, or one that does not verify."""
        serials, _ = await self.places(chain)
        return await self._read(Head, chain, max(serials), Vouchers()) if serials else None

    async def vouchers(self, chain: str) -> Vouchers:
        """The heads of a chain, and its newest checkpoint."""
        serials, numbers = await self.places(chain)
        found = Vouchers(places=(serials, numbers))
        for number in sorted(numbers, reverse=True):
            found.checkpoint = await self._read(Checkpoint, chain, number, found)
            if found.checkpoint is not None:
                break
        wanted = sorted(serials)
        for start in range(0, len(wanted), AT_ONCE):
            heads = [self._read(Head, chain, serial, found) for serial in wanted[start : start + AT_ONCE]]
            found.heads += [head for head in await asyncio.gather(*heads) if head is not None]
        return found

    async def forget(self, checkpoint: Checkpoint) -> None:
        """Remove the heads and checkpoints that a checkpoint stands for."""
        serials, numbers = await self.places(checkpoint.chain)
        keys = [
            _place("heads", checkpoint.chain, serial) for serial in serials if serial <= checkpoint.serial
        ]
        keys += [
            _place("checkpoints", checkpoint.chain, number)
            for number in numbers
            if number < checkpoint.number
        ]
        for key in keys:
            await self._blobs.delete(key)

    async def _read(self, kind: type[S], chain: str, place: int, found: Vouchers) -> S | None:
        name = "heads" if kind is Head else "checkpoints"
        try:
            stored = await self._blobs.get(_place(name, chain, place), max_bytes=MAX_BYTES)
            return read(stored, kind, self._signer.verifier, SCOPE, chain, place)
        except NotFound:
            return None
        except IntegrityError as error:
            found.spoilt.append(error.detail)
            return None


def _key(statement: Statement) -> str:
    if isinstance(statement, Head):
        return _place("heads", statement.chain, statement.serial)
    return _place("checkpoints", statement.chain, statement.number)


def _place(kind: str, chain: str, place: int) -> str:
    return blob_key(SCOPE, kind, chain, f"{place:012d}")
