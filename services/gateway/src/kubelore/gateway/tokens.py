"""API tokens: made by administrators, scoped by grants, expiring, revocable."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from kubelore.common.authz import ADMINISTRATOR, Caller, Grant, covers
from kubelore.common.errors import BadRequest, Forbidden, KubeloreError, NotFound, Unauthenticated
from kubelore.gateway.minting import FOR_API, Presented, mint
from kubelore.gateway.remembered import Remembered
from kubelore.gateway.repository import Token, TokenRepository

COARSE_S = 300
"""`last_used_at` is no nearer than this: what a token does is told by the audit."""


class Tokens:
    """Makes, checks and revokes tokens. `clock` tells seconds since 1970."""

    def __init__(self, repository: TokenRepository, clock: Callable[[], float] = time.time) -> None:
        self._repository = repository
        self._clock = clock
        self._remembered = Remembered(repository.get)
        self._noting: set[asyncio.Task[None]] = set()
        self._noted: dict[str, float] = {}

    async def create(
        self, caller: Caller, name: str, grants: tuple[Grant, ...], expires_in_s: int
    ) -> tuple[Token, str]:
        """A new token and its secret, which is not kept. Raises Forbidden, BadRequest."""
        caller.check_admin("make tokens")
        if name == ADMINISTRATOR.subject:
            raise BadRequest(f"{name!r} is the name of the administrator", remedy="Take another name.")
        for grant in grants:
            grant.check()
            if not covers(caller.grants, grant):
                raise Forbidden(
                    f"{caller.subject} does not hold what the token would grant ({_told(grant)})",
                    remedy="Hand out no more than you have; `kubelore whoami` shows it.",
                )
        text, presented = mint(FOR_API)
        now = self._now()
        token = Token(
            id=presented.id,
            name=name,
            subject=name,
            digest=presented.digest,
            grants=grants,
            created_by=caller.subject,
            created_at=now,
            expires_at=now + timedelta(seconds=expires_in_s),
        )
        await self._repository.insert(token)
        return token, text

    async def page(
        self, caller: Caller, limit: int, after: str | None
    ) -> tuple[list[Token], int, str | None]:
        """One page of tokens, how many there are in all, and behind which id the next page begins."""
        caller.check_admin("list tokens")
        found = await self._repository.page(limit + 1, after)
        shown = found[:limit]
        return shown, await self._repository.count(), shown[-1].id if len(found) > limit else None

    async def revoke(self, caller: Caller, token_id: str) -> None:
        """End a token for good; it may end itself. Raises Forbidden, NotFound."""
        if caller.credential != f"token:{token_id}":
            caller.check_admin("revoke tokens")
        if not await self._repository.delete(token_id):
            raise NotFound(
                f"there is no token {token_id!r}", remedy="`kubelore tokens list` shows their ids."
            )
        self._remembered.forget(token_id)

    def known(self, presented: Presented) -> bool:
        """Whether the secret is right by what is remembered, without asking the database."""
        found = self._remembered.known(presented.id)
        return found is not None and presented.proves(found.digest)

    async def of_secret(self, presented: Presented) -> Token:
        """The token of a secret. Raises Unauthenticated, Unavailable."""
        token = await self.of_id(presented.id)
        if not presented.proves(token.digest):
            raise _gone()
        self._note_use(token)
        return token

    async def of_id(self, token_id: str) -> Token:
        """A token that still holds. Raises Unauthenticated, Unavailable."""
        token = await self._remembered.get(token_id)
        if token is None or token.expires_at <= self._now():
            raise _gone()
        return token

    def _now(self) -> datetime:
        # Whole milliseconds: what is answered now is what the database will say.
        return datetime.fromtimestamp(int(self._clock() * 1000) / 1000, UTC)

    def _note_use(self, token: Token) -> None:
        now = self._clock()
        last = token.last_used_at.timestamp() if token.last_used_at else 0.0
        if now - max(last, self._noted.get(token.id, 0.0)) < COARSE_S:
            return
        self._noted[token.id] = now
        if len(self._noted) > 10_000:
            self._noted.clear()
        rounded = datetime.fromtimestamp(now - now % 60, UTC)
        noting = asyncio.create_task(self._write_use(token.id, rounded))
        self._noting.add(noting)
        noting.add_done_callback(self._noting.discard)

    async def _write_use(self, token_id: str, at: datetime) -> None:
        # Nobody waits for it, and nothing depends on it.
        with suppress(KubeloreError):
            await self._repository.used(token_id, at)


def _gone() -> Unauthenticated:
    # Made anew each time, as every error: a raised one keeps the frames it passed, and with them what was presented.
    return Unauthenticated(
        "the token is not valid", remedy="It was revoked or has expired: ask for another one."
    )


def _told(grant: Grant) -> str:
    rights = f" with {','.join(grant.rights)}" if grant.rights else ""
    return f"{grant.role}{rights} on {','.join(grant.clusters)}/{','.join(grant.namespaces)}"
