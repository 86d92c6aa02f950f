"""What of an object a version holds: what somebody asked for, without what the cluster writes beside it.

The rules are data. A change that leaves the normalised object as it was is no
version, so that a Deployment rolled by its controller has one version more and
not nine. The content is canonical JSON (names sorted, no spaces): equal objects
have equal bytes, whichever API server sent them.
"""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol

import msgspec

from kubelore.common.contracts.changes import UNPUBLISHED
from kubelore.common.errors import Invalid

HASH_BYTES = 20
"""SHA-256 cut to 160 bits, as long as git's: nobody finds two contents of one hash, and it is kept per version."""
SECRETS = "secrets"
METADATA = "metadata"
MANAGED = "managedFields"
HMACS = "hmacs"
"""Where the content of a Secret says, per key, the keyed hash of the value; the values are sealed beside it."""


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """Fields that no version holds, for types that a glob matches (`deployments.apps`, `*`).

    A path is the names to a field; its last may be a glob, since annotations
    share a prefix.
    """

    paths: tuple[tuple[str, ...], ...]
    types: str = "*"


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What is versioned, and what of it: types, namespaces and labels left out, and the rules."""

    rules: tuple[Rule, ...]
    excluded_types: tuple[str, ...] = tuple(sorted(UNPUBLISHED))
    excluded_namespaces: tuple[str, ...] = ()
    excluded_labels: tuple[tuple[str, str], ...] = ()
    included_types: tuple[str, ...] = ("*",)
    included_namespaces: tuple[str, ...] = ("*",)
    number: int = 0
    """Stands in the versions that were made under it."""


RULES = (
    Rule(
        paths=(
            ("status",),
            ("metadata", "managedFields"),
            ("metadata", "resourceVersion"),
            ("metadata", "uid"),
            ("metadata", "generation"),
            ("metadata", "creationTimestamp"),
            ("metadata", "deletionTimestamp"),
            ("metadata", "deletionGracePeriodSeconds"),
            ("metadata", "selfLink"),
            ("metadata", "annotations", "kubectl.kubernetes.io/last-applied-configuration"),
            ("metadata", "annotations", "control-plane.alpha.kubernetes.io/leader"),
            ("metadata", "annotations", "autoscaling.alpha.kubernetes.io/*"),
        )
    ),
    Rule(types="deployments.apps", paths=(("metadata", "annotations", "deployment.kubernetes.io/revision"),)),
    Rule(
        types="replicasets.apps",
        paths=(("metadata", "annotations", "deployment.kubernetes.io/*"),),
    ),
    Rule(
        types="nodes",
        paths=(
            ("metadata", "annotations", "*.alpha.kubernetes.io/*"),
            ("metadata", "annotations", "volumes.kubernetes.io/*"),
        ),
    ),
)
"""What the API server, kubectl and the controllers of Kubernetes 1.34 write beside what was asked for."""

DEFAULT = Policy(rules=RULES)


def versioned(policy: Policy, type_name: str, namespace: str, labels: Mapping[str, str]) -> bool:
    """Whether objects like this one get versions at all."""
    if not _matches(type_name, policy.included_types) or _matches(type_name, policy.excluded_types):
        return False
    if namespace and not _matches(namespace, policy.included_namespaces):
        return False
    if namespace and _matches(namespace, policy.excluded_namespaces):
        return False
    return not any(labels.get(key) == value for key, value in policy.excluded_labels)


class Writer(msgspec.Struct, frozen=True):
    """One entry of managedFields: who owns some fields, since when (to the second), and which."""

    manager: str
    operation: str
    subresource: str
    time: str
    fields: int


class Read(msgspec.Struct, frozen=True):
    """What was read from an object's JSON: its canonical content, its labels, who owns what of it."""

    content: bytes
    labels: dict[str, str]
    writers: tuple[Writer, ...]


class _Plan(msgspec.Struct, frozen=True):
    """The rules of a type by where they reach: whole fields of the object and of its metadata, and the rest."""

    whole: frozenset[str]
    of_metadata: frozenset[str]
    deeper: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, paths: Iterable[tuple[str, ...]]) -> _Plan:
        whole: set[str] = set()
        of_metadata: set[str] = set()
        deeper: list[tuple[str, ...]] = []
        for path in paths:
            if len(path) == 1 and "*" not in path[0] and path[0] != METADATA:
                whole.add(path[0])
            elif len(path) == 2 and path[0] == METADATA and "*" not in path[1]:
                of_metadata.add(path[1])
            else:
                deeper.append(path)
        return cls(frozenset(whole), frozenset(of_metadata), tuple(deeper))


@lru_cache(maxsize=8192)
def _matches(name: str, globs: tuple[str, ...]) -> bool:
    """Remembered, since every change asks it of its type and of its namespace."""
    return any(fnmatch.fnmatchcase(name, glob) for glob in globs)


