"""What is sent to the cluster to make an object what one of its versions says. Pure.

A version holds what somebody asked for. What normalising left out is carried
over from the object as it is now, so that a rollback changes nothing that it
does not show; an object that is gone is made anew, without what only the old one
could have (`restore_rules`).
"""

from __future__ import annotations

import base64
import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from kubelore.common.contracts.rollbacks import Expected, Refusal
from kubelore.common.errors import Conflict, IntegrityError, Invalid, KubeloreError
from kubelore.yaml_vcs.history import Entry
from kubelore.yaml_vcs.normalising import HMACS, METADATA, RULES, SECRETS, Normaliser, content_hash, decoded
from kubelore.yaml_vcs.repository import Resource
from kubelore.yaml_vcs.restore_rules import OWNER_MISSING, REASONS
from kubelore.yaml_vcs.restoring import adopt, cut_fields

ABSENT = "absent"
"""The content hash of an object that is not there."""
ADDRESSES = frozenset({"cluster-ip", "node-port"})
"""What the cluster gives out and may give out again: kept as long as the API server does not refuse it."""
_SERVERS = frozenset(
    path[1] for rule in RULES for path in rule.paths if path[0] == METADATA and len(path) == 2
)
RUNS_AGAIN = "it runs again: what a Job did is no part of a version"

Object = dict[str, Any]
Step = Literal["replace", "create", "delete", "none"]


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """An object as the API server has it now, and what a version of it would hold; all empty where there is none."""

    uid: str = ""
    rv: str = ""
    object: Object = {}
    content: bytes = b""

    @property
    def there(self) -> bool:
        """Whether there is one."""
        return bool(self.uid)

    @property
    def content_hash(self) -> str:
        """Names what a version would hold."""
        return content_hash(self.content).hex() if self.there else ABSENT


class Intent(msgspec.Struct, frozen=True, kw_only=True):
    """One object, the version that it is to be like (empty content: gone), and what it is now."""

    resource: Resource
    entry: Entry | None
    content: bytes
    live: Live
    unknown: str = ""
    """Why nobody can say what the version held; then nothing is done."""

    @property
    def step(self) -> Step:
        """What is to be done."""
        if self.live.content == self.content:
            return "none"
        if not self.content:
            return "delete"
        return "replace" if self.live.there else "create"


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What is written, and what of the version is knowingly not in it."""

    object: Object
    notes: tuple[str, ...] = ()


def by_rules(rules: Normaliser, type_name: str, content: bytes, live: Live) -> bytes:
    """What a version holds, without what the rules of its cluster leave out since it was made.

    That stays as it is in the object; of one that is gone there is only what the version says.
    """
    return rules.content(type_name, decoded(content)) if content and live.there else content


def replacing(intent: Intent, dropped: Sequence[Sequence[str]]) -> Manifest:
    """The manifest over an object that is there; `dropped` are the fields that no version of its type holds."""
    found, live = _decoded(intent.content), intent.live
    for path in dropped:
        _carry(found, live.object, path)
    # What the API server itself writes into metadata is not for a manifest to say.
    found[METADATA] = {name: value for name, value in found[METADATA].items() if name not in _SERVERS}
    notes: list[str] = []
    if intent.entry is not None and intent.entry.uid != live.uid and intent.resource.type == "services":
        # The addresses of another Service: this one keeps its own, which cannot be changed.
        notes = [REASONS[rule] for rule in cut_fields(intent.resource.type, found)]
        _carry(found, live.object, ("status",))
    return Manifest(object=found, notes=tuple(notes))


def creating(intent: Intent, uids: Mapping[str, str], *, addresses: bool) -> Manifest:
    """The manifest of an object that is gone.

    `uids` are the uids now of owners that are there, by what they were; with
    `addresses` it asks for the addresses and ports that it had.
    """
    found, type_name = _decoded(intent.content), intent.resource.type
    rules = cut_fields(type_name, found, ADDRESSES if addresses else frozenset())
    if adopt(found[METADATA], uids):
        rules.append(OWNER_MISSING)
    notes = [f"{rule}: {REASONS[rule]}" for rule in dict.fromkeys(rules)]
    if type_name == "jobs.batch":
        notes.append(RUNS_AGAIN)
    return Manifest(object=found, notes=tuple(notes))


def with_values(manifest: Manifest, content: bytes, values: Mapping[str, bytes]) -> Object:
    """The manifest of a Secret with its values. Raises IntegrityError when they are of other keys than the version's."""
    if set(msgspec.json.decode(content).get(HMACS, ())) != set(values):
        raise IntegrityError("the values that were kept are not those of the version's keys")
    data = {key: base64.b64encode(value).decode() for key, value in values.items()}
    return {**manifest.object, "data": data} if data else manifest.object


def has_values(content: bytes) -> bool:
    """Whether a version of a Secret has any key."""
    return bool(msgspec.json.decode(content).get(HMACS))


def is_secret(resource: Resource) -> bool:
    """Whether an object's values are not to be seen."""
    return resource.type == SECRETS


def check_expected(id_: str, live: Live, expected: Expected | None) -> None:
    """Raise Conflict when an object is not what a preview saw."""
    if expected is None:
        return
    moved = expected.resource_version and expected.resource_version != live.rv
    changed = expected.content_hash and expected.content_hash != live.content_hash
    if moved or changed:
        raise Conflict(
            f"{id_} has changed since the preview",
            remedy="Look at what it would do now, or say `force` to do it all the same.",
            code="changed-since-preview",
            resource_version=live.rv,
        )


def refusal(error: KubeloreError) -> Refusal:
    """Why a write is refused, naming the fields that cannot be changed."""
    fields = error.extra.get("fields")
    if not isinstance(fields, list):
        fields = []
    return Refusal(
        reason=error.reason,
        detail=error.detail,
        remedy=error.remedy or "",
        fields=[str(one) for one in fields],
    )


def with_remedy(error: KubeloreError, intent: Intent) -> KubeloreError:
    """A refusal for fields that cannot be changed, saying what would help; any other error as it is."""
    fields = error.extra.get("fields")
    if not isinstance(error, Invalid) or not fields or intent.step != "replace":
        return error
    return Invalid(
        error.detail,
        remedy="Delete the object and roll back again: it is then made anew, with these fields.",
        **error.extra,
    )


def _decoded(content: bytes) -> Object:
    found: Object = msgspec.json.decode(content)
    found.pop(HMACS, None)
    metadata = found.get(METADATA)
    found[METADATA] = metadata if isinstance(metadata, dict) else {}
    return found


def _carry(found: Object, live: Object, path: Sequence[str]) -> None:
    """Put what a live object has at a path into another one."""
    name, *rest = path
    if rest:
        inner = live.get(name)
        if isinstance(inner, dict):
            target = found.get(name)
            made: Object = target if isinstance(target, dict) else {}
            _carry(made, inner, rest)
            if made:
                found[name] = made
        return
    for field, value in live.items():
        if fnmatch.fnmatchcase(field, name):
            found[field] = value
