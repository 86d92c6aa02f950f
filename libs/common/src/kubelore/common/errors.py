"""Every error that Kubelore raises on purpose, in one small hierarchy.

An error knows the HTTP status that the edge answers with and the reason that a
Kubernetes `Status` would carry, so that it is turned into RFC 9457 problem
documents at the gateway, and into headers on the bus, in one place each. A
`remedy` tells the person who meets the error what to do next. Nothing secret
may stand in `detail`, `remedy` or `extra`: they are shown.
"""

from __future__ import annotations

from typing import Any, ClassVar


class KubeloreError(Exception):
    """The root. Raise a subclass; catch this one only at the edge of a process.

    `extra` holds machine-readable members of the problem document (JSON values).
    """

    status: ClassVar[int] = 500
    reason: ClassVar[str] = "InternalError"

    def __init__(self, detail: str, *, remedy: str | None = None, **extra: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.remedy = remedy
        self.extra = extra


class BadRequest(KubeloreError):
    """The request cannot be understood: a malformed selector, id or token."""

    status = 400
    reason = "BadRequest"


class Unauthenticated(KubeloreError):
    """No credentials, or credentials that are not (or no longer) valid."""

    status = 401
    reason = "Unauthorized"


class Forbidden(KubeloreError):
    """The caller is known, and may not do this."""

    status = 403
    reason = "Forbidden"


class NotFound(KubeloreError):
    """The thing does not exist, or the caller may not know that it does."""

    status = 404
    reason = "NotFound"


class Conflict(KubeloreError):
    """The state of the thing does not allow this now; re-read and try again."""

    status = 409
    reason = "Conflict"


class AlreadyExists(Conflict):
    """The name is taken."""

    reason = "AlreadyExists"


class Gone(KubeloreError):
    """What a position pointed to is no longer kept: a resourceVersion, an event id, a page."""

    status = 410
    reason = "Expired"


class TooLarge(KubeloreError):
    """A body, document or answer over its limit."""

    status = 413
    reason = "RequestEntityTooLarge"


class Invalid(KubeloreError):
    """Understood, and refused for what it says."""

    status = 422
    reason = "Invalid"


class KubeconfigRefused(Invalid):
    """A kubeconfig that holds what a server must not follow; `code` says which rule refused it."""

    reason = "KubeconfigRefused"

    def __init__(self, detail: str, *, code: str, remedy: str | None = None, **extra: Any) -> None:
        super().__init__(detail, remedy=remedy, code=code, **extra)
        self.code = code


class TooManyRequests(KubeloreError):
    """Over a rate or a concurrency limit; `retry_after_s` in `extra` when known."""

    status = 429
    reason = "TooManyRequests"


class Unsupported(KubeloreError):
    """The thing exists and cannot do this."""

    status = 501
    reason = "NotImplemented"


class UpstreamError(KubeloreError):
    """A cluster's API server answered with an error of its own that has no better class."""

    status = 502
    reason = "BadGateway"


class Unavailable(KubeloreError):
    """A service, a store or a cluster cannot be reached now."""

    status = 503
    reason = "ServiceUnavailable"


class DeadlineExceeded(KubeloreError):
    """No answer in the time allowed."""

    status = 504
    reason = "Timeout"


class IntegrityError(KubeloreError):
    """Ciphertext, a hash or a chain does not verify: altered, misplaced, or a wrong key."""

    status = 500
    reason = "IntegrityError"


def _subclasses(root: type[KubeloreError]) -> dict[str, type[KubeloreError]]:
    """The classes by their reasons. One without a reason of its own is told apart by its code, where it was raised."""
    found = {root.reason: root} if "reason" in vars(root) else {}
    for child in root.__subclasses__():
        found.update(_subclasses(child))
    return found


def error_from_parts(
    reason: str, status: int, detail: str, remedy: str | None = None, extra: dict[str, Any] | None = None
) -> KubeloreError:
    """Rebuild an error that travelled as its parts (bus headers, a problem document).

    An unknown reason becomes the class whose status fits, so that a newer
    service may raise what an older one does not know.
    """
    known = _subclasses(KubeloreError)
    by_status = {error.status: error for error in reversed(list(known.values()))}
    kind = known.get(reason) or by_status.get(status, KubeloreError)
    members = dict(extra or {})
    if issubclass(kind, KubeconfigRefused):
        return kind(detail, code=str(members.pop("code", "unknown")), remedy=remedy, **members)
    return kind(detail, remedy=remedy, **members)
