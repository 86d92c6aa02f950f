"""From an HTTP request to the one who answers it, and from errors to `Status` bodies. No logic of its own."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator

import msgspec
from aiohttp import web

from . import access, deletion, discovery, execution, logs, metrics, reading, scale, writing
from .call import Call
from .cluster import ClusterState
from .faults import FaultInjector
from .sandbox import Sandboxes
from .selection import Selection
from .status import (
    ApiError,
    Json,
    method_not_allowed,
    no_such_resource,
    not_implemented,
    unauthorized,
)
from .store import Entry

_log = logging.getLogger(__name__)
_encode = msgspec.json.Encoder().encode
_PUBLIC = {"healthz", "livez", "readyz", "version"}
_AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


def json_response(
    body: bytes | Json, code: int = 200, content_type: str = "application/json"
) -> web.Response:
    raw = body if isinstance(body, bytes) else _encode(body)
    return web.Response(body=raw, status=code, headers={"Content-Type": content_type})


def error_response(error: ApiError) -> web.Response:
    response = json_response(error.status(), error.code)
    retry = (error.details or {}).get("retryAfterSeconds")
    if retry:
        response.headers["Retry-After"] = str(retry)
    return response


class ApiServer:
    """Answers the requests of one cluster; `token` is the only credential it knows."""

    def __init__(self, cluster: ClusterState, token: str) -> None:
        self.cluster = cluster
        self._token = token
        self.injector = FaultInjector(f"{cluster.seed}/{cluster.name}")
        self._sandboxes = Sandboxes()
        self._watches: set[asyncio.Transport] = set()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            await self.injector.before(request)
            return await self.injector.send(request, await self._route(request))
        except ApiError as error:
            return error_response(error)
        except ConnectionError:
            return web.Response()  # to nobody
        except Exception:  # noqa: BLE001 - the boundary of a request
            incident = uuid.uuid4().hex[:12]
            _log.exception(
                "kubesim request failed, incident %s: %s %s", incident, request.method, request.path
            )
            return error_response(
                ApiError(500, "InternalError", f"Internal error occurred: incident {incident}")
            )

    async def _route(self, request: web.BaseRequest) -> web.StreamResponse:
        parts = [part for part in request.path.split("/") if part]
        if parts and parts[0] in _PUBLIC:
            return json_response(discovery.VERSION) if parts[0] == "version" else web.Response(text="ok")
        user = self._user(request)
        match parts:
            case []:
                return json_response(
                    {"paths": ["/api", "/apis", "/healthz", "/livez", "/readyz", "/version"]}
                )
            case ["api"] | ["apis"] if "APIGroupDiscoveryList" in request.headers.get("Accept", ""):
                return self._aggregated(request, core=parts == ["api"])
            case ["api"] | ["api", _] | ["apis"] | ["apis", _] | ["apis", _, _]:
                return json_response(discovery.classic(self.cluster.types, parts))
            case ["openapi", "v3"]:
                return json_response(discovery.openapi_index(self.cluster.types))
            case ["openapi", "v3", *rest]:
                return json_response(discovery.openapi_group(self.cluster.types, rest))
            case ["openapi", *_] | ["metrics"] | ["api", _, "watch", *_] | ["apis", _, _, "watch", *_]:
                raise not_implemented(request.path)
            case ["api", version, *rest]:
                return await self._resource(request, user, "", version, rest)
            case ["apis", group, version, *rest]:
                return await self._resource(request, user, group, version, rest)
        raise no_such_resource()

    def _user(self, request: web.BaseRequest) -> str:
        if request.headers.get("Authorization", "") != f"Bearer {self._token}":
            raise unauthorized()
        return request.headers.get("Impersonate-User", access.ADMIN)

    def _aggregated(self, request: web.BaseRequest, *, core: bool) -> web.Response:
        document, tag = discovery.aggregated(self.cluster.types, core=core)
        if request.headers.get("If-None-Match") == f'"{tag}"':
            return web.Response(status=304, headers={"ETag": f'"{tag}"'})
        response = json_response(document, content_type=_AGGREGATED)
        response.headers["ETag"] = f'"{tag}"'
        return response

    async def _resource(
        self, request: web.BaseRequest, user: str, group: str, version: str, rest: list[str]
    ) -> web.StreamResponse:
        namespace = ""
        if len(rest) >= 3 and rest[0] == "namespaces" and rest[2] not in ("status", "finalize"):
            namespace, rest = rest[1], rest[2:]
        plural, name, subresource = (*rest, "", "")[:3]
        resource_type = self.cluster.types.get(group, version, plural)
        if resource_type is None or len(rest) > 3 or (namespace and not resource_type.namespaced):
            raise no_such_resource()
        call = Call(self.cluster, request, user, resource_type, namespace, name, subresource)
        access.check(call)
        if subresource:
            return await self._subresource(call)
        if resource_type.group == "metrics.k8s.io":
            return json_response(metrics.answer(call))
        if resource_type.verbs == ("create",) and request.method == "POST":
            return json_response(access.review(call, await call.document()), 201)
        if not resource_type.stored:
            raise not_implemented(f"{request.method} on {resource_type.key}")
        return await (self._one(call) if name else self._many(call))

    async def _one(self, call: Call) -> web.StreamResponse:
        match call.request.method:
            case "GET" if call.request.query.get("watch") in ("1", "true"):
                return await self._watch(call)
            case "GET":
                return json_response(reading.get(call))
            case "PUT":
                body = await call.document()
                return _shown(call, writing.update(call, call.found(), body))
            case "PATCH":
                code, entry = await writing.patch(call)
                return _shown(call, entry, code)
            case "DELETE":
                return _shown(call, await writing.delete(call))
        raise method_not_allowed()

    async def _many(self, call: Call) -> web.StreamResponse:
        match call.request.method:
            case "GET" if call.request.query.get("watch") in ("1", "true"):
                return await self._watch(call)
            case "GET":
                return json_response(reading.list_page(call))
            case "POST":
                if call.type.namespaced and not call.namespace:
                    raise method_not_allowed()
                return _shown(call, writing.create(call, await call.document()), 201)
            case "DELETE":
                return self._delete_collection(call)
        raise method_not_allowed()

    def _delete_collection(self, call: Call) -> web.Response:
        selection = Selection.parse(call.type, call.namespace, "", call.request.query)
        collection = call.cluster.store.of(call.type)
        chosen = [e for e in collection.within(collection.entries, call.namespace) if selection.matches(e)]
        body = call.view.listing(call.type, chosen, {"resourceVersion": str(call.cluster.store.rv)})
        for entry in [] if call.dry_run else chosen:
            if entry.key in collection.entries:
                deletion.delete(call.cluster, call.type, entry)
        return json_response(body)

    async def _subresource(self, call: Call) -> web.StreamResponse:
        if call.subresource not in call.type.subresources:
            raise not_implemented(f"{call.type.plural}/{call.subresource}")
        if call.subresource in ("status", "finalize", "ephemeralcontainers"):
            if call.request.method not in ("GET", "PUT", "PATCH"):
                raise method_not_allowed()
            return await self._one(call)
        if call.subresource == "scale":
            return json_response(await scale.answer(call))
        if call.subresource == "eviction" and call.request.method == "POST":
            return _shown(call, await writing.evict(call), 201)
        if call.subresource == "exec":
            return await execution.answer(call, self._sandboxes)
        if call.subresource == "log" and call.request.method == "GET":
            return await self._stream(call.request, logs.stream(call, logs.asked(call)), "text/plain")
        raise not_implemented(f"{call.type.plural}/{call.subresource}")

    def drop_watches(self) -> int:
        """Cuts every watch as a broken network does; how many there were."""
        dropped = list(self._watches)
        for transport in dropped:
            transport.abort()
        return len(dropped)

    async def _watch(self, call: Call) -> web.StreamResponse:
        watch = reading.Watch(call)
        faults = self.injector.faults
        lifetime = faults.watch_lifetime if self.injector.touches(call.request) else 0.0
        transport = _transport(call.request)
        self._watches.add(transport)
        try:
            async with asyncio.timeout(lifetime or None):
                return await self._stream(call.request, watch.lines(), "application/json")
        except TimeoutError:
            transport.abort()
            return web.Response()  # to nobody
        finally:
            self._watches.discard(transport)

    async def _stream(
        self, request: web.BaseRequest, chunks: AsyncIterator[bytes], content_type: str
    ) -> web.StreamResponse:
        """Writes as fast as the client reads; cuts the connection when the source fails midway."""
        transport = _transport(request)
        response = web.StreamResponse(headers={"Content-Type": content_type})
        response.enable_chunked_encoding()
        await response.prepare(request)
        try:
            async for chunk in chunks:
                if chunk:
                    await response.write(chunk)
                    await self.injector.pace(request, len(chunk))
        except ConnectionError:  # the client went: the usual end of a stream
            return response
        except BaseException:
            transport.abort()
            raise
        return response


def _transport(request: web.BaseRequest) -> asyncio.Transport:
    if request.transport is None:
        raise ConnectionResetError("the client is gone")
    return request.transport


def _shown(call: Call, result: Entry | Json, code: int = 200) -> web.Response:
    if isinstance(result, Entry):
        return json_response(call.view.item(call.type, result), code)
    return json_response(result, code)
