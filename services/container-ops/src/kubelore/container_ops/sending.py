"""What goes out of a container: one command reads it, and what it says at the end is compared."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from typing import Any

from kubelore.common.bus.sessions import Session
from kubelore.common.contracts.transfers import (
    CONTENT,
    FRAME_BYTES,
    Account,
    Download,
    DownloadOpened,
    Kind,
)
from kubelore.common.errors import (
    Conflict,
    Forbidden,
    Invalid,
    KubeloreError,
    NotFound,
    Unsupported,
    UpstreamError,
)
from kubelore.common.kube import Channel, ExecStream
from kubelore.common.reach import Reached
from kubelore.container_ops import transfer_scripts as scripts
from kubelore.container_ops.packing import WRITERS, Packing
from kubelore.container_ops.toolbox import Toolbox

IDLE_S = 60.0
MAX_SAID = 16 * 1024
_FOLDER, _FILE, _KIND = 0o040000, 0o100000, 0o170000
_HASH = re.compile(rb"^([0-9a-f]{64}) [ *]-$", re.MULTILINE)
_WHOLE = re.compile(rb"^whole ([0-9a-f]{64})", re.MULTILINE)
_STATUS = re.compile(rb"^status (\d+)$", re.MULTILINE)


class Altered(UpstreamError):
    """The container read or wrote other bytes than went over the way (code `ContentAltered`)."""

    def __init__(self, detail: str, *, remedy: str | None = None, **extra: Any) -> None:
        super().__init__(detail, remedy=remedy, code="ContentAltered", **extra)


class Said:
    """The end of what a command wrote to stderr."""

    def __init__(self) -> None:
        self._text = bytearray()

    def add(self, data: bytes) -> None:
        """Some more of it."""
        self._text += data
        del self._text[:-MAX_SAID]

    @property
    def hash(self) -> str:
        """The last hash in it; empty when there is none."""
        found = _HASH.findall(self._text)
        return found[-1].decode() if found else ""

    @property
    def whole(self) -> str:
        """The hash of the whole file, where it was asked for."""
        found = _WHOLE.findall(self._text)
        return found[-1].decode() if found else ""

    @property
    def status(self) -> int:
        """How the command said that it ended; -1 when it did not say."""
        found = _STATUS.findall(self._text)
        return int(found[-1]) if found else -1

    @property
    def words(self) -> str:
        """What it says besides, for a person."""
        rest = _STATUS.sub(b"", _HASH.sub(b"", self._text))
        return " ".join(rest.decode(errors="replace").split())[:500]


class Sending:
    """One download. `path` is absolute, as the container's own bytes."""

    def __init__(self, box: Toolbox, reached: Reached, request: Download, path: bytes) -> None:
        self._box = box
        self._reached = reached
        self._asked = request
        self._path = path
        self._checks = request.check and {"tee", "sha256sum"} <= box.tools

    @property
    def _check(self) -> str:
        return "0" if not self._checks else "2" if self._asked.whole else "1"

    async def look(self) -> DownloadOpened:
        """What is there, without any of it. Raises NotFound, Forbidden, Invalid."""
        self._box.need(*scripts.FILE_TOOLS)
        ran = await self._box.run(self._reached, ["sh", "-c", scripts.LOOK, "sh", self._path])
        if ran.code:
            raise self._refusal(ran.code, ran.errors.decode(errors="replace"))
        return self._opened(ran.out.rstrip(b"\n"), "")

    async def send(self, session: Session, opened: asyncio.Future[DownloadOpened]) -> Account:
        """Send the content. Raises what `look` does, and Altered or UpstreamError for what did not come whole."""
        self._box.need(*scripts.FILE_TOOLS)
        asked = self._asked
        start, length = str(asked.offset), str(-1 if asked.length is None else asked.length)
        words = ["sh", "-c", scripts.SEND, "sh", self._path, start, length, self._check]
        said = Said()
        async with await self._box.start(self._reached, words, idle_s=IDLE_S) as stream:
            head, rest = await self._head(stream, said)
            told = self._opened(head, session.id)
            outgoing = _Outgoing(session)
            if told.kind == "tree":
                self._box.need("tar")
                opened.set_result(told)
                return await self._tree(stream, rest, said, outgoing, told)
            if told.length:
                opened.set_result(told)
                return await self._file(stream, rest, said, outgoing, told.length)
            # Nothing of it is to be sent, so that only the answer itself can say that this is wrong.
            account = await self._file(stream, rest, said, outgoing, 0)
            opened.set_result(told)
            return account

    async def _head(self, stream: ExecStream, said: Said) -> tuple[bytes, bytes]:
        out = bytearray()
        async for channel, data in stream:
            if channel == Channel.STDERR:
                said.add(data)
                continue
            out += data
            line, end, rest = bytes(out).partition(b"\n")
            if end:
                return line, rest
            if len(out) > MAX_SAID:
                break
        raise self._refusal(stream.exit_code or 0, said.words)

    async def _file(
        self, stream: ExecStream, rest: bytes, said: Said, outgoing: _Outgoing, length: int
    ) -> Account:
        own = hashlib.sha256()
        async for data in _content(stream, rest, said):
            own.update(data)
            if outgoing.taken + len(data) > length:
                raise UpstreamError(
                    "the file has more content than its size says",
                    remedy="Files of the kernel's, as in /proc, are read by a command.",
                )
            await outgoing.add(data)
        if outgoing.taken != length:
            raise UpstreamError(
                f"{length} bytes were to come, {outgoing.taken} came: {said.words or 'the file was cut short'}",
                remedy="Begin again: what came is not all of it.",
            )
        await outgoing.flush()
        self._compare(said, own.hexdigest())
        return Account(size=length, sha256=own.hexdigest(), whole=said.whole, checked=self._checks)

    async def _tree(
        self, stream: ExecStream, rest: bytes, said: Said, outgoing: _Outgoing, told: DownloadOpened
    ) -> Account:
        packing = Packing(WRITERS[told.form]())
        raw, own = hashlib.sha256(), hashlib.sha256()
        slow = told.form != "tar"
        async for data in _content(stream, rest, said):
            raw.update(data)
            packed = await asyncio.to_thread(packing.feed, data) if slow else packing.feed(data)
            own.update(packed)
            await outgoing.add(packed)
        packed = packing.finish()
        own.update(packed)
        await outgoing.add(packed)
        await outgoing.flush()
        self._compare(said, raw.hexdigest())
        return Account(
            size=outgoing.taken,
            sha256=own.hexdigest(),
            entries=packing.entries,
            left_out=packing.left_out,
            left_out_count=packing.left_out_count,
            incomplete=(said.words or "tar failed") if said.status else "",
            checked=self._checks,
        )

    def _compare(self, said: Said, own: str) -> None:
        if self._checks and said.hash != own:
            raise Altered(
                "the container read other bytes than came out of it"
                if said.hash
                else f"the container computed no hash: {said.words}",
                remedy="Begin again.",
            )

    def _opened(self, line: bytes, session: str) -> DownloadOpened:
        try:
            mode_, size_, uid, gid, modified, inode, rest = line.decode().split(" ", 6)
            mode, size = int(mode_, 16), int(size_)
            tag = hashlib.sha256(f"{size} {modified} {inode} {rest}".encode()).hexdigest()[:32]
            numbers = int(uid), int(gid), float(modified)
        except ValueError as error:
            raise UpstreamError("the container's `stat` answers what nobody understands") from error
        kind = self._kind(mode)
        if self._asked.tag and self._asked.tag != tag:
            raise Conflict("the file is another one by now", remedy="Begin again.", code="Changed")
        whole = kind == "tree"
        start = 0 if whole else min(self._asked.offset, size)
        length = size - start if self._asked.length is None else min(self._asked.length, size - start)
        return DownloadOpened(
            session=session,
            kind=kind,
            form=(self._asked.form or "tar") if whole else "file",
            name=self._path.rstrip(b"/").rpartition(b"/")[2].decode(errors="replace") or "root",
            size=0 if whole else size,
            offset=start,
            length=0 if whole else length,
            mode=mode & 0o7777,
            uid=numbers[0],
            gid=numbers[1],
            modified=numbers[2],
            tag=tag,
        )

    def _kind(self, mode: int) -> Kind:
        kinds: dict[int, Kind] = {_FOLDER: "tree", _FILE: "file"}
        kind = kinds.get(mode & _KIND)
        shown = self._path.decode(errors="replace")
        if kind is None:
            raise Invalid(f"{shown!r} is a device, pipe or socket", remedy="Only files and trees are copied.")
        if kind == "tree" and self._asked.form == "file":
            raise Invalid(f"{shown!r} is a directory", remedy="Take it as tar, tar.gz or zip.")
        if kind == "file" and self._asked.form not in (None, "file"):
            raise Invalid(f"{shown!r} is a file, no directory", remedy="Take it as it is.")
        return kind

    def _refusal(self, code: int, words: str) -> KubeloreError:
        return refusal(code, words, self._path)


