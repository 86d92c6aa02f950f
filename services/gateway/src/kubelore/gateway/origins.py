"""Whether a request that a cookie came with was made by a page of our own (docs/decisions/0062)."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import Scope

from kubelore.common.errors import Forbidden
from kubelore.gateway.operations import MUTATING

CSRF_HEADER = "X-CSRF-Token"
_PLAIN, _SECURE = "kubelore_session", "__Host-kubelore_session"


class Origins:
    """Our own origin and those that the settings allow.

    `public_url` is where browsers find this gateway. Without it our own origin
    is what the request's Host header says: a page of another site cannot send
    our cookie under its own name.
    """

    def __init__(self, public_url: str = "", allowed: Iterable[str] = ()) -> None:
        self._own = origin_of(public_url) if public_url else ""
        self._allowed = frozenset(origin_of(url) for url in allowed)
        self.secure = self._own.startswith("https://")

    @property
    def cookie(self) -> str:
        """The name of the session's cookie; with https one that browsers let nobody else set."""
        return _SECURE if self.secure else _PLAIN

    def check(self, scope: Scope, csrf: str) -> bool:
        """Raise Forbidden for a request that another site's page may have made.

        Returns whether the browser says that it was ours; False when it says nothing,
        which is enough to read one answer, and not for a stream.
        """
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        site = headers.get("sec-fetch-site")
        ours = origin is not None and self._is_ours(origin, scope, headers)
        if (origin is not None and not ours) or (
            origin is None and site not in (None, "same-origin", "none")
        ):
            raise _foreign()
        if scope["type"] == "websocket" or scope["method"] in MUTATING:
            if not ours:
                raise _foreign()
            given = headers.get(CSRF_HEADER, "")
            if scope["type"] == "http" and not hmac.compare_digest(given.encode(), csrf.encode()):
                raise _no_csrf()
        return ours or site == "same-origin"

    def _is_ours(self, origin: str, scope: Scope, headers: Headers) -> bool:
        scheme = "https" if scope["scheme"] in ("https", "wss") else "http"
        own = self._own or f"{scheme}://{headers.get('host', '')}"
        return origin == own or origin in self._allowed


def _foreign() -> Forbidden:
    return Forbidden(
        "the request does not come from a page of this Kubelore",
        remedy="Open Kubelore under its own address; KUBELORE_PUBLIC_URL and KUBELORE_ALLOWED_ORIGINS name it.",
        code="ForeignOrigin",
    )


def _no_csrf() -> Forbidden:
    return Forbidden(
        f"the header {CSRF_HEADER} is missing, or is not this session's",
        remedy="Send the `csrf_token` that GET /api/session answers.",
        code="CsrfTokenInvalid",
    )


def origin_of(url: str) -> str:
    """Scheme, host and port of a URL as browsers write an origin. Raises ValueError for what has none."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is not the address of a page: write https://name")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    usual = {"http": 80, "https": 443}[parts.scheme]
    port = f":{parts.port}" if parts.port not in (None, usual) else ""
    return f"{parts.scheme}://{host}{port}"
