"""Which names the API server takes for an object of a type, as data; checked before a name enters a path.

k8s.io/apimachinery/pkg/api/validation: most types want a DNS subdomain, some a
label, RBAC anything that can stand in a path. An aggregated API server may have
a rule of its own, so that of a group nobody knows only the path is asked for.
"""

from __future__ import annotations

import re

from kubelore.common.errors import Invalid
from kubelore.common.kube.resource_type import ResourceType

MAX_NAME = 253

_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?\Z")
_SUBDOMAIN = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*\Z")
_SEGMENT = re.compile(r"[^/%\x00-\x1f\x7f]+\Z")

_BUILT_IN = frozenset({"", "apps", "autoscaling", "batch", "policy"})
_LABELS = frozenset({"namespaces", "services"})
_SEGMENTS = frozenset({"rbac.authorization.k8s.io", "apiregistration.k8s.io"})
_SEGMENT_TYPES = frozenset({"ipaddresses.networking.k8s.io"})


def check_object_name(resource_type: ResourceType, name: str) -> str:
    """The name, when an object of the type can have it. Raises Invalid, which says the rule."""
    pattern, rule = _rule(resource_type)
    if len(name) > MAX_NAME or name in (".", "..") or not pattern.match(name):
        raise Invalid(
            f"{name[:300]!r} cannot be the name of {resource_type.name}",
            remedy=f"A name there is {rule}.",
            field="metadata.name",
        )
    return name


def check_namespace_name(name: str) -> str:
    """The name, when a namespace can have it. Raises Invalid."""
    if not _LABEL.match(name):
        raise Invalid(
            f"{name[:300]!r} cannot be a namespace",
            remedy=f"It is {_LABEL_RULE}.",
            field="metadata.namespace",
        )
    return name


_LABEL_RULE = "at most 63 lower-case letters, digits and '-', the first and last a letter or digit"
_SUBDOMAIN_RULE = (
    "at most 253 lower-case letters, digits, '-' and '.', each part's first and last a letter or digit"
)
_SEGMENT_RULE = "at most 253 characters, not '.' or '..', without '/', '%' and control characters"


def _rule(resource_type: ResourceType) -> tuple[re.Pattern[str], str]:
    group = resource_type.group
    if resource_type.name in _LABELS:
        return _LABEL, _LABEL_RULE
    known = group in _BUILT_IN or group.endswith(".k8s.io")
    if not known or group in _SEGMENTS or resource_type.name in _SEGMENT_TYPES:
        return _SEGMENT, _SEGMENT_RULE
    return _SUBDOMAIN, _SUBDOMAIN_RULE
