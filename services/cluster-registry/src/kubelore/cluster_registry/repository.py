"""The only place with queries to MongoDB: clusters, and what is remembered of the names of former ones."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec

from kubelore.common.contracts.clusters import ClusterConnection, ClusterPage, ListClusters
from kubelore.common.errors import NotFound
from kubelore.common.store import Database, one_of

_FILTERS = ("group", "provider", "status")
_PUBLIC = ClusterConnection.__struct_fields__
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
        await self._clusters.ensure_index([("kube_system_uid", 1)], unique=True, only={"exclusive": True})

    async def insert(self, cluster: ClusterConnection, sealed: bytes, *, exclusive: bool) -> None:
        """Store a new cluster; raises AlreadyExists when its name is taken.

        With `exclusive` also when its identity is held by another exclusive one.
        """
        fields = msgspec.to_builtins(cluster)
        await self._clusters.insert({"_id": cluster.id, **fields, "exclusive": exclusive, "sealed": sealed})

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

    async def delete(self, name: str) -> bool:
        """Remove a cluster with its credentials; whether there was one."""
        return await self._clusters.delete(name)

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
            raise NotFound(
                f"there is no cluster named {name!r}", remedy="List the clusters to see their names."
            ) from error


def _read(document: dict[str, Any]) -> ClusterConnection:
    return msgspec.convert(document, ClusterConnection)
