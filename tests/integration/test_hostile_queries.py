"""What must be refused of queries, through the HTTP door of a whole stack: hostile inputs, number 11.

Expired `continue` tokens are in services/gateway/tests/test_continuation.py,
where there is a clock; other tenants' names are in test_tenancy.py.
"""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import httpx
import pytest
import pytest_asyncio

from kubelore.kubesim.app import SimulatedFleet

NAME = "besieged"
LISTS = ("/api/k8s/unified/resources", "/api/k8s/unified/compare", "/api/k8s/clusters/list")
PATHOLOGICAL = ("(a+)+$", "(.*a){25}", "^(([a-z])+.)+[A-Z]([a-z])+$", "[", "(?=", "\\")
WILDCARDS = ("*", ">", "a.b", "a.>", "$SYS", "_INBOX.x", "a b", "a\tb", "a\r\nPUB x 1", "é", "a" * 64)
OPERATORS = ('{"$gt":""}', "$where", "$ne", '{"$regex":".*"}', "[$ne]")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def besieged(kubelore):
    """Two clusters with some pods each, one of them tagged and in a group."""
    async with SimulatedFleet(clusters=2, pods=60) as fleet:
        await kubelore.onboard(NAME, fleet[0].kubeconfig, tags=["real"], group="siege")
        await kubelore.onboard(f"{NAME}-too", fleet[1].kubeconfig)
        yield kubelore
        await kubelore.remove(NAME)
        await kubelore.remove(f"{NAME}-too")


async def refused(kubelore, path: str, status: int = 400, **query: Any) -> dict[str, Any]:
    answer = await kubelore.http.get(path, params=query)
    assert answer.status_code == status, f"{path} {query}: {answer.text[:300]}"
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.json()


async def first_page(kubelore, path: str, **query: Any) -> str:
    answer = await kubelore.http.get(path, params={"limit": 1, **query})
    assert answer.status_code == 200, answer.text
    return answer.json()["continue"]


