"""The API server's errors: every refusal is a `Status` object with the reason a real server gives."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]


class ApiError(Exception):
    """A request refused; `status()` is the body that the client reads."""

    def __init__(
        self, code: int, reason: str, message: str, *, details: Json | None = None, continue_: str = ""
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        self.continue_ = continue_

    def status(self) -> Json:
        """The `Status` object, as it travels in a body or in a watch's ERROR event."""
        answer: Json = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {"continue": self.continue_} if self.continue_ else {},
            "status": "Failure",
            "message": self.message,
            "code": self.code,
        }
        if self.reason:
            answer["reason"] = self.reason
        if self.details:
            answer["details"] = self.details
        return answer


def _details(name: str, group: str, kind: str) -> Json:
    parts = {"name": name, "group": group, "kind": kind}
    return {key: value for key, value in parts.items() if value}


def _qualified(group: str, plural: str) -> str:
    return f"{plural}.{group}" if group else plural


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def unauthorized() -> ApiError:
    return ApiError(401, "Unauthorized", "Unauthorized")


def forbidden(group: str, plural: str, name: str, why: str) -> ApiError:
    target = f'{_qualified(group, plural)} "{name}"' if name else _qualified(group, plural)
    message = f"{target} is forbidden: {why}"
    return ApiError(403, "Forbidden", message, details=_details(name, group, plural))


def not_found(group: str, plural: str, name: str) -> ApiError:
    message = f'{_qualified(group, plural)} "{name}" not found'
    return ApiError(404, "NotFound", message, details=_details(name, group, plural))


def no_such_resource() -> ApiError:
    return ApiError(404, "NotFound", "the server could not find the requested resource", details={})


def method_not_allowed() -> ApiError:
    return ApiError(
        405, "MethodNotAllowed", "the server does not allow this method on the requested resource"
    )


def not_acceptable() -> ApiError:
    message = "only the following media types are accepted: application/json"
    return ApiError(406, "NotAcceptable", message)


def already_exists(group: str, plural: str, name: str) -> ApiError:
    message = f'{_qualified(group, plural)} "{name}" already exists'
    return ApiError(409, "AlreadyExists", message, details=_details(name, group, plural))


def conflict(group: str, plural: str, name: str, why: str) -> ApiError:
    message = f'Operation cannot be fulfilled on {_qualified(group, plural)} "{name}": {why}'
    return ApiError(409, "Conflict", message, details=_details(name, group, plural))


def expired(message: str, *, continue_: str = "") -> ApiError:
    return ApiError(410, "Expired", message, continue_=continue_)


def too_large(limit: int) -> ApiError:
    return ApiError(413, "RequestEntityTooLarge", f"Request entity too large: limit is {limit}")


def unsupported_media_type(content_type: str) -> ApiError:
    message = f"the body of the request was in an unknown format: {content_type}"
    return ApiError(415, "UnsupportedMediaType", message)


def invalid(group: str, kind: str, name: str, field: str, why: str) -> ApiError:
    """422 with one cause; `why` is written as the real server does ("Required value: ...")."""
    target = f"{kind}.{group}" if group else kind
    details = {
        **_details(name, group, kind),
        "causes": [{"reason": "FieldValueInvalid", "message": why, "field": field}],
    }
    return ApiError(422, "Invalid", f'{target} "{name}" is invalid: {field}: {why}', details=details)


def not_implemented(what: str) -> ApiError:
    """What a real API server can do and this one can't: never a wrong answer instead."""
    return ApiError(501, "NotImplemented", f"kubesim does not implement {what}")


def too_large_version(asked: int, current: int) -> ApiError:
    message = f"Too large resource version: {asked}, current: {current}"
    causes = [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]
    return ApiError(504, "Timeout", message, details={"causes": causes, "retryAfterSeconds": 1})
