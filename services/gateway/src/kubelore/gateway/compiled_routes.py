"""Routes that are asked often: what FastAPI works out about them at every request is worked out once.

Going through dependencies and parameters was a third of all that the gateway
did for a small answer (docs/decisions/0116). Here both are laid out in a plan
when the application has been put together. What a request brings is checked by
the very fields that FastAPI made; whatever does not fit them is left to
FastAPI, which says why.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.requests import Request
from starlette.responses import Response


class CompiledRoute(APIRoute):
    """For `APIRouter(route_class=...)`: calls its endpoint by a plan, as soon as it has one (`compile_routes`)."""

    plan: Plan | None = None

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The endpoint as its plan calls it, or for want of arguments as FastAPI does."""
        by_fastapi = super().get_route_handler()

        async def handle(request: Request) -> Response:
            arguments = await self.plan.arguments(request) if self.plan is not None else None
            if arguments is None:
                return await by_fastapi(request)
            return await self.endpoint(**arguments)

        return handle


def compile_routes(app: FastAPI) -> None:
    """Give every CompiledRoute its plan, with the dependencies of all that includes it.

    Raises TypeError for one that cannot have a plan, or is included twice: the
    dependencies of one place would be left out at the other.
    """
    for context in iter_route_contexts(app.routes):
        route = context.original_route
        if isinstance(route, CompiledRoute):
            if route.plan is not None:
                raise TypeError(f"{route.path} is included twice")
            route.plan = Plan(context.dependant)


class Plan:
    """What an endpoint is called with.

    Raises TypeError for one that takes more than single values in path, query
    and headers, and dependencies that need the request and nothing else.
    """

    def __init__(self, dependant: Dependant) -> None:
        fields = [*dependant.path_params, *dependant.query_params, *dependant.header_params]
        self._path = {field.alias: field for field in dependant.path_params}
        self._query = {field.alias: field for field in dependant.query_params}
        self._headers = {field.alias: field for field in dependant.header_params}
        self._defaults = {field.name: field.default for field in fields if not field.field_info.is_required()}
        self._dependencies = [_Dependency.of(one) for one in dependant.dependencies]
        self._request_name = dependant.request_param_name
        known = {self._request_name, *(one.name for one in (*fields, *self._dependencies))} - {None}
        self._count = len(known)
        shared = any(not isinstance(value, str | int | None) for value in self._defaults.values())
        several = any("list" in str(field.field_info.annotation).lower() for field in fields)
        if shared or several or known != _arguments_of(dependant):
            raise TypeError(f"{dependant.path}: what it takes cannot be laid out")

    async def arguments(self, request: Request) -> dict[str, Any] | None:
        """The endpoint's, by name; None when a parameter is missing, unknown, repeated or does not fit.

        Raises what the dependencies raise.
        """
        found = self._defaults.copy()
        for dependency in self._dependencies:
            value = await dependency.solve(request)
            if dependency.name is not None:
                found[dependency.name] = value
        if self._request_name:
            found[self._request_name] = request
        headers = [(name, request.headers[name]) for name in self._headers if name in request.headers]
        seen: set[str] = set()
        for fields, given in (
            (self._path, request.path_params.items()),
            (self._query, request.query_params.multi_items()),
            (self._headers, headers),
        ):
            for name, text in given:
                field = fields.get(name)
                if field is None or field.name in seen:
                    return None
                seen.add(field.name)
                found[field.name], errors = field.validate(text)
                if errors:
                    return None
        return found if len(found) == self._count else None


@dataclass(frozen=True, slots=True)
class _Dependency:
    """An async function that may want the request, under the name of what it is the argument of."""

    name: str | None
    call: Callable[..., Awaitable[Any]]
    request_name: str | None

    @classmethod
    def of(cls, dependant: Dependant) -> _Dependency:
        request_name = dependant.request_param_name or dependant.http_connection_param_name
        if dependant.call is None or _arguments_of(dependant) != {request_name} - {None}:
            raise TypeError(f"{dependant.call} needs more than the request")
        return cls(dependant.name, dependant.call, request_name)

    async def solve(self, request: Request) -> Any:
        return await (self.call(**{self.request_name: request}) if self.request_name else self.call())


def _arguments_of(dependant: Dependant) -> set[str]:
    """The names of what a function takes. Raises TypeError where it is not async."""
    if not inspect.iscoroutinefunction(dependant.call):
        raise TypeError(f"{dependant.call} is not async")
    return {*inspect.signature(dependant.call).parameters}