@pytest.mark.parametrize("path", ["/api/k8s/unified/resources", "/api/k8s/unified/compare"])
async def test_a_continue_token_that_was_changed_anywhere_does_not_open(besieged, path: str) -> None:
    token = await first_page(besieged, path, type="configmaps")
    raw = bytearray(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    for place in range(0, len(raw), max(1, len(raw) // 12)):
        changed = bytearray(raw)
        changed[place] ^= 1
        text = base64.urlsafe_b64encode(bytes(changed)).rstrip(b"=").decode()
        await refused(besieged, path, type="configmaps", limit=1, **{"continue": text})
    for text in (token[:-4], token + "AAAA", "AAAA", "%%%", "é", "\x00", "null", "e30"):
        await refused(besieged, path, type="configmaps", limit=1, **{"continue": text})


async def test_a_continue_token_of_another_question_does_not_open(besieged) -> None:
    resources, compare, _ = LISTS
    token = await first_page(besieged, resources, type="pods")
    for changed in (
        {"type": "configmaps"},
        {"namespace": "default"},
        {"clusters": NAME},
        {"labels": "a"},
        {"search": "a"},
        {"sort": "-name"},
        {"view": "table"},
    ):
        await refused(besieged, resources, **{"type": "pods", "continue": token, **changed})
    await refused(besieged, compare, type="pods", **{"continue": token})
    other = await first_page(besieged, compare, type="configmaps")
    await refused(besieged, resources, type="configmaps", **{"continue": other})


@pytest.mark.parametrize("limit", ["0", "-1", "10001", "99999999999999999999", "all", "1e3", "", "NaN"])
async def test_no_list_is_unlimited(besieged, limit: str) -> None:
    for path in LISTS:
        await refused(besieged, path, type="pods", limit=limit)


@pytest.mark.parametrize("text", PATHOLOGICAL)
async def test_nothing_is_taken_for_a_regular_expression(besieged, text: str) -> None:
    """A search is a text that is looked for as it stands, whatever its characters mean elsewhere."""
    answer = await asyncio.wait_for(
        besieged.http.get("/api/k8s/unified/resources", params={"search": (text * 10)[:250], "type": "pods"}),
        5,
    )
    assert (answer.status_code, answer.json()["items"]) == (200, [])
    for query in (
        {"labels": f"app=~{text}"},
        {"labels": f"app matches ({text})"},
        {"fields": f"spec=~{text}"},
    ):
        answer = await besieged.http.get("/api/k8s/unified/resources", params={"type": "pods", **query})
        assert answer.status_code == 400 or answer.json()["items"] == []


async def test_a_search_longer_than_a_line_is_refused(besieged) -> None:
    await refused(besieged, "/api/k8s/unified/resources", search="a" * 257)


@pytest.mark.parametrize("text", OPERATORS)
async def test_an_operator_of_the_database_is_a_text_like_any_other(besieged, text: str) -> None:
    for name in ("tag", "group"):
        answer = await besieged.http.get("/api/k8s/clusters/list", params={name: text})
        assert answer.status_code in (200, 400)
        assert answer.json().get("items", []) == []
    for name in ("tag[$ne]", "group[$exists]", "$where"):
        answer = await besieged.http.get("/api/k8s/clusters/list", params={name: text, "tag": "none"})
        assert answer.status_code in (200, 400)
        assert answer.json().get("items", []) == []
    chosen = await besieged.list(clusters=f"tag:{text},group:{text}", type="pods")
    assert (chosen["items"], chosen["clusters"]) == ([], [])


@pytest.mark.parametrize("value", [{"$gt": ""}, ["a"], 1, None, {"$where": "1"}])
async def test_a_body_whose_texts_are_something_else_is_refused(besieged, value: Any) -> None:
    for body in ({"name": value, "kubeconfig": "{}"}, {"name": "a", "kubeconfig": value}):
        answer = await besieged.http.post("/api/k8s/clusters/add", json=body)
        assert answer.status_code in (400, 422), answer.text


@pytest.mark.parametrize("name", WILDCARDS)
async def test_a_wildcard_of_the_bus_is_no_name(besieged, name: str) -> None:
    for path in ("/api/k8s/unified/resources", "/api/k8s/unified/watch", "/api/k8s/unified/summary"):
        answer = await besieged.http.get(path, params={"clusters": name})
        assert answer.status_code in (400, 404), f"{path}: {answer.text[:200]}"
    quoted = str(httpx.QueryParams({"x": name}))[2:].replace("+", "%20")
    for method, path in (
        ("GET", f"/api/k8s/clusters/{quoted}"),
        ("DELETE", f"/api/k8s/clusters/{quoted}"),
        ("POST", f"/api/k8s/clusters/{quoted}/test"),
        ("GET", f"/api/k8s/unified/resources/{quoted}:pods:default:a"),
    ):
        answer = await besieged.http.request(method, path)
        assert answer.status_code in (400, 404, 405), f"{method} {path}: {answer.text[:200]}"
    body = json.dumps({"name": name, "kubeconfig": "{}"})
    added = await besieged.http.post(
        "/api/k8s/clusters/add", content=body, headers={"Content-Type": "application/json"}
    )
    assert added.status_code in (400, 422)
    assert [
        cluster["name"] for cluster in (await besieged.http.get("/api/k8s/clusters/list")).json()["items"]
    ]


@pytest.mark.parametrize("path", ["*", ">", "a.b", "..", "pods.*", "pods;x", "$"])
async def test_a_wildcard_is_no_type(besieged, path: str) -> None:
    for at in ("/api/k8s/unified/resources", "/api/k8s/unified/compare", "/api/k8s/unified/watch"):
        await refused(besieged, at, type=path)


async def test_paths_to_ignore_are_bounded(besieged) -> None:
    compare = "/api/k8s/unified/compare"
    await refused(besieged, compare, type="cm", ignore=",".join(["spec.a"] * 51))
    await refused(besieged, compare, type="cm", ignore="a" * 501)
    await refused(besieged, compare, type="cm", ignore="a[")
