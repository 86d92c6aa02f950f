"""HTTP to one API server: connections, deadlines, bounds, and errors as ours. No Kubernetes verbs.

Two pools over one TLS context: requests that answer and end, and streams
(watches, logs, exec) that stay, so that a hundred watches never starve a get.
Redirects are not followed, the environment's proxies are not used, no cookie is
kept, and only reads are ever sent a second time (aiohttp would resend a PUT or
DELETE whose connection broke).
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Self
from urllib.parse import quote, urlencode

import aiohttp
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse
from yarl import URL

from kubelore.common.errors import DeadlineExceeded, KubeloreError, TooLarge, Unauthenticated
from kubelore.common.kube.access import ClusterAccess
from kubelore.common.kube.addresses import AddressPolicy, PolicyResolver, check_url, open_socket
from kubelore.common.kube.credential_plugin import CredentialPlugin, check_allowed
from kubelore.common.kube.errors import connection_error, status_error
from kubelore.common.kube.tls import tls_context

USER_AGENT = "kubelore/0.1"
MAX_BODY = 256 * 1024 * 1024
MAX_ERROR_BODY = 64 * 1024
MAX_FRAME = 4 * 1024 * 1024
REQUEST_CONNECTIONS = 16
STREAM_CONNECTIONS = 4096
CONNECT_TIMEOUT_S = 5.0
# API servers close idle connections after some minutes; dropping them first avoids most broken requests.
KEEPALIVE_S = 45.0
KEPT_UP_TO = 256 * 1024
"""A connection that brought more than this is closed after its answer: idle, its buffers would stay as large."""
_OPEN_ENDED = frozenset({502, 504})
"""After these a write may have been carried out: something in between, or the API server, did not wait for its end."""

NETWORK_ERRORS = (aiohttp.ClientError, OSError)
"""What the network raises; TimeoutError is an OSError."""

Query = Mapping[str, str | int | bool]
ExtraHeaders = Callable[[], Mapping[str, str]]


class Reply:
    """One whole answer: `status`, `headers` and the raw `body`."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body


