"""What differs between two JSON objects, as paths with the value on either side.

Items of a list are matched by their merge key where one is known (`LIST_KEYS`,
from the markers in k8s.io/api: patchMergeKey, listMapKey), else by `name` when
all of them have one of their own, else by their place. What nobody asked for
(status, managedFields, what the API server counts up) is left out beforehand by
rules that are data (`NOISE`, `quiet`). Pure; values are shared with the input,
never copied or changed.

    differences(old, new)        [Difference(("spec", "replicas"), 2, 3)]
    str of its path              spec.template.spec.containers[name=web].image
    patched(old, differences)    equals new

The values of a Secret must be taken out before (`kubelore.common.kube.secrets`):
nothing here hides them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import msgspec

ABSENT = msgspec.UNSET
MAX_DEPTH = 100
"""What lies deeper is compared whole: no object that a person wrote is as deep."""

LIST_KEYS: dict[str, tuple[str, ...]] = {
    "containers.env": ("name",),
    "initContainers.env": ("name",),
    "containers.ports": ("containerPort", "protocol"),
    "initContainers.ports": ("containerPort", "protocol"),
    "spec.ports": ("port", "protocol"),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "hostAliases": ("ip",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "conditions": ("type",),
    "status.addresses": ("type",),
    "status.podIPs": ("ip",),
    "ownerReferences": ("uid",),
}
"""The last names of a list's path, one or two of them, and the fields that tell its items apart."""
_KEY_DEFAULTS: dict[str, Any] = {"protocol": "TCP"}
_BY_NAME = ("name",)


class Key(msgspec.Struct, frozen=True):
    """An item of a list, found by the fields that tell it apart."""

    fields: tuple[tuple[str, str | int], ...]


class Order(msgspec.Struct, frozen=True):
    """The order of the items of a list; the values of such a difference are the items' keys."""

    fields: tuple[str, ...]


Segment: TypeAlias = str | int | Key | Order
"""A field's name, an item's place, an item's key, or a list's order."""
Path: TypeAlias = tuple[Segment, ...]


class Difference(msgspec.Struct, frozen=True):
    """One place where two objects differ; a side that does not have it is `ABSENT`."""

    path: Path
    old: Any = ABSENT
    new: Any = ABSENT


class Noise(msgspec.Struct, frozen=True):
    """A path that nobody asks about; `*` stands for any field or item, `kinds` narrows to some kinds."""

    path: tuple[str, ...]
    kinds: frozenset[str] = frozenset()


NOISE: tuple[Noise, ...] = (
    Noise(("status",)),
    Noise(("metadata", "managedFields")),
    Noise(("metadata", "resourceVersion")),
    Noise(("metadata", "generation")),
    Noise(("metadata", "uid")),
    Noise(("metadata", "creationTimestamp")),
    Noise(("metadata", "selfLink")),
    Noise(("metadata", "annotations", "kubectl.kubernetes.io/last-applied-configuration")),
    Noise(("metadata", "annotations", "deployment.kubernetes.io/revision"), frozenset({"Deployment"})),
)
"""What the API server and controllers write beside what was asked for."""


def quiet(value: Any, noise: Sequence[Noise] = NOISE) -> Any:
    """An object without its noise; an annotation map that held nothing else goes too."""
    kind = value.get("kind") if isinstance(value, dict) else None
    for rule in noise:
        if not rule.kinds or kind in rule.kinds:
            value = _without(value, rule.path)
    return value


def differences(old: Any, new: Any) -> list[Difference]:
    """Where two JSON values differ, in the order of their fields' names; empty when they are equal."""
    return list(_differences((), old, new))


def patched(value: Any, changes: Iterable[Difference]) -> Any:
    """A value with what `differences` found carried out on it; the value itself stays as it is.

    Raises LookupError where a difference does not fit.
    """
    # Places are taken from the end of a list backwards, so that those before keep theirs.
    removed = [change for change in changes if change.new is ABSENT]
    rest = [change for change in changes if change.new is not ABSENT]
    for change in (*reversed(removed), *rest):
        value = _patched(value, change.path, change.new)
    return value


