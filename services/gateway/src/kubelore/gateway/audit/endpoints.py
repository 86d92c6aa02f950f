"""`/api/audit`: who did what, and whether the log of it is whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse

from kubelore.common.authz import Caller
from kubelore.common.errors import KubeloreError, TooManyRequests
from kubelore.common.store import Condition, gte, lt, one_of, starts_with
from kubelore.gateway.answering import json_answer
from kubelore.gateway.audit.entries import Entry
from kubelore.gateway.audit.verification import Auditor
from kubelore.gateway.continuation import Continuation
from kubelore.gateway.dependencies import CallerOf
from kubelore.gateway.moments import Moment
from kubelore.gateway.problems import documented
from kubelore.gateway.repository import AuditRepository
from kubelore.gateway.roster import Roster
from kubelore.gateway.schemas import AuditList

SIGN_OF_LIFE_S = 5.0

Where = dict[str, str | Condition]
Row = tuple[list[Any], Entry, str]

_PREFIX = "Exactly this; with * at the end, everything that begins so."


def audit_routes(
    repository: AuditRepository, auditor: Auditor, roster: Roster, continuation: Continuation
) -> APIRouter:
    """The router over the log."""
    router = APIRouter(prefix="/api/audit", tags=["audit"])
    _entries(router, repository, roster, continuation)
    _verification(router, auditor)
    return router


def _entries(
    router: APIRouter, repository: AuditRepository, roster: Roster, continuation: Continuation
) -> None:
    @router.get("", response_model=AuditList, summary="Who did what, newest first", responses=documented(410))
    async def list_audit(
        caller: Annotated[Caller, CallerOf],
        actor: Annotated[str, Query(max_length=200)] = "",
        action: Annotated[str, Query(max_length=200, description=_PREFIX, examples=["clusters.*"])] = "",
        resource: Annotated[str, Query(max_length=400, description=_PREFIX, examples=["prod-eu*"])] = "",
        cluster: Annotated[str, Query(max_length=63)] = "",
        outcome: Literal["ok", "refused", "failed", "unknown"] | None = None,
        since: Annotated[Moment | None, Query(description="Not before this time (RFC 3339).")] = None,
        until: Annotated[Moment | None, Query(description="Before this time (RFC 3339).")] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        continue_: Annotated[str, Query(alias="continue", max_length=2000)] = "",
    ) -> Response:
        where = _filter(
            {"actor": actor, "action": action, "resource": resource, "cluster": cluster, "outcome": outcome},
            since,
            until,
        )
        binding = msgspec.json.encode(["audit", caller.subject, _plain(where)]).decode()
        after = continuation.open(continue_, binding) if continue_ else None
        rows = await _rows(repository, _views(caller, roster, where), limit, after)
        token = continuation.seal(rows[-1][0], binding) if len(rows) == limit else None
        shown = await _without_closed(repository, rows)
        return json_answer({"items": [_item(id_, entry) for _, entry, id_ in shown], "continue": token})


def _verification(router: APIRouter, auditor: Auditor) -> None:
    verifying = asyncio.Lock()

    @router.get(
        "/verify",
        summary="Verify every chain of the log",
        response_class=StreamingResponse,
        responses={
            200: {
                "description": "A line of JSON for each chain, then one with `ok` for all. Empty lines are signs "
                "of life.",
                "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
            },
            **documented(403, 429),
        },
    )
    async def verify(caller: Annotated[Caller, CallerOf]) -> Response:
        caller.check_admin("verify the audit log")
        if verifying.locked():
            raise TooManyRequests(
                "the audit log is being verified already", remedy="Wait for its end.", retry_after_s=30
            )
        return StreamingResponse(_report(auditor, verifying), media_type="application/x-ndjson")


def _filter(fields: Mapping[str, str | None], since: float | None, until: float | None) -> Where:
    where: Where = {}
    for name, value in fields.items():
        if value:
            prefix = name in ("action", "resource") and value.endswith("*")
            where[name] = starts_with(value[:-1]) if prefix else value
    if since is not None and until is not None:
        where["at"] = gte(since) & lt(until)
    elif since is not None:
        where["at"] = gte(since)
    elif until is not None:
        where["at"] = lt(until)
    return where


def _plain(where: Where) -> dict[str, Any]:
    return {
        name: list(value.operators) if isinstance(value, Condition) else value
        for name, value in where.items()
    }


def _views(caller: Caller, roster: Roster, where: Where) -> list[Where]:
    """What of it the caller may see: everything, or their own acts and those in clusters they administer."""
    if caller.administers_everything:
        return [where]
    views: list[Where] = []
    if where.get("actor", caller.subject) == caller.subject:
        views.append({**where, "actor": caller.subject})
    administered = [
        name for name in roster.matching(caller, []) if caller.namespaces(name, "admin").everything
    ]
    chosen = where.get("cluster")
    if chosen is not None:
        administered = [name for name in administered if name == chosen]
    if administered:
        views.append({**where, "cluster": one_of(administered)})
    return views


async def _rows(
    repository: AuditRepository, views: list[Where], limit: int, after: list[Any] | None
) -> list[Row]:
    pages = await asyncio.gather(*(repository.page(view, limit, after) for view in views))
    rows = {row[2]: row for page in pages for row in page}
    return sorted(rows.values(), key=lambda row: row[0], reverse=True)[:limit]


async def _without_closed(repository: AuditRepository, rows: list[Row]) -> list[Row]:
    """Without the intents whose ends are there too: the end says all that the intent does."""
    intents = [id_ for _, entry, id_ in rows if entry.outcome == "unknown" and not entry.status]
    closed = await repository.closed(intents)
    return [row for row in rows if row[2] not in closed]


def _item(id_: str, entry: Entry) -> dict[str, Any]:
    fields = {name: getattr(entry, name) for name in entry.__struct_fields__ if name != "closes"}
    since = datetime.fromtimestamp(entry.since, UTC) if entry.since else None
    return {"id": id_, **fields, "at": datetime.fromtimestamp(entry.at, UTC), "since": since}


async def _report(auditor: Auditor, verifying: asyncio.Lock) -> AsyncGenerator[bytes]:
    async with verifying:
        chains = entries = broken = 0
        try:
            async for line in _with_signs_of_life(auditor.reports()):
                if line is None:
                    yield b"\n"
                    continue
                chains, entries, broken = chains + 1, entries + line.entries, broken + (not line.ok)
                yield msgspec.json.encode(line) + b"\n"
            total = {"ok": not broken, "chains": chains, "entries": entries, "broken": broken}
        except KubeloreError as error:
            total = {"ok": False, "chains": chains, "entries": entries, "error": error.detail}
        yield msgspec.json.encode(total) + b"\n"


async def _with_signs_of_life(reports: AsyncIterator[Any]) -> AsyncGenerator[Any]:
    """The reports, and None for every five seconds that the next one takes."""
    while True:
        following = asyncio.ensure_future(anext(reports, None))
        try:
            while not (await asyncio.wait([following], timeout=SIGN_OF_LIFE_S))[0]:
                yield None
            if (report := following.result()) is None:
                return
        finally:
            following.cancel()
            with suppress(asyncio.CancelledError, KubeloreError):
                await following
        yield report
