"""`/api/k8s/containers`: what pods consist of, commands in containers, and the history of all that is done there."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path, Query, Request, Response

from kubelore.common.authz import Caller
from kubelore.common.bus import Bus
from kubelore.common.contracts import container_history, containers, execution
from kubelore.common.contracts.container_history import (
    ContainerOperationRef,
    ListContainerOperations,
    OperationKind,
    OperationStatus,
)
from kubelore.common.contracts.containers import ContainerId, PodRef
from kubelore.common.contracts.execution import MAX_TARGETS, DebugContainer, FindContainers
from kubelore.common.contracts.resources import SortKey
from kubelore.common.errors import BadRequest, KubeloreError, NotFound, TooLarge
from kubelore.gateway.answering import json_answer
from kubelore.gateway.audit.requests import Act, audited, intend
from kubelore.gateway.container_ids import ContainerPath
from kubelore.gateway.continuation import Continuation
from kubelore.gateway.dependencies import CallerOf
from kubelore.gateway.execution_schemas import (
    ContainerOperationDocument,
    ContainerOperationList,
    DebugBody,
    DebugReport,
    ExecBody,
    ExecReport,
    ManyExecBody,
    ManyExecReport,
    PodDocument,
)
from kubelore.gateway.moments import Moment
from kubelore.gateway.parameters import Continue
from kubelore.gateway.problems import documented
from kubelore.gateway.roster import Roster
from kubelore.gateway.running import Ran, run, while_connected

PREFIX = "/api/k8s/containers"
FIND_AT_ONCE = 8

ClusterName = Annotated[str, Query(max_length=63)]
Name = Annotated[str, Query(max_length=253)]
RUN = audited("containers.exec", path="id")


def container_routes(bus: Bus, roster: Roster, continuation: Continuation) -> APIRouter:
    """The router over container-ops."""
    router = APIRouter(prefix=PREFIX, tags=["containers"])
    _reading(router, bus)
    _past_operations(router, bus, continuation)
    _past_operation(router, bus)
    _running(router, bus)
    _running_many(router, bus, roster)
    return router


def _reading(router: APIRouter, bus: Bus) -> None:
    @router.get(
        "", response_model=PodDocument, summary="The containers of a pod", responses=documented(404, 502)
    )
    async def list_containers(cluster: ClusterName, namespace: Name, pod: Name) -> Response:
        ref = PodRef(cluster=cluster, namespace=namespace, pod=pod)
        return json_answer(await bus.request(containers.CONTAINERS, ref))


def _running(router: APIRouter, bus: Bus) -> None:
    @router.post(
        "/{id:container}/exec",
        response_model=ExecReport,
        summary="Run a command in a container, to its end",
        responses=documented(404, 409, 422, 502),
        dependencies=[RUN],
    )
    async def run_command(request: Request, id: ContainerPath, body: ExecBody) -> Response:
        asked, stdin = body.asked(id)
        async with while_connected(request):
            ran = await run(bus, asked, stdin)
        return json_answer(report_of(ran))

    @router.post(
        "/{id:container}/debug",
        response_model=DebugReport,
        summary="Have an ephemeral debug container beside a container; it stays in the pod until that ends",
        responses=documented(404, 409, 422, 501, 502),
        dependencies=[audited("containers.debug", path="id")],
    )
    async def debug_container(id: ContainerPath, body: DebugBody) -> Response:
        return json_answer(await bus.request(execution.DEBUG, DebugContainer(id=id, reason=body.reason)))


def _running_many(router: APIRouter, bus: Bus, roster: Roster) -> None:
    @router.post(
        "/exec",
        response_model=ManyExecReport,
        summary="Run a command in many containers, each with its own result",
        responses=documented(404, 413, 422),
        dependencies=[audited("containers.exec", itemised=True)],
    )
    async def run_in_many(
        request: Request, caller: Annotated[Caller, CallerOf], body: ManyExecBody
    ) -> Response:
        async with while_connected(request):
            ids = await _targets(bus, roster, caller, body)
            acts = await intend([("containers.exec", one) for one in ids])
            room = asyncio.Semaphore(body.parallel)
            tasks = [_one(bus, body, one, act, room) for one, act in zip(ids, acts, strict=True)]
            results = await asyncio.gather(*tasks)
        succeeded = sum(1 for one in results if one["report"] and one["report"]["exit_code"] == 0)
        failed = len(results) - succeeded
        return json_answer({"results": results, "succeeded": succeeded, "failed": failed})


async def _targets(bus: Bus, roster: Roster, caller: Caller, body: ManyExecBody) -> list[str]:
    """The ids that a body means, each once and in order. Raises BadRequest, TooLarge, and NotFound of all clusters."""
    if bool(body.containers) == (body.selection is not None):
        raise BadRequest("name either containers or a selection")
    if body.selection is None:
        return list(dict.fromkeys(str(ContainerId.parse(one)) for one in body.containers))
    selection = body.selection
    room = asyncio.Semaphore(FIND_AT_ONCE)

    missing: list[NotFound] = []

    async def find(cluster: str) -> Sequence[str]:
        plain = selection.model_dump(exclude={"clusters"})
        try:
            async with room:
                found = await bus.request(execution.FIND_CONTAINERS, FindContainers(cluster=cluster, **plain))
        except NotFound as error:
            missing.append(error)
            return ()
        if found.more:
            raise _too_many()
        return found.ids

    clusters = roster.select(caller, selection.clusters)
    ids = [one for found in await asyncio.gather(*map(find, clusters)) for one in found]
    if missing and len(missing) == len(clusters):
        raise missing[0]
    if len(ids) > MAX_TARGETS:
        raise _too_many()
    return ids


def _too_many() -> TooLarge:
    return TooLarge(
        f"the selection means more than {MAX_TARGETS} containers",
        remedy="Narrow it down by clusters, namespaces or labels.",
    )


async def _one(bus: Bus, body: ManyExecBody, id: str, act: Act, room: asyncio.Semaphore) -> dict[str, Any]:
    """The command in one of many containers. Never raises for what becomes of it there."""
    try:
        asked, stdin = body.asked(id)
        async with room:
            report = report_of(await run(bus, asked, stdin))
    except KubeloreError as error:
        act.fail(error)
        fault = {
            "status": error.status,
            "reason": error.reason,
            "detail": error.detail,
            "remedy": error.remedy or "",
        }
        return {"container": id, "report": None, "error": fault}
    act.settle(200)
    return {"container": id, "report": report, "error": None}


def report_of(ran: Ran) -> dict[str, Any]:
    """A command that ended, as it is answered."""
    parts = [bytes(ran.stdout), bytes(ran.stderr)]
    texts = [_text(part, ran.end.truncated) for part in parts]
    binary = None in texts
    shown = [base64.b64encode(part).decode() for part in parts] if binary else texts
    end: dict[str, Any] = msgspec.to_builtins(ran.end)
    return {
        "stdout": shown[0],
        "stderr": shown[1],
        "encoding": "base64" if binary else "utf-8",
        **end,
        "operation_id": ran.started.operation_id,
        "container": ran.started.id,
    }


def _text(data: bytes, truncated: bool) -> str | None:
    """Output as text; None for what is none. A character that the limit cut through is left out."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        if truncated and error.reason == "unexpected end of data" and len(data) - error.start < 4:
            return data[: error.start].decode()
        return None


