"""A query parameter that nobody knows is refused at every endpoint."""

from __future__ import annotations

import json
import re

from kubelore.gateway import openapi

ONE_ID = "20261124-030000-5f0c1d2e3a4b"
ONE_CONTAINER = "prod:shop:web-1:web"
"""Of the shape that every path takes, those of backups included."""


async def test_every_endpoint_refuses_a_parameter_that_it_does_not_know(world) -> None:
    document = json.loads(openapi.render())
    tried = 0
    for template, methods in document["paths"].items():
        named = template.replace("/containers/{id}", f"/containers/{ONE_CONTAINER}")
        path = re.sub(r"\{[^}]*\}", ONE_ID, named.replace("{version}", "1"))
        for method in methods:
            answer = await world.http.request(method.upper(), path, params={"surprise": "1"}, json={})
            problem = answer.json()
            assert (answer.status_code, problem.get("parameter")) == (400, "surprise"), (method, template)
            tried += 1
    assert tried > 15


async def test_a_typo_is_told_the_name_that_was_meant(world) -> None:
    for typo, meant in (("cluster", "clusters"), ("namespaces", "namespace"), ("lable", "labels")):
        status, problem = await world.refused(**{typo: "x"})
        assert (status, problem["remedy"]) == (400, f"Did you mean {meant!r}?")
    status, problem = await world.refused("/api/whoami", zzz="x")
    assert (status, problem["remedy"]) == (400, "It takes none.")


async def test_a_parameter_given_twice_is_refused_instead_of_taking_the_last(world) -> None:
    answer = await world.http.get("/api/k8s/unified/resources?clusters=a&clusters=b")
    assert answer.status_code == 400
    assert "more than once" in answer.json()["detail"]


async def test_a_name_that_is_long_or_no_text_is_repeated_shortly(world) -> None:
    answer = await world.http.get("/api/whoami?" + "x" * 5000 + "=1")
    assert (answer.status_code, len(answer.text) < 1000) == (400, True)
    assert (await world.http.get("/api/whoami?%ff%fe=1")).status_code == 400


async def test_health_and_pages_take_whatever_comes(world) -> None:
    for path in ("/readyz?verbose", "/livez?x=1", "/?utm=1"):
        assert (await world.stranger.get(path)).status_code == 200