def refusal(code: int, words: str, path: bytes) -> KubeloreError:
    """Our error for how one of the scripts ended."""
    shown = path.decode(errors="replace")
    match code:
        case scripts.ABSENT:
            return NotFound(f"there is no {shown!r} in the container, or no directory that it would be in")
        case scripts.UNREADABLE:
            return Forbidden(f"the container's user may not read {shown!r}", code="InContainer")
        case scripts.FOLDER:
            return Invalid(f"{shown!r} is a directory", remedy="Say how the file is to be called in it.")
        case scripts.TAKEN:
            return Conflict(f"{shown!r} is there already and is no directory", remedy="Choose another path.")
        case scripts.LINKED:
            return Conflict(
                f"{words!r} in the container is of another kind than in the tree", code="OtherKind"
            )
        case scripts.UNWRITABLE:
            return Forbidden(f"the container's user may not write {shown!r}: {words}", code="InContainer")
        case 126 | 127:
            return Unsupported(f"the container has not the programs that copying needs: {words}")
    return UpstreamError(f"copying {shown!r} failed in the container ({code}): {words}")


class _Outgoing:
    """Content in frames of one size; `taken` counts its bytes."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._frame = bytearray(CONTENT)
        self.taken = 0

    async def add(self, data: bytes) -> None:
        self.taken += len(data)
        self._frame += data
        while len(self._frame) >= FRAME_BYTES:
            await self._session.send(memoryview(self._frame)[:FRAME_BYTES].tobytes())
            self._frame[:FRAME_BYTES] = CONTENT

    async def flush(self) -> None:
        if len(self._frame) > 1:
            await self._session.send(bytes(self._frame))
        self._frame = bytearray(CONTENT)


async def _content(stream: ExecStream, rest: bytes, said: Said) -> AsyncIterator[bytes]:
    if rest:
        yield rest
    async for channel, data in stream:
        if channel == Channel.STDERR:
            said.add(data)
        else:
            yield data
