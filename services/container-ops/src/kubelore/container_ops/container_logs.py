"""One container's log, as a page or as a file: who may read it, and what of it is sent."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Protocol

import zstandard

from kubelore.common.bus import Service
from kubelore.common.bus.sessions import FRAME_BYTES, Session, SessionEnded, new_session_id
from kubelore.common.callers import current_caller
from kubelore.common.contracts.containers import SERVICE, ContainerId
from kubelore.common.contracts.log_streams import StreamLogs
from kubelore.common.contracts.logs import (
    EXPORT_LOGS,
    MAX_PAGE,
    READ_LOGS,
    ExportLogs,
    LogExport,
    LogPage,
    ReadLogs,
)
from kubelore.common.errors import BadRequest, KubeloreError, NotFound, TooManyRequests, UpstreamError
from kubelore.common.kube.resource_type import PODS
from kubelore.common.mandates import Mandate, acting_under
from kubelore.common.reach import Reached
from kubelore.common.telemetry import get_logger
from kubelore.container_ops.house import House
from kubelore.container_ops.lines import SLACK_NS, Cursor, LogLine
from kubelore.container_ops.log_filter import LineFilter
from kubelore.container_ops.log_pages import Page, Reading, backward_page, forward_page
from kubelore.container_ops.pods import named_container, read_pod
from kubelore.container_ops.rendering import Renderer
from kubelore.container_ops.scanning import Scan

log = get_logger(__name__)

MAX_EXPORTS = 20
"""Files that one replica makes at once."""
RENEW_EVERY_S = 4.0
_SUFFIX = {"none": "", "gzip": ".gz", "zstd": ".zst"}


def readable(text: str) -> ContainerId:
    """The container that an id means, for whoever may read its pod. Raises BadRequest, NotFound."""
    target = ContainerId.parse(text)
    caller = current_caller()
    caller.check_cluster(target.cluster)
    if not caller.may_read(target.cluster, PODS.name, target.namespace, target.pod):
        raise NotFound(f"there is no pod {target.pod} in {target.cluster}/{target.namespace}")
    return target


class ContainerLogs:
    """Answers READ_LOGS and EXPORT_LOGS."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._exporting: set[asyncio.Task[None]] = set()

    def serve(self, service: Service) -> None:
        """Answer on the bus."""
        service.serve(READ_LOGS, self.read, max_concurrent=32)
        service.serve(EXPORT_LOGS, self.export)

    async def read(self, asked: ReadLogs) -> LogPage:
        """One page. Raises BadRequest, NotFound, and what the API server refuses.

        The journal has the first page of a reading, which its others belong to.
        """
        target = readable(asked.id)
        if not 0 < asked.limit <= MAX_PAGE:
            raise BadRequest(f"limit is between 1 and {MAX_PAGE}")
        wanted = LineFilter(asked.filter)
        async with self._house.reach.streaming(target.cluster) as reached:
            target = await _named(reached, target)
            reading = Reading(reached, target, wanted, asked.limit, asked.previous, asked.tail)
            if asked.position:
                return _shown(asked, target, await _page(reading, asked))
            async with self._house.journal.recording("log", target, _words(asked)) as entry:
                page = await _page(reading, asked)
                entry.result |= {"lines": len(page.lines)}
                return _shown(asked, target, page)

    async def export(self, asked: ExportLogs) -> LogExport:
        """Begin to make a file, once its log can be read. Raises BadRequest, NotFound, TooManyRequests."""
        if len(self._exporting) >= MAX_EXPORTS:
            raise TooManyRequests(
                f"{MAX_EXPORTS} logs are being exported already", remedy="Wait for one.", retry_after_s=5
            )
        target = readable(asked.id)
        wanted = LineFilter(asked.filter)
        async with self._house.reach.using(target.cluster) as reached:
            target = await _named(reached, target)
        session = new_session_id(SERVICE, "gateway")
        begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._serve(session, target, wanted, asked, begun))
        self._exporting.add(task)
        task.add_done_callback(self._exporting.discard)
        try:
            await begun
        except asyncio.CancelledError:
            task.cancel()
            raise
        return LogExport(session, _file_name(target, asked))

    async def close(self) -> None:
        """Break off what is being exported: whoever waits for it sees that it is not whole."""
        for task in self._exporting:
            task.cancel()
        await asyncio.gather(*self._exporting, return_exceptions=True)

    async def _serve(
        self,
        id_: str,
        target: ContainerId,
        wanted: LineFilter,
        asked: ExportLogs,
        begun: asyncio.Future[None],
    ) -> None:
        """The file, to its reader; until `begun` is set, errors are the answer to the request."""
        mandate = Mandate.of_request()
        bus = self._house.bus
        async with Session(bus, id_, "server") as session:
            try:
                async with (
                    acting_under(bus, mandate, renew_every_s=RENEW_EVERY_S),
                    self._house.journal.recording(
                        "log", target, ["logs", "--export", *_words(asked)[1:]], session_id=id_[-32:]
                    ) as entry,
                ):
                    sent = await self._send(session, target, wanted, asked, begun)
                    entry.result |= {"bytes": sent}
            except SessionEnded as error:
                log.debug("a reader of logs left", detail=error.detail)
            except KubeloreError as error:
                if not begun.done():
                    begun.set_exception(error)
                    return
                log.info("an export of logs failed", reason=error.reason, detail=error.detail)
                await session.fail(error)
            except Exception as error:
                log.error("an export of logs ended unexpectedly", exc_info=error)
                if not begun.done():
                    begun.set_exception(error)
                    return
                await session.fail(UpstreamError("the log could not be read any further"))
            finally:
                begun.cancel()

    async def _send(
        self,
        session: Session,
        target: ContainerId,
        wanted: LineFilter,
        asked: ExportLogs,
        begun: asyncio.Future[None],
    ) -> int:
        sent, held = 0, bytearray()
        async with (
            self._house.reach.streaming(target.cluster) as reached,
            aclosing(_pieces(reached, target, wanted, asked)) as pieces,
        ):
            async for piece in pieces:
                if not begun.done():
                    begun.set_result(None)
                held += piece
                if len(held) >= FRAME_BYTES:
                    sent += len(held)
                    await session.send(bytes(held))
                    held.clear()
        await session.send(bytes(held))
        await session.finish()
        await session.until_peer_done()
        return sent + len(held)


