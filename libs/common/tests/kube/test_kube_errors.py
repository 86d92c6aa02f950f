"""What an API server refuses with an odd code is told as what it is."""

from __future__ import annotations

import json

from kubelore.common.errors import Invalid, Unsupported
from kubelore.common.kube.errors import status_error


def _status(code: int, message: str) -> bytes:
    return json.dumps({"kind": "Status", "status": "Failure", "message": message, "code": code}).encode()


def test_a_manifest_that_the_schema_does_not_allow_is_the_senders_fault_though_the_code_is_500() -> None:
    said = (
        "failed to create typed patch object (a/web; apps/v1, Kind=Deployment): .spec.x: field not declared"
    )
    error = status_error(500, _status(500, said))
    assert isinstance(error, Invalid)
    assert ".spec.x" in error.detail


def test_a_strategic_patch_that_is_not_taken_names_those_that_are() -> None:
    error = status_error(415, _status(415, "the body of the request was in an unknown format"))
    assert isinstance(error, Unsupported)
    assert error.remedy is not None
    assert "merge" in error.remedy
