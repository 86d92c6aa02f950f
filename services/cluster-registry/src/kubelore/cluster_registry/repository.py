"""The only place with queries to MongoDB: clusters, the identities they claim, and the names of former ones."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec

from kubelore.common.contracts.clusters import ClusterConnection, ClusterPage, ListClusters
from kubelore.common.errors import AlreadyExists, NotFound
from kubelore.common.store import Database

_FILTERS = ("group", "provider", "status")
MAX_PAGE = 1000


class ClusterRepository:
    """Clusters by name. A document holds the public fields, and the sealed credentials beside them."""

    def __init__(self, database: Database) -> None:
        self._clusters = database.collection("clusters")
        self._identities = database.collection("cluster_identities")
        self._former = database.collection("former_clusters")

    async def prepare(self) -> None:
        """Make the indexes that the queries below use."""
        await self._clusters.ensure_index([("tags", 1)])
        await self._clusters.ensure_index([("group", 1)])

    async def insert(self, cluster: ClusterConnection, sealed: bytes) -> None:
        """Store a new cluster; raises AlreadyExists when the name is taken."""
        await self._clusters.insert({"_id": cluster.id, **msgspec.to_builtins(cluster), "sealed": sealed})

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

    async def page(self, query: ListClusters) -> ClusterPage:
        """One page by name."""
        where: dict[str, Any] = {name: value for name in _FILTERS if (value := getattr(query, name))}
        if query.tag:
            where["tags"] = query.tag
        limit = max(1, min(query.limit, MAX_PAGE))
        after = [query.after] if query.after else None
        total = await self._clusters.count(where)
        documents = await self._clusters.find(where, limit=limit + 1, after=after)
        items = [_read(document) for document in documents[:limit]]
        more = len(documents) > limit
        return ClusterPage(items=items, total=total, next=items[-1].name if more else None)

    async def delete(self, name: str) -> bool:
        """Remove a cluster with its credentials; whether there was one."""
        return await self._clusters.delete(name)

    async def claim_identity(self, uid: str, name: str) -> str:
        """Let `name` own the cluster with this kube-system uid; returns the name that owns it.

        A claim whose cluster no longer exists (its adding died half-way) is
        taken over.
        """
        try:
            await self._identities.insert({"_id": uid, "name": name})
        except AlreadyExists:
            holder = (await self._identities.get(uid))["name"]
            if holder == name or await self._clusters.count({"_id": holder}):
                return holder
            await self._identities.update(uid, {"name": name}, expect={"name": holder})
        return name

    async def release_identity(self, uid: str, name: str) -> None:
        """Give up a claim when it is still this name's."""
        try:
            holder = (await self._identities.get(uid))["name"]
        except NotFound:
            return
        if holder == name:
            await self._identities.delete(uid)

    async def remember_former(self, cluster: ClusterConnection, removed_at: str) -> None:
        """Keep the name and identity of a removed cluster, since its history stays under them."""
        await self._former.put(
            {"_id": cluster.name, "uid": cluster.kube_system_uid, "removed_at": removed_at}
        )

    async def former_uid(self, name: str) -> str | None:
        """The identity that a removed cluster of this name had, None when there was none."""
        try:
            return (await self._former.get(name))["uid"]
        except NotFound:
            return None

    async def forget_former(self, name: str) -> None:
        """Start a new history under a former name."""
        await self._former.delete(name)

    async def _document(self, name: str) -> dict[str, Any]:
        try:
            return await self._clusters.get(name)
        except NotFound as error:
            raise NotFound(
                f"there is no cluster named {name!r}", remedy="List the clusters to see their names."
            ) from error


def _read(document: dict[str, Any]) -> ClusterConnection:
    return msgspec.convert(document, ClusterConnection)
