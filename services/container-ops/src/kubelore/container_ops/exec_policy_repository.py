"""The queries of exec policies: one document each, by name."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from kubelore.common.contracts.exec_policies import ExecPolicy
from kubelore.common.errors import NotFound
from kubelore.common.store import Database

MAX_POLICIES = 200


class ExecPolicyRepository:
    """Exec policies in MongoDB."""

    def __init__(self, database: Database) -> None:
        self._policies = database.collection("exec_policies")

    async def all(self) -> list[ExecPolicy]:
        """Every policy by name."""
        return [_read(one) for one in await self._policies.find({}, limit=MAX_POLICIES)]

    async def get(self, name: str) -> ExecPolicy:
        """One policy. Raises NotFound."""
        found = await self._policies.find_one({"_id": name})
        if found is None:
            raise NotFound(f"there is no exec policy {name!r}")
        return _read(found)

    async def add(self, policy: ExecPolicy) -> None:
        """Keep a new one. Raises AlreadyExists."""
        await self._policies.insert(_written(policy))

    async def put(self, policy: ExecPolicy) -> None:
        """Keep one whole, over what was there."""
        await self._policies.put(_written(policy))

    async def delete(self, name: str) -> None:
        """Remove one; nothing happens when it is gone."""
        await self._policies.delete(name)


def _written(policy: ExecPolicy) -> dict[str, Any]:
    fields = msgspec.to_builtins(policy, builtin_types=(datetime,))
    return {"_id": fields.pop("name"), **fields}


def _read(document: dict[str, Any]) -> ExecPolicy:
    return msgspec.convert({**document, "name": document["_id"]}, ExecPolicy)
