"""Requests whose body is handed on while it comes: no limit of size is theirs, and nobody may hold all of it."""

from __future__ import annotations

import re

from starlette.types import Scope

from kubelore.gateway.container_ids import CONTAINER_ID

_PATHS = re.compile(rf"/api/k8s/containers/{CONTAINER_ID}/files/upload")


def takes_a_stream(scope: Scope) -> bool:
    """Whether a request is such a one."""
    return scope["type"] == "http" and scope["method"] == "POST" and bool(_PATHS.fullmatch(scope["path"]))
