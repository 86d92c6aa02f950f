"""A request/reply service on the bus, registered by ADR-32 so that `nats micro ls` finds it.

Each endpoint works on a bounded number of requests at once, lets a bounded
number wait, and refuses the next at once with TooManyRequests. A request stops
when its caller has stopped waiting. An endpoint that answers on somebody's
behalf opens the gateway's word for the caller first, and refuses without one.
An error raised on purpose reaches the
caller whole; any other is logged under an id, and only the id goes out.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from nats.errors import Error as NatsError
from nats.micro.request import Request
from nats.micro.service import EndpointStats, ServiceConfig
from nats.micro.service import Service as MicroService
from opentelemetry.trace import SpanKind

from kubelore.common.bus import wire
from kubelore.common.bus.sessions import REPLY_FRAME_BYTES, Session, new_session_id, send_reply
from kubelore.common.callers import VERIFY_FILE, acting_as
from kubelore.common.contracts.endpoint import Endpoint
from kubelore.common.errors import (
    BadRequest,
    DeadlineExceeded,
    KubeloreError,
    TooLarge,
    TooManyRequests,
    Unauthenticated,
)
from kubelore.common.operations import is_operation_id, operating
from kubelore.common.telemetry import get_logger, span

if TYPE_CHECKING:
    from kubelore.common.bus.connection import Bus

log = get_logger(__name__)

Req = TypeVar("Req")
Resp = TypeVar("Resp")

_DRAIN_S = 10.0


@dataclass(slots=True)
class _Lane:
    """One endpoint: its handler, its limits, and what it has done."""

    endpoint: Endpoint[Any, Any]
    subject: str
    handler: Callable[[Any], Awaitable[Any]]
    capacity: int
    slots: asyncio.Semaphore
    decoder: msgspec.msgpack.Decoder[Any]
    served: int = 0
    failed: int = 0
    refused: int = 0
    tasks: set[asyncio.Task[None]] = field(default_factory=set)


class Service:
    """The endpoints one process serves: register with `serve`, then `start`; `stop` lets requests end."""

    def __init__(self, bus: Bus, name: str, version: str, description: str = "") -> None:
        self._bus = bus
        self._config = ServiceConfig(
            name=name,
            version=version,
            description=description,
            metadata={"replica": bus.replica},
            queue_group=name,
            stats_handler=self._figures,
        )
        self._lanes: dict[str, _Lane] = {}
        self._micro: MicroService | None = None

    def serve(
        self,
        endpoint: Endpoint[Req, Resp],
        handler: Callable[[Req], Awaitable[Resp]],
        *,
        target: str | None = None,
        max_concurrent: int = 64,
        max_waiting: int = 256,
    ) -> None:
        """Answer an endpoint with `handler`; before `start`.

        A `replica` endpoint is served under this replica's id; a `cluster`
        endpoint needs the `target` (`*` for any cluster, shared by all replicas).
        """
        if target is None and endpoint.scope == "replica":
            target = self._bus.replica
        subject = endpoint.subject(target)
        self._lanes[subject] = _Lane(
            endpoint=endpoint,
            subject=subject,
            handler=handler,
            capacity=max_concurrent + max_waiting,
            slots=asyncio.Semaphore(max_concurrent),
            decoder=msgspec.msgpack.Decoder(endpoint.request),
        )

    async def start(self) -> None:
        """Listen: whoever asks from now on is heard. `$SRV.PING.<name>` answers only after every endpoint does.

        Raises Unavailable and DeadlineExceeded when the bus does not take that in.
        """
        micro = MicroService(self._bus.client, self._config)
        for lane in self._lanes.values():
            await micro.add_endpoint(name=lane.endpoint.name, subject=lane.subject, handler=self._door(lane))
        await micro.start()
        self._micro = micro
        await self._bus.heard()

    async def stop(self) -> None:
        """Take no more requests, and give those running 10 s before they are cancelled."""
        if self._micro is not None:
            with suppress(NatsError, OSError, TimeoutError):
                async with asyncio.timeout(_DRAIN_S):
                    await self._micro.stop()
        running = {task for lane in self._lanes.values() for task in lane.tasks}
        if not running:
            return
        _, late = await asyncio.wait(running, timeout=_DRAIN_S)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    def _figures(self, stats: EndpointStats) -> dict[str, int]:
        """What `nats micro stats` shows beside its own figures, which count only the handing over."""
        lane = self._lanes[stats.subject]
        return {
            "in_flight": len(lane.tasks),
            "served": lane.served,
            "failed": lane.failed,
            "refused": lane.refused,
        }

    def _door(self, lane: _Lane) -> Callable[[Request], Awaitable[None]]:
        async def enter(request: Request) -> None:
            if len(lane.tasks) >= lane.capacity:
                lane.refused += 1
                await self._refuse(request, TooManyRequests(f"{lane.subject} is busy", retry_after_s=1))
                return
            task = asyncio.create_task(self._answer(lane, request))
            lane.tasks.add(task)
            task.add_done_callback(lane.tasks.discard)

        return enter

    async def _answer(self, lane: _Lane, request: Request) -> None:
        headers = request.headers or {}
        budget = _budget(headers.get(wire.DEADLINE), lane.endpoint.deadline_s)
        name = f"{lane.endpoint.service}.{lane.endpoint.name}"
        try:
            with (
                span(f"serve {name}", kind=SpanKind.SERVER, carrier=headers),
                self._caller(lane, headers),
                operating(_operation(headers)),
            ):
                await self._within(budget, name, self._work(lane, request))
            lane.served += 1
        except KubeloreError as error:
            lane.failed += 1
            await self._refuse(request, error)
        except Exception as error:  # noqa: BLE001 - the task's boundary: logged with an id, nothing leaks
            lane.failed += 1
            await self._refuse(request, _unexpected(name, error))

    def _caller(self, lane: _Lane, headers: Mapping[str, str]) -> AbstractContextManager[object]:
        """The block in which `current_caller` is whom this request is made for. Raises Unauthenticated."""
        if not lane.endpoint.on_behalf:
            return nullcontext()
        token = headers.get(wire.CALLER)
        if token is None or self._bus.verifier is None:
            missing = "the request names no caller" if token is None else f"there is no {VERIFY_FILE}"
            raise Unauthenticated(
                f"{lane.subject} answers only on behalf of somebody: {missing}",
                remedy="Ask through the gateway, and give the service the public half of its keyring.",
            )
        return acting_as(self._bus.verifier.caller(token), token)

    async def _within(self, budget: float, name: str, work: Coroutine[Any, Any, None]) -> None:
        deadline = asyncio.timeout(budget)
        try:
            async with deadline:
                await work
        except TimeoutError as error:
            if deadline.expired():
                raise DeadlineExceeded(f"{name}: not done in {budget:g} s") from error
            raise

    async def _work(self, lane: _Lane, request: Request) -> None:
        try:
            message = lane.decoder.decode(request.data)
        except msgspec.MsgspecError as error:
            raise BadRequest(f"{lane.subject}: malformed request: {error}") from error
        async with lane.slots:
            data = msgspec.msgpack.encode(await lane.handler(message))
            if len(data) <= wire.INLINE_REPLY_BYTES:
                await self._respond(request, data)
                return
            if len(data) > wire.MAX_REPLY_BYTES:
                raise TooLarge(
                    f"an answer of {len(data)} bytes",
                    remedy="Ask for less: a smaller limit or a narrower query.",
                )
            session = new_session_id(self._bus.name, _client_of(request))
            async with Session(self._bus, session, "server", frame_bytes=REPLY_FRAME_BYTES) as stream:
                await self._respond(request, b"", {wire.SESSION: session, wire.SIZE: str(len(data))})
                await send_reply(stream, data)

    async def _refuse(self, request: Request, error: KubeloreError) -> None:
        await self._respond(request, wire.error_body(error), wire.error_headers(error))

    async def _respond(self, request: Request, data: bytes, headers: dict[str, str] | None = None) -> None:
        try:
            async with asyncio.timeout(5):
                await request.respond(data, headers)
        except (NatsError, OSError, TimeoutError, ValueError) as error:
            log.info("reply not sent", subject=request.subject, error=type(error).__name__)


def _operation(headers: Mapping[str, str]) -> str:
    """The operation that a request is part of; empty when it names none, or nothing that is one."""
    named = headers.get(wire.OPERATION, "")
    return named if is_operation_id(named) else ""


def _client_of(request: Request) -> str:
    """The service that asked, as the inbox says that it wants its reply in (`_INBOX_<service>.…`).

    Only that service can listen there, so naming another gains a caller nothing.
    """
    # nats-py's request does not show where its reply goes.
    reply: str = request._msg.reply  # pyright: ignore[reportPrivateUsage]
    return reply.partition(".")[0].removeprefix("_INBOX_")


def _budget(header: str | None, default_s: float) -> float:
    """Seconds the caller will still wait; an endpoint's own deadline when it does not say."""
    if header is None or not header.isdigit():
        return default_s
    return min(int(header) / 1000, 3600.0)


def _unexpected(name: str, error: BaseException) -> KubeloreError:
    """Log an error nobody expected, and make the one that may be shown."""
    error_id = secrets.token_hex(6)
    log.error("unexpected error", endpoint=name, error_id=error_id, exc_info=error)
    return KubeloreError(
        f"unexpected error {error_id}", remedy="Look for this id in the service's log.", error_id=error_id
    )
