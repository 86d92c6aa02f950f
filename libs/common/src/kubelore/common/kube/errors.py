"""What an API server and the network answer, turned into Kubelore's errors in this one place.

A `Status` becomes the class of its code and reason, with `kubernetes_reason`,
`causes` and `retry_after_s` in `extra`; a broken connection becomes Unavailable
with the step that broke. The original is always chained by the caller.
"""

from __future__ import annotations

import os
import socket
import ssl
from typing import Any

import aiohttp
import msgspec

from kubelore.common.errors import (
    AlreadyExists,
    BadRequest,
    Conflict,
    DeadlineExceeded,
    Forbidden,
    Gone,
    Invalid,
    KubeloreError,
    NotFound,
    TooLarge,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
    Unsupported,
    UpstreamError,
)

MAX_MESSAGE = 2000
MAX_CAUSES = 20


class WatchSilent(Unavailable):
    """A watch said nothing for longer than its idle time; open it again from the last resourceVersion."""

    reason = "WatchSilent"


class WatchListUnsupported(Unsupported):
    """This API server cannot stream the initial list of a watch; list instead."""

    reason = "WatchListUnsupported"


class StatusCause(msgspec.Struct, omit_defaults=True):
    """One reason of a Status: which field, and what is wrong with it."""

    reason: str = ""
    message: str = ""
    field: str = ""


class StatusDetails(msgspec.Struct, rename="camel", omit_defaults=True):
    """What a Status says beside its message."""

    name: str = ""
    kind: str = ""
    causes: list[StatusCause] | None = None
    retry_after_seconds: int = 0


class Status(msgspec.Struct, rename="camel"):
    """A Kubernetes Status, as far as it is used."""

    kind: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    code: int = 0
    details: StatusDetails | None = None


_BY_CODE: dict[int, type[KubeloreError]] = {
    400: BadRequest,
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    405: Unsupported,
    406: Unsupported,
    409: Conflict,
    410: Gone,
    413: TooLarge,
    415: Unsupported,
    422: Invalid,
    429: TooManyRequests,
    501: Unsupported,
    503: Unavailable,
    504: DeadlineExceeded,
}

_UNTYPED = "failed to create typed patch object"
_NO_STRATEGIC = "send a merge or json patch: custom resources take no strategic one"

_REMEDIES: dict[type[KubeloreError], str] = {
    Unauthenticated: "renew the credentials: the API server does not accept them (any more)",
    Forbidden: "bind a role that allows it to the user of this kubeconfig",
    NotFound: "check the name, the namespace and whether the type is served by this cluster",
    AlreadyExists: "choose another name, or change the object that exists",
    Conflict: "read the object again and repeat the change on what it is now",
    Gone: "list again and continue from the new resourceVersion",
    Invalid: "correct what is named there",
    TooManyRequests: "wait and try again; the cluster limits how much it answers at once",
    Unavailable: "try again; the API server or something behind it is not ready",
    DeadlineExceeded: "try again with less at once; the API server took too long",
    UpstreamError: "look at the API server's own log; the fault is on its side",
}


def parse_status(body: bytes, *, says_kind: bool = True) -> Status | None:
    """The Status in a body; None when it holds none."""
    try:
        status = msgspec.json.decode(body, type=Status)
    except (msgspec.MsgspecError, RecursionError):
        return None
    return status if status.kind == "Status" or (not says_kind and status.status) else None


def status_error(code: int, body: bytes, *, retry_after: str | None = None) -> KubeloreError:
    """The error for an answer of the API server that is no success."""
    if 300 <= code < 400:
        return UpstreamError(
            f"the server answered with a redirect ({code}), which is not followed",
            remedy="use the address in the kubeconfig that the redirect leads to",
        )
    status = parse_status(body)
    if status is None:
        text = body[:300].decode(errors="replace").strip()
        said = text if text.isprintable() and "<" not in text else f"HTTP status {code}"
        status = Status(message=said, code=code)
    return error_from_status(status, code=code, retry_after=retry_after)


