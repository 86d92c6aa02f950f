"""The reading verbs: get, list, table, watch. All of it raw bytes; reads may be repeated at will."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Literal

import msgspec

from kubelore.common.errors import BadRequest, Invalid, KubeloreError, Unsupported
from kubelore.common.kube.errors import WatchListUnsupported
from kubelore.common.kube.listing import ListPage, parse_list, single
from kubelore.common.kube.resource_type import ResourceType
from kubelore.common.kube.transport import MAX_BODY, Transport
from kubelore.common.kube.watch import IDLE_S, WatchEvent, object_version, watch_stream

LIST_TIMEOUT_S = 60.0
JSON = "application/json"
_TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
_METADATA_LIST = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
_METADATA = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"

IncludeObject = Literal["None", "Metadata", "Object"]


class Reading:
    """What a client reads from one cluster; see KubeClient."""

    transport: Transport
    _streams_lists = True

    async def get(
        self,
        resource_type: ResourceType,
        namespace: str | None,
        name: str,
        *,
        subresource: str | None = None,
        metadata: bool = False,
        timeout_s: float | None = None,
    ) -> bytes:
        """One object; raises NotFound."""
        path = resource_type.path(namespace, name, subresource)
        accept = _METADATA if metadata else JSON
        reply = await self.transport.request("GET", path, accept=accept, timeout_s=timeout_s)
        return single(reply.body)

    async def list(
        self,
        resource_type: ResourceType,
        *,
        namespace: str | None = None,
        labels: str = "",
        fields: str = "",
        limit: int = 500,
        continue_: str = "",
        rv: str = "",
        metadata: bool = False,
        timeout_s: float = LIST_TIMEOUT_S,
        max_bytes: int = MAX_BODY,
    ) -> ListPage:
        """One page. With `metadata` the objects are PartialObjectMetadata.

        `rv` "" asks for the newest, "0" for whatever the server's cache holds.
        Raises Gone when `continue_` has expired, TooLarge for a page over `max_bytes`.
        """
        query = _selection(labels, fields)
        if limit:
            query["limit"] = limit
        if continue_:
            query["continue"] = continue_
        elif rv:
            query["resourceVersion"] = rv
        accept = _METADATA_LIST if metadata else JSON
        reply = await self.transport.request(
            "GET",
            resource_type.path(namespace),
            query=query,
            accept=accept,
            timeout_s=timeout_s,
            max_bytes=max_bytes,
        )
        return parse_list(reply.body)

    async def pages(
        self,
        resource_type: ResourceType,
        *,
        namespace: str | None = None,
        labels: str = "",
        fields: str = "",
        limit: int = 500,
        rv: str = "",
        metadata: bool = False,
    ) -> AsyncGenerator[ListPage, None]:
        """Every page of a list, one at a time; raises Gone when the list expires on the way: begin again."""
        continue_ = ""
        while True:
            page = await self.list(
                resource_type,
                namespace=namespace,
                labels=labels,
                fields=fields,
                limit=limit,
                continue_=continue_,
                rv=rv,
                metadata=metadata,
            )
            yield page
            continue_ = page.continue_
            if not continue_:
                return

    async def table(
        self,
        resource_type: ResourceType,
        *,
        namespace: str | None = None,
        name: str | None = None,
        labels: str = "",
        fields: str = "",
        limit: int = 0,
        continue_: str = "",
        include_object: IncludeObject = "Metadata",
        timeout_s: float = LIST_TIMEOUT_S,
    ) -> bytes:
        """A list, or one object, as the server prints it: the raw Table with columns and cells."""
        query = _selection(labels, fields)
        query["includeObject"] = include_object
        if limit:
            query["limit"] = limit
        if continue_:
            query["continue"] = continue_
        path = resource_type.path(namespace, name)
        reply = await self.transport.request("GET", path, query=query, accept=_TABLE, timeout_s=timeout_s)
        return reply.body

    async def watch(
        self,
        resource_type: ResourceType,
        *,
        namespace: str | None = None,
        rv: str = "",
        labels: str = "",
        fields: str = "",
        timeout_s: float = 290.0,
        bookmarks: bool = True,
        send_initial: bool = False,
        metadata: bool = False,
        idle_s: float = IDLE_S,
    ) -> AsyncGenerator[WatchEvent, None]:
        """Events behind `rv`, until the server ends the watch after about `timeout_s`.

        With `send_initial` every object comes first as ADDED, then a bookmark
        with `initial_end`, then the changes; a server that cannot stream the
        objects is asked for pages instead, which the caller does not notice (an
        object may then come twice). How it ends: `kubelore.common.kube.watch`.
        """
        query = _selection(labels, fields)
        query |= {"watch": True, "timeoutSeconds": max(1, round(timeout_s)), "allowWatchBookmarks": bookmarks}
        path, accept = resource_type.path(namespace), _METADATA if metadata else JSON
        if send_initial and self._streams_lists:
            try:
                async with aclosing(self._initial(path, query, accept, idle_s)) as events:
                    async for event in events:
                        yield event
                return
            except WatchListUnsupported:
                self._streams_lists = False
        if send_initial:
            async for event in self._initial_pages(resource_type, namespace, labels, fields, metadata):
                yield event
                rv = event.rv
        async with aclosing(
            watch_stream(self.transport, path, query | {"resourceVersion": rv}, accept=accept, idle_s=idle_s)
        ) as events:
            async for event in events:
                yield event

    async def _initial(
        self, path: str, query: dict[str, str | int | bool], accept: str, idle_s: float
    ) -> AsyncGenerator[WatchEvent, None]:
        """A watch that begins with every object; raises WatchListUnsupported where the server cannot."""
        asked = query | {
            "sendInitialEvents": True,
            "resourceVersionMatch": "NotOlderThan",
            "allowWatchBookmarks": True,
        }
        try:
            stream = watch_stream(self.transport, path, asked, accept=accept, idle_s=idle_s)
            async with aclosing(stream) as events:
                async for event in events:
                    yield event
        except (Unsupported, Invalid, BadRequest) as error:
            if not _cannot_stream_lists(error):
                raise
            raise WatchListUnsupported(error.detail) from error

    async def _initial_pages(
        self, resource_type: ResourceType, namespace: str | None, labels: str, fields: str, metadata: bool
    ) -> AsyncGenerator[WatchEvent, None]:
        """What a streamed initial list would have sent, from pages."""
        rv = ""
        pages = self.pages(
            resource_type, namespace=namespace, labels=labels, fields=fields, metadata=metadata
        )
        async for page in pages:
            rv = rv or page.rv
            for item in page.items:
                yield WatchEvent("ADDED", object_version(item), item)
        bookmark: dict[str, Any] = {
            "kind": resource_type.kind,
            "apiVersion": resource_type.api_version,
            "metadata": {"resourceVersion": rv, "annotations": {"k8s.io/initial-events-end": "true"}},
        }
        yield WatchEvent("BOOKMARK", rv, msgspec.json.encode(bookmark), initial_end=True)


def _selection(labels: str, fields: str) -> dict[str, str | int | bool]:
    query: dict[str, str | int | bool] = {}
    if labels:
        query["labelSelector"] = labels
    if fields:
        query["fieldSelector"] = fields
    return query


def _cannot_stream_lists(error: KubeloreError) -> bool:
    """Whether the server lacks streamed lists: no such feature, its gate off, or an etcd that cannot help."""
    if isinstance(error, Unsupported):
        return True
    return "sendInitialEvents" in error.detail or "resourceVersionMatch" in error.detail
