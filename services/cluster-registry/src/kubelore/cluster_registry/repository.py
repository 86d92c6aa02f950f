"""The only place with queries to MongoDB: clusters, their groups, what was told of expiring credentials,
and what is remembered of the names of former clusters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from kubelore.cluster_registry.lifetimes import Lifetime
from kubelore.common.authz import no_such_cluster
from kubelore.common.contracts.clusters import ClusterConnection, ClusterPage, ListClusters
from kubelore.common.errors import AlreadyExists, Conflict, NotFound
from kubelore.common.store import Database, lte, ne, one_of

_FILTERS = ("group", "provider", "status")
_PUBLIC = ClusterConnection.__struct_fields__
CONNECTED = {"status": "connected", "health_status": "healthy", "status_detail": ""}
MAX_PAGE = 1000
MAX_CLUSTERS = MAX_PAGE


class Former(msgspec.Struct, frozen=True):
    """The last cluster of a name: its kube-system uid, and its generation when it was removed."""

    uid: str
    generation: int = 1


class ClusterRepository:
    """Clusters by name. A document holds the public fields, and the sealed credentials beside them.

    An insert is the only write of an onboarding, so that a process that dies
    leaves a whole cluster or none.
    """

    def __init__(self, database: Database) -> None:
        self._clusters = database.collection("clusters")
        self._former = database.collection("former_clusters")

    async def prepare(self) -> None:
        """Make the indexes that the queries below use, and the one that lets an identity in only once."""
        await self._clusters.ensure_index([("tags", 1)])
        await self._clusters.ensure_index([("group", 1)])
        await self._clusters.ensure_index([("lifetime.expires_at", 1)])
        await self._clusters.ensure_index([("lifetime.renew_at", 1)])
        await self._clusters.ensure_index([("kube_system_uid", 1)], unique=True, only={"exclusive": True})

    async def insert(
        self, cluster: ClusterConnection, sealed: bytes, lasting: Lifetime, *, exclusive: bool
    ) -> None:
        """Store a new cluster; raises AlreadyExists when its name is taken.

        With `exclusive` also when its identity is held by another exclusive one.
        """
        fields = msgspec.to_builtins(cluster)
        private = {"exclusive": exclusive, "sealed": sealed, "lifetime": msgspec.to_builtins(lasting)}
        await self._clusters.insert({"_id": cluster.id, **fields, **private})

    async def exists(self, name: str) -> bool:
        """Whether a cluster of this name is onboarded."""
        return await self._clusters.count({"_id": name}, limit=1) > 0

    async def holder_of(self, uid: str) -> str | None:
        """The name of a cluster with this kube-system uid, None when there is none."""
        found = await self._clusters.find({"kube_system_uid": uid}, limit=1, fields=("name",))
        return found[0]["name"] if found else None

    async def get(self, name: str) -> ClusterConnection:
        """One cluster; raises NotFound."""
        return _read(await self._document(name))

    async def credentials(self, name: str) -> tuple[ClusterConnection, bytes]:
        """A cluster and its sealed credentials; raises NotFound."""
        document = await self._document(name)
        return _read(document), bytes(document["sealed"])

    async def update(self, name: str, **fields: Any) -> None:
        """Set some fields of a cluster; one that is gone meanwhile stays gone."""
        with suppress(NotFound):
            await self._clusters.update(name, fields)

    async def amend(
        self, name: str, changes: Mapping[str, Any], *, reconnect: bool = False
    ) -> ClusterConnection:
        """Set some fields and nothing else, so that who changes others at the same time loses nothing.

        With `reconnect` the generation rises. Raises NotFound.
        """
        increments = {"generation": 1} if reconnect else None
        try:
            return _read(await self._clusters.update(name, changes, increments=increments))
        except NotFound as error:
            raise no_such_cluster(name) from error

    async def exchange(
        self,
        cluster: ClusterConnection,
        changes: Mapping[str, Any],
        sealed: bytes,
        lasting: Lifetime,
        *,
        exactly: bool = False,
    ) -> ClusterConnection:
        """Give a cluster other credentials, with a generation one up.

        Raises NotFound, and Conflict when another cluster has got the name since
        `cluster` was read, or with `exactly` other credentials.
        """
        expect: dict[str, Any] = {"created_at": cluster.created_at}
        if exactly:
            expect["generation"] = cluster.generation
        written = {**changes, "sealed": sealed, "lifetime": msgspec.to_builtins(lasting)}
        try:
            return _read(
                await self._clusters.update(cluster.id, written, increments={"generation": 1}, expect=expect)
            )
        except NotFound as error:
            raise no_such_cluster(cluster.id) from error

    async def recovered(self, cluster: ClusterConnection) -> bool:
        """Write that a cluster answers, unless that is known; whether it was news."""
        expect = {"status": ne("connected"), "generation": cluster.generation}
        with suppress(NotFound, Conflict):
            await self._clusters.update(cluster.id, CONNECTED, expect=expect)
            return True
        return False

    async def expiring(self, before: float) -> list[tuple[ClusterConnection, Lifetime]]:
        """Clusters whose credentials end before a time, in seconds since the epoch."""
        return await self._lasting({"lifetime.expires_at": lte(before)})

    async def renewable(self, now: float) -> list[tuple[ClusterConnection, Lifetime]]:
        """Clusters whose tokens are to be renewed by now."""
        return await self._lasting({"renews_token": True, "lifetime.renew_at": lte(now)})

    async def _lasting(self, where: Mapping[str, Any]) -> list[tuple[ClusterConnection, Lifetime]]:
        found = await self._clusters.find(where, limit=MAX_CLUSTERS, fields=(*_PUBLIC, "lifetime"))
        return [(_read(one), msgspec.convert(one["lifetime"], Lifetime)) for one in found]

    async def groups_of(self) -> dict[str, list[str]]:
        """The names of all clusters by their group; those in none are left out."""
        members: dict[str, list[str]] = {}
        async for document in self._clusters.scan(fields=("name", "group")):
            if document["group"]:
                members.setdefault(document["group"], []).append(document["name"])
        return members

    async def move(self, group: str, to: str, updated_at: str) -> list[ClusterConnection]:
        """Give all members of a group to another; returns them."""
        found = [_read(one) async for one in self._clusters.scan({"group": group}, fields=_PUBLIC)]
        await self._clusters.update_many({"group": group}, {"group": to, "updated_at": updated_at})
        return found

    async def names(self) -> list[str]:
        """The names of all clusters."""
        documents = await self._clusters.find({}, limit=MAX_CLUSTERS, fields=("name",))
        return [document["name"] for document in documents]

    async def page(self, query: ListClusters, among: Sequence[str] | None = None) -> ClusterPage:
        """One page by name, of all clusters or only those `among` some names."""
        where: dict[str, Any] = {name: value for name in _FILTERS if (value := getattr(query, name))}
        if query.tag:
            where["tags"] = query.tag
        if among is not None:
            where["_id"] = one_of(among)
        limit = max(1, min(query.limit, MAX_PAGE))
        after = [query.after] if query.after else None
        total = await self._clusters.count(where)
        documents = await self._clusters.find(where, limit=limit + 1, after=after, fields=_PUBLIC)
        items = [_read(document) for document in documents[:limit]]
        more = len(documents) > limit
        return ClusterPage(items=items, total=total, next=items[-1].name if more else None)

    async def delete(self, cluster: ClusterConnection) -> bool:
        """Remove a cluster with its credentials; whether it was there.

        Raises Conflict when another has got the name since it was read, or other credentials.
        """
        expect = {"created_at": cluster.created_at, "generation": cluster.generation}
        return await self._clusters.delete(cluster.id, expect=expect)

    async def remember_former(self, cluster: ClusterConnection, removed_at: str) -> None:
        """Keep what a removed cluster was, since its history stays under its name."""
        await self._former.put(
            {
                "_id": cluster.name,
                "uid": cluster.kube_system_uid,
                "generation": cluster.generation,
                "removed_at": removed_at,
            }
        )

    async def former(self, name: str) -> Former | None:
        """The removed cluster that had this name last, None when there was none."""
        try:
            return msgspec.convert(await self._former.get(name), Former)
        except NotFound:
            return None

    async def _document(self, name: str) -> dict[str, Any]:
        try:
            return await self._clusters.get(name)
        except NotFound as error:
            raise no_such_cluster(name) from error


def _read(document: dict[str, Any]) -> ClusterConnection:
    return msgspec.convert(document, ClusterConnection)


class StoredGroup(msgspec.Struct, kw_only=True):
    """A group as it is kept. `renaming_to` is set while its members move to another name."""

    name: str
    description: str = ""
    created_by: str = ""
    created_at: str | None = None
    updated_at: str | None = None
    renaming_to: str | None = None


class GroupRepository:
    """Groups by name. Which clusters are in one stands with the clusters."""

    def __init__(self, database: Database) -> None:
        self._groups = database.collection("groups")

    async def insert(self, group: StoredGroup) -> None:
        """Store a new group; raises AlreadyExists."""
        try:
            await self._groups.insert({"_id": group.name, **msgspec.to_builtins(group)})
        except AlreadyExists as error:
            raise AlreadyExists(
                f"a group named {group.name!r} exists already",
                remedy="Choose another name, or move the clusters: `kubelore clusters update NAME --group GROUP`.",
            ) from error

    async def get(self, name: str) -> StoredGroup | None:
        """One group, None when nobody made it."""
        found = await self._groups.find_one({"_id": name})
        return msgspec.convert(found, StoredGroup) if found else None

    async def all(self) -> dict[str, StoredGroup]:
        """Every group by its name."""
        found = [msgspec.convert(one, StoredGroup) async for one in self._groups.scan()]
        return {one.name: one for one in found}

    async def update(self, name: str, **fields: Any) -> None:
        """Set some fields; a group that is gone meanwhile stays gone."""
        with suppress(NotFound):
            await self._groups.update(name, fields)

    async def delete(self, name: str) -> bool:
        """Remove a group; whether there was one."""
        return await self._groups.delete(name)


class AlertRepository:
    """Which alerts have been told, by their ids."""

    def __init__(self, database: Database) -> None:
        self._told = database.collection("expiry_alerts")

    async def told(self, id_: str) -> bool:
        """Whether an alert has been told."""
        return await self._told.count({"_id": id_}, limit=1) > 0

    async def remember(self, id_: str, at: str) -> None:
        """It has been told now."""
        await self._told.put({"_id": id_, "at": at})