async def _named(reached: Reached, target: ContainerId) -> ContainerId:
    return named_container(await read_pod(reached, target), target)


async def _page(reading: Reading, asked: ReadLogs) -> Page:
    if asked.direction == "forward":
        return await forward_page(reading, asked.position)
    return await backward_page(reading, asked.position)


def _shown(asked: ReadLogs, target: ContainerId, page: Page) -> LogPage:
    form = StreamLogs(targets=(), form="lines", plain=asked.plain, levels=True)
    items = Renderer(form).lines(target, page.lines)
    if not asked.timestamps:
        items = [b"{" + item.partition(b",")[2] for item in items]
    return LogPage(items=b",".join(items), next=page.next, gap=page.gap)


async def _pieces(
    reached: Reached, target: ContainerId, wanted: LineFilter, asked: ExportLogs
) -> AsyncGenerator[bytes]:
    """The file, piece by piece; one is empty where nothing of what was read belongs into it."""
    packer = _packer(asked)
    since = Cursor(wanted.asked.since).since_time if wanted.asked.since else None
    scan = Scan(
        reached, target, Cursor(), previous=asked.previous, since_time=since, tail=asked.tail, whole=True
    )
    form = StreamLogs(
        targets=(), form=asked.form, plain=asked.plain, levels=True, timestamps=asked.timestamps
    )
    renderer, until = Renderer(form), wanted.asked.until
    begins = True
    async with aclosing(aiter(scan)) as batches:
        async for lines in batches:
            chosen = lines if wanted.everything else [one for one in lines if wanted.matches(one)]
            if chosen:
                yield packer.compress(_joined(renderer, target, chosen, begins=begins, form=asked.form))
                begins = chosen[-1].whole
            else:
                yield b""
            if until and lines[0].at > until + SLACK_NS:
                break
    yield packer.flush()


def _joined(
    renderer: Renderer, target: ContainerId, lines: list[LogLine], *, begins: bool, form: str
) -> bytes:
    """Lines as they stand in the file; in text the pieces of a long one are one line again."""
    if form == "lines" or (begins and all(line.whole for line in lines)):
        return b"\n".join(renderer.lines(target, lines)) + b"\n"
    found = bytearray()
    for line in lines:
        found += renderer.lines(target, [line])[0] if begins else line.text
        begins = line.whole
        if begins:
            found += b"\n"
    return bytes(found)


class _Packer(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class _Plain:
    def compress(self, data: bytes) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def _packer(asked: ExportLogs) -> _Packer:
    if asked.compression == "gzip":
        return zlib.compressobj(5, wbits=31)
    return zstandard.ZstdCompressor(level=3).compressobj() if asked.compression == "zstd" else _Plain()


def _file_name(target: ContainerId, asked: ExportLogs) -> str:
    run = "-previous" if asked.previous else ""
    kind = "log" if asked.form == "text" else "jsonl"
    return f"{target.cluster}-{target.namespace}-{target.pod}-{target.container}{run}.{kind}{_SUFFIX[asked.compression]}"


def _words(asked: ReadLogs | ExportLogs) -> list[str]:
    """What was asked for, without what was searched for: that may say more about a log than its reader should."""
    words = ["logs"]
    if asked.previous:
        words.append("--previous")
    if asked.tail is not None:
        words.append(f"--tail={asked.tail}")
    return words
