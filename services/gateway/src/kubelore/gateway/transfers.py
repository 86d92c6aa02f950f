"""`/api/k8s/containers/{id}/files/upload` and `/download`: content that flows through and is never held."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import suppress
from email.utils import formatdate
from typing import Annotated, Any, Literal
from urllib.parse import quote

import msgspec
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from kubelore.common.bus import Bus
from kubelore.common.bus.sessions import Session, SessionEnded
from kubelore.common.contracts import transfers
from kubelore.common.contracts.transfers import (
    CONTENT,
    ENDING,
    FRAME_BYTES,
    MAX_UPLOAD_ID,
    Account,
    Download,
    DownloadOpened,
    FindUpload,
    Upload,
    Uploaded,
)
from kubelore.common.errors import BadRequest, IntegrityError, UpstreamError
from kubelore.gateway.answering import json_answer
from kubelore.gateway.audit.requests import audited
from kubelore.gateway.container_ids import ContainerPath
from kubelore.gateway.event_stream import Outflow
from kubelore.gateway.problems import documented, status_problem
from kubelore.gateway.schemas import LINE
from kubelore.gateway.upload_bodies import UploadBody

BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
FORM: dict[str, Any] = {
    "schema": {"type": "object", "required": ["file"], "properties": {"file": BINARY["schema"]}}
}
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/octet-stream": BINARY,
            "application/x-tar": BINARY,
            "multipart/form-data": FORM,
        },
    }
}
MEDIA = {
    "file": "application/octet-stream",
    "tar": "application/x-tar",
    "tar.gz": "application/gzip",
    "zip": "application/zip",
}
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_ID = r"^[A-Za-z0-9_-]+$"

PathQuery = Annotated[
    str,
    Query(min_length=1, max_length=transfers.MAX_PATH_BYTES, description="Absolute, within the container."),
]
Name = Annotated[
    str, Query(max_length=255, pattern=r"^[^/\x00]*$", description="In a directory that `path` is.")
]
UploadId = Annotated[
    str,
    Query(max_length=MAX_UPLOAD_ID, pattern=r"^[A-Za-z0-9_-]*$", description="Of the caller's own making."),
]
Debug = Annotated[
    bool,
    Query(description="Add a debug container to the pod where the image has no shell or no programs for it."),
]
Reason = Annotated[str, Query(max_length=1000, pattern=LINE, description="Why, where a policy asks.")]
Trailer = Annotated[bool, Query(description="Whether the body ends with an account of what went before it.")]


class UploadDone(BaseModel):
    """What is in the container now."""

    path: str
    size: int = Field(description="Of the file, or of all files of the tree.")
    sha256: str
    entries: int = Field(description="Files, directories and links of a tree.")
    checked: bool = Field(description="Whether the container has computed the same hash.")


class UploadState(BaseModel):
    """How far an upload came that broke off."""

    offset: int


def transfer_routes(bus: Bus) -> APIRouter:
    """The router over container-ops."""
    router = APIRouter(prefix="/api/k8s/containers", tags=["files"])
    _uploading(router, bus)
    _resuming(router, bus)
    _downloading(router, bus)
    return router


def _uploading(router: APIRouter, bus: Bus) -> None:
    @router.post(
        "/{id:container}/files/upload",
        status_code=201,
        response_model=UploadDone,
        summary="Put a file or a tree into a container",
        description="The body is the content, or a form with the field `file`; as `tar` the archive of what "
        "lies below `path`. It is handed on while it comes. With an `upload` id what broke off can be taken up "
        "at the `offset` that GET of the same path tells; then `sha256` is needed, of all of it. With `trailer` "
        "the last 64 bytes of the body are that hash.",
        responses=documented(404, 409, 422, 501),
        openapi_extra=BODY,
        dependencies=[audited("containers.upload", path="id")],
    )
    async def upload(
        request: Request,
        id: ContainerPath,
        path: PathQuery,
        name: Name = "",
        format: Literal["file", "tar"] = "file",
        size: Annotated[int | None, Query(ge=0)] = None,
        upload: UploadId = "",
        offset: Annotated[int, Query(ge=0)] = 0,
        mode: Annotated[str, Query(pattern="^[0-7]{0,4}$", examples=["0644"])] = "",
        uid: Annotated[int | None, Query(ge=0, lt=2**32 - 1)] = None,
        gid: Annotated[int | None, Query(ge=0, lt=2**32 - 1)] = None,
        sha256: Annotated[str, Query(pattern="^([0-9a-f]{64})?$")] = "",
        trailer: Trailer = False,
        debug: Debug = False,
        reason: Reason = "",
    ) -> Response:
        body = UploadBody(request, sha256=sha256, trailer=trailer)
        asked = Upload(
            container=id,
            path=path,
            name=name or _checked(await body.name()),
            form=format,
            size=size,
            upload=upload,
            offset=offset,
            mode=int(mode, 8) if mode else None,
            uid=uid,
            gid=gid,
            debug=debug,
            reason=reason,
        )
        opened = await bus.request(transfers.UPLOAD, asked)
        return json_answer(await _poured(bus, opened.session, body), 201)


def _resuming(router: APIRouter, bus: Bus) -> None:
    @router.get(
        "/{id:container}/files/upload",
        response_model=UploadState,
        summary="How far an upload came",
        responses=documented(404, 409, 501),
    )
    async def upload_state(
        id: ContainerPath,
        path: PathQuery,
        upload: Annotated[str, Query(max_length=MAX_UPLOAD_ID, pattern=_ID)],
        name: Name = "",
        debug: Debug = False,
        reason: Reason = "",
    ) -> Response:
        asked = FindUpload(container=id, path=path, upload=upload, name=name, debug=debug, reason=reason)
        return json_answer(await bus.request(transfers.FIND_UPLOAD, asked))


def _downloading(router: APIRouter, bus: Bus) -> None:
    @router.get(
        "/{id:container}/files/download",
        response_class=StreamingResponse,
        summary="A file, or a directory as an archive",
        description="A connection that ends before the length, or before the last chunk, has not brought all "
        "of it: the last bytes are sent when size and hash are right. With `trailer` the body ends with a JSON "
        "document {size, sha256, entries, left_out, left_out_count, incomplete, checked}, and that with its own "
        "length in 8 hexadecimal digits.",
        responses={
            200: {"content": dict.fromkeys(MEDIA.values(), BINARY)},
            206: {"description": "A part of a file", "content": {MEDIA["file"]: BINARY}},
            **documented(404, 409, 416, 422, 501),
        },
        dependencies=[audited("containers.download", path="id")],
    )
    async def download(
        id: ContainerPath,
        path: PathQuery,
        format: Literal["file", "tar", "tar.gz", "zip"] | None = None,
        check: Annotated[bool, Query(description="Compare with a hash that the container computes.")] = True,
        trailer: Trailer = False,
        debug: Debug = False,
        reason: Reason = "",
        range_: Annotated[str, Header(alias="Range", max_length=100)] = "",
        if_range: Annotated[str, Header(alias="If-Range", max_length=200)] = "",
    ) -> Response:
        asked = Download(container=id, path=path, form=format, check=check, debug=debug, reason=reason)
        partial = False
        if (wanted := _RANGE.fullmatch(range_)) and wanted[0] != "bytes=-":
            asked.head = True
            there = await bus.request(transfers.DOWNLOAD, asked)
            asked.head = False
            if there.kind == "file" and if_range in ("", f'"{there.tag}"'):
                asked.tag, partial, asked.whole = there.tag, True, trailer
                if not _narrow(asked, there.size, wanted[1], wanted[2]):
                    headers = {"Content-Range": f"bytes */{there.size}"}
                    return status_problem(416, f"the file has {there.size} bytes", headers)
        opened = await bus.request(transfers.DOWNLOAD, asked)
        content = _content(bus, opened, trailer=trailer)
        headers = _headers(opened, partial, trailer)
        return Outflow(content, None, MEDIA[opened.form], headers, 206 if partial else 200)


async def _poured(bus: Bus, session_id: str, body: UploadBody) -> Uploaded:
    """Send a body to where it goes; what is there then."""
    async with Session(bus, session_id, "client", frame_bytes=FRAME_BYTES) as session:
        async for frame in body.frames():
            await session.send(frame)
        await session.send(ENDING + msgspec.msgpack.encode(body.account()))
        await session.finish()
        with suppress(SessionEnded):
            async for frame in session:
                if frame[:1] == ENDING:
                    return msgspec.msgpack.decode(frame[1:], type=Uploaded)
    raise UpstreamError(
        "nobody said how the upload ended", remedy="Look at what is there.", outcome="unknown"
    )


async def _content(bus: Bus, opened: DownloadOpened, *, trailer: bool) -> AsyncGenerator[bytes]:
    """What is sent: the last piece only once everything before it is known to be right."""
    held = b""
    sent = 0
    async with Session(bus, opened.session, "client", frame_bytes=FRAME_BYTES) as session:
        async for frame in session:
            if frame[:1] == CONTENT:
                if held:
                    yield held
                held = frame[1:]
                sent += len(held)
                continue
            account = msgspec.msgpack.decode(frame[1:], type=Account)
            if account.size != sent:
                raise IntegrityError(f"{account.size} bytes were sent, {sent} came")
            if account.incomplete and not trailer:
                raise UpstreamError(f"the tree did not come whole: {account.incomplete}")
            if held:
                yield held
            if trailer:
                told = msgspec.json.encode(account)
                yield told + f"{len(told):08x}".encode()
            await session.finish()
            return
    raise IntegrityError("the download ended without an account of it")


def _headers(opened: DownloadOpened, partial: bool, trailer: bool) -> dict[str, str]:
    name = opened.name + ("" if opened.form == "file" else f".{opened.form}")
    headers = {
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}",
        "X-Accel-Buffering": "no",
        "Kubelore-File-Mode": f"{opened.mode:04o}",
        "Kubelore-File-Owner": f"{opened.uid}:{opened.gid}",
    }
    if opened.kind == "file":
        headers["ETag"] = f'"{opened.tag}"'
        headers["Last-Modified"] = formatdate(opened.modified, usegmt=True)
        headers["Accept-Ranges"] = "bytes"
        headers["Kubelore-File-Size"] = str(opened.size)
        if not trailer:
            headers["Content-Length"] = str(opened.length)
    if partial:
        last = opened.offset + opened.length - 1
        headers["Content-Range"] = f"bytes {opened.offset}-{last}/{opened.size}"
    return headers


def _narrow(asked: Download, size: int, first: str, last: str) -> bool:
    """Ask for a range only (RFC 9110, 14.1.2); False when nothing of the file is in it."""
    if first:
        asked.offset = int(first)
        end = min(int(last), size - 1) if last else size - 1
    else:
        asked.offset, end = max(0, size - int(last)), size - 1
    asked.length = end - asked.offset + 1
    return asked.length > 0


def _checked(name: str) -> str:
    if name in (".", "..") or "\0" in name or len(name.encode(errors="replace")) > 255:
        raise BadRequest("the file in the form has a name that no file has")
    return name
