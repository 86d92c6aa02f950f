"""What comes into a container: it lies beside its place until it is known to be whole."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import msgspec

from kubelore.common.archives import END, Entry, Sort, TarWalk, TreeRules
from kubelore.common.bus.sessions import Session
from kubelore.common.contracts.transfers import (
    ENDING,
    Account,
    FindUpload,
    Upload,
    Uploaded,
    UploadOpened,
)
from kubelore.common.errors import BadRequest, Conflict, IntegrityError, Invalid, KubeloreError, UpstreamError
from kubelore.common.kube import Channel, ExecStream
from kubelore.common.reach import Reached
from kubelore.container_ops import transfer_scripts as scripts
from kubelore.container_ops.file_paths import path_text, shown
from kubelore.container_ops.sending import Altered, Said, refusal
from kubelore.container_ops.toolbox import Toolbox, Word

COMMIT_S = 600.0
"""For unpacking what is in pipes, for a hash over all of it, and for giving it its name."""
_DROP_S = 10.0
_AT_ONCE = 128 * 1024


class Receiving:
    """One upload. `path` is absolute, as the container's own bytes."""

    def __init__(
        self, box: Toolbox, reached: Reached, request: Upload, path: bytes, operation_id: str
    ) -> None:
        self._box = box
        self._reached = reached
        self._asked = request
        self._path = path
        self._tree = request.form == "tar"
        # What cannot be taken up again is found by the operation, when this replica dies (`orphans.py`).
        self._id = operation_id if self._tree or not request.upload else request.upload
        self._checks = {"tee", "sha256sum"} <= box.tools
        self._name = request.name.encode()
        self._said = Said()
        self._out = bytearray()
        self._changed = asyncio.Event()

    async def take(self, session: Session, opened: asyncio.Future[UploadOpened]) -> Uploaded:
        """Take the content and give it its name.

        Raises Conflict when an upload is taken up at another byte than it came
        to, IntegrityError for content that is not what its sender says, Altered,
        and what the container refuses. What cannot be taken up again is removed.
        """
        self._box.need(*(scripts.TREE_TOOLS if self._tree else scripts.FILE_TOOLS))
        if self._asked.offset and (self._tree or not self._asked.upload):
            raise BadRequest("only the upload of a file that has an id can be taken up again")
        try:
            return await self._take(session, opened)
        except BaseException as error:
            if opened.done() and (self._tree or not self._asked.upload or isinstance(error, IntegrityError)):
                await self._drop()
            raise

    async def _take(self, session: Session, opened: asyncio.Future[UploadOpened]) -> Uploaded:
        check = "01"[self._checks]
        words: list[Word] = ["sh", "-c", scripts.TAKE_TREE, "sh", self._path, self._id, self._name, check]
        if not self._tree:
            words = [
                "sh",
                "-c",
                scripts.TAKE,
                "sh",
                self._path,
                self._name,
                self._id,
                str(self._asked.offset),
                check,
            ]
        async with await self._box.start(self._reached, words, stdin=True) as stream:
            reader = asyncio.create_task(self._read(stream))
            try:
                into = await self._begun(reader)
                opened.set_result(UploadOpened(session.id, self._place(into)))
                incoming = _Incoming(self._asked.offset, TreeRules() if self._tree else None)
                account = await _until_poured(self._pour(session, stream, incoming), reader, self._said)
                async with asyncio.timeout(COMMIT_S):
                    code = await reader
            finally:
                reader.cancel()
                await asyncio.gather(reader, return_exceptions=True)
        return await self._keep(incoming, account, code, self._place(into))

    async def _read(self, stream: ExecStream) -> int:
        async for channel, data in stream:
            if channel == Channel.STDERR:
                self._said.add(data)
            elif len(self._out) < _AT_ONCE:
                self._out += data
                self._changed.set()
        return stream.exit_code or 0

    async def _begun(self, reader: asyncio.Task[int]) -> bool:
        while b"\n" not in self._out:
            waiting = asyncio.create_task(self._changed.wait())
            await asyncio.wait((waiting, reader), return_when=asyncio.FIRST_COMPLETED, timeout=60.0)
            waiting.cancel()
            self._changed.clear()
            if reader.done() and b"\n" not in self._out:
                raise refusal(reader.result(), self._said.words, self._path)
        first = bytes(self._out).partition(b"\n")[0]
        if first.startswith(b"elsewhere "):
            have = int(first.split()[1])
            raise Conflict(
                f"the upload came to {have} bytes, not {self._asked.offset}",
                remedy="Ask how far it is, and go on from there.",
                code="OtherOffset",
                offset=have,
            )
        return first == b"1"

    async def _pour(self, session: Session, stream: ExecStream, incoming: _Incoming) -> Account:
        async for frame in session:
            if frame[:1] == ENDING:
                await stream.send(incoming.rest())
                await stream.close_stdin()
                return msgspec.msgpack.decode(frame[1:], type=Account)
            await stream.send(incoming.take(memoryview(frame)[1:]))
        raise Invalid("the upload has ended without saying that it is whole", remedy="Begin again.")

    async def _keep(self, incoming: _Incoming, account: Account, code: int, place: str) -> Uploaded:
        whole = incoming.received + self._asked.offset
        incoming.compare(account, whole)
        self._compare(incoming, code)
        if self._tree:
            words: list[Word] = ["sh", "-c", scripts.KEEP_TREE, "sh", self._path, self._id, self._name]
        else:
            resumed = account.sha256 if self._asked.offset else ""
            mode = "" if self._asked.mode is None else f"{self._asked.mode:o}"
            owner = "" if self._asked.uid is None else f"{self._asked.uid}:{self._asked.gid or 0}"
            words = [
                "sh",
                "-c",
                scripts.KEEP,
                "sh",
                self._path,
                self._name,
                self._id,
                str(whole),
                resumed,
                mode,
                owner,
            ]
        ran = await self._box.run(self._reached, words, seconds=COMMIT_S)
        if ran.code in (scripts.SHORT, scripts.ALTERED):
            raise Altered(f"the container holds other content than was sent: {self._said.words}")
        if ran.code:
            raise refusal(ran.code, ran.errors.decode(errors="replace").strip(), self._path)
        return Uploaded(
            path=place,
            size=incoming.files if self._tree else whole,
            sha256=account.sha256 if self._asked.offset else incoming.own.hexdigest(),
            entries=incoming.entries,
            checked=self._checks,
        )

    def _compare(self, incoming: _Incoming, code: int) -> None:
        """What the container says of what it took. Raises UpstreamError and Altered."""
        failed = self._said.status if self._tree else code
        if failed:
            raise UpstreamError(f"the container could not keep it: {self._said.words or f'code {failed}'}")
        if self._checks and not self._asked.offset and self._said.hash != incoming.sent.hexdigest():
            raise Altered("the container took other bytes than were sent", remedy="Begin again.")

    async def _drop(self) -> None:
        with suppress(KubeloreError, TimeoutError):
            async with asyncio.timeout(_DROP_S):
                await drop(self._box, self._reached, self._path, self._id)

    def _place(self, into: bool) -> str:
        return path_text(self._path.rstrip(b"/") + b"/" + self._name if into else self._path)