def value_at(value: Any, path: Path) -> Any:
    """What lies at a path in a value (for an order: the items' keys); `ABSENT` where there is nothing."""
    for segment in path:
        match segment:
            case str():
                value = value.get(segment, ABSENT) if isinstance(value, dict) else ABSENT
            case Order():
                keys = _by_key(value, segment.fields) if isinstance(value, list) else None
                value = ABSENT if keys is None else keys_told(keys)
            case _ if not isinstance(value, list):
                value = ABSENT
            case int():
                value = value[segment] if segment < len(value) else ABSENT
            case Key():
                place = _place(value, segment)
                value = value[place] if place < len(value) else ABSENT
    return value


def render(path: Path) -> str:
    """A path as people read it: `metadata.labels['app.kubernetes.io/name']`, empty for the whole."""
    text = ""
    for segment in path:
        match segment:
            case int():
                text += f"[{segment}]"
            case Key():
                text += "[" + ",".join(f"{name}={_literal(value)}" for name, value in segment.fields) + "]"
            case Order():
                text += "[*]." + ",".join(segment.fields)
            case _ if _PLAIN_FIELD.match(segment):
                text += f".{segment}" if text else segment
            case _:
                text += f"['{_quoted(segment)}']"
    return text


_PLAIN_FIELD = re.compile(r"[A-Za-z_$][-A-Za-z0-9_$]*\Z")
_PLAIN_VALUE = re.compile(r"[A-Za-z_./][-A-Za-z0-9_./]*\Z")


def _literal(value: str | int) -> str:
    return str(value) if isinstance(value, int) or _PLAIN_VALUE.match(value) else f"'{_quoted(value)}'"


def _quoted(text: str) -> str:
    """Text between single quotes, on one line whatever it holds."""
    return msgspec.json.encode(text).decode()[1:-1].replace('\\"', '"').replace("'", "\\'")


def _differences(path: Path, old: Any, new: Any) -> Iterator[Difference]:
    if len(path) < MAX_DEPTH:
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _of_maps(path, old, new)
            return
        if isinstance(old, list) and isinstance(new, list):
            yield from _of_lists(path, old, new)
            return
    if not same(old, new):
        yield Difference(path, old, new)


def _of_maps(path: Path, old: dict[str, Any], new: dict[str, Any]) -> Iterator[Difference]:
    for name in sorted({*old, *new}):
        yield from _differences((*path, name), old.get(name, ABSENT), new.get(name, ABSENT))


def _of_lists(path: Path, old: list[Any], new: list[Any]) -> Iterator[Difference]:
    found = keyed(path, old, new)
    if found is not None:
        fields, (before, after) = found
        yield from _of_keyed(path, fields, before, after)
        return
    for place in range(max(len(old), len(new))):
        left = old[place] if place < len(old) else ABSENT
        right = new[place] if place < len(new) else ABSENT
        yield from _differences((*path, place), left, right)


def _of_keyed(
    path: Path, fields: tuple[str, ...], before: dict[Key, Any], after: dict[Key, Any]
) -> Iterator[Difference]:
    for key in (*before, *(key for key in after if key not in before)):
        yield from _differences((*path, key), before.get(key, ABSENT), after.get(key, ABSENT))
    reached = [*(key for key in before if key in after), *(key for key in after if key not in before)]
    if reached != list(after):
        yield Difference((*path, Order(fields)), keys_told(before), keys_told(after))


def keys_told(keys: Iterable[Key]) -> list[Any]:
    """Keys as values: the one field that makes them, or all of them."""
    values = [[value for _, value in key.fields] for key in keys]
    return [value[0] if len(value) == 1 else value for value in values]


def keyed(path: Path, *lists: list[Any]) -> tuple[tuple[str, ...], list[dict[Key, Any]]] | None:
    """The items of some lists that lie at a path by their keys, with the fields that make them.

    None when no fields tell apart the items of all of them.
    """
    for fields in _key_fields(path):
        found = [_by_key(items, fields) for items in lists]
        known = [items for items in found if items is not None]
        if len(known) == len(lists):
            return fields, known
    return None


