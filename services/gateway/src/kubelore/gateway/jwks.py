"""The keys of an OpenID provider: fetched over the network with every bound, kept, and fetched again when needed.

The operator's settings name the provider, not a caller. Still nothing of its
answer is trusted beyond the keys in it: no redirect is followed, a body over
256 KB is not read, and what is not https is refused unless it is on loopback and
the settings allow that.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from kubelore.common.errors import KubeloreError, Unauthenticated, Unavailable
from kubelore.common.telemetry import get_logger

if TYPE_CHECKING:
    import httpx

log = get_logger(__name__)

FRESH_S = 3600.0
"""After so long keys are fetched again, so that one that was withdrawn stops working."""
KEPT_S = 24 * 3600.0
"""While the provider is away its keys are good for so long."""
REFETCH_S = 30.0
"""Unknown key ids, which anybody can make up, cause a fetch at most once in so long."""
DEADLINE_S = 5.0
MAX_BYTES = 256 * 1024
MAX_KEYS = 100

Key = RSAKey | ECKey | OKPKey
_KINDS: dict[str, type[RSAKey | ECKey | OKPKey]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
"""Public keys only: with a symmetric key whoever can check a token can make one."""


class Jwks:
    """Keys by id. Without a `url` it is found by the issuer's discovery document."""

    def __init__(
        self,
        issuer: str,
        url: str = "",
        *,
        ca_file: str | None = None,
        allow_loopback: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuer = issuer
        self._url = url
        self._ca_file = ca_file
        self._allow_loopback = allow_loopback
        self._clock = clock
        self._keys: dict[str, Key] = {}
        self._read_at = -KEPT_S
        self._tried_at = -KEPT_S
        self._lock = asyncio.Lock()

    async def key(self, kid: str | None) -> Key:
        """The key of an id; without an id the only one there is. Raises Unauthenticated, Unavailable."""
        if self._clock() - self._read_at > FRESH_S or self._find(kid) is None:
            await self._renew(kid)
        found = self._find(kid)
        if found is None:
            if self._clock() - self._read_at > KEPT_S:
                raise Unavailable(
                    "the OpenID provider's keys cannot be fetched", remedy="Ask again in a minute."
                )
            raise Unauthenticated(
                "the token is signed by a key that the OpenID provider does not publish",
                remedy="Get a new token from the provider that Kubelore is set up with.",
            )
        return found

    def _find(self, kid: str | None) -> Key | None:
        if self._clock() - self._read_at > KEPT_S:
            return None
        if kid is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(kid)

    async def _renew(self, kid: str | None) -> None:
        async with self._lock:
            stale = self._clock() - self._read_at > FRESH_S
            if self._clock() - self._tried_at < REFETCH_S or (not stale and self._find(kid) is not None):
                return
            self._tried_at = self._clock()
            try:
                async with asyncio.timeout(DEADLINE_S):
                    self._keys = await self._fetch()
                self._read_at = self._clock()
                log.info("keys of the OpenID provider fetched", keys=len(self._keys))
            except (KubeloreError, TimeoutError) as error:
                log.warning("keys of the OpenID provider not fetched", error=str(error)[:300])

    async def _fetch(self) -> dict[str, Key]:
        # Imported here: only who uses OIDC pays for it.
        import httpx

        context = ssl.create_default_context(cafile=self._ca_file)
        async with httpx.AsyncClient(
            verify=context, follow_redirects=False, timeout=DEADLINE_S, trust_env=False
        ) as client:
            url = self._url or await self._discovered(client)
            return _keys(await self._get(client, url))

    async def _discovered(self, client: httpx.AsyncClient) -> str:
        document = await self._get(client, f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
        if document.get("issuer") != self._issuer:
            raise Unavailable("the discovery document is another issuer's")
        return str(document.get("jwks_uri", ""))

    async def _get(self, client: httpx.AsyncClient, url: str) -> dict[str, Any]:
        import httpx

        check_url(url, allow_loopback=self._allow_loopback)
        body = bytearray()
        try:
            async with client.stream("GET", url, headers={"Accept": "application/json"}) as answer:
                if answer.status_code != 200:
                    raise Unavailable(f"{url} answered {answer.status_code}")
                async for chunk in answer.aiter_bytes():
                    body += chunk
                    if len(body) > MAX_BYTES:
                        raise Unavailable(f"{url} answered more than {MAX_BYTES} bytes")
            return msgspec.json.decode(bytes(body), type=dict[str, Any])
        except (httpx.HTTPError, httpx.InvalidURL, msgspec.MsgspecError, RecursionError) as error:
            raise Unavailable(f"{url} did not answer as it should: {type(error).__name__}") from error


def check_url(url: str, *, allow_loopback: bool) -> None:
    """Raise Unavailable for a URL that keys may not come from: in plain text anybody on the way could sign tokens."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.username or parts.password or not host:
        raise Unavailable(f"{url[:200]!r} is no URL that keys may come from")
    if parts.scheme != "https" and not (parts.scheme == "http" and allow_loopback and _loopback(host)):
        raise Unavailable(
            f"the keys of the OpenID provider must come over https, not from {url[:200]!r}",
            remedy="KUBELORE_OIDC_ALLOW_LOOPBACK allows http from loopback, for tests.",
        )


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _keys(document: dict[str, Any]) -> dict[str, Key]:
    """The public keys for signatures in a key set; others and unknown kinds are passed over (RFC 7517, section 5)."""
    found: dict[str, Key] = {}
    listed = document.get("keys")
    for data in listed[:MAX_KEYS] if isinstance(listed, list) else ():
        kind = _KINDS.get(str(data.get("kty"))) if isinstance(data, dict) else None
        if kind is None or data.get("use", "sig") != "sig":
            continue
        try:
            key = kind.import_key({name: value for name, value in data.items() if name != "d"})
            found[str(data.get("kid") or key.thumbprint())] = key
        except (JoseError, ValueError, TypeError, KeyError):
            log.warning("a key of the OpenID provider cannot be used", kid=str(data.get("kid"))[:100])
    if not found:
        raise Unavailable("the OpenID provider publishes no key that can be used")
    return found
