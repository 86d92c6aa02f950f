"""The connection of one process to the bus, and requests over it.

The connection comes back by itself for ever. While it is away nothing is
buffered: a request fails at once with Unavailable, since an answer to what was
sent a minute ago helps nobody, and a write executed late may harm.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from typing import Any, TypeVar

import msgspec
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from opentelemetry.trace import SpanKind

from kubelore.common.authz import Caller
from kubelore.common.bus import wire
from kubelore.common.bus.events import publish_alert, publish_event, subscribe_events
from kubelore.common.bus.pace import Pace
from kubelore.common.bus.service import Service
from kubelore.common.bus.sessions import receive_reply
from kubelore.common.bus.streams import StreamLimits, ensure_streams
from kubelore.common.callers import VERIFY_FILE, CallerSigner, CallerVerifier, outgoing_token
from kubelore.common.contracts.alerts import CloudEvent
from kubelore.common.contracts.endpoint import Endpoint
from kubelore.common.errors import DeadlineExceeded, TooLarge, Unavailable
from kubelore.common.operations import current_operation
from kubelore.common.settings import CommonSettings
from kubelore.common.telemetry import get_logger, inject, span

log = get_logger(__name__)

Req = TypeVar("Req")
Resp = TypeVar("Resp")
E = TypeVar("E")

_CONNECT_DEADLINE_S = 30.0
_API_DEADLINE_S = 5.0
_PENDING_BYTES = 8 * 1024 * 1024
"""Unsent bytes from which a sender waits; from twice as many on the next is refused."""
_STALLED_BYTES = 2 * _PENDING_BYTES
_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,40}[a-z0-9])?\Z")


async def connect(
    settings: CommonSettings,
    *,
    name: str,
    deadline_s: float = _CONNECT_DEADLINE_S,
    signer: CallerSigner | None = None,
) -> Bus:
    """Connect as the service `name`; waits up to `deadline_s` for a server that is still starting.

    `signer` vouches for callers; only the gateway has it. Raises Unavailable when
    no server answers, or when it refuses the credentials.
    """
    if not _NAME.match(name):
        raise ValueError(f"{name!r} is no service name")
    replica = settings.replica or f"{name}-{secrets.token_hex(4)}"
    bus = Bus(Client(), name=name, replica=replica)
    bus.signer = signer
    if (settings.keyring_dir / VERIFY_FILE).exists():
        bus.verifier = CallerVerifier.load(settings.keyring_dir)
    await bus.open(settings, deadline_s)
    return bus


class Bus:
    """One process's access to the bus; the other parts of this package are built over it."""

    def __init__(self, client: Client, *, name: str, replica: str) -> None:
        self.client = client
        self.name = name
        self.replica = replica
        """The id of this process on the bus: a DNS label."""
        self.signer: CallerSigner | None = None
        """Vouches for callers; the gateway's alone."""
        self.verifier: CallerVerifier | None = None
        """Opens what the gateway vouched for; without it nothing can be served on behalf of anybody."""
        self.speaks_for: Caller | None = None
        """Whom to name where no request is being served, for tests and tools that hold a signer."""
        self.closed = asyncio.Event()
        self._paces: dict[str, Pace] = {}

    def pace(self, what: str, apart_s: float, most_s: float) -> Pace:
        """The turns that everything in this process takes which writes `what`."""
        return self._paces.setdefault(what, Pace(apart_s, most_s))

    async def open(self, settings: CommonSettings, deadline_s: float) -> None:
        """Connect; see `connect`, which is the way in."""
        try:
            async with asyncio.timeout(deadline_s):
                await self.client.connect(
                    servers=[server.strip() for server in settings.nats_url.split(",")],
                    user=settings.nats_user or None,
                    password=settings.nats_password.get_secret_value() or None,
                    name=self.replica,
                    inbox_prefix=f"_INBOX_{self.name}",
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=1,
                    connect_timeout=2,
                    ping_interval=10,
                    max_outstanding_pings=2,
                    pending_size=_PENDING_BYTES,
                    error_cb=self._on_error,
                    disconnected_cb=self._on_disconnected,
                    reconnected_cb=self._on_reconnected,
                    closed_cb=self._on_closed,
                )
        except (nats.errors.Error, OSError, TimeoutError) as error:
            await self.close()
            refused = "uthoriz" in str(error)
            raise Unavailable(
                "the bus does not let this service in" if refused else "no NATS server answers",
                remedy="Check KUBELORE_NATS_URL, _USER and _PASSWORD, and that the server runs.",
            ) from error

    @property
    def connected(self) -> bool:
        """Whether the connection stands at this moment."""
        return self.client.is_connected

    @property
    def max_payload(self) -> int:
        """The largest message the server takes, in bytes."""
        return self.client.max_payload

    async def request(
        self,
        endpoint: Endpoint[Req, Resp],
        message: Req,
        *,
        target: str | None = None,
        deadline_s: float | None = None,
    ) -> Resp:
        """Ask an endpoint and return its answer, however large.

        Raises the error the service raised, Unavailable when nobody serves the
        endpoint or the bus is away, and DeadlineExceeded when no answer came in
        `deadline_s` (the endpoint's own by default). The service stops working on
        it at the same time.
        """
        subject = endpoint.subject(target)
        budget = endpoint.deadline_s if deadline_s is None else deadline_s
        headers = {wire.DEADLINE: str(max(1, int(budget * 1000)))}
        with span(f"request {endpoint.service}.{endpoint.name}", kind=SpanKind.CLIENT):
            inject(headers)
            if endpoint.on_behalf and (token := outgoing_token(self.signer, self.speaks_for)):
                headers[wire.CALLER] = token
            if operation := current_operation():
                headers[wire.OPERATION] = operation
            try:
                async with asyncio.timeout(budget):
                    payload = msgspec.msgpack.encode(message)
                    data = await self._whole(await self._ask(subject, payload, headers, budget))
            except TimeoutError as error:
                raise DeadlineExceeded(f"{subject}: no answer in {budget:g} s") from error
        return msgspec.msgpack.decode(data, type=endpoint.response)

    async def _whole(self, reply: Msg) -> bytes:
        headers = reply.headers or {}
        error = wire.error_of_reply(headers, reply.data)
        if error is not None:
            raise error
        session = headers.get(wire.SESSION)
        if session is None:
            return reply.data
        return await receive_reply(self, session, int(headers.get(wire.SIZE, "0")))

    def service(self, name: str, version: str, description: str = "") -> Service:
        """A request/reply service; register its endpoints, then start it."""
        return Service(self, name, version, description)

    async def ensure_streams(self, limits: StreamLimits | None = None) -> None:
        """Create or adjust every stream and bucket; see `streams.ensure_streams`."""
        await ensure_streams(self, limits)

    async def publish_event(self, subject: str, event: msgspec.Struct, *, deadline_s: float = 5.0) -> int:
        """Store a cluster, alert or audit event; see `events.publish_event`."""
        return await publish_event(self, subject, event, deadline_s=deadline_s)

    async def publish_alert(self, subject: str, alert: CloudEvent, *, deadline_s: float = 5.0) -> int:
        """Store an alert as a CloudEvent; see `events.publish_alert`."""
        return await publish_alert(self, subject, alert, deadline_s=deadline_s)

    def subscribe_events(
        self, pattern: str, kind: type[E], *, durable: str | None = None
    ) -> AsyncGenerator[E]:
        """Follow events; see `events.subscribe_events`."""
        return subscribe_events(self, pattern, kind, durable=durable)

    async def ask(
        self, subject: str, payload: bytes, headers: Mapping[str, str] | None = None, *, deadline_s: float
    ) -> Msg:
        """One raw request; the client's errors become ours. For this package and for tests."""
        try:
            async with asyncio.timeout(deadline_s):
                return await self._ask(subject, payload, headers, deadline_s)
        except TimeoutError as error:
            raise wire.bus_error(error, subject) from error

    async def _ask(
        self, subject: str, payload: bytes, headers: Mapping[str, str] | None, deadline_s: float
    ) -> Msg:
        """As `ask`; the client's own deadline begins when everything is handed to the connection."""
        self._check_sendable(subject, len(payload))
        cancelled = _cancellations()
        try:
            return await self.client.request(
                subject, payload, timeout=deadline_s, headers=dict(headers) if headers else None
            )
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise wire.bus_error(error, subject) from error
        finally:
            _cancel_again(cancelled)

    async def send(self, subject: str, payload: bytes, *, reply: str = "") -> None:
        """Publish one message nobody acknowledges; Unavailable while the bus is away or stalled."""
        self._check_sendable(subject, len(payload))
        cancelled = _cancellations()
        try:
            async with asyncio.timeout(_API_DEADLINE_S):
                await self.client.publish(subject, payload, reply=reply)
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise wire.bus_error(error, subject) from error
        finally:
            _cancel_again(cancelled)

    def _check_sendable(self, subject: str, size: int) -> None:
        if not self.client.is_connected:
            raise Unavailable(f"{subject}: not connected to the bus", remedy="Is the NATS server reachable?")
        if size > self.client.max_payload:
            raise TooLarge(f"{subject}: {size} bytes, at most {self.client.max_payload} fit one message")
        if self.client.pending_data_size > _STALLED_BYTES:
            raise Unavailable(f"{subject}: the server does not read", remedy="Is the NATS server overloaded?")

    async def heard(self, *, deadline_s: float = _API_DEADLINE_S) -> None:
        """Return once the server has taken in all that was said before, subscriptions too.

        Raises Unavailable and DeadlineExceeded.
        """
        cancelled = _cancellations()
        try:
            async with asyncio.timeout(deadline_s):
                # nats-py writes a PING at once, ahead of what it still has to write; a second one follows all of it.
                await self.client.flush()
                await self.client.flush()
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise wire.bus_error(error, "flushing") from error
        finally:
            _cancel_again(cancelled)

    async def store(
        self,
        subject: str,
        payload: bytes,
        headers: Mapping[str, str] | None = None,
        *,
        deadline_s: float = _API_DEADLINE_S,
    ) -> int:
        """Publish to the stream that holds `subject`; returns the sequence once it is on disk.

        Raises JetStreamRefused with the server's code.
        """
        reply = await self.ask(subject, payload, headers, deadline_s=deadline_s)
        return _checked(reply.data, subject)["seq"]

    async def jetstream(
        self, call: str, body: Mapping[str, Any] | None = None, *, deadline_s: float = _API_DEADLINE_S
    ) -> dict[str, Any]:
        """Call the JetStream API (`STREAM.INFO.CHANGES`); raises JetStreamRefused with the server's code."""
        payload = msgspec.json.encode(body) if body else b""
        reply = await self.ask(f"$JS.API.{call}", payload, deadline_s=deadline_s)
        return _checked(reply.data, call)

    async def until_closed(self) -> None:
        """Never return; raise Unavailable when the connection ended for good (credentials refused)."""
        await self.closed.wait()
        raise Unavailable(
            "the bus closed the connection for good", remedy="Check this service's NATS credentials."
        )

    async def close(self) -> None:
        """Send what is pending and disconnect; at most 5 s."""
        with suppress(nats.errors.Error, OSError, TimeoutError):
            async with asyncio.timeout(_API_DEADLINE_S):
                if self.client.is_connected:
                    await self.client.flush(timeout=2)
                await self.client.close()

    async def _on_error(self, error: Exception) -> None:
        if "permissions violation" in str(error).lower():
            remedy = "Enter it in kubelore.common.contracts, and give NATS the allow-lists made from it."
            log.error("the bus does not permit it", detail=str(error)[:300], remedy=remedy)
            return
        log.warning("bus error", error=type(error).__name__, detail=str(error)[:300])

    async def _on_disconnected(self) -> None:
        log.warning("bus disconnected", replica=self.replica)

    async def _on_reconnected(self) -> None:
        log.info("bus reconnected", replica=self.replica)

    async def _on_closed(self) -> None:
        self.closed.set()


def _cancellations() -> int:
    task = asyncio.current_task()
    return task.cancelling() if task is not None else 0


def _cancel_again(before: int) -> None:
    """Raise the cancellation that came since `before`: nats-py swallows one that meets it while flushing."""
    if _cancellations() > before:
        raise asyncio.CancelledError


def _checked(data: bytes, what: str) -> dict[str, Any]:
    """The API's answer, or what it refused as an error."""
    answer: dict[str, Any] = msgspec.json.decode(data)
    error = answer.get("error")
    if error:
        code = error.get("err_code") or error.get("code") or 0
        raise wire.JetStreamRefused(f"{what}: {error.get('description', 'refused')}", code=code)
    return answer
