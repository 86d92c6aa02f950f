"""A compiled route answers what FastAPI's own would, whatever it is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Literal

import httpx
import pytest
from fastapi import APIRouter, Body, Depends, FastAPI, Header, Path, Query, Request
from fastapi.routing import APIRoute, iter_route_contexts
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, Response

from kubelore.gateway.compiled_routes import CompiledRoute, compile_routes
from kubelore.gateway.openapi import application
from kubelore.gateway.problems import install
from kubelore.gateway.query_names import KnownQuery

Params = list[tuple[str, str]]
NAMES = ["type", "limit", "view", "continue", "needed", "unknown", "Type", ""]
TEXTS = ["", "1", "0", "10001", " 5 ", "5.0", "object", "table", "x" * 11, "é", "a&b", "0x1"]


async def _agent(request: HTTPConnection) -> str:
    return request.headers.get("user-agent", "")


def _application(route_class: type[APIRoute]) -> FastAPI:
    app = FastAPI(dependencies=[KnownQuery])
    router = APIRouter(prefix="/things", route_class=route_class)

    @router.get("/{id}")
    async def answer(
        request: Request,
        agent: Annotated[str, Depends(_agent)],
        id: Annotated[str, Path(max_length=5)],
        needed: Annotated[str, Query(max_length=10)],
        type_: Annotated[str, Query(alias="type", max_length=10)] = "",
        limit: Annotated[int, Query(ge=1, le=10_000)] = 500,
        continue_: Annotated[str | None, Query(alias="continue")] = None,
        view: Annotated[Literal["object", "table"], Query()] = "object",
        last_event_id: Annotated[str, Header(max_length=10)] = "",
    ) -> Response:
        path = request.url.path
        return JSONResponse([path, agent, id, needed, type_, limit, continue_, view, last_event_id])

    app.include_router(router)
    install(app)
    compile_routes(app)
    return app


def _ask(app: FastAPI, id: str, query: Params, headers: dict[str, str] | None = None) -> httpx.Response:
    async def asking() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get(f"/things/{id}", params=query, headers=headers)

    return asyncio.run(asking())


PLAIN, COMPILED = _application(APIRoute), _application(CompiledRoute)


@given(
    id=st.sampled_from(["a", "ab:c", "toolong", "%20"]),
    query=st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(TEXTS)), max_size=6),
    headers=st.dictionaries(st.just("Last-Event-ID"), st.sampled_from(["", "5", "x" * 11])),
)
def test_a_compiled_route_answers_as_fastapi_does(id: str, query: Params, headers: dict[str, str]) -> None:
    plain, compiled = (_ask(app, id, query, headers) for app in (PLAIN, COMPILED))
    assert (compiled.status_code, compiled.json()) == (plain.status_code, plain.json())


def test_what_is_right_is_answered_by_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastapi.routing.solve_dependencies", None)
    found = _ask(COMPILED, "a", [("needed", "x"), ("limit", "7")])
    assert found.json()[2:6] == ["a", "x", "", 7]


def test_the_routes_that_are_asked_most_have_a_plan() -> None:
    routes = [context.original_route for context in iter_route_contexts(application().routes)]
    planned = {route.path for route in routes if isinstance(route, CompiledRoute) and route.plan is not None}
    assert {"/api/k8s/unified/resources", "/api/k8s/unified/resources/{id}"} <= planned


async def _several(wanted: Annotated[list[str], Query()]) -> Response:
    return JSONResponse(wanted)


async def _body(wanted: Annotated[str, Body()]) -> Response:
    return JSONResponse(wanted)


async def _deeper(agent: Annotated[str, Depends(_several)]) -> Response:
    return JSONResponse(agent)


@pytest.mark.parametrize("endpoint", [_several, _body, _deeper])
def test_an_endpoint_that_cannot_be_laid_out_is_refused_at_the_start(
    endpoint: Callable[..., Awaitable[Response]],
) -> None:
    app = FastAPI()
    router = APIRouter(route_class=CompiledRoute)
    router.add_api_route("/", endpoint)
    app.include_router(router)
    with pytest.raises(TypeError, match=r"laid out|more than the request"):
        compile_routes(app)


def test_a_route_that_is_included_twice_is_refused_at_the_start() -> None:
    """Each place may ask for more than the other."""
    app, router = FastAPI(), APIRouter(route_class=CompiledRoute)

    @router.get("/")
    async def answer() -> Response:
        return JSONResponse([])

    app.include_router(router, prefix="/open")
    app.include_router(router, prefix="/closed", dependencies=[Depends(_agent)])
    with pytest.raises(TypeError, match="twice"):
        compile_routes(app)
