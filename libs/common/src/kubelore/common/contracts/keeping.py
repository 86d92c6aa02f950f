"""What yaml-vcs answers about keeping: values of Secrets, redactions, policies, proofs, what is parked or goes."""

from __future__ import annotations

from typing import Literal

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


class FieldRule(msgspec.Struct, kw_only=True, frozen=True):
    """Fields that no version holds, for types that a glob matches; the last name of a path may be a glob."""

    types: str
    paths: list[list[str]]


class Retention(msgspec.Struct, kw_only=True, frozen=True):
    """What is kept of each object: all versions for `days`, behind them the last of each day.

    `max_days`, `max_versions` and `max_bytes` (per object) drop the oldest over
    them; 0 is no bound. The newest version, the newest with a content, tagged
    ones and what a branch begins at are always kept.
    """

    days: int = 30
    max_days: int = 0
    max_versions: int = 0
    max_bytes: int = 0


class VersionPolicy(msgspec.Struct, kw_only=True, frozen=True):
    """What is versioned of a cluster, and for how long. Types and namespaces are globs.

    `rules` come on top of those that hold everywhere. `number` rises with every
    change, and stands in the versions made under it; 0 are the defaults.
    """

    cluster: str
    include_types: tuple[str, ...] = ("*",)
    exclude_types: tuple[str, ...] = ()
    include_namespaces: tuple[str, ...] = ("*",)
    exclude_namespaces: tuple[str, ...] = ()
    exclude_labels: dict[str, str] = {}
    rules: list[FieldRule] = []
    retention: Retention = Retention()
    number: int = 0
    changed_by: str = ""
    changed_at: float = 0.0


class VersionPolicyRef(msgspec.Struct):
    """The policy of which cluster."""

    cluster: str


class ListVersionPolicies(msgspec.Struct):
    """Every policy of clusters that the caller administers."""


class PolicyList(msgspec.Struct):
    """Policies by cluster; clusters without one have the defaults."""

    items: list[VersionPolicy]


Outcome = Literal["recorded", "late", "unchanged"]


class ListParked(msgspec.Struct, kw_only=True):
    """A page of the changes that could not be taken, behind a number."""

    after: int = 0
    limit: int = 100


class ParkedChange(msgspec.Struct, kw_only=True):
    """One of them; without an id where it cannot be read, or is no change of an object. Times are ISO 8601."""

    number: int
    reason: str
    error_id: str
    parked_at: str
    cluster: str = ""
    resource_id: str = ""
    happened: str = ""
    resource_version: str = ""
    changed_at: str | None = None


class ParkedPage(msgspec.Struct):
    """Parked changes, oldest first, and the `after` of the page behind; None at the end."""

    items: list[ParkedChange]
    next: int | None = None


class ReplayParked(msgspec.Struct):
    """Take which one again."""

    number: int


class Replayed(msgspec.Struct, kw_only=True):
    """What became of it: a version, a `late` change beside newer ones, or nothing, since it needs no version."""

    number: int
    outcome: Outcome


POLICIES = Endpoint(SERVICE, "policies", ListVersionPolicies, PolicyList)
POLICY = Endpoint(SERVICE, "policy", VersionPolicyRef, VersionPolicy)
SET_POLICY = Endpoint(SERVICE, "set-policy", VersionPolicy, VersionPolicy)
DROP_POLICY = Endpoint(SERVICE, "drop-policy", VersionPolicyRef, VersionPolicy)
REVEAL = Endpoint(SERVICE, "reveal", RevealValues, RevealedValues)
REDACT = Endpoint(SERVICE, "redact", RedactVersion, RedactedVersions, deadline_s=15.0)

PARKED = Endpoint(SERVICE, "parked", ListParked, ParkedPage)
REPLAY_PARKED = Endpoint(SERVICE, "replay-parked", ReplayParked, Replayed, deadline_s=15.0)

ENDPOINTS = (REVEAL, REDACT, POLICIES, POLICY, SET_POLICY, DROP_POLICY, PARKED, REPLAY_PARKED)
