"""The queries about keeping: the policies of clusters, and how far pruning has come."""

from __future__ import annotations

from contextlib import suppress

import msgspec

from kubelore.common.contracts.keeping import VersionPolicy
from kubelore.common.errors import Conflict, NotFound
from kubelore.common.store import Database

MAX_POLICIES = 10_000
_TRIES = 5
_PRUNED = "pruned-to"


class KeepingRepository:
    """The policies of clusters, one document each; dropped ones stay, so that their numbers never come again."""

    def __init__(self, database: Database) -> None:
        self._policies = database.collection("version_policies")
        self._places = database.collection("version_places")

    async def all(self) -> list[VersionPolicy]:
        """Every policy by cluster, those that were dropped as what they are: the defaults under a number."""
        found = await self._policies.find({}, limit=MAX_POLICIES)
        return [msgspec.convert(document["policy"], VersionPolicy) for document in found]

    async def get(self, cluster: str) -> VersionPolicy | None:
        """The policy of a cluster; None where there never was one."""
        found = await self._policies.find_one({"_id": cluster})
        return msgspec.convert(found["policy"], VersionPolicy) if found else None

    async def put(self, policy: VersionPolicy) -> VersionPolicy:
        """Keep a policy under the next number. Raises Conflict when others change it all the time."""
        for _ in range(_TRIES):
            held = await self.get(policy.cluster)
            number = 1 if held is None else held.number + 1
            following = msgspec.structs.replace(policy, number=number)
            document = {
                "_id": policy.cluster,
                "number": number,
                "policy": msgspec.to_builtins(following),
            }
            if held is None:
                if await self._policies.insert_new([document]):
                    return following
                continue
            with suppress(Conflict, NotFound):
                await self._policies.replace(document, expect={"number": held.number})
                return following
        raise Conflict(f"the policy of {policy.cluster} is being changed by others", remedy="Try again.")

    async def pruned_to(self) -> bytes | None:
        """The history that pruning came to; None at the start of a pass."""
        found = await self._places.find_one({"_id": _PRUNED})
        return bytes(found["key"]) if found else None

    async def prune_from(self, key: bytes | None) -> None:
        """Remember where pruning goes on; None for the start."""
        if key is None:
            await self._places.delete(_PRUNED)
        else:
            await self._places.put({"_id": _PRUNED, "key": key})
