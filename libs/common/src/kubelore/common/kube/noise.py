"""What of an object says nothing of how it was meant, and is left out when two clusters are compared.

What an API server, a controller or kubectl writes by itself differs between any
two clusters: times, uids, addresses, the node a pod came to run on. The rules
are data (`RULES`); whoever compares may add paths of their own.

A path is written as people write them: `spec.clusterIP`, `spec.ports[*].nodePort`,
`metadata.annotations['example.com/checked-at']`; `spec.volumes[name=cache-*]`
means the entries of a list whose name matches.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import Any, TypeAlias

import msgspec

from kubelore.common.errors import BadRequest

MAX_PATHS = 50
MAX_PATH = 500
DIGEST_BYTES = 16

_STEP = re.compile(
    r"""(?:^|\.)(?P<name>[^.\[\]'*=]+)
      | \[(?P<every>\*)\]
      | \['(?P<quoted>[^']+)'\]
      | \[(?P<key>[A-Za-z]+)=(?P<glob>[^\]']+)\]""",
    re.VERBOSE,
)


class Field(msgspec.Struct, frozen=True):
    """A field of a map; a name may be a glob (`kubelore.io/*`)."""

    name: str


class Every(msgspec.Struct, frozen=True):
    """The entries of a list: all, or those whose `key` matches a glob."""

    key: str = ""
    glob: str = ""


Step: TypeAlias = Field | Every
Path: TypeAlias = tuple[Step, ...]


class Rule(msgspec.Struct, frozen=True):
    """A path that is noise in objects of a type (`*`: of any), or only in those of these names.

    A value in `keep` was meant: a Service whose clusterIP is `None` is headless.
    """

    type: str
    path: str
    names: frozenset[str] = frozenset()
    keep: frozenset[str] = frozenset()


RULES: tuple[Rule, ...] = (
    Rule("*", "status"),
    Rule("*", "metadata.uid"),
    Rule("*", "metadata.resourceVersion"),
    Rule("*", "metadata.generation"),
    Rule("*", "metadata.creationTimestamp"),
    Rule("*", "metadata.deletionTimestamp"),
    Rule("*", "metadata.deletionGracePeriodSeconds"),
    Rule("*", "metadata.managedFields"),
    Rule("*", "metadata.selfLink"),
    Rule("*", "metadata.ownerReferences[*].uid"),
    Rule("*", "metadata.annotations['kubectl.kubernetes.io/last-applied-configuration']"),
    Rule("*", "metadata.annotations['kubelore.io/*']"),
    Rule("*", "spec.template.metadata.creationTimestamp"),
    Rule("*", "spec.template.metadata.annotations['kubectl.kubernetes.io/restartedAt']"),
    Rule("deployments.apps", "metadata.annotations['deployment.kubernetes.io/revision']"),
    Rule("replicasets.apps", "metadata.annotations['deployment.kubernetes.io/*']"),
    Rule("daemonsets.apps", "metadata.annotations['deprecated.daemonset.template.generation']"),
    Rule("services", "spec.clusterIP", keep=frozenset({"None"})),
    Rule("services", "spec.clusterIPs"),
    Rule("services", "spec.ipFamilies"),
    Rule("services", "spec.ports[*].nodePort"),
    Rule("services", "spec.healthCheckNodePort"),
    Rule("pods", "spec.nodeName"),
    Rule("pods", "spec.volumes[name=kube-api-access-*]"),
    Rule("pods", "spec.containers[*].volumeMounts[name=kube-api-access-*]"),
    Rule("pods", "spec.initContainers[*].volumeMounts[name=kube-api-access-*]"),
    Rule("jobs.batch", "metadata.labels['batch.kubernetes.io/controller-uid']"),
    Rule("jobs.batch", "metadata.labels['controller-uid']"),
    Rule("jobs.batch", "spec.selector.matchLabels['batch.kubernetes.io/controller-uid']"),
    Rule("jobs.batch", "spec.selector.matchLabels['controller-uid']"),
    Rule("jobs.batch", "spec.template.metadata.labels['batch.kubernetes.io/controller-uid']"),
    Rule("jobs.batch", "spec.template.metadata.labels['controller-uid']"),
    Rule("persistentvolumeclaims", "spec.volumeName"),
    Rule("persistentvolumeclaims", "metadata.annotations['pv.kubernetes.io/*']"),
    Rule("persistentvolumeclaims", "metadata.annotations['volume.*kubernetes.io/*']"),
    Rule("persistentvolumes", "spec.claimRef.uid"),
    Rule("persistentvolumes", "spec.claimRef.resourceVersion"),
    Rule("nodes", "spec.podCIDR"),
    Rule("nodes", "spec.podCIDRs"),
    Rule("nodes", "spec.providerID"),
    Rule("serviceaccounts", "secrets"),
    Rule("secrets", "metadata.annotations['kubernetes.io/service-account.uid']"),
    # Every cluster has its own authority, and puts it into every namespace.
    Rule("configmaps", "data", names=frozenset({"kube-root-ca.crt"})),
)

_EMPTY_IS_ABSENT = ("labels", "annotations", "ownerReferences")
"""Parts of the metadata that mean the same when empty as when absent."""

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder(order="deterministic").encode


class _Cut(msgspec.Struct, frozen=True):
    path: Path
    names: frozenset[str] = frozenset()
    keep: frozenset[str] = frozenset()


@lru_cache(maxsize=1024)
def parse_path(text: str) -> Path:
    """A path as steps. Raises BadRequest for what is none."""
    if len(text) > MAX_PATH:
        raise BadRequest(f"a path is longer than {MAX_PATH} characters")
    steps: list[Step] = []
    position = 0
    while position < len(text):
        found = _STEP.match(text, position)
        if found is None:
            break
        position = found.end()
        if found["every"]:
            steps.append(Every())
        elif found["key"]:
            steps.append(Every(found["key"], found["glob"]))
        else:
            steps.append(Field(found["name"] or found["quoted"]))
    if position < len(text) or not steps or isinstance(steps[0], Every):
        raise BadRequest(
            f"{text[:100]!r} is no path into an object",
            remedy="Write spec.replicas, spec.ports[*].nodePort or metadata.annotations['example.com/key'].",
        )
    return tuple(steps)


def parse_paths(text: str) -> tuple[Path, ...]:
    """Paths with commas between them (`ignore=`). Raises BadRequest for one that is none, and for too many."""
    written = [part for raw in _split(text) if (part := raw.strip())]
    if len(written) > MAX_PATHS:
        raise BadRequest(f"more than {MAX_PATHS} paths to ignore")
    return tuple(parse_path(part) for part in written)


def _split(text: str) -> list[str]:
    """The parts between commas, but for those within quotes; in one pass, since anybody may send many of both."""
    parts, quoted, start = [], False, 0
    for position, character in enumerate(text):
        if character == "'":
            quoted = not quoted
        elif character == "," and not quoted:
            parts.append(text[start:position])
            start = position + 1
    return [*parts, text[start:]]


def paths_of(type_name: str) -> list[str]:
    """What is left out of objects of a type, as written."""
    return [rule.path for rule in RULES if rule.type in ("*", type_name) and not rule.names]


@lru_cache(maxsize=512)
def _cuts(type_name: str) -> tuple[_Cut, ...]:
    return tuple(
        _Cut(parse_path(rule.path), rule.names, rule.keep) for rule in RULES if rule.type in ("*", type_name)
    )


def meant(
    type_name: str,
    raw: bytes,
    *,
    ignore: Iterable[Path] = (),
    hashes: Mapping[str, bytes] | None = None,
) -> dict[str, Any]:
    """An object's JSON without noise. `hashes` stand in for the values of a Secret, one for each key."""
    found: dict[str, Any] = _decode(raw)
    if hashes is not None:
        found["data"] = {key: value.hex() for key, value in hashes.items()}
    metadata = found.get("metadata") or {}
    for cut in (*_cuts(type_name), *map(_Cut, ignore)):
        if not cut.names or metadata.get("name") in cut.names:
            _remove(found, cut.path, cut.keep)
    for name in _EMPTY_IS_ABSENT:
        if not metadata.get(name, True):
            del metadata[name]
    return found


def digest(type_name: str, raw: bytes, hashes: Mapping[str, bytes] | None = None) -> bytes:
    """16 bytes that are equal for objects which were meant equal."""
    canonical = _encode(meant(type_name, raw, hashes=hashes))
    return blake2b(canonical, digest_size=DIGEST_BYTES).digest()


def _remove(value: Any, path: Path, keep: frozenset[str]) -> None:
    step, rest = path[0], path[1:]
    if isinstance(step, Field):
        if isinstance(value, dict):
            _remove_field(value, step.name, rest, keep)
    elif isinstance(value, list):
        if rest:
            for entry in value:
                if _fits(entry, step):
                    _remove(entry, rest, keep)
        else:
            value[:] = [entry for entry in value if not _fits(entry, step)]


def _remove_field(value: dict[str, Any], name: str, rest: Path, keep: frozenset[str]) -> None:
    names = fnmatch.filter(value, name) if "*" in name else [name] if name in value else []
    for each in names:
        if rest:
            _remove(value[each], rest, keep)
        elif not (isinstance(value[each], str) and value[each] in keep):
            del value[each]


def _fits(entry: Any, step: Every) -> bool:
    if not step.key:
        return True
    return isinstance(entry, dict) and fnmatch.fnmatchcase(str(entry.get(step.key, "")), step.glob)