def error_from_status(status: Status, *, code: int = 0, retry_after: str | None = None) -> KubeloreError:
    """The error that a Status stands for; `code` wins over a Status without one."""
    number = status.code or code
    kind = _BY_CODE.get(number, UpstreamError)
    if status.reason == "AlreadyExists":
        kind = AlreadyExists
    elif status.reason in ("Expired", "Gone"):
        kind = Gone
    elif status.reason == "ServerTimeout":
        kind = Unavailable
    elif _UNTYPED in status.message:
        # Server-side apply answers 500 to a manifest that its schema does not allow.
        kind = Invalid
    details = status.details or StatusDetails()
    extra: dict[str, Any] = {"kubernetes_reason": status.reason, "kubernetes_code": number}
    if details.causes:
        extra["causes"] = [msgspec.to_builtins(cause) for cause in details.causes[:MAX_CAUSES]]
    seconds = details.retry_after_seconds or _seconds(retry_after)
    if seconds:
        extra["retry_after_s"] = seconds
    message = status.message[:MAX_MESSAGE] or f"the API server answered {number} {status.reason}".rstrip()
    remedy = _NO_STRATEGIC if number == 415 else _REMEDIES.get(kind)
    return kind(message, remedy=remedy, **extra)


def _seconds(header: str | None) -> int:
    """A Retry-After header in seconds; 0 when absent or a date."""
    return min(int(header), 3600) if header and header.isdecimal() else 0


def connection_error(error: BaseException, host: str) -> Unavailable:
    """The error for a connection that could not be made or broke, saying at which step (`step` in extra)."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return certificate_error(error.certificate_error, host)
    if isinstance(error, aiohttp.ClientConnectorDNSError | socket.gaierror):
        return Unavailable(
            f"the name {host} does not resolve",
            remedy="check the server address in the kubeconfig, and this machine's DNS",
            step="dns",
        )
    if isinstance(error, aiohttp.ClientConnectorSSLError | ssl.SSLError):
        return Unavailable(
            f"TLS with {host} failed: {_ssl_reason(error)}",
            remedy="check that the address is the API server's, and that no client certificate is missing",
            step="tls",
        )
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return Unavailable(
            f"the proxy answered {error.status} for {host}",
            remedy="check proxy-url in the kubeconfig",
            step="tcp",
        )
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError | ConnectionError):
        why = os.strerror(error.errno).lower() if error.errno else "no connection in time"
        return Unavailable(
            f"cannot connect to {host}: {why}",
            remedy="check that the API server runs, and that firewalls let this machine through",
            step="tcp",
        )
    return Unavailable(
        f"the connection to {host} broke: {type(error).__name__}",
        remedy="try again; if it repeats, look for a proxy or load balancer that cuts connections",
        step="http",
    )


def _ssl_reason(error: BaseException) -> str:
    inner = error.__cause__ if isinstance(error, aiohttp.ClientConnectorSSLError) else error
    reason = getattr(inner, "reason", None) or getattr(error, "strerror", None)
    return str(reason or "handshake failed").replace("_", " ").lower()


# X509_V_ERR_* of OpenSSL's x509_vfy.h
_NOT_YET_VALID, _EXPIRED, _HOST_MISMATCH, _ADDRESS_MISMATCH = 9, 10, 62, 64
_UNKNOWN_AUTHORITY = frozenset({2, 18, 19, 20, 21, 27})


def certificate_error(error: BaseException, host: str) -> Unavailable:
    """The error for a server certificate that does not verify; `certificate` in extra names the kind."""
    code = getattr(error, "verify_code", 0)
    if code in (_EXPIRED, _NOT_YET_VALID):
        kind, why = ("expired", "has expired") if code == _EXPIRED else ("not-yet-valid", "is not valid yet")
        remedy = "renew the API server's certificate; check the clocks of both machines"
    elif code in (_HOST_MISMATCH, _ADDRESS_MISMATCH):
        kind, why = "name-mismatch", "is for another name"
        remedy = "use a name that stands in the certificate, or set tls-server-name in the kubeconfig"
    elif code in _UNKNOWN_AUTHORITY:
        kind, why = "unknown-authority", "is signed by an authority that the kubeconfig does not hold"
        remedy = "give the cluster's own authority as certificate-authority-data"
    else:
        kind, why = "invalid", f"does not verify ({getattr(error, 'verify_message', 'no reason given')})"
        remedy = "compare the certificate with certificate-authority-data in the kubeconfig"
    return Unavailable(f"the certificate of {host} {why}", remedy=remedy, step="tls", certificate=kind)
