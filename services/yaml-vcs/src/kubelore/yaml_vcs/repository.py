"""The only place with queries to MongoDB: versions, the objects they are of, gaps, and who is known to have written.

A version's `_id` is its object's key, its branch and its number, so that one
index orders a history, finds a version, and lets none of them be written twice.
Field names are single letters, since there are hundreds of millions of them.
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from kubelore.common.contracts.identity import ResourceId
from kubelore.common.errors import Conflict, NotFound
from kubelore.common.store import Database, gt, gte, lt, lte, ne, one_of, present
from kubelore.yaml_vcs.branch_repository import BranchRepository
from kubelore.yaml_vcs.gap_repository import GapRepository
from kubelore.yaml_vcs.history import GONE, KINDS, MAIN, Checkpoint, Entry, Redaction
from kubelore.yaml_vcs.tag_repository import TagRepository
from kubelore.yaml_vcs.together import together

KEY_BYTES = 10
"""Of SHA-256 of a resource id: ten million objects share one with a chance of 4e-11."""
MAX_CHUNK = 1000
READ_AT_ONCE = 16
MAX_NUMBER = 0xFFFFFFFF
MAX_OUTLINE = 10_000

_OPERATIONS = ("", "Update", "Apply")


class Resource(msgspec.Struct, kw_only=True):
    """One object that has a history. `gap` is the gap in which it was last seen, empty outside of one."""

    id: str
    cluster: str
    type: str
    namespace: str
    name: str
    live: bool = True
    gap: str = ""

    @classmethod
    def of(cls, id_: str) -> Resource:
        """The object of a resource id."""
        parsed = ResourceId.parse(id_)
        return cls(
            id=id_, cluster=parsed.cluster, type=parsed.type, namespace=parsed.namespace, name=parsed.name
        )


class Attribution(msgspec.Struct, frozen=True, kw_only=True):
    """Who brought an object to a resourceVersion, as the service that wrote it says; signed as it was heard."""

    cluster: str
    uid: str
    rv: str
    actor: str
    reason: str = ""
    change_log: str = ""
    operation_id: str = ""
    probable: bool = False
    signature: bytes = b""


class Outline(msgspec.Struct, frozen=True, kw_only=True):
    """A version as retention looks at it; `at` in milliseconds since 1970, `size` in bytes."""

    number: int
    at: int
    gone: bool = False
    size: int = 0


class Revealed(msgspec.Struct, frozen=True, kw_only=True):
    """That somebody was shown values of a version of a Secret: which keys, when (seconds since 1970) and why."""

    id: str
    resource: str
    version: int
    keys: list[str]
    by: str
    at: float
    reason: str


def resource_key(id_: str) -> bytes:
    """The key of an object's history."""
    return hashlib.sha256(id_.encode()).digest()[:KEY_BYTES]


def version_id(key: bytes, branch: int, number: int) -> bytes:
    """The `_id` of a version: orders by object, branch and number."""
    return key + branch.to_bytes(2, "big") + number.to_bytes(4, "big")


