"""MongoDB over PyMongo's own asyncio client: open it, and work on collections of documents.

Every write is acknowledged by a majority and journaled; every operation has a
deadline; every answer is bounded. Only a service's `repository.py` uses this.
Works on mongod and on SecantusDB (docs/decisions/0012).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from pymongo import AsyncMongoClient, ReturnDocument, UpdateOne, WriteConcern
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import BulkWriteError, InvalidURI, PyMongoError

from kubelore.common.errors import BadRequest, Conflict, DeadlineExceeded, Invalid, NotFound, Unavailable
from kubelore.common.settings import CommonSettings
from kubelore.common.store.filters import (
    Scalar,
    Where,
    checked,
    checked_document,
    checked_field,
    compile_filter,
)
from kubelore.common.store.mongo_errors import only_duplicates, translated
from kubelore.common.store.paging import BY_ID, Sort, behind, complete, position

Document: TypeAlias = dict[str, Any]
T = TypeVar("T")

TIMEOUT_MS = 5000
MAX_LIMIT = 10_000
MAX_POOL = 32

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


async def open_database(
    settings: CommonSettings, *, appname: str = "kubelore", ping: bool = True
) -> Database:
    """Connect to the database of the settings, and see that it answers.

    Raises Unavailable, with a remedy, when it does not within 5 s; without `ping`
    only what needs it then does.
    """
    try:
        client: AsyncMongoClient[Document] = AsyncMongoClient(
            settings.mongo_url.get_secret_value(),
            appname=appname,
            timeoutMS=TIMEOUT_MS,
            serverSelectionTimeoutMS=TIMEOUT_MS,
            connectTimeoutMS=TIMEOUT_MS,
            maxPoolSize=MAX_POOL,
            maxConnecting=MAX_POOL,
            tz_aware=True,
            uuidRepresentation="standard",
        )
    except (PyMongoError, InvalidURI, ValueError, TypeError) as error:
        # Without the cause: it may quote parts of the connection string, which holds the password.
        raise Unavailable(
            f"KUBELORE_MONGO_URL is not a MongoDB connection string ({type(error).__name__}).",
            remedy="Write it as mongodb://user:password@host:port/?authSource=admin.",
        ) from None
    database = Database(client, settings.mongo_database)
    try:
        if ping:
            await database.ping()
    except BaseException:
        await database.close()
        raise
    return database


class _Turns:
    """Hands out the connections, so that nobody waits within PyMongo's pool, and cancels none of its operations.

    A wait within PyMongo that is cancelled while its deadline passes leaves the
    lock of its pool, or of its view of the servers, taken for good (Python 3.11,
    docs/decisions/0132).
    """

    def __init__(self, connections: int) -> None:
        self._free = asyncio.Semaphore(connections)
        self._running: set[asyncio.Task[Any]] = set()

    async def run(self, what: str, operation: Coroutine[Any, Any, T]) -> T:
        """One operation on `what`, as soon as there is a connection for it, with our errors.

        Whoever is cancelled leaves at once; the operation goes on to its own end, at most its deadline.
        """
        try:
            async with asyncio.timeout(TIMEOUT_MS / 1000):
                await self._free.acquire()
        except TimeoutError as error:
            operation.close()
            raise DeadlineExceeded(f"The database is busy ({what}).") from error
        except asyncio.CancelledError:
            operation.close()
            raise
        running = asyncio.create_task(operation)
        self._running.add(running)
        running.add_done_callback(self._end)
        with translated(what):
            return await asyncio.shield(running)

    async def ended(self) -> None:
        """Wait for the operations whose askers have left."""
        if self._running:
            await asyncio.wait(self._running, timeout=TIMEOUT_MS / 1000)

    def _end(self, operation: asyncio.Task[Any]) -> None:
        self._running.discard(operation)
        self._free.release()


class Database:
    """One database. `close` it at the end of the process; it also is an async context manager."""

    def __init__(self, client: AsyncMongoClient[Document], name: str) -> None:
        self._client = client
        self._database: AsyncDatabase[Document] = client.get_database(
            name, write_concern=WriteConcern("majority", j=True)
        )
        self._turns = _Turns(MAX_POOL)

    def __repr__(self) -> str:
        return f"Database({self._database.name!r})"

    async def __aenter__(self) -> Database:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def collection(self, name: str) -> Collection:
        """The collection of that name; it comes to be with its first document."""
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not the name of a collection")
        return Collection(self._database.get_collection(name), self._turns)

    async def ping(self) -> None:
        """See that the database answers and takes the credentials. Raises Unavailable, DeadlineExceeded."""
        # MongoDB's own `ping` answers without credentials too; a read does not.
        command = self._database.command({"find": "ping", "limit": 1, "singleBatch": True})
        await self._turns.run(self._database.name, command)

    async def close(self) -> None:
        """Close every connection, once what was given up on has ended."""
        await self._turns.ended()
        await self._client.close()


class Collection:
    """The documents of one kind. A document's `_id` is a text, a number or bytes.

    Every method may raise Unavailable and DeadlineExceeded; after these it is
    open whether a write happened.
    """

    def __init__(self, collection: AsyncCollection[Document], turns: _Turns) -> None:
        self._collection = collection
        self._turns = turns
        self.name = collection.name

    def __repr__(self) -> str:
        return f"Collection({self.name!r})"

    async def _run(self, operation: Coroutine[Any, Any, T]) -> T:
        return await self._turns.run(self.name, operation)

    async def insert(self, document: Mapping[str, Any]) -> None:
        """Add a document that has an `_id`. Raises AlreadyExists, Invalid, TooLarge."""
        await self._run(self._collection.insert_one(_with_id(document)))

    async def insert_new(self, documents: Sequence[Mapping[str, Any]]) -> int:
        """Add those of at most 10,000 documents that are not there yet, in no order; how many that were.

        Repeating it does no harm: this is how a redelivered batch is recorded once.
        """
        if len(documents) > MAX_LIMIT:
            raise BadRequest(f"At most {MAX_LIMIT} documents can be added at once.")
        if not documents:
            return 0
        return await self._run(self._insert_new([_with_id(document) for document in documents]))

    async def _insert_new(self, documents: list[Document]) -> int:
        try:
            done = await self._collection.insert_many(documents, ordered=False)
        except BulkWriteError as error:
            if not only_duplicates(error):
                raise
            return int((error.details or {}).get("nInserted", 0))
        return len(done.inserted_ids)

    async def get(self, id_: Scalar) -> Document:
        """The document with that `_id`. Raises NotFound."""
        found = await self.find_one({"_id": id_})
        if found is None:
            raise NotFound(f"{self.name} has no {id_!r}.")
        return found

    async def find_one(self, where: Where, *, sort: Sort = BY_ID) -> Document | None:
        """The first document that matches, in that order; None when there is none."""
        found = await self.find(where, sort=sort, limit=1)
        return found[0] if found else None

    async def find(
        self,
        where: Where | None = None,
        *,
        sort: Sort = BY_ID,
        limit: int = 500,
        after: Sequence[Any] | None = None,
        fields: Sequence[str] = (),
    ) -> list[Document]:
        """At most `limit` (1 to 10,000) documents that match, in a total order.

        `after` is the `position` of the last document of the page before.
        `fields` narrows what is fetched; `_id` always is. Raises BadRequest.
        """
        if not 1 <= limit <= MAX_LIMIT:
            raise BadRequest(f"A limit lies between 1 and {MAX_LIMIT}, not at {limit}.")
        query: dict[str, Any] = dict(compile_filter(where or {}))
        if after is not None:
            query = {"$and": [query, behind(after, sort)]} if query else behind(after, sort)
        projection = [checked_field(field) for field in fields] or None
        cursor = self._collection.find(query, projection, sort=complete(sort), limit=limit, batch_size=limit)
        return await self._run(cursor.to_list(limit))

    async def scan(
        self, where: Where | None = None, *, sort: Sort = BY_ID, page: int = 1000, fields: Sequence[str] = ()
    ) -> AsyncIterator[Document]:
        """Every document that matches, page by page, each page with a deadline of its own."""
        after: list[Any] | None = None
        wanted = (*fields, *(field for field, _ in sort)) if fields else ()
        while True:
            found = await self.find(where, sort=sort, limit=page, after=after, fields=wanted)
            for document in found:
                yield document
            if len(found) < page:
                return
            after = position(found[-1], sort)

    async def count(self, where: Where | None = None, *, limit: int | None = None) -> int:
        """How many documents match; with `limit`, counting stops there."""
        bounded: dict[str, Any] = {} if limit is None else {"limit": limit}
        return await self._run(self._collection.count_documents(compile_filter(where or {}), **bounded))

    async def distinct(self, field: str, where: Where | None = None) -> list[Any]:
        """The values that a field has in what matches; for fields that have few."""
        return await self._run(self._collection.distinct(checked_field(field), compile_filter(where or {})))

    async def put(self, document: Mapping[str, Any]) -> None:
        """Write a document whole, over one with its `_id` or as a new one. The last writer wins."""
        whole = _with_id(document)
        await self._run(self._collection.replace_one({"_id": {"$eq": whole["_id"]}}, whole, upsert=True))

    async def replace(self, document: Mapping[str, Any], *, expect: Where) -> None:
        """Write over the document with the same `_id`, if it matches `expect`. Raises NotFound, Conflict."""
        whole = _with_id(document)
        query = _expecting(whole["_id"], expect)
        done = await self._run(self._collection.replace_one(query, whole))
        if done.matched_count == 0:
            raise await self._missed(whole["_id"])

    async def advance(self, document: Mapping[str, Any]) -> Document:
        """Write back a document that was read, if nobody else did since; gives it one `revision` up.

        Raises Conflict when the stored `revision` is another one, NotFound.
        """
        revision = document.get("revision")
        if not isinstance(revision, int):
            raise ValueError("only a document with a revision can be advanced")
        following = {**document, "revision": revision + 1}
        await self.replace(following, expect={"revision": revision})
        return following

    async def update(
        self,
        id_: Scalar,
        changes: Mapping[str, Any] | None = None,
        *,
        increments: Mapping[str, int | float] | None = None,
        unset: Sequence[str] = (),
        expect: Where | None = None,
    ) -> Document:
        """Change some fields of one document, if it matches `expect`; the document as it is then.

        Raises NotFound, Conflict, and AlreadyExists where a unique index is hit.
        """
        change = _update(changes or {}, increments or {}, unset)
        found = await self._run(
            self._collection.find_one_and_update(
                _expecting(id_, expect or {}), change, return_document=ReturnDocument.AFTER
            )
        )
        if found is None:
            raise await self._missed(id_)
        return found

    async def update_many(
        self, where: Where, changes: Mapping[str, Any], *, unset: Sequence[str] = ()
    ) -> int:
        """Change some fields of all that match, one by one and not together; how many matched."""
        done = await self._run(self._collection.update_many(_narrow(where), _update(changes, {}, unset)))
        return done.matched_count

    async def update_each(self, changes: Mapping[str, Mapping[str, Any]]) -> int:
        """Change some fields of each of at most 10,000 documents, by `_id`, in no order; how many were there."""
        if len(changes) > MAX_LIMIT:
            raise BadRequest(f"At most {MAX_LIMIT} documents can be changed at once.")
        if not changes:
            return 0
        updates = [
            UpdateOne({"_id": {"$eq": checked(id_)}}, _update(change, {}, ()))
            for id_, change in changes.items()
        ]
        done = await self._run(self._collection.bulk_write(updates, ordered=False))
        return done.matched_count

    async def delete(self, id_: Scalar, *, expect: Where | None = None) -> bool:
        """Remove one document, if it matches `expect`; whether it was there. Raises Conflict."""
        done = await self._run(self._collection.delete_one(_expecting(id_, expect or {})))
        if done.deleted_count == 0 and expect and await self.count({"_id": id_}, limit=1):
            raise _changed(self.name, id_)
        return done.deleted_count > 0

    async def delete_many(self, where: Where) -> int:
        """Remove all that match a filter that is not empty; how many they were."""
        done = await self._run(self._collection.delete_many(_narrow(where)))
        return done.deleted_count

    async def ensure_index(
        self,
        fields: Sort,
        *,
        unique: bool = False,
        expire_after_s: int | None = None,
        only: Where | None = None,
    ) -> None:
        """See that an index is there; `only` makes it partial. Raises Conflict when it differs."""
        options: dict[str, Any] = {"unique": unique} if unique else {}
        if expire_after_s is not None:
            options["expireAfterSeconds"] = expire_after_s
        if only:
            options["partialFilterExpression"] = compile_filter(only)
        keys = [(checked_field(field), direction) for field, direction in fields]
        await self._run(self._collection.create_index(keys, **options))

    async def _missed(self, id_: Scalar) -> Conflict | NotFound:
        if await self.count({"_id": id_}, limit=1):
            return _changed(self.name, id_)
        return NotFound(f"{self.name} has no {id_!r}.")


def _with_id(document: Mapping[str, Any]) -> Document:
    if document.get("_id") is None:
        raise Invalid("A document needs an _id.")
    checked(document["_id"])
    return dict(checked_document(document))


def _expecting(id_: Scalar, expect: Where) -> dict[str, Any]:
    return {**compile_filter(expect), "_id": {"$eq": checked(id_)}}


def _narrow(where: Where) -> dict[str, Any]:
    if not where:
        raise ValueError("an empty filter would take every document")
    return dict(compile_filter(where))


def _update(
    changes: Mapping[str, Any], increments: Mapping[str, int | float], unset: Sequence[str]
) -> dict[str, dict[str, Any]]:
    checked_document(changes)
    parts = {
        "$set": {checked_field(field): value for field, value in changes.items()},
        "$inc": {checked_field(field): checked(amount) for field, amount in increments.items()},
        "$unset": {checked_field(field): "" for field in unset},
    }
    found = {operator: fields for operator, fields in parts.items() if fields}
    if not found:
        raise ValueError("an update changes something")
    return found


def _changed(collection: str, id_: Scalar) -> Conflict:
    return Conflict(
        f"{id_!r} in {collection} was changed by somebody else.", remedy="Read it again and try again."
    )
