"""What the gateway answers to services: for whom it still vouches, when work outlasts a caller's token."""

from __future__ import annotations

import msgspec

from kubelore.common.contracts.endpoint import Endpoint

SERVICE = "gateway"


class Vouch(msgspec.Struct, kw_only=True):
    """A token by which the gateway once vouched for a caller; it may have expired.

    `lasting` asks for work that outlives a login, such as a schedule: a browser's
    session is then traded for the credential that it was opened with.
    """

    token: str
    lasting: bool = False


class Vouched(msgspec.Struct, kw_only=True):
    """A token for the same caller, with what is granted to them now; good for at least 30 s."""

    token: str


VOUCH = Endpoint(SERVICE, "vouch", Vouch, Vouched, on_behalf=False, callers=("yaml-vcs", "container-ops"))

ENDPOINTS = (VOUCH,)
