"""PyMongo's errors become ours, with the original as the cause. No connection string is ever repeated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bson.errors import BSONError
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    ConnectionFailure,
    DocumentTooLarge,
    DuplicateKeyError,
    ExecutionTimeout,
    NetworkTimeout,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WTimeoutError,
)

from kubelore.common.errors import (
    AlreadyExists,
    Conflict,
    DeadlineExceeded,
    Invalid,
    KubeloreError,
    TooLarge,
    Unavailable,
)

DUPLICATE_KEY = 11000
# https://www.mongodb.com/docs/manual/reference/error-codes/
_CREDENTIALS = {13, 18}
_INDEX_CLASH = {85, 86}
_TOO_LARGE = {10334, 17280, 17419, 17420}
_UNSTORABLE = {2, 9, 14, 15, 22, 28, 40, 52, 66}

_REACH = "Check that MongoDB runs and can be reached, and KUBELORE_MONGO_URL."


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Run an operation on `what` (a collection's name) with our errors.

    A lost connection or a passed deadline leaves open whether a write happened.
    """
    try:
        yield
    except DocumentTooLarge as error:
        raise _too_large(what) from error
    except PyMongoError as error:
        raise _ours(error, what) from error
    except (BSONError, OverflowError, UnicodeEncodeError) as error:
        raise Invalid(f"A document for {what} holds something that cannot be stored.") from error


def _ours(error: PyMongoError, what: str) -> KubeloreError:
    match error:
        case DuplicateKeyError():
            return AlreadyExists(f"{what} has one with this key already.", fields=_duplicate_fields(error))
        case ServerSelectionTimeoutError():
            return Unavailable(f"The database cannot be reached ({what}).", remedy=_REACH)
        case NetworkTimeout() | ExecutionTimeout() | WTimeoutError():
            return DeadlineExceeded(f"The database did not answer in time ({what}).")
        case AutoReconnect() | ConnectionFailure():
            return Unavailable(f"The connection to the database was lost ({what}).", remedy=_REACH)
        case OperationFailure():
            return _refused(error, what)
        case _ if error.timeout:
            return DeadlineExceeded(f"The database did not answer in time ({what}).")
        case _:
            return Unavailable(
                f"The database cannot be used ({what}): {type(error).__name__}.", remedy=_REACH
            )


def _refused(error: OperationFailure, what: str) -> KubeloreError:
    if error.timeout:
        return DeadlineExceeded(f"The database did not answer in time ({what}).")
    if error.code in _CREDENTIALS:
        return Unavailable(
            f"The database refuses this service's credentials ({what}).",
            remedy="Check the user and the password in KUBELORE_MONGO_URL, and the user's roles.",
        )
    if error.code in _INDEX_CLASH:
        return Conflict(f"{what} has this index with other options.", remedy="Drop the old index first.")
    if error.code in _TOO_LARGE:
        return _too_large(what)
    if error.code in _UNSTORABLE:
        return Invalid(f"The database refuses the request on {what} (code {error.code}).", code=error.code)
    return Unavailable(f"The database refused the request on {what} (code {error.code}).", code=error.code)


def _too_large(what: str) -> TooLarge:
    return TooLarge(f"A document for {what} is over MongoDB's 16 MB.")


def _duplicate_fields(error: DuplicateKeyError) -> list[str]:
    details = error.details or {}
    pattern = details.get("keyPattern")
    return list(pattern) if isinstance(pattern, dict) else []


def only_duplicates(error: BulkWriteError) -> bool:
    """Whether a bulk insert failed for nothing but keys that were there already."""
    details = error.details or {}
    failures = details.get("writeErrors") or []
    return not details.get("writeConcernErrors") and all(one.get("code") == DUPLICATE_KEY for one in failures)
