"""Files and trees into and out of containers: never a short one, and never half of one under its name.

What goes out is counted and hashed here and, where it can, in the container;
the account of it follows the content, and whoever does not get the account has
nothing. What comes in lies beside its place until size and hash are right, and
gets its name in one step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from typing import TypeVar

import msgspec

from kubelore.common.bus import Bus, Service
from kubelore.common.bus.sessions import Session, new_session_id
from kubelore.common.contracts import transfers
from kubelore.common.contracts.containers import SERVICE
from kubelore.common.contracts.transfers import (
    ENDING,
    FRAME_BYTES,
    Account,
    Download,
    DownloadOpened,
    FindUpload,
    Upload,
    Uploaded,
    UploadFound,
    UploadOpened,
)
from kubelore.common.errors import KubeloreError, TooManyRequests
from kubelore.common.mandates import Mandate, acting_under
from kubelore.common.telemetry import get_logger
from kubelore.container_ops.file_paths import path_bytes
from kubelore.container_ops.files import FileWork, Work
from kubelore.container_ops.house import House
from kubelore.container_ops.receiving import Receiving, found_upload
from kubelore.container_ops.sending import Sending

log = get_logger(__name__)

MAX_TRANSFERS = 64
RENEW_S = 4.0

Opened = TypeVar("Opened")


class Transfers:
    """Answers UPLOAD, FIND_UPLOAD and DOWNLOAD; what it began runs on as a task."""

    def __init__(self, house: House, work: FileWork) -> None:
        self._house = house
        self._work = work
        self._tasks: set[asyncio.Task[None]] = set()

    def serve(self, service: Service) -> None:
        """Answer on a service that is not started yet."""
        service.serve(transfers.UPLOAD, self.upload)
        service.serve(transfers.FIND_UPLOAD, self.find, max_concurrent=8)
        service.serve(transfers.DOWNLOAD, self.download)

    async def download(self, request: Download) -> DownloadOpened:
        """Begin to send. Raises NotFound, Forbidden, Invalid, Conflict (another state than `tag`), Unsupported."""
        path = path_bytes(request.path)
        if request.head:
            async with self._on("download", request) as work:
                return await Sending(work.box, work.reached, request, path).look()

        async def send(session: Session, opened: asyncio.Future[DownloadOpened]) -> None:
            async with self._on("download", request, session.id) as work:
                account = await Sending(work.box, work.reached, request, path).send(session, opened)
                result = work.entry.result
                result |= {"bytes": account.size, "sha256": account.sha256}
                result |= {"entries": account.entries, "left_out": account.left_out_count}
                result |= {"incomplete": account.incomplete} if account.incomplete else {}
            await _end(session, account)

        return await self._begin(send)

    async def upload(self, request: Upload) -> UploadOpened:
        """Begin to take. Raises NotFound, Forbidden, Invalid, Conflict (it is further or less far), Unsupported."""
        path = path_bytes(request.path)

        async def take(session: Session, opened: asyncio.Future[UploadOpened]) -> None:
            async with self._on("upload", request, session.id) as work:
                done = await Receiving(work.box, work.reached, request, path, work.entry.operation_id).take(
                    session, opened
                )
                work.entry.result |= {"bytes": done.size, "sha256": done.sha256, "entries": done.entries}
            await _end(session, done)

        return await self._begin(take)

    async def find(self, request: FindUpload) -> UploadFound:
        """How far an upload came. Raises NotFound, Forbidden, Unsupported."""
        path = path_bytes(request.path)
        async with self._on("upload", request) as work:
            return UploadFound(await found_upload(work.box, work.reached, request, path))

    async def close(self) -> None:
        """Cancel what runs."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _on(
        self, what: str, request: Download | Upload | FindUpload, session_id: str = ""
    ) -> AbstractAsyncContextManager[Work]:
        return self._work.on(
            request.container,
            [f"files:{what}", request.path],
            debug=request.debug,
            reason=request.reason,
            session_id=session_id,
        )

    async def _begin(self, work: Callable[[Session, asyncio.Future[Opened]], Awaitable[None]]) -> Opened:
        if len(self._tasks) >= MAX_TRANSFERS:
            raise TooManyRequests(f"{MAX_TRANSFERS} transfers are under way already", retry_after_s=5)
        opened: asyncio.Future[Opened] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(_transfer(self._house.bus, Mandate.of_request(), work, opened))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            return await opened
        except asyncio.CancelledError:
            task.cancel()
            raise


async def _transfer(
    bus: Bus,
    mandate: Mandate,
    work: Callable[[Session, asyncio.Future[Opened]], Awaitable[None]],
    opened: asyncio.Future[Opened],
) -> None:
    session_id = new_session_id(SERVICE, "gateway")
    async with Session(bus, session_id, "server", frame_bytes=FRAME_BYTES) as session:
        try:
            async with acting_under(bus, mandate, renew_every_s=RENEW_S):
                await work(session, opened)
        except KubeloreError as error:
            await _tell(session, opened, error)
        except asyncio.CancelledError:
            if not opened.done():
                opened.cancel()
            raise
        except Exception as error:
            # The task's boundary: logged, and told without its inside.
            log.error("unexpected error in a transfer", exc_info=error)
            await _tell(session, opened, KubeloreError("the transfer failed for a reason of Kubelore's own"))


async def _tell(session: Session, opened: asyncio.Future[Opened], error: KubeloreError) -> None:
    if not opened.done():
        opened.set_exception(error)
        return
    with suppress(KubeloreError):
        await session.fail(error)


async def _end(session: Session, account: Account | Uploaded) -> None:
    """Say what was sent or taken; whoever waits for it has it when this returns, or is gone."""
    with suppress(KubeloreError):
        await session.send(ENDING + msgspec.msgpack.encode(account))
        await session.finish()
        await session.until_peer_done()
