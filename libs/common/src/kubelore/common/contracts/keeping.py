"""What yaml-vcs answers about keeping: values of Secrets, redactions, policies, proofs, what is parked or goes."""

from __future__ import annotations

import msgspec

from kubelore.common.contracts.endpoint import Endpoint
from kubelore.common.contracts.versions import SERVICE


class RevealValues(msgspec.Struct, kw_only=True):
    """Ask for the values of one version of a Secret; all of them without `keys`.

    `nonce` is the asker's, and binds the answer to this question. `reason` is kept.
    """

    id: str
    version: int
    nonce: str
    reason: str
    keys: list[str] = []


class RevealedValues(msgspec.Struct, kw_only=True):
    """The msgpack of `{key: value bytes}`, sealed to the gateway's key under `reveal_context`."""

    id: str
    version: int
    sealed: bytes


def reveal_context(nonce: str, id_: str, version: int) -> str:
    """What revealed values are bound to: one question about one version."""
    return f"reveal:{nonce}:{version}:{id_}"


class RedactVersion(msgspec.Struct, kw_only=True):
    """Take the content of a version out of the history, and of every version of the object that holds the same."""

    id: str
    version: int
    reason: str


class RedactedVersions(msgspec.Struct, kw_only=True):
    """Which versions hold no content any more."""

    id: str
    versions: list[int]


REVEAL = Endpoint(SERVICE, "reveal", RevealValues, RevealedValues)
REDACT = Endpoint(SERVICE, "redact", RedactVersion, RedactedVersions, deadline_s=15.0)

ENDPOINTS = (REVEAL, REDACT)
