"""Changing clusters over HTTP: a batch, and one object at a time as the same thing in small."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from kubelore.common.authz import Caller
from kubelore.common.bus import Bus
from kubelore.common.contracts import writes
from kubelore.common.contracts.writes import OperationRef, PatchType, Propagation, Written
from kubelore.common.errors import BadRequest, KubeloreError, Unsupported
from kubelore.common.kube.documents import load_json
from kubelore.common.operations import current_operation, is_operation_id
from kubelore.gateway.answering import json_answer
from kubelore.gateway.audit.requests import Act, audited, intend, refuse
from kubelore.gateway.batch import Batch, Item, Outcome
from kubelore.gateway.dependencies import CallerOf
from kubelore.gateway.manifests import expand, read_operations
from kubelore.gateway.parameters import comma
from kubelore.gateway.problems import documented
from kubelore.gateway.roster import Roster
from kubelore.gateway.write_schemas import (
    BatchBody,
    BatchReport,
    ChangeLog,
    Reason,
    RecordedWrites,
    WriteBody,
    WriteReport,
)

_PATCH_TYPES: dict[str, PatchType] = {
    "application/merge-patch+json": "merge",
    "application/json-patch+json": "json",
    "application/strategic-merge-patch+json": "strategic",
    "application/json": "merge",
}
_YAML = ("application/yaml", "application/x-yaml", "text/yaml", "application/json")

ObjectId = Annotated[str, Path(description="cluster:type:namespace:name", max_length=1000)]
DryRun = Annotated[bool, Query(description="Let the API server do all but store it.")]
Why = Annotated[Reason, Query(description="Why, for the audit and the object's history.")]
Log = Annotated[ChangeLog, Query(description="What changed, in more words.")]
Uid = Annotated[str, Query(max_length=64, pattern="^[-0-9A-Za-z]*$", description="Only this very object.")]
Rv = Annotated[
    str, Query(max_length=64, pattern="^[-0-9A-Za-z]*$", description="Only in this very resourceVersion.")
]
_BODY = {"type": "object"}


class Writes:
    """Carries out batches for callers, each item on record in the audit before it begins."""

    def __init__(self, bus: Bus, roster: Roster) -> None:
        self._bus = bus
        self._roster = roster

    async def batch(self, request: Request, caller: Caller, body: BatchBody) -> list[Outcome]:
        """What became of every item; nothing more is begun once the client is gone.

        Raises for a body in which something cannot be understood: then nothing was done.
        """
        # A manifest takes half a second to read, at worst; the other requests need not wait for it.
        manifests = await asyncio.to_thread(read_operations, body)
        items = expand(body, manifests, self._roster, caller)
        acts = [] if body.dry_run else await intend([_act(item) for item in items])
        outcomes = await _while_connected(request, Batch(self._bus, body.stop_on_error), items)
        for act, outcome in zip(acts, outcomes, strict=False):
            _settle(act, outcome)
        for outcome in outcomes if body.dry_run else ():
            if outcome.error is not None:
                refuse(*_act(outcome.item), outcome.error)
        return outcomes

    async def one(self, request: Request, caller: Caller, body: BatchBody) -> Written:
        """A batch of one, which raises what its item failed with."""
        (outcome,) = await self.batch(request, caller, body)
        if outcome.written is None:
            raise outcome.error or KubeloreError("nothing became of the write")
        return outcome.written


def write_routes(bus: Bus, roster: Roster) -> APIRouter:
    """The router over the write endpoints of resource-ops."""
    router = APIRouter(prefix="/api/k8s", tags=["unified"])
    carrying_out = Writes(bus, roster)
    _batch(router, carrying_out)
    _apply(router, carrying_out)
    _patch(router, carrying_out)
    _delete(router, carrying_out)
    _recorded(router, bus)
    return router


def _batch(router: APIRouter, carrying_out: Writes) -> None:
    @router.post(
        "/unified/batch",
        response_model=BatchReport,
        response_model_exclude_unset=True,
        summary="Change objects in many clusters",
        responses=documented(413, 422),
        dependencies=[audited("resources.batch", itemised=True)],
    )
    async def batch(request: Request, caller: Annotated[Caller, CallerOf], body: BatchBody) -> Response:
        # What pydantic read is the last of a key that is there twice; the text may hold manifests.
        text = await request.body()
        await asyncio.to_thread(load_json, text, max_bytes=len(text), max_nodes=len(text))
        return json_answer(batch_report(await carrying_out.batch(request, caller, body), body.dry_run))


def _apply(router: APIRouter, carrying_out: Writes) -> None:
    @router.post(
        "/unified/apply",
        response_model=BatchReport,
        response_model_exclude_unset=True,
        summary="Apply manifests to clusters",
        responses=documented(413, 422, 501),
        dependencies=[audited("resources.apply", itemised=True)],
        openapi_extra=_takes(*_YAML),
    )
    async def apply(
        request: Request,
        caller: Annotated[Caller, CallerOf],
        clusters: Annotated[
            str,
            Query(min_length=1, max_length=20_000, description="Names, group:x and tag:y, comma separated."),
        ],
        namespace: Annotated[
            str, Query(max_length=63, pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
        ] = "default",
        force: Annotated[bool, Query(description="Take over fields that other managers own.")] = False,
        dry_run: DryRun = False,
        stop_on_error: bool = False,
        reason: Why = "",
        change_log: Log = "",
    ) -> Response:
        _media_type(request, _YAML)
        operation = _checked(
            WriteBody,
            action="apply",
            clusters=comma(clusters),
            manifest=_text(await request.body()),
            namespace=namespace,
            force=force,
        )
        body = BatchBody(
            operations=[operation],
            dry_run=dry_run,
            stop_on_error=stop_on_error,
            reason=reason,
            change_log=change_log,
        )
        return json_answer(batch_report(await carrying_out.batch(request, caller, body), dry_run))


def _patch(router: APIRouter, carrying_out: Writes) -> None:
    @router.patch(
        "/unified/resources/{id}",
        response_model=WriteReport,
        response_model_exclude_unset=True,
        summary="Patch one object",
        responses=documented(403, 404, 409, 413, 422, 501, 502),
        dependencies=[audited("resources.patch", itemised=True)],
        openapi_extra=_takes(*_PATCH_TYPES),
    )
    async def patch(
        request: Request,
        caller: Annotated[Caller, CallerOf],
        id: ObjectId,
        dry_run: DryRun = False,
        uid: Uid = "",
        rv: Rv = "",
        reason: Why = "",
        change_log: Log = "",
    ) -> Response:
        kind = _PATCH_TYPES[_media_type(request, tuple(_PATCH_TYPES))]
        operation = _checked(
            WriteBody,
            action="patch",
            id=id,
            patch=await asyncio.to_thread(load_json, await request.body()),
            patch_type=kind,
            uid=uid,
            rv=rv,
        )
        body = _single(operation, dry_run, reason, change_log)
        return json_answer(await carrying_out.one(request, caller, body))


def _delete(router: APIRouter, carrying_out: Writes) -> None:
    @router.delete(
        "/unified/resources/{id}",
        response_model=WriteReport,
        response_model_exclude_unset=True,
        summary="Delete one object",
        responses=documented(403, 404, 409, 422, 501, 502),
        dependencies=[audited("resources.delete", itemised=True)],
    )
    async def delete(
        request: Request,
        caller: Annotated[Caller, CallerOf],
        id: ObjectId,
        propagation: Annotated[Propagation | None, Query()] = None,
        grace_period_s: Annotated[int | None, Query(ge=0, le=86_400)] = None,
        dry_run: DryRun = False,
        uid: Uid = "",
        rv: Rv = "",
        reason: Why = "",
        change_log: Log = "",
    ) -> Response:
        operation = _checked(
            WriteBody,
            action="delete",
            id=id,
            propagation=propagation,
            grace_period_s=grace_period_s,
            uid=uid,
            rv=rv,
        )
        body = _single(operation, dry_run, reason, change_log)
        return json_answer(await carrying_out.one(request, caller, body))


def _recorded(router: APIRouter, bus: Bus) -> None:
    @router.get(
        "/operations/{id}",
        response_model=RecordedWrites,
        summary="What became of an operation",
        responses=documented(404),
    )
    async def operation(
        id: Annotated[str, Path(max_length=64, description="As `Operation-Id` of the answer said.")],
    ) -> Response:
        if not is_operation_id(id):
            raise BadRequest(f"{id!r} is no operation")
        return json_answer(await bus.request(writes.OPERATIONS, OperationRef(id)))


def _takes(*media_types: str) -> dict[str, Any]:
    content = {media_type: {"schema": {}} for media_type in media_types}
    return {"requestBody": {"required": True, "content": content}}


def _media_type(request: Request, known: tuple[str, ...]) -> str:
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given not in known:
        raise Unsupported(
            f"the body's type {given[:100]!r} is not known", remedy=f"Send {' or '.join(known)}."
        )
    return given


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise BadRequest("the body is not UTF-8", remedy="Save it as UTF-8.", code="encoding") from None


def _checked(model: type[WriteBody], **fields: Any) -> WriteBody:
    """The fields as an operation. Raises BadRequest for what an operation cannot hold."""
    try:
        return model(**fields)
    except ValueError as error:
        raise BadRequest(f"the request cannot be an operation: {type(error).__name__}") from error


def _single(operation: WriteBody, dry_run: bool, reason: str, change_log: str) -> BatchBody:
    return BatchBody(
        operations=[operation], dry_run=dry_run, stop_on_error=False, reason=reason, change_log=change_log
    )


def _act(item: Item) -> tuple[str, str]:
    return f"resources.{item.action}", item.id or item.cluster


def _settle(act: Act, outcome: Outcome) -> None:
    error = outcome.error
    if outcome.written is not None:
        act.resource = outcome.written.id
        act.settle(200)
    elif outcome.skipped:
        act.settle(409, "Skipped")
    elif error is not None and error.extra.get("outcome") == "unknown":
        act.settle(504, error.reason)
    elif error is not None:
        act.fail(error)


async def _while_connected(request: Request, batch: Batch, items: list[Item]) -> list[Outcome]:
    """The batch's outcomes; once the client is gone it only finishes what it has begun."""
    running = asyncio.create_task(batch.run(items))
    leaving = asyncio.create_task(_gone(request))
    try:
        await asyncio.wait({running, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            batch.stop("the client went away")
        return await running
    finally:
        for task in (running, leaving):
            task.cancel()
        await asyncio.gather(running, leaving, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def batch_report(outcomes: list[Outcome], dry_run: bool) -> dict[str, Any]:
    """Every item's result as people see it, and how many there are of each kind."""
    skipped = sum(outcome.skipped for outcome in outcomes)
    succeeded = sum(outcome.written is not None for outcome in outcomes)
    return {
        "operation": current_operation(),
        "dry_run": dry_run,
        "results": [_result(outcome) for outcome in outcomes],
        "succeeded": succeeded,
        "failed": len(outcomes) - succeeded - skipped,
        "skipped": skipped,
    }


def _result(outcome: Outcome) -> dict[str, Any]:
    item, written, error = outcome.item, outcome.written, outcome.error
    told: dict[str, Any] = {
        "index": item.index,
        "id": written.id if written else item.id,
        "cluster": item.cluster,
        "action": item.action,
        "ok": written is not None,
        "skipped": outcome.skipped,
    }
    if written is not None:
        told |= {
            "result": written.result,
            "uid": written.uid,
            "rv": written.rv,
            "operation": written.operation,
            "changes": written.changes,
            "more": written.more,
        }
    if error is not None:
        told["error"] = {
            **error.extra,
            "reason": error.reason,
            "status": error.status,
            "detail": error.detail,
            "remedy": error.remedy,
        }
    return told
