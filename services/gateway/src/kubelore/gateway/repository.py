"""The only place with queries to MongoDB: audit entries, tokens, browser sessions, and answers kept for retries."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Literal, NamedTuple

import msgspec

from kubelore.common.authz import Grant
from kubelore.common.crypto.chain import Link
from kubelore.common.errors import AlreadyExists, NotFound
from kubelore.common.store import Condition, Database, gt, gte, lt, lte, one_of, position, present
from kubelore.gateway.audit.entries import Entry

NEWEST_FIRST: Sequence[tuple[str, Literal[1, -1]]] = (("at", -1), ("_id", -1))
MAX_LIMIT = 10_000
_FILTERED = ("actor", "action", "resource", "cluster", "outcome")
_AROUND = ("_id", "hash", "shown")
"""Fields of a document that are no part of the entry that was hashed."""
PAGE = 250
STRETCH = 50


class Written(NamedTuple):
    """An entry as it lies in the database: `content` is all that the hash covers, `shown` is not."""

    id: str
    link: Link
    content: dict[str, Any]
    shown: bool


def entry_id(chain: str, number: int) -> str:
    """The `_id` of an entry: those of one chain stand in their order."""
    return f"{chain}/{number:012d}"


class AuditRepository:
    """Entries in their chains. Nothing here changes one; `shown` stands beside it.

    An act has two entries; once the second is there, the first need not be
    `shown` any more. That is kept beside the entries, so that lists need one index.
    """

    def __init__(self, database: Database) -> None:
        self._entries = database.collection("audit")

    async def prepare(self) -> None:
        """Make the indexes that the queries below use."""
        shown = {"shown": True}
        await self._entries.ensure_index(NEWEST_FIRST, only=shown)
        for field in _FILTERED:
            await self._entries.ensure_index([(field, 1), *NEWEST_FIRST], only=shown)
        await self._entries.ensure_index([("at", 1)])
        await self._entries.ensure_index([("closes", 1)], only={"closes": present()})

    async def append(self, chain: str, links: Sequence[Link], contents: Sequence[dict[str, Any]]) -> None:
        """Write entries behind each other, acknowledged and on disk; to repeat it does no harm."""
        await self._entries.insert_new(
            [
                {
                    **content,
                    "_id": entry_id(chain, link.number),
                    "hash": link.hash,
                    "shown": True,
                }
                for link, content in zip(links, contents, strict=True)
            ]
        )

    async def hide(self, ids: Sequence[str]) -> None:
        """Show the intents no longer whose ends were written."""
        await self._entries.update_many({"_id": one_of(ids)}, {"shown": False})

    async def page(
        self, where: Mapping[str, str | Condition], limit: int, after: Sequence[Any] | None
    ) -> list[tuple[list[Any], Entry, str]]:
        """At most `limit` of what is shown, newest first: position, entry and id."""
        found = await self._entries.find(
            {**where, "shown": True}, sort=NEWEST_FIRST, limit=limit, after=after
        )
        return [(position(document, NEWEST_FIRST), _entry(document), document["_id"]) for document in found]

    async def closed(self, intents: Sequence[str]) -> set[str]:
        """Those of some intents whose ends were written."""
        found: set[str] = set()
        for start in range(0, len(intents), 1000):
            ends = await self._entries.find(
                {"closes": one_of(intents[start : start + 1000])}, limit=1000, fields=("closes",)
            )
            found.update(document["closes"] for document in ends)
        return found

    async def chains(self) -> AsyncIterator[str]:
        """The chains that have entries, each found by one look behind the last."""
        after = ""
        while True:
            found = await self._entries.find({"_id": gt(after)}, limit=1, fields=("_id",))
            if not found:
                return
            name = str(found[0]["_id"]).rpartition("/")[0]
            yield name
            after = f"{name}0"

    async def along(self, chain: str, *, before: float = math.inf) -> AsyncIterator[Written]:
        """The entries of a chain in their order, up to the first one that was not made `before` a time."""
        count = 0
        async for document in self._entries.scan({"_id": _within(chain)}, page=PAGE):
            if not _made(document) < before:
                return
            count += 1
            if count % STRETCH == 0:
                # Hashing is quick, but a page of it would keep every request waiting.
                await asyncio.sleep(0)
            yield Written(
                document["_id"], _link(document), _content(document), document.get("shown") is not False
            )

    async def newest(self, chain: str) -> Written | None:
        """The last entry of a chain; None when it has none."""
        found = await self._entries.find_one({"_id": _within(chain)}, sort=(("_id", -1),))
        return Written(found["_id"], _link(found), _content(found), True) if found else None

    async def count(self) -> int:
        """How many entries there are in all chains."""
        return await self._entries.count()

    async def age_of(self, number: int) -> float:
        """When the `number`-th oldest entry was made; of those further up the 10,000th tells it."""
        found = await self._entries.find({}, sort=(("at", 1),), limit=min(number, MAX_LIMIT), fields=("at",))
        return _made(found[-1]) if found else 0.0

    async def prune(self, chain: str, number: int) -> int:
        """Delete the entries of a chain up to a number; how many they were."""
        return await self._entries.delete_many(
            {"_id": gte(entry_id(chain, 0)) & lte(entry_id(chain, number))}
        )


def _within(chain: str) -> Condition:
    return gt(f"{chain}/") & lt(f"{chain}0")


def _link(document: Mapping[str, Any]) -> Link:
    number, digest = str(document["_id"]).rpartition("/")[2], document.get("hash")
    return Link(int(number) if number.isdecimal() else -1, digest if isinstance(digest, bytes) else b"")


def _made(document: Mapping[str, Any]) -> float:
    at = document.get("at")
    return float(at) if isinstance(at, int | float) else 0.0


def _content(document: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in _AROUND}


def _entry(document: Mapping[str, Any]) -> Entry:
    """What a document says; whoever meddled with it shall not hide the others by it."""
    try:
        return msgspec.convert(_content(document), Entry)
    except msgspec.ValidationError:
        return Entry(at=_made(document), action="unreadable", outcome="unknown")


EXPIRED_FOR_S = 7 * 24 * 3600
"""Expired tokens are listed for so long, for whoever wonders why one stopped working."""


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """A token as it is kept: the hash of its secret, and what it may do until when."""

    id: str
    name: str
    subject: str
    digest: bytes
    grants: tuple[Grant, ...]
    created_by: str
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None = None


class TokenRepository:
    """Tokens by id."""

    def __init__(self, database: Database) -> None:
        self._tokens = database.collection("tokens")

    async def prepare(self) -> None:
        """Make the index that lets expired tokens go."""
        await self._tokens.ensure_index([("expires_at", 1)], expire_after_s=EXPIRED_FOR_S)

    async def insert(self, token: Token) -> None:
        """Store a new token."""
        await self._tokens.insert(_document(token))

    async def get(self, token_id: str) -> Token | None:
        """One token, None when there is none or it was revoked."""
        found = await self._tokens.find_one({"_id": token_id})
        return _record(found, Token) if found is not None else None

    async def page(self, limit: int, after: str | None) -> list[Token]:
        """Tokens behind an id, in the order of ids."""
        found = await self._tokens.find({}, limit=limit, after=[after] if after else None)
        return [_record(document, Token) for document in found]

    async def count(self) -> int:
        """How many there are."""
        return await self._tokens.count()

    async def delete(self, token_id: str) -> bool:
        """Revoke a token; whether there was one."""
        return await self._tokens.delete(token_id)

    async def used(self, token_id: str, at: datetime) -> None:
        """Note when a token was used; one that is gone stays gone."""
        with suppress(NotFound):
            await self._tokens.update(token_id, {"last_used_at": at})


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A browser's session: the hash of its secret, and the credential that it stands for.

    `proof` ties it to that credential's own secret where nothing else would end
    it (the administrator's token in the settings was changed).
    """

    id: str
    digest: bytes
    subject: str
    credential: str
    grants: tuple[Grant, ...]
    created_at: datetime
    seen_at: datetime
    expires_at: datetime
    proof: str = ""


