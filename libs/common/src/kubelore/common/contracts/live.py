"""What resource-ops tells of objects as the API server has them at this moment, for what is decided by it.

The read model follows the API server by a moment; a rollback computed against
that moment would be refused, or would show a difference that is none. Any
replica answers.
"""

from __future__ import annotations

import msgspec

from kubelore.common.contracts.endpoint import Endpoint
from kubelore.common.contracts.resources import SERVICE

MAX_LIVE = 100


class ReadLive(msgspec.Struct, kw_only=True):
    """Objects of one cluster, at most 100, by their resource ids."""

    cluster: str
    ids: list[str]


class LiveObject(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One object as the API server's own JSON, of a Secret without its values; all empty where there is none.

    `hmacs` maps each key of a Secret to the keyed hash of its value, as in a `Change`.
    """

    id: str
    uid: str = ""
    rv: str = ""
    object: bytes = b""
    hmacs: dict[str, bytes] | None = None


class LiveObjects(msgspec.Struct):
    """One for each id, in their order; what the caller may not read is told as what is not there."""

    items: list[LiveObject]


LIVE = Endpoint(SERVICE, "live", ReadLive, LiveObjects, deadline_s=15.0, callers=("yaml-vcs",))

ENDPOINTS = (LIVE,)
