"""Names for clusters, made from the contexts of a kubeconfig: DNS labels, each given once."""

from __future__ import annotations

import re
from collections.abc import Sequence

_ARN = re.compile(r"arn:[^:]*:eks:(?P<region>[^:]*):[^:]*:cluster/(?P<name>.+)")
_GKE = re.compile(r"gke_[^_]+_(?P<region>[^_]+)_(?P<name>.+)")
_NOT_LABEL = re.compile(r"[^a-z0-9]+")


def slug(context: str) -> str:
    """A DNS label (RFC 1123, at most 63) for a context; EKS and GKE contexts keep name and region."""
    known = _ARN.fullmatch(context) or _GKE.fullmatch(context)
    text = f"{known['name']}-{known['region']}" if known else context
    label = _NOT_LABEL.sub("-", text.lower()).strip("-")[:63].strip("-")
    return label or "cluster"


def suggest_names(contexts: Sequence[str]) -> dict[str, str]:
    """A name for every context, no name twice."""
    taken: set[str] = set()
    names: dict[str, str] = {}
    for context in contexts:
        label = slug(context)
        name, number = label, 2
        while name in taken:
            ending = f"-{number}"
            name = label[: 63 - len(ending)].rstrip("-") + ending
            number += 1
        taken.add(name)
        names[context] = name
    return names
