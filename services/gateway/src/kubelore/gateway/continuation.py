"""`continue` tokens: where the next page begins, sealed to the caller and the query, for 15 minutes."""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Callable

import msgspec

from kubelore.common.contracts.resources import SortKey
from kubelore.common.crypto import Sealer
from kubelore.common.errors import BadRequest, Gone, IntegrityError

LIFETIME_S = 15 * 60


class _Position(msgspec.Struct, array_like=True):
    after: SortKey
    expires: float


class Continuation:
    """Seals and opens positions. A token of another caller or query, or a changed one, does not open."""

    def __init__(self, sealer: Sealer, clock: Callable[[], float] = time.time) -> None:
        self._sealer = sealer
        self._clock = clock

    def seal(self, after: SortKey, binding: str) -> str:
        """The token for the page behind `after`; `binding` names the caller and the query."""
        plain = msgspec.msgpack.encode(_Position(after, self._clock() + LIFETIME_S))
        sealed = self._sealer.seal(plain, context=f"continue:{binding}")
        return base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()

    def open(self, token: str, binding: str) -> SortKey:
        """The position in a token; raises BadRequest for one that is not this caller's and query's, Gone when old."""
        try:
            sealed = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
            plain = self._sealer.open(sealed, context=f"continue:{binding}")
            position = msgspec.msgpack.decode(plain, type=_Position)
        except (binascii.Error, ValueError, IntegrityError, msgspec.MsgspecError) as error:
            raise BadRequest(
                "the continue token does not belong to this query",
                remedy="Send it with the same parameters that it was given for, or start from the first page.",
            ) from error
        if position.expires < self._clock():
            raise Gone("the continue token has expired", remedy="Start again from the first page.")
        return position.after

    def open_name(self, token: str, binding: str) -> str:
        """The name in a token of a list that goes by names; raises as `open`."""
        match self.open(token, binding):
            case [str(name)]:
                return name
        raise BadRequest("the continue token is no position among names")