class SessionRepository:
    """Sessions by id."""

    def __init__(self, database: Database) -> None:
        self._sessions = database.collection("sessions")

    async def prepare(self) -> None:
        """Make the index that lets ended sessions go."""
        await self._sessions.ensure_index([("expires_at", 1)], expire_after_s=0)

    async def insert(self, session: Session) -> None:
        """Store a new session."""
        await self._sessions.insert(_document(session))

    async def get(self, session_id: str) -> Session | None:
        """One session, None when there is none or it was ended."""
        found = await self._sessions.find_one({"_id": session_id})
        return _record(found, Session) if found is not None else None

    async def seen(self, session_id: str, at: datetime) -> None:
        """Note that a session is in use; one that is gone stays gone."""
        with suppress(NotFound):
            await self._sessions.update(session_id, {"seen_at": at})

    async def delete(self, session_id: str) -> bool:
        """End a session; whether there was one."""
        return await self._sessions.delete(session_id)


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """A request with an Idempotency-Key: which it was, and how it ended.

    While it runs `alive_until` is moved on; one that is `running` past it died.
    """

    id: str
    fingerprint: bytes
    operation: str
    state: str
    alive_until: datetime
    expires_at: datetime
    status: int = 0
    sealed: bytes = b""


class AttemptRepository:
    """Attempts by the hash of caller and key; that only one can be inserted is the lock."""

    def __init__(self, database: Database) -> None:
        self._attempts = database.collection("attempts")

    async def prepare(self) -> None:
        """Make the index that lets old attempts go."""
        await self._attempts.ensure_index([("expires_at", 1)], expire_after_s=0)

    async def begin(self, attempt: Attempt) -> Attempt | None:
        """Take the key. None when it is ours, else the attempt that has it."""
        try:
            await self._attempts.insert(_document(attempt))
        except AlreadyExists:
            # It may be gone by now: then the caller sees its own, which is in nobody's way.
            found = await self._attempts.find_one({"_id": attempt.id})
            return _record(found, Attempt) if found is not None else attempt
        return None

    async def alive(self, attempt: Attempt, until: datetime) -> None:
        """Say that the request still runs."""
        await self._change(attempt, {"alive_until": until})

    async def finish(self, attempt: Attempt, changes: Mapping[str, Any]) -> None:
        """Keep how the request ended."""
        await self._change(attempt, changes)

    async def release(self, attempt: Attempt) -> None:
        """Let the key be used again: nothing was done."""
        await self._attempts.delete_many({"_id": attempt.id, "operation": attempt.operation})

    async def _change(self, attempt: Attempt, changes: Mapping[str, Any]) -> None:
        with suppress(NotFound):
            await self._attempts.update(attempt.id, changes, expect={"operation": attempt.operation})


def _document(record: Token | Session | Attempt) -> dict[str, Any]:
    fields = msgspec.to_builtins(record, builtin_types=(bytes, datetime))
    return {"_id": fields.pop("id"), **fields}


def _record(document: dict[str, Any], kind: type[Any]) -> Any:
    fields = {**document, "id": document["_id"]}
    del fields["_id"]
    return msgspec.convert(fields, kind)
