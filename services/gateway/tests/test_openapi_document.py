"""docs/openapi.json says what the gateway serves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kubelore.gateway import openapi

PUBLISHED = Path(__file__).parents[3] / "docs" / "openapi.json"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return json.loads(openapi.render())


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def test_the_published_document_is_the_generated_one() -> None:
    remedy = "run: python -m kubelore.gateway.openapi > docs/openapi.json"
    assert PUBLISHED.read_text() == openapi.render(), remedy


def test_every_call_needs_a_token_or_a_session(document: dict[str, Any]) -> None:
    schemes = document["components"]["securitySchemes"]
    asked = [schemes[name] for need in document["security"] for name in need]
    assert [(scheme["type"], scheme.get("scheme", scheme.get("in"))) for scheme in asked] == [
        ("http", "bearer"),
        ("apiKey", "cookie"),
    ]
    assert all("security" not in operation for operation in operations(document).values())


def test_every_error_is_a_problem_document(document: dict[str, Any]) -> None:
    for name, operation in operations(document).items():
        errors = {code: answer for code, answer in operation["responses"].items() if code[0] not in "23"}
        assert {"400", "401", "default"} <= set(errors), name
        for code, answer in errors.items():
            assert list(answer["content"]) == ["application/problem+json"], (name, code)


def test_only_kubeconfigs_objects_and_commands_that_are_refused_are_unprocessable(
    document: dict[str, Any],
) -> None:
    unprocessable = {name for name, found in operations(document).items() if "422" in found["responses"]}
    kubeconfigs = {name for name in unprocessable if name.split(" ")[1].startswith("/api/k8s/clusters/")}
    assert kubeconfigs == {
        "POST /api/k8s/clusters/add",
        "POST /api/k8s/clusters/inspect",
        "PUT /api/k8s/clusters/{cluster}/kubeconfig",
    }
    # What is asked of containers is read by them: modes, owners, commands.
    containers = {name for name in unprocessable if name.split(" ")[1].startswith("/api/k8s/containers/")}
    assert unprocessable - kubeconfigs - containers == {
        "POST /api/k8s/unified/batch",
        "POST /api/k8s/unified/apply",
        "PATCH /api/k8s/unified/resources/{id}",
        "DELETE /api/k8s/unified/resources/{id}",
        "POST /api/k8s/yaml/apply",
        "POST /api/k8s/yaml/backup/restore",
        "POST /api/k8s/yaml/parked/{number}/replay",
        "POST /api/k8s/yaml/snapshot/rollback",
        "POST /api/k8s/yaml/versions/{id}/rollback",
    }


def test_whatever_changes_something_takes_a_key_for_retries(document: dict[str, Any]) -> None:
    for name, operation in operations(document).items():
        takes = "Idempotency-Key" in [parameter["name"] for parameter in operation.get("parameters", ())]
        assert takes == (not name.startswith("GET ")), name
        assert not takes or "409" in operation["responses"], name
