"""Browser sessions: a cookie that stands for the credential it was opened with, and ends with it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from kubelore.common.errors import KubeloreError, Unauthenticated
from kubelore.gateway.minting import FOR_BROWSER, Presented, mint
from kubelore.gateway.remembered import Remembered
from kubelore.gateway.repository import Session, SessionRepository
from kubelore.gateway.standing import Standing

IDLE_S = 30 * 60
LIFETIME_S = 12 * 3600
NOTED_S = 60
"""That a session is in use is written down at most so often."""


class Sessions:
    """Opens, finds and ends sessions. `clock` tells seconds since 1970."""

    def __init__(self, repository: SessionRepository, clock: Callable[[], float] = time.time) -> None:
        self._repository = repository
        self._clock = clock
        self._remembered = Remembered(repository.get)
        self._noting: set[asyncio.Task[None]] = set()
        self._noted: dict[str, float] = {}

    async def open(self, standing: Standing, proof: str) -> tuple[Session, str]:
        """A session for somebody who proved by other means who they are, and its secret for the cookie."""
        text, presented = mint(FOR_BROWSER)
        now = self._now()
        latest = now + timedelta(seconds=LIFETIME_S)
        session = Session(
            id=presented.id,
            digest=presented.digest,
            subject=standing.caller.subject,
            credential=standing.caller.credential,
            grants=standing.caller.grants,
            created_at=now,
            seen_at=now,
            expires_at=min(latest, standing.expires_at) if standing.expires_at else latest,
            proof=proof,
        )
        await self._repository.insert(session)
        return session, text

    def known(self, presented: Presented) -> bool:
        """Whether the secret is right by what is remembered, without asking the database."""
        found = self._remembered.known(presented.id)
        return found is not None and presented.proves(found.digest)

    async def of_secret(self, presented: Presented) -> Session:
        """The session of a cookie. Raises Unauthenticated, Unavailable."""
        session = await self._remembered.get(presented.id)
        if session is None or not presented.proves(session.digest):
            raise _ended()
        now = self._now()
        seen = max(session.seen_at.timestamp(), self._noted.get(session.id, 0.0))
        if session.expires_at <= now or now.timestamp() - seen > IDLE_S:
            raise _ended()
        if now.timestamp() - seen > NOTED_S:
            self._note_use(session.id, now)
        return session

    async def of_id(self, session_id: str) -> Session:
        """A session that was not ended, be it idle: work goes on while nobody looks. Raises Unauthenticated, Unavailable."""
        session = await self._remembered.get(session_id)
        if session is None or session.expires_at <= self._now():
            raise _ended()
        return session

    async def end(self, session_id: str) -> None:
        """End a session at once here, and within seconds at every other replica."""
        await self._repository.delete(session_id)
        self._remembered.forget(session_id)

    def _now(self) -> datetime:
        # Whole milliseconds: what is answered now is what the database will say.
        return datetime.fromtimestamp(int(self._clock() * 1000) / 1000, UTC)

    def _note_use(self, session_id: str, now: datetime) -> None:
        if len(self._noted) >= 10_000:
            self._noted.clear()
        self._noted[session_id] = now.timestamp()
        noting = asyncio.create_task(self._write_use(session_id, now))
        self._noting.add(noting)
        noting.add_done_callback(self._noting.discard)

    async def _write_use(self, session_id: str, now: datetime) -> None:
        with suppress(KubeloreError):
            await self._repository.seen(session_id, now)


def _ended() -> Unauthenticated:
    return Unauthenticated("the session has ended", remedy="Log in again.")


def csrf_token(cookie: str) -> str:
    """What a page of our own sends along with the cookie: derived from it, so that nothing else need be kept."""
    mac = hmac.digest(cookie.encode(), b"kubelore csrf v1", hashlib.sha256)
    return base64.urlsafe_b64encode(mac).rstrip(b"=").decode()
