"""docs/asyncapi.yaml says what the contracts say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubelore.common.bus import publisher, wire
from kubelore.common.contracts import asyncapi
from kubelore.common.contracts.changes import change_subject
from kubelore.common.contracts.clusters import ClusterEvent, cluster_event_subject

PUBLISHED = Path(__file__).parents[3] / "docs" / "asyncapi.yaml"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return yaml.safe_load(asyncapi.render())


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_the_published_document_is_the_generated_one() -> None:
    remedy = "run: python -m kubelore.common.contracts.asyncapi > docs/asyncapi.yaml"
    assert PUBLISHED.read_text() == asyncapi.render(), remedy


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    for reference in references(document):
        found: Any = document
        for part in reference.removeprefix("#/").split("/"):
            assert part in found, reference
            found = found[part]


def test_every_endpoint_has_its_subject_and_both_messages(document: dict[str, Any]) -> None:
    for endpoint in asyncapi.ENDPOINTS:
        name = f"{endpoint.service}.{endpoint.name}"
        target = None if endpoint.scope == "service" else f"{{{endpoint.scope}}}"
        assert document["channels"][name]["address"] == endpoint.subject(target)
        messages = document["components"]["messages"]
        for side, kind in (("request", endpoint.request), ("reply", endpoint.response)):
            assert messages[f"{name}.{side}"]["payload"]["$ref"].endswith(f"/{kind.__name__}")


def test_event_addresses_fit_the_subjects_that_are_published(document: dict[str, Any]) -> None:
    def fits(channel: str, subject: str) -> bool:
        address = document["channels"][channel]["address"].split(".")
        parts = subject.split(".")
        return len(parts) == len(address) and all(
            said == part or said.startswith("{") for said, part in zip(address, parts, strict=True)
        )

    event = ClusterEvent(cluster="prod-eu", happened="added", at=0.0)
    assert fits("events.cluster", cluster_event_subject(event))
    assert fits("events.resource", change_subject("prod-eu"))


def test_the_headers_are_those_of_the_bus() -> None:
    assert wire.DEADLINE in asyncapi.REQUEST_HEADERS
    assert set(asyncapi.REPLY_HEADERS) == {wire.ERROR, wire.ERROR_CODE, wire.SESSION, wire.SIZE}
    assert publisher.BATCH_RECORDS == 100
    assert publisher.BATCH_BYTES == 256 * 1024
