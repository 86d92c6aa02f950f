"""The only place with queries to MongoDB: the writes that were intended, and what became of each.

A document is one write of one object. `due` says what is left to do about it:
`resolve` while nobody knows whether it happened, `publish` until its `applied`
record is on the change stream. It is kept for 30 days.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

import msgspec

from kubelore.common.contracts.writes import Action, OperationState
from kubelore.common.errors import AlreadyExists, Conflict, NotFound
from kubelore.common.store import Database, gte, ne, one_of

KEPT_S = 30 * 24 * 3600
MAX_FOUND = 1000
MAX_CLUSTERS = 1000
"""In one question; more are not onboarded."""

Due: TypeAlias = Literal["resolve", "publish", ""]


class Operation(msgspec.Struct, kw_only=True):
    """One write: its intent (everything up to `rv_before`), and its outcome.

    `uid` and `rv_before` are what the object was when the write was sent, empty
    for one that was not there.
    """

    key: str
    operation: str
    cluster: str
    id: str
    type: str
    action: Action
    actor: str
    reason: str
    change_log: str
    at: datetime
    replica: str
    uid: str = ""
    rv_before: str = ""
    state: OperationState = "intended"
    due: Due = "resolve"
    result: str = ""
    rv: str = ""
    error: str = ""
    detail: str = ""
    fields: list[str] = []
    finished_at: datetime | None = None


class Conclusion(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of one of many writes."""

    state: OperationState
    due: Due = ""
    uid: str = ""
    rv: str = ""
    result: str = ""
    error: str = ""
    detail: str = ""
    fields: list[str] = []


class OperationRepository:
    """Operations by the key that the gateway gave each."""

    def __init__(self, database: Database) -> None:
        self._operations = database.collection("operations")

    async def prepare(self) -> None:
        """Make the indexes that the queries below use."""
        await self._operations.ensure_index([("due", 1), ("cluster", 1), ("at", 1)])
        await self._operations.ensure_index([("operation", 1)])
        await self._operations.ensure_index([("id", 1), ("at", 1)])
        await self._operations.ensure_index([("at", 1)], expire_after_s=KEPT_S)

    async def intend(self, operation: Operation) -> None:
        """Record an intent, once. Raises Conflict when the same write was intended before."""
        try:
            await self._operations.insert(_written(operation))
        except AlreadyExists as error:
            raise Conflict(
                f"the operation {operation.key} has been carried out already",
                remedy="Ask for what became of it, or send the request under a new operation.",
                operation=operation.key,
            ) from error

    async def conclude(
        self,
        key: str,
        state: OperationState,
        *,
        due: Due = "",
        uid: str = "",
        rv: str = "",
        result: str = "",
        error: str = "",
    ) -> None:
        """Write down the outcome. Repeating it does no harm."""
        outcome: dict[str, Any] = {
            "state": state,
            "due": due,
            "rv": rv,
            "result": result,
            "error": error,
            "finished_at": datetime.now(UTC),
        }
        await self._operations.update(key, outcome | ({"uid": uid} if uid else {}))

    async def known(self, keys: Sequence[str]) -> dict[str, Operation]:
        """Those of at most 1,000 writes that were intended before, by key."""
        found = await self._operations.find({"_id": one_of(keys)}, limit=MAX_FOUND)
        return {document["_id"]: _read(document) for document in found}

    async def intend_all(self, operations: Sequence[Operation]) -> None:
        """Record the intents of many writes at once. Raises Conflict when one was intended before."""
        made = await self._operations.insert_new([_written(operation) for operation in operations])
        if made < len(operations):
            raise Conflict(
                "some of these writes are being carried out for another request",
                remedy="Send the same once more: what was concluded then answers what it answered.",
            )

    async def intend_again(self, operations: Sequence[Operation]) -> None:
        """These, whose outcome nobody knows, are sent once more, from here and at this time."""
        fields = ("at", "replica")
        again = {"state": "intended", "due": "resolve", "finished_at": None}
        await self._operations.update_each(
            {one.key: again | {field: getattr(one, field) for field in fields} for one in operations}
        )

    async def conclude_all(self, outcomes: Mapping[str, Conclusion]) -> None:
        """Write down many outcomes at once, by key. Repeating it does no harm."""
        at = datetime.now(UTC)
        await self._operations.update_each(
            {
                key: {
                    field: value
                    for field, value in msgspec.structs.asdict(outcome).items()
                    if field != "uid" or value
                }
                | {"finished_at": at}
                for key, outcome in outcomes.items()
            }
        )

    async def withdraw(self, keys: Sequence[str]) -> None:
        """Forget intents of which nothing was sent."""
        if keys:
            await self._operations.delete_many({"_id": one_of(keys), "state": "intended"})

    async def resolve(
        self, operation: Operation, state: OperationState, *, due: Due, uid: str, rv: str
    ) -> bool:
        """Write down what was found out about a write, unless somebody said meanwhile what became of it."""
        found = {"state": state, "due": due, "uid": uid, "rv": rv, "finished_at": datetime.now(UTC)}
        try:
            await self._operations.update(
                operation.key, found, expect={"state": operation.state, "due": "resolve"}
            )
        except (Conflict, NotFound):
            return False
        return True

    async def due(self, clusters: Sequence[str], what: Due, limit: int) -> list[Operation]:
        """The oldest operations of these clusters about which there is something left to do."""
        found = await self._operations.find(
            {"due": what, "cluster": one_of(clusters)}, sort=[("at", 1)], limit=limit
        )
        return [_read(document) for document in found]

    async def published(self, keys: Sequence[str]) -> None:
        """Nothing is left to do about these."""
        if keys:
            await self._operations.update_many({"_id": one_of(keys)}, {"due": ""})

    async def others_after(self, operation: Operation) -> bool:
        """Whether another write of the same object was intended at the same time or later."""
        found = await self._operations.find(
            {"id": operation.id, "_id": ne(operation.key), "at": gte(operation.at)}, limit=1, fields=("id",)
        )
        return bool(found)

    async def of(self, operation: str) -> list[Operation]:
        """The writes of one operation, by key."""
        found = await self._operations.find({"operation": operation}, limit=MAX_FOUND)
        return [_read(document) for document in found]


def _written(operation: Operation) -> dict[str, Any]:
    fields = msgspec.structs.asdict(operation)
    return {"_id": fields.pop("key"), **fields}


def _read(document: dict[str, Any]) -> Operation:
    return msgspec.convert({**document, "key": document["_id"]}, Operation)
