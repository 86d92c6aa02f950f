"""Tokens of service accounts, renewed before they expire with nothing but themselves.

Only where whoever added the cluster asked for it, and the account may create
tokens for itself. A token is renewed when a third of its life is left, for as
long again; the new one gets a new generation, so that observers reconnect.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from kubelore.cluster_registry.announcements import REGISTRY, Announcements
from kubelore.cluster_registry.lifetimes import expiry_of, iso_utc, lifetime
from kubelore.cluster_registry.repository import ClusterRepository
from kubelore.cluster_registry.vault import Vault
from kubelore.common.contracts.clusters import ClusterConnection
from kubelore.common.errors import Conflict, Invalid, KubeloreError, UpstreamError
from kubelore.common.kube import AddressPolicy, ClusterAccess, KubeClient, ResourceType
from kubelore.common.kube.credentials import check_token, token_claims, token_expiry
from kubelore.common.telemetry import get_logger, outgoing

log = get_logger(__name__)

AT_ONCE = 8
LEAST_LIFE_S = 600
"""The shortest life of a token that an API server gives."""
LONGEST_LIFE_S = 10 * 366 * 86_400
"""No token is asked for a longer life, whatever the one before says of itself."""
RENEWAL_S = 10.0

SERVICE_ACCOUNTS = ResourceType(
    group="", version="v1", plural="serviceaccounts", kind="ServiceAccount", namespaced=True
)


class _Status(msgspec.Struct):
    token: str


class _TokenRequest(msgspec.Struct):
    status: _Status


async def check_renewal(access: ClusterAccess, policy: AddressPolicy) -> None:
    """Raise Invalid unless these credentials are a service account's token that may renew itself."""
    if lifetime(access).renew_at is None:
        raise Invalid(
            "only the expiring token of a service account can be renewed",
            remedy="`kubelore clusters add --create-service-account` makes one.",
            code="no-service-account",
        )
    try:
        async with KubeClient(access, policy, headers=outgoing) as client:
            await _request(client, access, dry_run=True)
    except KubeloreError as error:
        raise Invalid(
            f"the token cannot be renewed: {error.detail}",
            remedy="Let the service account create tokens for itself: a Role with the verb create on "
            "serviceaccounts/token, for its own name; or leave renew_token out.",
            code="not-renewable",
        ) from error


class Renewal:
    """Renews what is due; `clock` is in seconds since the epoch."""

    def __init__(
        self,
        repository: ClusterRepository,
        vault: Vault,
        policy: AddressPolicy,
        announcements: Announcements,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._repository = repository
        self._vault = vault
        self._policy = policy
        self._announcements = announcements
        self._clock = clock
        self._room = asyncio.Semaphore(AT_ONCE)

    async def renew_due(self) -> int:
        """Renew every token whose time has come; returns how many were."""
        due = await self._repository.renewable(self._clock())
        return sum(await asyncio.gather(*(self._renew(cluster) for cluster, _ in due)))

    async def _renew(self, cluster: ClusterConnection) -> bool:
        """Whether it was renewed. What fails is tried again at the next look, and told before it expires."""
        async with self._room:
            try:
                async with asyncio.timeout(RENEWAL_S):
                    await self._exchange(cluster.id)
            except Conflict:
                log.info("credentials changed while they were renewed", cluster=cluster.id)
                return False
            except (KubeloreError, TimeoutError) as error:
                detail = error.detail if isinstance(error, KubeloreError) else "no answer in time"
                log.warning("token not renewed", cluster=cluster.id, detail=detail)
                return False
            return True

    async def _exchange(self, name: str) -> None:
        cluster, sealed = await self._repository.credentials(name)
        access = self._vault.open(name, sealed)
        async with KubeClient(access, self._policy, headers=outgoing) as client:
            token = await _request(client, access)
        before, after = token_expiry(access.token), token_expiry(token)
        if after is None or before is None or after <= before:
            raise UpstreamError("the API server gave a token that lasts no longer than the one before")
        access.token = token
        changes = {"credentials_expire_at": expiry_of(access), "updated_at": iso_utc(self._clock())}
        renewed = await self._repository.exchange(
            cluster, changes, self._vault.seal(name, access), lifetime(access), exactly=True
        )
        await self._announcements.tell(renewed, "updated", detail="token renewed", actor=REGISTRY)
        log.info("token renewed", cluster=name, until=renewed.credentials_expire_at)


async def _request(client: KubeClient, access: ClusterAccess, *, dry_run: bool = False) -> str:
    """A new token for the account that the present one is of, for as long as that one was made for."""
    claims = token_claims(access.token)
    if claims is None or claims.service_account is None or claims.exp is None or claims.iat is None:
        raise Invalid("the token is no service account's, or does not say how long it lasts")
    namespace, name = claims.service_account
    life = round(min(max(LEAST_LIFE_S, claims.exp - claims.iat), LONGEST_LIFE_S))
    request: dict[str, Any] = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": life},
    }
    raw = await client.create(
        SERVICE_ACCOUNTS,
        namespace,
        msgspec.json.encode(request),
        name=name,
        subresource="token",
        dry_run=dry_run,
    )
    try:
        token = msgspec.json.decode(raw, type=_TokenRequest).status.token
    except msgspec.MsgspecError:
        # Not chained: the decoder's message may quote a token.
        raise UpstreamError("the answer to a token request is none") from None
    check_token(token, now=datetime.now(UTC))
    return token