class Normaliser:
    """Takes objects apart by the rules of one policy; the paths of a type are looked up once."""

    def __init__(self, policy: Policy = DEFAULT) -> None:
        self.policy = policy
        self._paths: dict[str, tuple[tuple[str, ...], ...]] = {}
        self._plans: dict[str, _Plan] = {}

    def read(self, type_name: str, raw: bytes, hmacs: Mapping[str, bytes] | None = None) -> Read:
        """An object's bytes as `content` and `writers` make it, at half the cost: what is left out is not decoded.

        Raises Invalid when the bytes are no object.
        """
        plan = self._plans.get(type_name)
        if plan is None:
            plan = self._plans[type_name] = _Plan.of(self.paths_of(type_name))
        try:
            parts = _parts(raw)
            held = parts.pop(METADATA, None)
            of_metadata = _parts(held) if held is not None else {}
            owners = _owners(of_metadata.get(MANAGED))
            found = {name: _value(part) for name, part in parts.items() if name not in plan.whole}
            kept = {name: _value(part) for name, part in of_metadata.items() if name not in plan.of_metadata}
            labels = _value(of_metadata.get("labels", _NULL)) or {}
        except msgspec.MsgspecError:
            # Not chained: the message may quote what it could not decode.
            raise Invalid("the change holds no JSON object with metadata") from None
        if held is not None and (kept or not plan.of_metadata):
            found[METADATA] = kept
        for path in plan.deeper:
            _drop(found, path)
        return Read(_canonical(found, hmacs), labels, owners)

    def of(self, _cluster: str) -> Normaliser:
        """Itself: one policy for every cluster."""
        return self

    def content(
        self, type_name: str, found: dict[str, Any], hmacs: Mapping[str, bytes] | None = None
    ) -> bytes:
        """The canonical bytes of an object, which is changed on the way.

        With `hmacs` (a Secret) they stand for the values, which must not be in it any more.
        """
        for path in self.paths_of(type_name):
            _drop(found, path)
        return _canonical(found, hmacs)

    def paths_of(self, type_name: str) -> tuple[tuple[str, ...], ...]:
        """The fields that no version of a type holds."""
        paths = self._paths.get(type_name)
        if paths is None:
            rules = (rule for rule in self.policy.rules if fnmatch.fnmatchcase(type_name, rule.types))
            paths = self._paths[type_name] = tuple(path for rule in rules for path in rule.paths)
        return paths


class Normalisers(Protocol):
    """Knows the rules of each cluster."""

    def of(self, cluster: str, /) -> Normaliser:
        """What takes the objects of a cluster apart now."""
        ...


def _canonical(found: dict[str, Any], hmacs: Mapping[str, bytes] | None) -> bytes:
    if hmacs is not None:
        found[HMACS] = {key: value[:16].hex() for key, value in hmacs.items()}
    return msgspec.json.encode(found, order="deterministic")


def decoded(raw: bytes) -> dict[str, Any]:
    """An object's JSON. Raises Invalid when the bytes are none, which is for good."""
    try:
        return msgspec.json.decode(raw, type=dict[str, Any])
    except msgspec.MsgspecError:
        # Not chained: the message may quote what it could not decode.
        raise Invalid("the change holds no JSON object") from None


def content_hash(content: bytes) -> bytes:
    """What names a content: equal for equal contents and for no others."""
    return hashlib.sha256(content).digest()[:HASH_BYTES]


def writers(found: Mapping[str, Any]) -> tuple[Writer, ...]:
    """Who owns what of an object, as managedFields say."""
    managed = found.get("metadata", {}).get("managedFields")
    entries = [entry for entry in managed if isinstance(entry, dict)] if isinstance(managed, list) else []
    return tuple(
        Writer(
            manager=str(entry.get("manager", ""))[:128],
            operation=str(entry.get("operation", ""))[:16],
            subresource=str(entry.get("subresource", "")),
            time=str(entry.get("time", "")),
            fields=hash(msgspec.json.encode(entry.get("fieldsV1"))),
        )
        for entry in entries
    )


_NULL = msgspec.Raw(b"null")


class _Managed(msgspec.Struct, rename="camel"):
    manager: str = ""
    operation: str = ""
    subresource: str = ""
    time: str = ""
    fields_v1: msgspec.Raw = msgspec.field(default=_NULL, name="fieldsV1")


_parts = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_value = msgspec.json.Decoder().decode
_managed = msgspec.json.Decoder(list[_Managed]).decode


def _owners(raw: msgspec.Raw | None) -> tuple[Writer, ...]:
    if raw is None:
        return ()
    try:
        entries = _managed(raw)
    except msgspec.ValidationError:
        return writers({METADATA: {MANAGED: _value(raw)}})
    return tuple(
        Writer(
            manager=one.manager[:128],
            operation=one.operation[:16],
            subresource=one.subresource,
            time=one.time,
            fields=hash(bytes(one.fields_v1)),
        )
        for one in entries
    )


def who_wrote(before: Iterable[Writer], after: Sequence[Writer]) -> tuple[str, str]:
    """Field manager and operation (`Update`, `Apply`) of the write that led from one state to the other.

    Times are whole seconds, so the newest entry alone may be of the write before
    it: an entry that was not there before, or has another time, tells more, and
    one that owns other fields tells something. Entries for a subresource
    (`status`, `scale`) count only when there is no other. Empty where nothing tells.
    """
    candidates = [one for one in after if not one.subresource] or list(after)
    known = set(before)
    dated = {(one.manager, one.operation, one.subresource, one.time) for one in known}
    fresh = [
        one for one in candidates if (one.manager, one.operation, one.subresource, one.time) not in dated
    ]
    changed = [one for one in candidates if one not in known]
    newest = max(fresh or changed or candidates, key=lambda one: one.time, default=None)
    return (newest.manager, newest.operation) if newest is not None else ("", "")


def _drop(found: dict[str, Any], path: Sequence[str]) -> None:
    """Remove a field, and the maps that held nothing else."""
    name, *rest = path
    if rest:
        inner = found.get(name)
        if isinstance(inner, dict):
            _drop(inner, rest)
            if not inner:
                del found[name]
        return
    for field in _matching(found, name):
        del found[field]


def _matching(found: Mapping[str, Any], name: str) -> Iterable[str]:
    if "*" in name:
        return [field for field in found if fnmatch.fnmatchcase(field, name)]
    return (name,) if name in found else ()