def _past_operations(router: APIRouter, bus: Bus, continuation: Continuation) -> None:
    @router.get(
        "/operations",
        response_model=ContainerOperationList,
        summary="What was done in containers, newest first",
        responses=documented(410),
    )
    async def list_container_operations(
        caller: Annotated[Caller, CallerOf],
        cluster: ClusterName = "",
        namespace: Name = "",
        pod: Name = "",
        container: Name = "",
        kind: Annotated[OperationKind | None, Query(alias="type")] = None,
        user: Name = "",
        status: OperationStatus | None = None,
        session: Annotated[str, Query(max_length=200, description="A terminal's.")] = "",
        text: Annotated[str, Query(max_length=200, description="In command, reason or result.")] = "",
        since: Moment | None = None,
        until: Moment | None = None,
        limit: Annotated[int, Query(ge=1, le=container_history.MAX_PAGE)] = 100,
        continue_: Continue = "",
    ) -> Response:
        asked = ListContainerOperations(
            cluster=cluster,
            namespace=namespace,
            pod=pod,
            container=container,
            kind=kind or "",
            user=user,
            status=status or "",
            session=session,
            text=text,
            since=since,
            until=until,
        )
        binding = f"container-operations:{caller.subject}:{msgspec.json.encode(asked).decode()}"
        asked.limit = limit
        asked.before = _position(continuation.open(continue_, binding)) if continue_ else ""
        page = await bus.request(container_history.LIST_OPERATIONS, asked)
        token = continuation.seal([page.next], binding) if page.next else None
        return json_answer({"items": page.items, "continue": token})


def _past_operation(router: APIRouter, bus: Bus) -> None:
    @router.get(
        "/operations/{operation}",
        response_model=ContainerOperationDocument,
        summary="One operation, with all that is kept of it",
        responses=documented(404),
    )
    async def get_container_operation(
        operation: Annotated[str, Path(description="Its id.", max_length=64)],
    ) -> Response:
        return json_answer(
            await bus.request(container_history.GET_OPERATION, ContainerOperationRef(operation))
        )


def _position(found: SortKey) -> str:
    match found:
        case [str(text)]:
            return text
    raise BadRequest("the continue token is no position among operations")
