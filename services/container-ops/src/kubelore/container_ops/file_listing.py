"""One page of a directory, however large that is: only the page is ever held."""

from __future__ import annotations

import asyncio

from kubelore.common.contracts.files import FileInfo
from kubelore.common.errors import DeadlineExceeded
from kubelore.common.kube import Channel
from kubelore.common.reach import Reached
from kubelore.container_ops.file_errors import failure
from kubelore.container_ops.file_paths import shown
from kubelore.container_ops.stat_records import FORMAT, Found, Records, single
from kubelore.container_ops.toolbox import MAX_ERRORS, Ran, Toolbox

LIST_S = 60.0


class Page:
    """Keeps the first files behind a name, and counts all."""

    def __init__(self, after: bytes, limit: int) -> None:
        self._after = after
        self._limit = limit
        self._kept: list[Found] = []
        self.total = 0

    def add(self, found: Found) -> None:
        """One more file, in whichever order."""
        self.total += 1
        if found[0] > self._after:
            self._kept.append(found)
            if len(self._kept) > 4 * self._limit:
                self._cut()

    def _cut(self) -> None:
        self._kept.sort(key=lambda one: one[0])
        del self._kept[self._limit + 1 :]

    def finished(self) -> tuple[list[FileInfo], bytes]:
        """The files by the bytes of their names, and the name that the next page is behind; none on the last."""
        self._cut()
        shown_ones = self._kept[: self._limit]
        more = len(self._kept) > self._limit
        return [info for _, info in shown_ones], shown_ones[-1][0] if more else b""


async def list_files(reached: Reached, box: Toolbox, path: bytes, after: bytes, limit: int) -> Page:
    """A page of a directory; of what is no directory, that alone. Raises NotFound, Forbidden and others."""
    box.need("find", "stat")
    page = Page(after, limit)
    ran = await _scan(reached, box, path, page)
    if page.total or ran.code == 0:
        return page
    if b"Not a directory" not in ran.errors:
        raise failure(ran, path)
    page.add((path.rpartition(b"/")[2], await stat_file(reached, box, path)))
    return page


async def stat_file(reached: Reached, box: Toolbox, path: bytes) -> FileInfo:
    """One file, a link as itself. Raises NotFound and others."""
    ran = await box.run(reached, ["stat", "-c", FORMAT, path])
    if ran.code:
        raise failure(ran, path)
    return single(path, ran.out)[0]


async def _scan(reached: Reached, box: Toolbox, path: bytes, page: Page) -> Ran:
    """Files that vanish while they are looked at make `find` fail, and nothing else."""
    place = path.rstrip(b"/") + b"/."
    words = ["find", place, "-mindepth", "1", "-maxdepth", "1", "-exec", "stat", "-c", FORMAT, "{}", "+"]
    records, errors = Records(path, place + b"/"), b""
    try:
        async with asyncio.timeout(LIST_S), await box.start(reached, words) as stream:
            async for channel, data in stream:
                if channel == Channel.STDERR:
                    errors = (errors + data)[:MAX_ERRORS]
                    continue
                for found in records.feed(data):
                    page.add(found)
            for found in records.end():
                page.add(found)
            return Ran(stream.exit_code or 0, b"", errors)
    except TimeoutError as error:
        raise DeadlineExceeded(
            f"{shown(path)} could not be listed within {LIST_S:g} s",
            remedy="It has too many files, or lies on a volume that does not answer.",
        ) from error
