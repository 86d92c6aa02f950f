"""How lists and maps of objects merge: the `x-kubernetes-list-type` data of the built-in types, as a table.

Taken from the markers in k8s.io/api v0.34 (listType, listMapKey, mapType, patchMergeKey). Custom types
bring theirs in their schema. What is not listed is atomic: replaced as a whole, owned as a whole.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from .resources import ResourceType
from .status import Json

SET = ("",)  # in place of keys: a list of distinct scalars

# Last field names of the path -> keys. The first key is also the strategic merge key.
_LISTS: dict[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "ephemeralContainers": ("name",),
    "containers.ports": ("containerPort", "protocol"),
    "initContainers.ports": ("containerPort", "protocol"),
    "spec.ports": ("port", "protocol"),
    "containers.env": ("name",),
    "initContainers.env": ("name",),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "spec.volumes": ("name",),
    "imagePullSecrets": ("name",),
    "hostAliases": ("ip",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "resourceClaims": ("name",),
    "status.conditions": ("type",),
    "status.addresses": ("type",),
    "status.podIPs": ("ip",),
    "metadata.ownerReferences": ("uid",),
    "metadata.finalizers": SET,
    "secrets": ("name",),
    "webhooks": ("name",),
}
_ATOMIC_MAPS = {
    *("selector", "labelSelector", "namespaceSelector", "podSelector", "nodeSelector"),
    *("fieldRef", "secretKeyRef", "configMapKeyRef", "resourceFieldRef", "claimRef", "involvedObject"),
    *("scaleTargetRef", "roleRef"),
}
_KEY_DEFAULTS = {"protocol": "TCP"}

Names = tuple[str, ...]  # field names from the root, list items left out


@dataclass(frozen=True, slots=True)
class MergeRules:
    """The rules of one type; `schema` is a custom type's openAPIV3Schema."""

    schema: Json | None = None

    @classmethod
    def of(cls, resource_type: ResourceType) -> MergeRules:
        if resource_type.custom is None:
            return cls()
        return cls(resource_type.custom.get("schema", {}).get("openAPIV3Schema", {}))

    def list_keys(self, names: Names) -> tuple[str, ...] | None:
        """The keys of an associative list, `SET`, or None for an atomic one."""
        if self.schema is None or names[:1] == ("metadata",):
            return _LISTS.get(".".join(names[-2:])) or _LISTS.get(names[-1])
        declared = self._declared(names)
        match declared.get("x-kubernetes-list-type"):
            case "set":
                return SET
            case "map":
                return tuple(declared.get("x-kubernetes-list-map-keys", ())) or None
            case _:
                return None

    def atomic_map(self, names: Names) -> bool:
        if self.schema is None:
            return bool(names) and names[-1] in _ATOMIC_MAPS and names[0] != "metadata"
        return self._declared(names).get("x-kubernetes-map-type") == "atomic"

    def _declared(self, names: Names) -> Json:
        schema = self.schema or {}
        for name in names:
            schema = schema.get("items") or schema
            schema = schema.get("properties", {}).get(name) or schema.get("additionalProperties") or {}
            if not isinstance(schema, dict):
                return {}
        return schema


def item_key(item: Any, keys: tuple[str, ...]) -> str | None:
    """`k:{...}` or `v:...` as in managedFields; None for an item without its keys."""
    if keys == SET:
        return "v:" + json.dumps(item, separators=(",", ":"))
    if not isinstance(item, dict):
        return None
    values = {key: item.get(key, _KEY_DEFAULTS.get(key)) for key in sorted(keys)}
    return None if None in values.values() else "k:" + json.dumps(values, separators=(",", ":"))
