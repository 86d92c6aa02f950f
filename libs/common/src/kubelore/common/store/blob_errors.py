"""obstore's errors become ours, with the original as the cause."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from obstore import exceptions

from kubelore.common.errors import (
    AlreadyExists,
    BadRequest,
    Conflict,
    DeadlineExceeded,
    KubeloreError,
    NotFound,
    Unavailable,
    Unsupported,
)

_REACH = "Check that the blob store can be reached, that its bucket exists, and KUBELORE_BLOB_URL."
_CREDENTIALS = "Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and what the key may do."


@contextmanager
def translated(key: str) -> Iterator[None]:
    """Run an operation on the blob `key` with our errors."""
    try:
        yield
    except (exceptions.BaseError, OSError) as error:
        raise _ours(error, key) from error


def _ours(error: BaseException, key: str) -> KubeloreError:
    match error:
        case FileNotFoundError():
            return NotFound(f"There is no blob {key!r}.")
        case exceptions.AlreadyExistsError() | FileExistsError():
            return AlreadyExists(f"There is a blob {key!r} already.")
        case exceptions.PermissionDeniedError() | exceptions.UnauthenticatedError():
            return Unavailable("The blob store refuses this service's credentials.", remedy=_CREDENTIALS)
        case TimeoutError():
            return DeadlineExceeded(f"The blob store did not answer in time ({key!r}).")
        case exceptions.InvalidPathError():
            return BadRequest(f"{key!r} cannot be the key of a blob.")
        case exceptions.NotSupportedError():
            return Unsupported("The blob store cannot do this.")
        case IsADirectoryError() | NotADirectoryError():
            return Conflict(f"{key!r} is a folder of other blobs, or lies under one.")
        case OSError():
            return Unavailable(
                f"The blob folder cannot be used: {error.strerror or type(error).__name__}.",
                remedy="Check its permissions and the space on its disk.",
            )
        case _:
            return Unavailable(f"The blob store cannot be used ({key!r}).", remedy=_REACH)
