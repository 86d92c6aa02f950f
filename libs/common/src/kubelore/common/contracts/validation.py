"""What resource-ops says about an object before anybody writes it: whether its cluster would take it as it is."""

from __future__ import annotations

from typing import Literal

import msgspec

from kubelore.common.contracts.endpoint import Endpoint
from kubelore.common.contracts.resources import SERVICE

MAX_FAULTS = 100


class Validate(msgspec.Struct, kw_only=True):
    """Check a manifest (JSON) of the object with an id against the cluster's schema and by a dry run there."""

    id: str
    manifest: bytes


class Fault(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One thing that is wrong, at a path; `suggestion` is the field that was probably meant."""

    path: str
    message: str
    source: Literal["schema", "server"]
    suggestion: str = ""


class Validation(msgspec.Struct, kw_only=True):
    """At most 100 faults. `unchecked` says why the schema or the API server could not be asked."""

    faults: list[Fault]
    unchecked: list[str] = []


VALIDATE = Endpoint(SERVICE, "validate", Validate, Validation, deadline_s=40.0, callers=("yaml-vcs",))

ENDPOINTS = (VALIDATE,)
