"""`/api/k8s/containers/{id}/files`: what lies in a container, its content, and changes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Header, Query, Response

from kubelore.common.authz import Caller
from kubelore.common.bus import Bus
from kubelore.common.contracts import files
from kubelore.common.contracts.files import (
    MAX_FILES,
    ChangeFile,
    FileAction,
    ListFiles,
    ReadContent,
    WriteContent,
)
from kubelore.common.contracts.resources import SortKey
from kubelore.common.errors import BadRequest
from kubelore.gateway.answering import json_answer
from kubelore.gateway.audit.requests import audited
from kubelore.gateway.container_ids import ContainerPath
from kubelore.gateway.continuation import Continuation
from kubelore.gateway.dependencies import CallerOf
from kubelore.gateway.file_batch import run_batch
from kubelore.gateway.file_schemas import (
    ChmodBody,
    ChownBody,
    ContentBody,
    DebugQuery,
    DeleteBody,
    FileBatchBody,
    FileBatchReport,
    FileChangeReport,
    FileDocument,
    FileItemList,
    ManyFilesBody,
    MkdirBody,
    PathQuery,
    ReasonQuery,
    RenameBody,
    WrittenDocument,
)
from kubelore.gateway.file_texts import TextEncoding, line_ends_of, recognised, to_bytes, to_text
from kubelore.gateway.parameters import Continue
from kubelore.gateway.problems import documented

FILES = "/{id:container}/files"
Tag = Annotated[str, Header(max_length=80)]


def file_routes(bus: Bus, continuation: Continuation) -> APIRouter:
    """The router over the file endpoints of container-ops."""
    router = APIRouter(prefix="/api/k8s/containers", tags=["files"])
    _listing(router, bus, continuation)
    _reading(router, bus)
    _writing(router, bus)
    _changes(router, bus)
    _batches(router, bus)
    return router


def _listing(router: APIRouter, bus: Bus, continuation: Continuation) -> None:
    @router.get(
        FILES,
        response_model=FileItemList,
        summary="The files of a directory in a container",
        responses=documented(404, 409, 410, 501, 502),
    )
    async def list_files(
        caller: Annotated[Caller, CallerOf],
        id: ContainerPath,
        path: PathQuery = "/",
        limit: Annotated[int, Query(ge=1, le=MAX_FILES)] = 200,
        debug: DebugQuery = False,
        reason: ReasonQuery = "",
        continue_: Continue = "",
    ) -> Response:
        binding = msgspec.json.encode([caller.subject, "files", id, path]).decode()
        after = _after(continuation.open(continue_, binding)) if continue_ else b""
        asked = ListFiles(container=id, path=path, after=after, limit=limit, debug=debug, reason=reason)
        page = await bus.request(files.LIST_FILES, asked)
        token = continuation.seal([page.next.hex()], binding) if page.next else None
        return json_answer(
            {
                "container": page.container,
                "path": page.path,
                "items": page.items,
                "total": page.total,
                "continue": token,
            }
        )


def _reading(router: APIRouter, bus: Bus) -> None:
    @router.get(
        FILES + "/content",
        response_model=FileDocument,
        summary="The text of a small file, to be edited",
        responses=documented(404, 409, 413, 422, 501, 502),
        dependencies=[audited("files.read", path="id")],
    )
    async def read_content(
        id: ContainerPath,
        path: PathQuery,
        encoding: Annotated[TextEncoding | None, Query(description="Recognised when left out.")] = None,
        debug: DebugQuery = False,
        reason: ReasonQuery = "",
    ) -> Response:
        asked = ReadContent(container=id, path=path, debug=debug, reason=reason)
        found = await bus.request(files.READ_CONTENT, asked)
        used = encoding or recognised(found.content)
        text = to_text(found.content, used)
        answer = json_answer(
            {
                "container": found.container,
                "file": found.file,
                "content": text,
                "encoding": used,
                "line_ends": "none" if used == "base64" else line_ends_of(text),
                "etag": f'"{found.sha256}"',
                "sha256": found.sha256,
                "operation_id": found.operation_id,
            }
        )
        answer.headers["ETag"] = f'"{found.sha256}"'
        return answer


def _writing(router: APIRouter, bus: Bus) -> None:
    @router.put(
        FILES + "/content",
        response_model=WrittenDocument,
        summary="Replace a small file at once, if it is still what was read",
        responses=documented(404, 409, 413, 422, 501, 502),
        dependencies=[audited("files.write", path="id")],
    )
    async def write_content(
        id: ContainerPath,
        body: ContentBody,
        path: PathQuery,
        if_match: Tag = "",
        if_none_match: Tag = "",
    ) -> Response:
        asked = WriteContent(
            container=id,
            path=path,
            content=to_bytes(body.content, body.encoding, body.line_ends or ""),
            expected=_expected(if_match, if_none_match),
            mode=body.mode,
            debug=body.debug,
            reason=body.reason,
        )
        made = await bus.request(files.WRITE_CONTENT, asked)
        answer = json_answer({**msgspec.structs.asdict(made), "etag": f'"{made.sha256}"'})
        answer.headers["ETag"] = f'"{made.sha256}"'
        return answer


def _changes(router: APIRouter, bus: Bus) -> None:
    @_change_route(router, "chmod", "Give a file another mode")
    async def chmod(id: ContainerPath, body: ChmodBody) -> Response:
        return await _change(bus, ChangeFile(container=id, action="chmod", **body.model_dump()))

    @_change_route(router, "chown", "Give a file another owner or group")
    async def chown(id: ContainerPath, body: ChownBody) -> Response:
        asked = body.model_dump(exclude={"group", "owner"})
        return await _change(bus, ChangeFile(container=id, action="chown", owner=body.whole(), **asked))

    @_change_route(router, "mkdir", "Make a directory")
    async def mkdir(id: ContainerPath, body: MkdirBody) -> Response:
        asked = body.model_dump(exclude={"parents"})
        return await _change(bus, ChangeFile(container=id, action="mkdir", recursive=body.parents, **asked))

    @_change_route(router, "rename", "Give a file another name or place")
    async def rename(id: ContainerPath, body: RenameBody) -> Response:
        return await _change(bus, ChangeFile(container=id, action="rename", **body.model_dump()))

    @_change_route(router, "delete", "Delete a file or a directory")
    async def delete(id: ContainerPath, body: DeleteBody) -> Response:
        return await _change(bus, ChangeFile(container=id, action="delete", **body.model_dump()))


def _change_route(router: APIRouter, action: FileAction, summary: str) -> Callable[[Any], Any]:
    return router.post(
        f"{FILES}/{action}",
        response_model=FileChangeReport,
        summary=summary,
        responses=documented(404, 409, 422, 501, 502),
        dependencies=[audited(f"files.{action}", path="id")],
    )


def _batches(router: APIRouter, bus: Bus) -> None:
    @router.post(
        FILES + "/batch",
        response_model=FileBatchReport,
        summary="Change many files of a container, each with its own result",
        responses=documented(413, 422),
        dependencies=[audited("files.batch", path="id", itemised=True)],
    )
    async def change_files(id: ContainerPath, body: FileBatchBody) -> Response:
        return json_answer(await run_batch(bus, [id], body))

    @router.post(
        "/files/batch",
        response_model=FileBatchReport,
        summary="Change files of many containers, each with its own result",
        responses=documented(413, 422),
        dependencies=[audited("files.batch", itemised=True)],
    )
    async def change_files_of_many(body: ManyFilesBody) -> Response:
        return json_answer(await run_batch(bus, body.containers, body))


async def _change(bus: Bus, asked: ChangeFile) -> Response:
    return json_answer(await bus.request(files.CHANGE_FILE, asked))


def _after(position: SortKey) -> bytes:
    match position:
        case [str(name)]:
            return bytes.fromhex(name)
    raise BadRequest("the continue token is no position in a directory")


def _expected(if_match: str, if_none_match: str) -> str:
    """What must be there: a SHA-256, `*` for anything, nothing for no file. Raises BadRequest."""
    if if_match and not if_none_match:
        return if_match.strip().removeprefix('"').removesuffix('"')
    if if_match or if_none_match not in ("", "*"):
        raise BadRequest(
            "send either If-Match with a file's ETag, or If-None-Match: * for a new file",
            remedy="Reading a file answers its ETag.",
        )
    return ""
