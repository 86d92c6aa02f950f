"""What the gateway keeps in MongoDB, opened as one: credentials, and answers for retries."""

from __future__ import annotations

import asyncio

from kubelore.common.crypto import Keyring, Sealer
from kubelore.common.errors import KubeloreError
from kubelore.common.store import Database
from kubelore.common.telemetry import get_logger
from kubelore.gateway.credentials import Credentials
from kubelore.gateway.jwks import Jwks
from kubelore.gateway.oidc import Oidc, Provider, Rule
from kubelore.gateway.repository import AttemptRepository, SessionRepository, TokenRepository
from kubelore.gateway.sessions import Sessions
from kubelore.gateway.settings import GatewaySettings
from kubelore.gateway.tokens import Tokens

log = get_logger(__name__)

PROBE_S = 5.0
PROBE_DEADLINE_S = 2.0


class Store:
    """The repositories and what is built over them."""

    def __init__(self, settings: GatewaySettings, database: Database, keyring: Keyring) -> None:
        self._database = database
        self._tokens = TokenRepository(database)
        self._sessions = SessionRepository(database)
        self.attempts = AttemptRepository(database)
        self.sealer: Sealer = keyring.sealer("answers")
        self.credentials = Credentials(
            settings.read_admin_token(), Tokens(self._tokens), Sessions(self._sessions), provider_of(settings)
        )
        self.reachable = True
        """Whether the database answered a few seconds ago."""

    async def prepare(self) -> None:
        """Make the indexes. Raises Unavailable, Conflict."""
        for repository in (self._tokens, self._sessions, self.attempts):
            await repository.prepare()

    async def watch(self) -> None:
        """Look every five seconds whether the database answers; never returns."""
        while True:
            try:
                async with asyncio.timeout(PROBE_DEADLINE_S):
                    await self._database.ping()
                fine = True
            except (KubeloreError, TimeoutError):
                fine = False
            if fine != self.reachable:
                log.warning("database is back" if fine else "database does not answer")
            self.reachable = fine
            await asyncio.sleep(PROBE_S)


def provider_of(settings: GatewaySettings) -> Oidc | None:
    """The OpenID provider of the settings, None when there is none."""
    if not settings.oidc_issuer:
        return None
    rules = [
        Rule(
            claim=rule.claim or settings.oidc_groups_claim,
            value=rule.value,
            grants=tuple(model.grant() for model in rule.grants),
        )
        for rule in settings.oidc_grants
    ]
    provider = Provider(
        issuer=settings.oidc_issuer,
        audience=settings.oidc_audience,
        rules=rules,
        subject_claim=settings.oidc_subject_claim,
        subject_prefix=settings.oidc_subject_prefix,
        algorithms=frozenset(settings.oidc_algorithms),
    )
    keys = Jwks(
        settings.oidc_issuer,
        settings.oidc_jwks_url,
        ca_file=str(settings.oidc_ca_file) if settings.oidc_ca_file else None,
        allow_loopback=settings.oidc_allow_loopback,
    )
    return Oidc(provider, keys)
