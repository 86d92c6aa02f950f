"""Turning an object and a patch into the next object. Pure; the patch's media type picks the function."""

from __future__ import annotations

import copy
from typing import Any

import jsonpatch
import jsonpointer

from .mergekeys import SET, MergeRules, Names, item_key
from .status import ApiError, Json, bad_request


def merge(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


def json_patch(target: Json, operations: object) -> Json:
    """RFC 6902; a failed test or a missing path is 422, a malformed patch 400, as on the real server."""
    if not isinstance(operations, list):
        raise bad_request("a JSON patch is a list of operations")
    try:
        return jsonpatch.JsonPatch(operations).apply(copy.deepcopy(target))
    except (
        jsonpatch.JsonPatchConflict,
        jsonpatch.JsonPatchTestFailed,
        jsonpointer.JsonPointerException,
    ) as error:
        message = f"the server rejected our request due to an error in our request: {error}"
        raise ApiError(422, "Invalid", message) from error
    except (jsonpatch.InvalidJsonPatch, TypeError, KeyError) as error:
        raise bad_request(f"error decoding patch: {error}") from error


def strategic(target: Any, patch: Any, rules: MergeRules, names: Names = ()) -> Any:
    """Strategic merge: RFC 7386, but associative lists merge by their first key, and with directives.

    Known: `$patch` (replace, delete, merge), `$deleteFromPrimitiveList/x`, `$retainKeys`;
    `$setElementOrder/x` is accepted, and the order stays as it is.
    """
    if not isinstance(patch, dict):
        return patch
    directive = patch.get("$patch")
    plain = {key: value for key, value in patch.items() if not key.startswith("$")}
    if directive in ("replace", "delete"):
        return plain
    merged = dict(target) if isinstance(target, dict) else {}
    for key in [key for key in merged if key not in patch.get("$retainKeys", merged)]:
        del merged[key]
    for directive, values in patch.items():
        if directive.startswith("$deleteFromPrimitiveList/"):
            field = directive.partition("/")[2]
            merged[field] = [value for value in merged.get(field) or () if value not in values]
    for key, value in plain.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, list):
            merged[key] = _strategic_list(merged.get(key), value, rules, (*names, key))
        else:
            merged[key] = strategic(merged.get(key), value, rules, (*names, key))
    return merged


def _strategic_list(target: Any, patch: list[Any], rules: MergeRules, names: Names) -> list[Any]:
    keys = rules.list_keys(names)
    replaced = any(isinstance(item, dict) and item.get("$patch") == "replace" for item in patch)
    if keys is None or replaced:
        return [strategic({}, item, rules, names) for item in patch if item != {"$patch": "replace"}]
    key = SET if keys == SET else keys[:1]
    merged = {item_key(item, key): item for item in target or ()}
    for item in patch:
        name = item_key(item, key)
        if name is None:
            raise bad_request(f"an item of {'.'.join(names)} has no {key[0]}")
        if isinstance(item, dict) and item.get("$patch") == "delete":
            merged.pop(name, None)
        else:
            merged[name] = strategic(merged.get(name), item, rules, names)
    return list(merged.values())