class _Incoming:
    """Counts and hashes what comes, and lets of an archive only through what may be unpacked."""

    def __init__(self, offset: int, rules: TreeRules | None) -> None:
        self.received = 0
        self.entries = 0
        self.files = 0
        self.own = hashlib.sha256()
        self.sent = self.own if rules is None else hashlib.sha256()
        self._resumed = offset > 0
        self._rules = rules
        self._walk = TarWalk()
        self._padding = b""

    def take(self, piece: memoryview) -> bytes | memoryview:
        """What is to be sent on. Raises Unsafe and Broken."""
        self.received += len(piece)
        self.own.update(piece)
        if self._rules is None:
            return piece
        out = bytearray()
        for found in self._walk.feed(piece):
            if isinstance(found, Entry):
                self._rules.check(found)
                self.entries += 1
                self.files += found.size if found.sort is Sort.FILE else 0
                out += self._padding + found.head
                self._padding = found.padding
            else:
                out += found
        self.sent.update(out)
        return bytes(out)

    def rest(self) -> bytes:
        """What ends an archive. Raises Broken when it is not whole."""
        if self._rules is None:
            return b""
        self._walk.finish()
        rest = self._padding + END
        self.sent.update(rest)
        return rest

    def compare(self, account: Account, whole: int) -> None:
        """Raise IntegrityError unless what came is what its sender says."""
        if account.size != self.received:
            raise IntegrityError(f"{account.size} bytes were sent, {self.received} came")
        if self._resumed and not account.sha256:
            raise BadRequest(f"an upload that is taken up needs the hash of all its {whole} bytes")
        if account.sha256 and not self._resumed and account.sha256 != self.own.hexdigest():
            raise IntegrityError("what came is not what was sent", remedy="Begin again.")


async def drop(box: Toolbox, reached: Reached, path: bytes, id_: str) -> None:
    """Remove what an upload to a path, or a write of it, left behind under an id.

    Raises as `Toolbox.run` does, and UpstreamError where the container does not do it.
    """
    ran = await box.run(reached, ["sh", "-c", scripts.DROP, "sh", path, id_])
    if ran.code:
        words = ran.errors.decode(errors="replace").strip() or f"code {ran.code}"
        raise UpstreamError(f"what it may have left beside {shown(path)} is there still: {words}")


async def found_upload(box: Toolbox, reached: Reached, request: FindUpload, path: bytes) -> int:
    """Bytes of an upload that are in the container. Raises what the container refuses."""
    box.need(*scripts.FILE_TOOLS)
    words: list[Word] = ["sh", "-c", scripts.FIND, "sh", path, request.name.encode(), request.upload]
    ran = await box.run(reached, words)
    if ran.code:
        raise refusal(ran.code, ran.errors.decode(errors="replace"), path)
    return int(ran.out)


async def _until_poured(
    pouring: Coroutine[Any, Any, Account], reader: asyncio.Task[int], said: Said
) -> Account:
    """The account of what was poured. Raises UpstreamError when the command has ended before that."""
    pour = asyncio.create_task(pouring)
    try:
        await asyncio.wait((pour, reader), return_when=asyncio.FIRST_COMPLETED)
        if pour.done() or not reader.done():
            return await pour
        reader.result()
        raise UpstreamError(
            f"the container took no more of it: {said.words or 'its command has ended'}",
            remedy="Look for room on its disk and whether it still runs.",
        )
    finally:
        pour.cancel()
        await asyncio.gather(pour, return_exceptions=True)