def _key_fields(path: Path) -> Iterator[tuple[str, ...]]:
    names = [segment for segment in path if isinstance(segment, str)]
    known = LIST_KEYS.get(".".join(names[-2:])) or LIST_KEYS.get(".".join(names[-1:]))
    if known:
        yield known
    yield _BY_NAME


def _by_key(items: list[Any], fields: tuple[str, ...]) -> dict[Key, Any] | None:
    """The items by their key; None when one has none, or two share one."""
    found: dict[Key, Any] = {}
    for item in items:
        key = _key(item, fields)
        if key is None or key in found:
            return None
        found[key] = item
    return found


def _key(item: Any, fields: tuple[str, ...]) -> Key | None:
    if not isinstance(item, dict):
        return None
    found: list[tuple[str, str | int]] = []
    for field in fields:
        value = item.get(field, _KEY_DEFAULTS.get(field))
        if not isinstance(value, str) and type(value) is not int:
            return None
        found.append((field, value))
    return Key(tuple(found))


def same(old: Any, new: Any) -> bool:
    """Equal as JSON: true is not 1. Python alone would say it is."""
    if old is ABSENT or new is ABSENT:
        return old is new
    if isinstance(old, dict | list) and isinstance(new, dict | list):
        return msgspec.json.encode(old, order="deterministic") == msgspec.json.encode(
            new, order="deterministic"
        )
    return isinstance(old, bool) == isinstance(new, bool) and old == new


def _without(value: Any, path: tuple[str, ...]) -> Any:
    name, rest = path[0], path[1:]
    if isinstance(value, list):
        return [_without(item, rest) for item in value] if name == "*" and rest else value
    if not isinstance(value, dict):
        return value
    hit = [field for field in value if name in ("*", field)]
    if not hit:
        return value
    kept = dict(value)
    for field in hit:
        inner = _without(value[field], rest) if rest else ABSENT
        emptied = inner == {} and value[field] != {}
        if inner is ABSENT or emptied:
            del kept[field]
        else:
            kept[field] = inner
    return kept


def _patched(value: Any, path: Path, new: Any) -> Any:
    if not path:
        return new
    segment, rest = path[0], path[1:]
    if isinstance(segment, str):
        return _patched_map(value, segment, rest, new)
    if not isinstance(value, list):
        raise LookupError(f"there is no list at {render(path)}")
    if isinstance(segment, Order):
        places: dict[Any, int] = {_hashable(told): place for place, told in enumerate(new)}
        keys = [_key(item, segment.fields) for item in value]
        told = keys_told(key for key in keys if key is not None)
        return [
            item
            for _, item in sorted(zip(told, value, strict=True), key=lambda pair: places[_hashable(pair[0])])
        ]
    place = segment if isinstance(segment, int) else _place(value, segment)
    if not 0 <= place <= len(value) or (place == len(value) and (rest or new is ABSENT)):
        raise LookupError(f"there is no item at {render(path)}")
    if new is ABSENT and not rest:
        return [*value[:place], *value[place + 1 :]]
    item = _patched(value[place] if place < len(value) else ABSENT, rest, new)
    return [*value[:place], item, *value[place + 1 :]]


def _hashable(told: Any) -> Any:
    return tuple(told) if isinstance(told, list) else told


def _place(items: list[Any], key: Key) -> int:
    """Where the item with this key is; behind the last one when there is none."""
    fields = tuple(name for name, _ in key.fields)
    return next((place for place, item in enumerate(items) if _key(item, fields) == key), len(items))


def _patched_map(value: Any, name: str, rest: Path, new: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise LookupError(f"there is no object with a field {name}")
    kept = dict(value)
    if rest:
        kept[name] = _patched(kept.get(name, ABSENT), rest, new)
    elif new is ABSENT:
        kept.pop(name, None)
    else:
        kept[name] = new
    return kept
