"""Work that outlasts the request it was asked for in: on whose behalf it goes on, and until when it may.

The gateway's word for a caller is good for 60 s. A job that takes longer, or
that begins again after a restart, keeps that word as its `Mandate`, sealed, and
trades it for a fresh one while it works: the gateway looks then whether the
credential still stands, and signs what is granted to it now. Where it refuses,
the work ends within seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from kubelore.common.authz import Caller
from kubelore.common.callers import VERIFY_FILE, Acting, CallerVerifier, acting_as, current_token
from kubelore.common.contracts.vouching import VOUCH, Vouch
from kubelore.common.errors import (
    DeadlineExceeded,
    IntegrityError,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
)
from kubelore.common.telemetry import get_logger

if TYPE_CHECKING:
    from kubelore.common.bus import Bus
    from kubelore.common.crypto import Keyring

log = get_logger(__name__)

RENEW_EVERY_S = 15.0
"""How often running work asks for its caller again: a revoked token ends it within that and the gateway's 5 s."""
_RETRY_S = 1.0
_PATIENCE_S = 3.0
_ENOUGH_S = 20.0
"""A token that lives on for so long is not traded at the start: its request was authenticated a moment ago."""

_AWAY = (Unavailable, DeadlineExceeded, TooManyRequests)


class _Kept(msgspec.Struct, frozen=True):
    token: str
    lasting: bool = False


class Mandate:
    """The gateway's word by which a job acts; it opens nothing without the gateway that gave it.

    `lasting` is for work that outlives a login, as schedules do.
    """

    def __init__(self, token: str, *, lasting: bool = False) -> None:
        self.token = token
        self.lasting = lasting

    def __repr__(self) -> str:
        return f"Mandate(lasting={self.lasting})"

    @classmethod
    def of_request(cls, *, lasting: bool = False) -> Mandate:
        """That of the request which is being served. Raises Unauthenticated outside of one."""
        return cls(current_token(), lasting=lasting)

    @classmethod
    def open(cls, keyring: Keyring, sealed: bytes, *, context: str) -> Mandate:
        """What `seal` gave for the same context. Raises IntegrityError."""
        try:
            kept = msgspec.msgpack.decode(keyring.open(sealed, context=context), type=_Kept)
        except msgspec.MsgspecError as error:
            raise IntegrityError("the mandate cannot be read") from error
        return cls(kept.token, lasting=kept.lasting)

    def seal(self, keyring: Keyring, *, context: str) -> bytes:
        """To be kept with the job that `context` names."""
        return keyring.seal(msgspec.msgpack.encode(_Kept(self.token, self.lasting)), context=context)


async def renewed(bus: Bus, mandate: Mandate) -> Mandate:
    """The mandate with a fresh token, as things stand now.

    Raises Unauthenticated when the credential no longer stands, Unavailable and
    DeadlineExceeded when the gateway cannot be asked.
    """
    asked = Vouch(token=mandate.token, lasting=mandate.lasting)
    answer = await bus.request(VOUCH, asked, deadline_s=_PATIENCE_S)
    return Mandate(answer.token, lasting=mandate.lasting)


@asynccontextmanager
async def acting_under(
    bus: Bus, mandate: Mandate, *, renew_every_s: float = RENEW_EVERY_S
) -> AsyncGenerator[Caller]:
    """Work as the caller of a mandate: `current_caller` in the block, in tasks started there, and in what is asked.

    Grants that change are those of the block from the next renewal on. When the
    gateway refuses, the block is cancelled and Unauthenticated raised from here;
    when it cannot be asked until the last token has expired, Unavailable: go on
    later. Raises both at the start too.
    """
    verifier = _verifier(bus)
    if mandate.lasting or verifier.seconds_left(mandate.token) < _ENOUGH_S:
        mandate = await renewed(bus, mandate)
    with acting_as(verifier.caller(mandate.token), mandate.token) as acting:
        async with ended_by(asyncio.create_task(_renew(bus, verifier, mandate, acting, renew_every_s))):
            yield acting.caller


def _verifier(bus: Bus) -> CallerVerifier:
    if bus.verifier is None:
        raise Unauthenticated(
            f"callers cannot be checked: there is no {VERIFY_FILE}",
            remedy="Give the service the public half of the gateway's keyring.",
        )
    return bus.verifier


async def _renew(
    bus: Bus, verifier: CallerVerifier, mandate: Mandate, acting: Acting, every_s: float
) -> None:
    """Keep `acting` fresh; ends only by raising why it no longer can be."""
    pause = every_s
    while True:
        await asyncio.sleep(pause)
        try:
            mandate = await renewed(bus, mandate)
        except _AWAY as error:
            if verifier.seconds_left(mandate.token) <= 0:
                raise Unavailable(
                    "the gateway could not be asked for a minute whether this work may go on",
                    remedy="Start or resume it again once the gateway answers.",
                ) from error
            pause = _RETRY_S
            log.info("mandate not renewed", error=error.reason)
            continue
        acting.caller, acting.token = verifier.caller(mandate.token), mandate.token
        pause = every_s


@asynccontextmanager
async def ended_by(task: asyncio.Future[Any]) -> AsyncGenerator[None]:
    """A block that is cancelled when the task (or a bare future) fails, and raises what it raised."""
    work = asyncio.current_task()
    if work is None:
        raise RuntimeError("this needs a task to end")
    cancellations = work.cancelling()
    ended = False

    def end(done: asyncio.Future[Any]) -> None:
        nonlocal ended
        if not done.cancelled() and done.exception() is not None:
            ended = True
            work.cancel()

    task.add_done_callback(end)
    try:
        yield
    finally:
        task.remove_done_callback(end)
        task.cancel()
        if ended and work.uncancel() <= cancellations:
            # Whatever the work made of being cancelled: this is why.
            task.result()
        await asyncio.gather(task, return_exceptions=True)
