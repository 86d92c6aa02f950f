"""Server-side apply: who owns which field, conflicts between owners, and `metadata.managedFields`.

A field set is a set of paths; an element is `f:name`, `k:{...}` or `v:...` as in FieldsV1, and a last "."
stands for a list item itself. That makes the rules of structured-merge-diff plain set algebra.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .cluster import timestamp
from .mergekeys import SET, MergeRules, Names, item_key
from .status import ApiError, Json

Path = tuple[str, ...]
_UNOWNED = {
    *("name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp", "selfLink"),
    *("deletionTimestamp", "deletionGracePeriodSeconds", "managedFields", "generateName"),
}
_MISSING = object()


@dataclass(frozen=True, slots=True)
class Manager:
    """Who wrote: one entry of managedFields."""

    name: str
    operation: str  # Apply or Update
    api_version: str
    subresource: str = ""


def leaves(obj: Json, rules: MergeRules) -> dict[Path, Any]:
    """Every field that can be owned, with its value."""
    owned = {key: value for key, value in obj.items() if key not in ("apiVersion", "kind", "metadata")}
    meta = {key: value for key, value in (obj.get("metadata") or {}).items() if key not in _UNOWNED}
    return dict(_leaves({**({"metadata": meta} if meta else {}), **owned}, rules, (), ()))


def _leaves(value: Any, rules: MergeRules, path: Path, names: Names) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, dict) and value and not rules.atomic_map(names):
        for key, below in value.items():
            yield from _leaves(below, rules, (*path, f"f:{key}"), (*names, key))
        return
    keys = rules.list_keys(names) if isinstance(value, list) and value else None
    elements = [item_key(item, keys) for item in value] if keys else [None]
    if None in elements:
        if path:
            yield path, value
        return
    for element, item in zip(elements, value, strict=True):
        if keys == SET:
            yield (*path, str(element)), item
        else:
            yield (*path, str(element), "."), None
            yield from _leaves(item, rules, (*path, str(element)), names)


def _nested(paths: set[Path]) -> Json:
    root: Json = {}
    for path in sorted(paths):
        node = root
        for element in path:
            node = node.setdefault(element, {})
    return root


def _paths(node: Json, prefix: Path = ()) -> Iterator[Path]:
    for element, below in node.items():
        if below:
            yield from _paths(below, (*prefix, element))
        else:
            yield (*prefix, element)


def _owners(meta: Json) -> tuple[dict[Manager, set[Path]], dict[Manager, str]]:
    owners: dict[Manager, set[Path]] = {}
    times: dict[Manager, str] = {}
    for entry in meta.get("managedFields") or ():
        key = Manager(entry["manager"], entry["operation"], entry["apiVersion"], entry.get("subresource", ""))
        owners[key] = set(_paths(entry.get("fieldsV1") or {}))
        times[key] = entry.get("time", "")
    return owners, times


def _written(owners: dict[Manager, set[Path]], before: Json) -> list[Json]:
    """managedFields again; an entry whose fields stay keeps its time."""
    previous, times = _owners(before.get("metadata", {}))
    entries: list[Json] = []
    for manager, paths in owners.items():
        if not paths:
            continue
        entry: Json = {
            "manager": manager.name,
            "operation": manager.operation,
            "apiVersion": manager.api_version,
            "time": times[manager] if previous.get(manager) == paths else timestamp(),
            "fieldsType": "FieldsV1",
            "fieldsV1": _nested(paths),
        }
        entries.append({**entry, "subresource": manager.subresource} if manager.subresource else entry)
    return entries


def track(before: Json, after: Json, manager: Manager, rules: MergeRules) -> None:
    """Writes into `after` who owns what when `manager` updated `before` to it."""
    owners, _ = _owners(before.get("metadata", {}))
    old, new = leaves(before, rules), leaves(after, rules)
    changed = {path for path, value in new.items() if old.get(path, _MISSING) != value}
    removed = old.keys() - new.keys()
    for key in owners:
        owners[key] -= removed | (changed if key != manager else set())
    if changed:
        owners.setdefault(manager, set()).update(changed)
    after["metadata"]["managedFields"] = _written(owners, before)


def apply(before: Json, config: Json, manager: Manager, rules: MergeRules, *, force: bool) -> Json:
    """The object after `manager` applied `config`; ApiError 409 names the owners of what it would change."""
    owners, _ = _owners(before.get("metadata", {}))
    live, wanted = leaves(before, rules), leaves(config, rules)
    mine = owners.pop(manager, set())
    fought = {
        key: sorted(path for path in paths if path in wanted and live.get(path, _MISSING) != wanted[path])
        for key, paths in owners.items()
    }
    if any(fought.values()) and not force:
        raise _conflict({key: paths for key, paths in fought.items() if paths})
    for key, paths in fought.items():
        owners[key] -= set(paths)
    after = copy.deepcopy(before)
    others = set[Path]().union(*owners.values())
    # Whole list items first: their keys name them no longer once a field is gone.
    for path in sorted(mine - set(wanted) - others, key=lambda path: (path[-1] != ".", path)):
        gone = path[:-1] if path[-1] == "." else path
        if not any(other[: len(gone)] == gone for other in others):
            _remove(after, gone)
    after = _overlay(after, config, rules, ())
    owners[manager] = set(wanted)
    after.setdefault("metadata", {})["managedFields"] = _written(owners, before)
    return after


def _overlay(target: Any, config: Any, rules: MergeRules, names: Names) -> Any:
    if isinstance(target, dict) and isinstance(config, dict) and not rules.atomic_map(names):
        for key, value in config.items():
            target[key] = _overlay(target.get(key), value, rules, (*names, key))
        return target
    keys = rules.list_keys(names) if isinstance(target, list) and isinstance(config, list) else None
    if not keys:
        return config
    merged = {item_key(item, keys): item for item in target}
    for item in config:
        key = item_key(item, keys)
        merged[key] = _overlay(merged.get(key), item, rules, names) if keys != SET else item
    return list(merged.values())


def _remove(node: Any, path: Path) -> None:
    """Takes out the value under a path, and the maps and lists that it leaves empty."""
    element, rest = path[0], path[1:]
    if isinstance(node, dict):
        key = element.removeprefix("f:")
        if key in node and rest:
            _remove(node[key], rest)
        if key in node and (not rest or node[key] in ({}, [])):
            del node[key]
    elif isinstance(node, list):
        found = next((item for item in node if _is_item(item, element)), None)
        if found is not None and rest:
            _remove(found, rest)
        elif found is not None:
            node.remove(found)


def _is_item(item: Any, element: str) -> bool:
    values = json.loads(element[2:])
    if element.startswith("v:"):
        return item == values
    return isinstance(item, dict) and item_key(item, tuple(values)) == element


def _shown(path: Path) -> str:
    text = ""
    for element in path:
        if element.startswith("f:"):
            text += f".{element[2:]}"
        elif element.startswith("k:"):
            values = json.loads(element[2:]).items()
            text += "[" + ",".join(f"{key}={json.dumps(value)}" for key, value in values) + "]"
        elif element.startswith("v:"):
            text += f"[={element[2:]}]"
    return text


def _conflict(fought: dict[Manager, list[Path]]) -> ApiError:
    causes = [
        {
            "reason": "FieldManagerConflict",
            "message": f'conflict with "{manager.name}" using {manager.api_version}',
            "field": _shown(path),
        }
        for manager, paths in fought.items()
        for path in paths
    ]
    count = f"{len(causes)} conflict" + ("s" if len(causes) > 1 else "")
    listed = "; ".join(f"{cause['message']}: {cause['field']}" for cause in causes)
    return ApiError(409, "Conflict", f"Apply failed with {count}: {listed}", details={"causes": causes})