async def _sent_as_is(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
    """Turn a redirect into an error before the client could follow it, WebSocket handshakes included."""
    response = await handler(request)
    if 300 <= response.status < 400 and response.status != 304:
        response.close()
        raise status_error(response.status, b"")
    return response


class _SentOnce:
    """Stops the second sending of a write whose connection broke: it may have been carried out."""

    def __init__(self) -> None:
        self._sent = False

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        if self._sent:
            raise aiohttp.ServerDisconnectedError("the connection broke after the request was sent")
        self._sent = True
        return await handler(request)


class Transport:
    """Connections to one API server with one set of credentials; use as an async context manager.

    `headers` is asked before every request for headers to add (a trace context).
    """

    def __init__(
        self,
        access: ClusterAccess,
        policy: AddressPolicy,
        *,
        timeout_s: float = 10.0,
        headers: ExtraHeaders | None = None,
    ) -> None:
        parts = check_url(access.server, policy, field="server")
        if access.proxy_url:
            check_url(access.proxy_url, policy, field="proxy-url")
        self.access = access
        self.policy = policy
        self.timeout_s = timeout_s
        self.host = parts.hostname or ""
        self._tls = tls_context(access)
        self._extra_headers = headers
        self._plugin = _plugin(access, policy)
        self._base = access.server.rstrip("/")
        self._requests: aiohttp.ClientSession | None = None
        self._streams: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection; streams that are being read end with Unavailable."""
        for session in (self._requests, self._streams):
            if session is not None:
                await session.close()
        self._requests = self._streams = None

    def _session(self, *, stream: bool) -> aiohttp.ClientSession:
        held = self._streams if stream else self._requests
        if held is None or held.closed:
            held = self._open_session(STREAM_CONNECTIONS if stream else REQUEST_CONNECTIONS)
            if stream:
                self._streams = held
            else:
                self._requests = held
        return held

    def _open_session(self, limit: int) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=limit,
            ssl=self._tls,
            resolver=PolicyResolver(self.policy),
            use_dns_cache=False,
            socket_factory=functools.partial(open_socket, self.policy),
            keepalive_timeout=KEEPALIVE_S,
        )
        return aiohttp.ClientSession(
            connector=connector,
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            middlewares=(_sent_as_is,),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
            read_bufsize=256 * 1024,
        )

    def url(self, path: str, query: Query | None = None) -> URL:
        """The address of an already encoded path; query values are encoded here."""
        text = f"{self._base}{path}"
        if query:
            pairs = {key: _query_value(value) for key, value in query.items()}
            text = f"{text}?{urlencode(pairs, quote_via=quote)}"
        return URL(text, encoded=True)

    async def _headers(self, accept: str, content_type: str | None) -> dict[str, str]:
        headers = {"User-Agent": USER_AGENT, "Accept": accept, "Accept-Encoding": "identity"}
        if content_type:
            headers["Content-Type"] = content_type
        if self._extra_headers is not None:
            headers.update(self._extra_headers())
        token = await self._plugin.token() if self._plugin else self.access.token
        if token:
            headers["Authorization"] = f"Bearer {token}"
        return headers

    def _rejected(self, error: KubeloreError) -> None:
        if self._plugin is not None and isinstance(error, Unauthenticated):
            self._plugin.forget()

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: bytes | None = None,
        content_type: str | None = None,
        accept: str = "application/json",
        timeout_s: float | None = None,
        max_bytes: int = MAX_BODY,
    ) -> Reply:
        """Send one request and read its whole answer, within `timeout_s` (the transport's by default).

        Raises the API server's error as ours; DeadlineExceeded, Unavailable or
        TooLarge for what happens on the way. For a write whose fate is not
        known, the error's `outcome` is `unknown`.
        """
        limit = self.timeout_s if timeout_s is None else timeout_s
        try:
            async with (
                asyncio.timeout(limit),
                self._open(method, path, query, body, content_type, accept, stream=False) as response,
            ):
                data = await _read_all(response, max_bytes)
                return Reply(response.status, response.headers, data)
        except NETWORK_ERRORS as error:
            raise _marked(method, self.broken(error, method, path, limit)) from error

    @asynccontextmanager
    async def stream(
        self,
        path: str,
        *,
        query: Query | None = None,
        accept: str = "application/json",
        timeout_s: float | None = None,
    ) -> AsyncIterator[ClientResponse]:
        """A GET whose answer is read as it comes; `timeout_s` covers the time until its headers are here.

        Errors while the body is read are the reader's to turn: see `chunks`.
        """
        limit = self.timeout_s if timeout_s is None else timeout_s
        opened = self._open("GET", path, query, None, None, accept, stream=True)
        try:
            async with asyncio.timeout(limit):
                response = await opened.__aenter__()
        except NETWORK_ERRORS as error:
            raise self.broken(error, "GET", path, limit) from error
        _release_write_buffer(response)
        try:
            yield response
        finally:
            await opened.__aexit__(None, None, None)

    @asynccontextmanager
    async def _open(
        self,
        method: str,
        path: str,
        query: Query | None,
        body: bytes | None,
        content_type: str | None,
        accept: str,
        *,
        stream: bool,
    ) -> AsyncIterator[ClientResponse]:
        headers = await self._headers(accept, content_type)
        response = await self._session(stream=stream).request(
            method,
            self.url(path, query),
            data=body,
            headers=headers,
            allow_redirects=False,
            proxy=self.access.proxy_url or None,
            server_hostname=self.access.tls_server_name or None,
            middlewares=None if method == "GET" else (_sent_as_is, _SentOnce()),
        )
        try:
            if response.status >= 300:
                said = await _read_some(response, MAX_ERROR_BODY)
                error = status_error(
                    response.status,
                    _without_credential(said, headers),
                    retry_after=response.headers.get("Retry-After"),
                )
                self._rejected(error)
                raise _left_open(error) if method != "GET" and response.status in _OPEN_ENDED else error
            yield response
        finally:
            # A response read to its end has given its connection back already; any other must not be reused.
            response.close()

    async def websocket(
        self,
        path: str,
        *,
        query: list[tuple[str, str]],
        protocols: tuple[str, ...],
        heartbeat_s: float = 30.0,
    ) -> aiohttp.ClientWebSocketResponse:
        """Open a WebSocket; a peer that answers no ping for `heartbeat_s` is taken for dead.

        A refused handshake carries no readable body, so the same address is
        asked once without the upgrade, which answers with the Status and runs
        nothing. Raises as `request` does.
        """
        url = URL(f"{self._base}{path}?{urlencode(query, quote_via=quote)}", encoded=True)
        try:
            async with asyncio.timeout(self.timeout_s):
                return await self._session(stream=True).ws_connect(
                    url,
                    protocols=protocols,
                    headers=await self._headers("*/*", None),
                    proxy=self.access.proxy_url or None,
                    server_hostname=self.access.tls_server_name or None,
                    heartbeat=heartbeat_s,
                    max_msg_size=MAX_FRAME,
                    compress=0,
                )
        except aiohttp.WSServerHandshakeError as error:
            raise await self._why_refused(path, dict(query), error) from error
        except NETWORK_ERRORS as error:
            raise self.broken(error, "GET", path, self.timeout_s) from error

    def broken(self, error: BaseException, method: str, path: str, limit_s: float) -> KubeloreError:
        """Our error for one of NETWORK_ERRORS: a deadline that passed, or a connection that failed."""
        if isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ClientError):
            return _late(method, path, limit_s)
        return connection_error(error, self.host)

    async def _why_refused(
        self, path: str, query: Query, refusal: aiohttp.WSServerHandshakeError
    ) -> KubeloreError:
        generic = status_error(refusal.status, refusal.message.encode()[:300])
        try:
            await self.request("GET", path, query=query)
        except KubeloreError as error:
            return error if error.status == generic.status else generic
        return generic


def _plugin(access: ClusterAccess, policy: AddressPolicy) -> CredentialPlugin | None:
    """What brings tokens, where the access names a command that is (still) allowed. Raises KubeconfigRefused."""
    if access.exec is None:
        return None
    check_allowed(access.exec.argv, policy)
    return CredentialPlugin(access, access.exec, dict(policy.exec_environment))


def _query_value(value: str | int | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _keep_if_small(response: ClientResponse, size: int) -> None:
    """Have the connection closed behind a large answer; to be told while some of it is still to come."""
    connection = response.connection
    protocol = connection.protocol if connection is not None else None
    # Not asked for its truth: it is a queue, and empty.
    if size > KEPT_UP_TO and protocol is not None:
        protocol.force_close()


def _release_write_buffer(response: ClientResponse) -> None:
    """Free what OpenSSL would write from, 17 KB that a stream would hold for as long as it is read.

    It is set up again when the server's session tickets arrive behind the
    request, and released after the next write, which never comes: one of nothing does.
    """
    connection = response.connection
    transport = connection.transport if connection is not None else None
    tls = transport.get_extra_info("ssl_object") if transport is not None else None
    if tls is not None:
        with suppress(OSError):
            tls.write(b"")


async def _read_all(response: ClientResponse, max_bytes: int) -> bytes:
    declared = response.content_length or 0
    body = bytearray()
    if declared <= max_bytes:
        _keep_if_small(response, declared)
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > max_bytes:
                break
            _keep_if_small(response, len(body))
        else:
            return bytes(body)
    raise TooLarge(
        f"the API server's answer is larger than {max_bytes} bytes",
        remedy="ask for less at once: a smaller limit, a namespace, a selector",
    )


async def _read_some(response: ClientResponse, max_bytes: int) -> bytes:
    """The beginning of a body, for an error message; what is missing is no second error."""
    body = bytearray()
    with suppress(aiohttp.ClientError, OSError):
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) >= max_bytes:
                break
    return bytes(body[:max_bytes])


def _without_credential(said: bytes, headers: Mapping[str, str]) -> bytes:
    """An error's words without the token that was sent, which proxies and servers for debugging repeat."""
    token = headers.get("Authorization", "").removeprefix("Bearer ")
    return said.replace(token.encode(), b"[redacted]") if token else said


def _late(method: str, path: str, limit_s: float) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"the API server did not answer {method} {path} within {limit_s:g} s",
        remedy="try again; if it repeats, look at the load of the API server and the way to it",
    )


def _marked(method: str, error: KubeloreError) -> KubeloreError:
    """Say of a write that nobody knows whether it happened, unless it surely never left."""
    if method != "GET" and error.extra.get("step") not in ("dns", "tcp", "tls"):
        return _left_open(error)
    return error


def _left_open(error: KubeloreError) -> KubeloreError:
    """Say that nobody knows whether a write happened; when to send it again is then no question of time."""
    error.extra["outcome"] = "unknown"
    error.extra.pop("retry_after_s", None)
    return error
