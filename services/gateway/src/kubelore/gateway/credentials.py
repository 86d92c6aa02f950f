"""Every way in which somebody can prove who they are, behind one door."""

from __future__ import annotations

import hashlib
import hmac

from kubelore.common.authz import ADMINISTRATOR, Caller
from kubelore.common.errors import Unauthenticated
from kubelore.gateway.minting import FOR_API, FOR_BROWSER, read
from kubelore.gateway.oidc import CREDENTIAL as OIDC
from kubelore.gateway.oidc import Oidc, expiry, looks_like_jwt
from kubelore.gateway.repository import Session, Token
from kubelore.gateway.sessions import Sessions, csrf_token
from kubelore.gateway.standing import Standing
from kubelore.gateway.tokens import Tokens

_INVALID = "the token is not valid"


class Credentials:
    """The administrator's token of the settings, API tokens, an OpenID provider's, and browser sessions."""

    def __init__(
        self, admin_token: str, tokens: Tokens, sessions: Sessions, oidc: Oidc | None = None
    ) -> None:
        self._admin = hashlib.sha256(admin_token.encode()).digest()
        self._admin_proof = hashlib.sha256(b"kubelore session of the administrator" + self._admin).hexdigest()
        self.tokens = tokens
        self.sessions = sessions
        self._oidc = oidc

    def bearer_known(self, text: str) -> bool:
        """Whether a bearer token is good by what is known here, so that checking it costs nobody anything."""
        presented = read(FOR_API, text)
        if presented is not None:
            return self.tokens.known(presented)
        return self._is_admin(text) or (self._oidc is not None and self._oidc.known(text))

    def cookie_known(self, text: str) -> bool:
        """The same of a session's cookie."""
        presented = read(FOR_BROWSER, text)
        return presented is not None and self.sessions.known(presented)

    async def of_bearer(self, text: str) -> Standing:
        """Who holds a bearer token. Raises Unauthenticated, and Unavailable when that cannot be told now."""

        async def again() -> Standing:
            return await self.of_bearer(text)

        presented = read(FOR_API, text)
        if presented is not None:
            token = await self.tokens.of_secret(presented)
            return Standing(_holder(token), token.expires_at, again)
        if self._is_admin(text):
            return Standing(ADMINISTRATOR, None, again)
        if self._oidc is not None and looks_like_jwt(text):
            identity = await self._oidc.identity(text)
            return Standing(identity.caller, expiry(identity), again)
        raise Unauthenticated(_INVALID, remedy="Ask an administrator for one.")

    async def of_cookie(self, text: str) -> Standing:
        """Whose browser session a cookie is of. Raises Unauthenticated, Unavailable."""

        async def again() -> Standing:
            return await self.of_cookie(text)

        presented = read(FOR_BROWSER, text)
        if presented is None:
            raise Unauthenticated("the session's cookie is not valid", remedy="Log in again.")
        session = await self.sessions.of_secret(presented)
        await self._check_opened_by(session)
        return Standing(_user(session), session.expires_at, again, csrf=csrf_token(text), own_origin=False)

    async def of_credential(self, credential: str, *, lasting: bool = False) -> Caller | None:
        """Who has a credential that was proved before (`Caller.credential`), as it stands now; None for a provider's.

        `lasting` names whoever opened a session, not the session, which may end.
        Raises Unauthenticated when it no longer stands, and Unavailable.
        """
        kind, _, name = credential.partition(":")
        if kind == "token":
            return _holder(await self.tokens.of_id(name))
        if kind == "session":
            session = await self.sessions.of_id(name)
            await self._check_opened_by(session)
            return await self.of_credential(session.credential) if lasting else _user(session)
        if credential == ADMINISTRATOR.credential:
            return ADMINISTRATOR
        if credential == OIDC:
            return None
        raise Unauthenticated(_INVALID, remedy="Ask an administrator for one.")

    def proof(self, standing: Standing) -> str:
        """What ties a session to its credential: it ends when the administrator's token is changed."""
        return self._admin_proof if standing.caller.credential == ADMINISTRATOR.credential else ""

    async def _check_opened_by(self, session: Session) -> None:
        """A session ends with what it was opened by: a revoked token, a changed administrator's token."""
        kind, _, name = session.credential.partition(":")
        if kind == "token":
            await self.tokens.of_id(name)
        elif kind == ADMINISTRATOR.credential and not hmac.compare_digest(session.proof, self._admin_proof):
            raise Unauthenticated("the session has ended", remedy="Log in again.")

    def _is_admin(self, text: str) -> bool:
        return hmac.compare_digest(hashlib.sha256(text.encode()).digest(), self._admin)


def _holder(token: Token) -> Caller:
    return Caller(subject=token.subject, grants=token.grants, credential=f"token:{token.id}")


def _user(session: Session) -> Caller:
    return Caller(subject=session.subject, grants=session.grants, credential=f"session:{session.id}")