class VersionRepository:
    """Everything that yaml-vcs keeps in MongoDB."""

    def __init__(self, database: Database) -> None:
        self._versions = database.collection("versions")
        self._resources = database.collection("versioned_resources")
        self._gaps = database.collection("version_gaps")
        self._attributions = database.collection("version_attributions")
        self._revealed = database.collection("version_reveals")
        self._managers = database.collection("field_managers")
        self.tags = TagRepository(database)
        self.branches = BranchRepository(database)
        self.marks = GapRepository(database)
        self._names: dict[int, str] = {}
        self._numbers: dict[str, int] = {}

    async def prepare(self) -> None:
        """Make the indexes that the queries below use."""
        await self._resources.ensure_index([("cluster", 1), ("type", 1), ("namespace", 1)])
        await self._resources.ensure_index([("cluster", 1), ("namespace", 1)])
        await self._resources.ensure_index([("cluster", 1), ("name", 1)])
        await self._gaps.ensure_index([("scope", 1), ("open", 1)])
        await self._gaps.ensure_index([("scope", 1), ("at", 1)])
        await self.tags.prepare()
        for document in await self._managers.find({}, limit=10_000):
            self._remember(document["_id"], document["name"])

    # versions

    async def append(self, entries: Sequence[tuple[bytes, int, Entry]]) -> None:
        """Write versions, each with its object's key and branch; those that are there already stay.

        Raises Conflict when another version has the place of one of them.
        """
        documents = [await self._document(key, branch, entry) for key, branch, entry in entries]
        if await self._versions.insert_new(documents) == len(documents):
            return
        wanted = {document["_id"]: document["c"] for document in documents}
        for chunk in _chunks(list(wanted)):
            for held in await self._versions.find({"_id": one_of(chunk)}, limit=MAX_CHUNK, fields=("c",)):
                if bytes(held["c"]) != wanted[bytes(held["_id"])]:
                    raise Conflict(
                        "another replica has written these versions", remedy="Read the heads again."
                    )

    async def last(self, key: bytes, branch: int = MAIN, *, until: int | None = None) -> Entry | None:
        """The newest version of a branch, or the newest at a time (milliseconds since 1970)."""
        where: dict[str, Any] = {"_id": _within(key, branch)}
        if until is not None:
            where["t"] = lte(until)
        found = await self._versions.find(where, sort=[("_id", -1)], limit=1)
        return self._entry(found[0]) if found else None

    async def last_there(self, key: bytes) -> Entry | None:
        """The newest version of main that is no tombstone: of two, one at least is none."""
        for entry in await self.page(key, MAIN, before=None, since=0, until=None, limit=2):
            if entry.kind not in GONE:
                return entry
        return None

    async def chain(self, key: bytes, branch: int, entry: Entry) -> list[Entry]:
        """The versions from the whole one that an entry is packed upon up to it (a tombstone: to the one before)."""
        if entry.frame and entry.base == entry.number:
            return [entry]
        upto = entry.number if entry.frame else entry.number - 1
        where = {
            "_id": gte(version_id(key, branch, entry.base)) & lte(version_id(key, branch, upto)),
        }
        found = [self._entry(document) for document in await self._versions.find(where, limit=MAX_CHUNK)]
        # Versions were made whole since, where what they were packed upon was taken out.
        wholes = [place for place, one in enumerate(found) if one.frame and one.base == one.number]
        return found[wholes[-1] :] if wholes else found

    async def get(self, key: bytes, branch: int, number: int) -> Entry:
        """One version. Raises NotFound."""
        try:
            return self._entry(await self._versions.get(version_id(key, branch, number)))
        except NotFound as error:
            raise NotFound(
                f"there is no version {number}", remedy="List the versions to see which there are."
            ) from error

    async def page(
        self, key: bytes, branch: int, *, before: int | None, since: int, until: int | None, limit: int
    ) -> list[Entry]:
        """Versions, newest first, numbered below `before`; times in milliseconds since 1970."""
        top = MAX_NUMBER if before is None else before - 1
        where: dict[str, Any] = {
            "_id": gte(version_id(key, branch, 0)) & lte(version_id(key, branch, max(top, 0)))
        }
        if since or until is not None:
            where["t"] = gte(since) if until is None else gte(since) & lte(until)
        found = await self._versions.find(where, sort=[("_id", -1)], limit=limit)
        return [self._entry(document) for document in found]

    async def all_of(
        self, key: bytes, branch: int = MAIN, *, after: int = 0, limit: int = MAX_CHUNK
    ) -> list[Entry]:
        """Up to 1,000 versions behind a number, oldest first."""
        where = {"_id": gt(version_id(key, branch, after)) & lte(version_id(key, branch, MAX_NUMBER))}
        return [self._entry(document) for document in await self._versions.find(where, limit=limit)]

    async def heads(self, keys: Sequence[bytes], branch: int = MAIN) -> dict[bytes, Entry]:
        """The newest version of each object, those without one left out."""
        slots = asyncio.Semaphore(READ_AT_ONCE)
        found: dict[bytes, Entry] = {}

        async def read(key: bytes) -> None:
            async with slots:
                entry = await self.last(key, branch)
            if entry is not None:
                found[key] = entry

        async with together() as group:
            for key in keys:
                group.create_task(read(key))
        return found

    async def drop(self, key: bytes, branch: int) -> None:
        """Remove every version of a draft, and what belongs to them."""
        first, last = version_id(key, branch, 0), version_id(key, branch, MAX_NUMBER)
        await self._versions.delete_many({"_id": gte(first) & lte(last)})
        await self.branches.forget_drafts(first, last)

    async def outline(self, key: bytes, *, sizes: bool) -> list[Outline]:
        """Up to 10,000 versions of main, oldest first, without their contents; with `sizes` how large these are."""
        found = await self._versions.find(
            {"_id": _within(key, MAIN)}, limit=MAX_OUTLINE, fields=("t", "k", *(("f",) if sizes else ()))
        )
        return [
            Outline(
                number=int.from_bytes(bytes(document["_id"])[-4:], "big"),
                at=document["t"],
                gone=KINDS[document["k"]] in GONE,
                size=len(document.get("f", b"")),
            )
            for document in found
        ]

    async def between(self, key: bytes, first: int, last: int) -> list[Entry]:
        """Up to 1,000 versions of main from one number to another, both included."""
        where = {"_id": gte(version_id(key, MAIN, first)) & lte(version_id(key, MAIN, last))}
        return [self._entry(document) for document in await self._versions.find(where, limit=MAX_CHUNK)]

    async def prune(self, key: bytes, after: int, before: int) -> int:
        """Remove the versions of main between two numbers, neither included; how many they were."""
        where = {"_id": gt(version_id(key, MAIN, after)) & lt(version_id(key, MAIN, before))}
        return await self._versions.delete_many(where)

    async def needed(self, key: bytes) -> set[int]:
        """Versions of main that something else stands on: tags, and what branches begin at."""
        tagged = {number for branch, number in await self.tags.tagged(key) if branch == MAIN}
        return tagged | {branch.base for branch in await self.branches.of(key)}

    async def redacted(self, key: bytes, hashed: bytes) -> bool:
        """Whether a content was taken out of the history of an object."""
        where = {"_id": _within(key, MAIN), "h": hashed, "x": present()}
        return bool(await self._versions.find(where, limit=1, fields=("t",)))

    async def holds(self, key: bytes, branch: int, hashed: bytes) -> bool:
        """Whether a version of a branch has a content."""
        where = {"_id": _within(key, branch), "h": hashed}
        return bool(await self._versions.find(where, limit=1, fields=("t",)))

    async def redact(self, key: bytes, branch: int, number: int, redaction: Redaction) -> None:
        """Take the content and the sealed values of a version out. Raises NotFound."""
        said = {"x": [redaction.by, redaction.at, redaction.reason, redaction.signature]}
        await self._versions.update(version_id(key, branch, number), said, unset=("f", "s"))

    async def make_whole(
        self, key: bytes, branch: int, number: int, frame: bytes, checkpoint: Checkpoint | None = None
    ) -> None:
        """Let a version stand alone, so that what it was packed upon may go. Raises NotFound."""
        changes: dict[str, Any] = {"f": frame, "b": 0} if frame else {}
        if checkpoint is not None:
            changes["p"] = [checkpoint.before, checkpoint.parent, checkpoint.at, checkpoint.signature]
        if changes:
            await self._versions.update(version_id(key, branch, number), changes)

    # objects

    async def known(self, keys: Iterable[bytes]) -> set[bytes]:
        """Which objects have a history."""
        found: set[bytes] = set()
        for chunk in _chunks(list(keys)):
            documents = await self._resources.find({"_id": one_of(chunk)}, limit=MAX_CHUNK, fields=("live",))
            found.update(bytes(document["_id"]) for document in documents)
        return found

    async def add_resources(self, resources: Mapping[bytes, Resource]) -> None:
        """Note objects that have a history from now on; those that are known stay as they are."""
        documents = [{"_id": key, **msgspec.to_builtins(found)} for key, found in resources.items()]
        await self._resources.insert_new(documents)

    async def set_live(self, keys: Iterable[bytes], *, live: bool) -> None:
        """Note which objects are there now."""
        for chunk in _chunks(list(keys)):
            await self._resources.update_many({"_id": one_of(chunk), "live": ne(live)}, {"live": live})

    async def resource(self, id_: str) -> Resource | None:
        """An object that has a history; None for any other."""
        found = await self._resources.find_one({"_id": resource_key(id_)})
        return msgspec.convert(found, Resource) if found else None

    async def resources(
        self, cluster: str, *, namespace: str | None = None, type_name: str = "", after: bytes | None = None
    ) -> list[tuple[bytes, Resource]]:
        """Up to 1,000 objects of a cluster by key, narrowed to a namespace or type."""
        where: dict[str, Any] = {"cluster": cluster}
        if namespace is not None:
            where["namespace"] = namespace
        if type_name:
            where["type"] = type_name
        found = await self._resources.find(where, limit=MAX_CHUNK, after=None if after is None else [after])
        return [(bytes(document["_id"]), msgspec.convert(document, Resource)) for document in found]

    async def named(self, cluster: str, name: str) -> list[Resource]:
        """Up to 1,000 objects of a cluster that have a name, of any type and namespace."""
        found = await self._resources.find({"cluster": cluster, "name": name}, limit=MAX_CHUNK)
        return [msgspec.convert(document, Resource) for document in found]

    async def some_resources(self, after: bytes | None, limit: int) -> list[tuple[bytes, Resource]]:
        """Objects of every cluster by key, behind one."""
        found = await self._resources.find({}, limit=limit, after=None if after is None else [after])
        return [(bytes(document["_id"]), msgspec.convert(document, Resource)) for document in found]

    # gaps

    async def open_gap(self, scope: str, gap: str, details: Mapping[str, Any]) -> None:
        """Remember that a type's changes are not known from some point on, until `close_gap`."""
        await self._gaps.insert_new([{"_id": gap, "scope": scope, "open": True, **details}])

    async def gap_of(self, scope: str) -> str:
        """The open gap of a type; empty when there is none."""
        found = await self._gaps.find({"scope": scope, "open": True}, sort=[("_id", -1)], limit=1)
        return found[0]["_id"] if found else ""

    async def close_gap(self, scope: str, at: float) -> None:
        """Everything that is still there has been seen again at a time (seconds since 1970)."""
        await self._gaps.update_many({"scope": scope, "open": True}, {"open": False, "until": at})

    async def mark_seen(self, keys: Iterable[bytes], gap: str) -> None:
        """Note that objects were seen in a gap."""
        for chunk in _chunks(list(keys)):
            await self._resources.update_many({"_id": one_of(chunk)}, {"gap": gap})

    async def unseen(
        self, cluster: str, type_name: str, namespace: str, gap: str, after: bytes | None
    ) -> list[tuple[bytes, Resource]]:
        """Up to 1,000 objects that were there before a gap and were not seen in it."""
        where: dict[str, Any] = {"cluster": cluster, "type": type_name, "live": True, "gap": ne(gap)}
        if namespace:
            where["namespace"] = namespace
        found = await self._resources.find(where, limit=MAX_CHUNK, after=None if after is None else [after])
        return [(bytes(document["_id"]), msgspec.convert(document, Resource)) for document in found]

    # who wrote

    async def attribute(self, attributions: Sequence[Attribution]) -> None:
        """Keep who wrote what; saying it again changes nothing."""
        documents = [
            {
                "_id": f"{one.cluster}/{one.uid}/{one.rv}",
                **msgspec.to_builtins(one, builtin_types=(bytes,)),
            }
            for one in attributions
        ]
        for chunk in _chunks(documents):
            await self._attributions.insert_new(chunk)

    async def attributions(
        self, written: Iterable[tuple[str, str, str]]
    ) -> dict[tuple[str, str, str], Attribution]:
        """Who wrote these (cluster, uid, rv), where that is known."""
        ids = ["/".join(one) for one in written]
        found: dict[tuple[str, str, str], Attribution] = {}
        for chunk in _chunks(ids):
            for document in await self._attributions.find({"_id": one_of(chunk)}, limit=MAX_CHUNK):
                one = msgspec.convert(document, Attribution)
                found[one.cluster, one.uid, one.rv] = one
        return found

    async def note_revealed(self, said: Revealed) -> None:
        """Keep who was shown which values, before they are."""
        await self._revealed.insert_new([{"_id": said.id, **msgspec.to_builtins(said)}])

    # how a version is written down

    async def _document(self, key: bytes, branch: int, entry: Entry) -> dict[str, Any]:
        document: dict[str, Any] = {
            "_id": version_id(key, branch, entry.number),
            "k": KINDS.index(entry.kind),
            "t": entry.at,
            "i": entry.incarnation,
            "u": _short_uid(entry.uid),
            "r": int(entry.rv) if entry.rv.isdecimal() and len(entry.rv) < 19 else entry.rv,
            "h": entry.hash,
            "c": entry.commit,
            "b": entry.number - entry.base,
            "m": await self._number_of(entry.manager),
            "o": _OPERATIONS.index(entry.operation) if entry.operation in _OPERATIONS else 0,
        }
        if entry.frame:
            document["f"] = entry.frame
        if entry.sealed:
            document["s"] = entry.sealed
        if entry.rules:
            document["n"] = entry.rules
        return document

    def _entry(self, document: Mapping[str, Any]) -> Entry:
        number = int.from_bytes(bytes(document["_id"])[-4:], "big")
        return Entry(
            number=number,
            kind=KINDS[document["k"]],
            at=document["t"],
            incarnation=document["i"],
            uid=_long_uid(document["u"]),
            rv=str(document["r"]),
            hash=bytes(document["h"]),
            commit=bytes(document["c"]),
            base=number - document["b"],
            frame=bytes(document.get("f", b"")),
            manager=self._names.get(document["m"], ""),
            operation=_OPERATIONS[document["o"]],
            sealed=bytes(document.get("s", b"")),
            rules=document.get("n", 0),
            redaction=msgspec.convert(document["x"], Redaction) if "x" in document else None,
            checkpoint=msgspec.convert(document["p"], Checkpoint) if "p" in document else None,
        )

    async def _number_of(self, manager: str) -> int:
        """A field manager's name as a number: there are few, and each stands in every version."""
        if not manager:
            return 0
        if manager not in self._numbers:
            number = int.from_bytes(hashlib.sha256(manager.encode()).digest()[:4], "big") >> 1 | 1
            await self._managers.insert_new([{"_id": number, "name": manager}])
            self._remember(number, (await self._managers.get(number))["name"])
            self._numbers[manager] = number
        return self._numbers[manager]

    def _remember(self, number: int, name: str) -> None:
        self._names[number] = name
        self._numbers[name] = number


def _within(key: bytes, branch: int) -> Any:
    return gte(version_id(key, branch, 0)) & lte(version_id(key, branch, MAX_NUMBER))


def _short_uid(uid: str) -> bytes | str:
    """A uid as 16 bytes, where it is the UUID that API servers give."""
    try:
        raw = uuid.UUID(uid)
    except ValueError:
        return uid
    return raw.bytes if str(raw) == uid else uid


def _long_uid(kept: bytes | str) -> str:
    return kept if isinstance(kept, str) else str(uuid.UUID(bytes=bytes(kept)))


def _chunks(keys: list[Any]) -> Iterable[list[Any]]:
    return (keys[start : start + MAX_CHUNK] for start in range(0, len(keys), MAX_CHUNK))
