"""`kubelore cp`: files and trees into and out of containers, as `kubectl cp` and `cp -r` are used."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NamedTuple
from urllib.parse import quote

import typer

from kubelore.cli.connection import Api, connect
from kubelore.cli.container_names import ContainerName, OneCluster, OneNamespace, container_id
from kubelore.cli.output import note, warn
from kubelore.common.errors import BadRequest, IntegrityError, NotFound

PIECE = 256 * 1024
LENGTH_DIGITS = 8
_TAIL = 1024 * 1024
"""The longest account that a download may end with."""


class Remote(NamedTuple):
    """A place in a container."""

    word: str
    path: str


def cp(
    context: typer.Context,
    source: Annotated[
        str, typer.Argument(help="A path here, or [NAMESPACE/]POD:PATH, or CONTAINER-ID:PATH.")
    ],
    target: Annotated[str, typer.Argument(help="The same; one of both is in a container.")],
    container: ContainerName = "",
    namespace: OneNamespace = "",
    cluster: OneCluster = "",
    resume: Annotated[bool, typer.Option(help="Go on with a file that broke off.")] = False,
    no_preserve: Annotated[bool, typer.Option(help="Leave owner and mode to the container.")] = False,
    debug: Annotated[
        bool, typer.Option(help="Through a debug container, where the image has no shell or no tar.")
    ] = False,
    reason: Annotated[str, typer.Option(help="Why, where a policy asks.")] = "",
) -> None:
    """Copy a file or a tree into a container or out of it. What arrives is compared with what was sent.

    A target that is a directory takes the source into it, as with `cp -r`.
    """
    there, back = remote(source), remote(target)
    if (there is None) == (back is None):
        raise BadRequest(
            "exactly one of both has to be in a container",
            remedy="Write it POD:PATH; a path of this machine with a colon begins with ./ or /.",
        )
    if there is None:
        _look_at(Path(source))
    with connect(context) as api, _bar() as progress:
        place = there or back or Remote("", "")
        id_ = str(container_id(api, place.word, cluster, namespace, container))
        query = {"debug": debug or None, "reason": reason or None}
        copy = Copying(api, f"/api/k8s/containers/{quote(id_, safe=':')}/files", query, progress)
        if there is not None:
            copy.down(there.path, Path(target), resume=resume)
        else:
            copy.up(Path(source), place.path, resume=resume, preserve=not no_preserve)
    if copy.missing:
        raise typer.Exit(1)


def remote(word: str) -> Remote | None:
    """The place in a container that a word names; None for a path of this machine. Raises BadRequest."""
    if word.startswith(("/", "./", "../", "~")) or ":" not in word:
        return None
    name, _, path = word.rpartition(":") if word.count(":") >= 4 else word.partition(":")
    if ":/" in word:
        name, _, path = word.partition(":/")
        path = "/" + path
    if not name or not path.startswith("/"):
        raise BadRequest(f"{word!r} names no absolute path in a container", remedy="Write POD:/PATH.")
    return Remote(name.rstrip(":") if name.count(":") > 3 else name, path)


def _look_at(source: Path) -> os.stat_result:
    try:
        return source.stat()
    except OSError as error:
        raise NotFound(f"{source} cannot be read: {error.strerror}") from error


class Copying:
    """One copy; `missing` says that a part of a tree was left out."""

    def __init__(
        self, api: Api, base: str, query: dict[str, Any], progress: Callable[[int, int | None], None]
    ) -> None:
        self._api = api
        self._base = base
        self._query = query
        self._progress = progress
        self.missing = False

    def up(self, source: Path, path: str, *, resume: bool, preserve: bool) -> None:
        """Into the container. Raises NotFound, IntegrityError, and what the API refuses."""
        found = _look_at(source)
        name = "" if str(source).endswith("/.") else source.resolve().name
        if stat.S_ISDIR(found.st_mode):
            from kubelore.cli.local_trees import Archiving

            archive = Archiving(source, owners=preserve)
            done = self._send(path, archive.pieces(), None, name=name or None, format="tar")
            self._tell(archive.left_out)
            note(f"{done['entries']} entries, {done['size']} bytes, are now in {done['path']}")
            return
        query: dict[str, Any] = {"name": name, "upload": _upload_id(self._base + path, source, found)}
        if preserve:
            query |= {"mode": f"{found.st_mode & 0o7777:04o}", "uid": found.st_uid, "gid": found.st_gid}
        if resume:
            asked = {"upload": query["upload"], "name": name, **self._query}
            query["offset"] = self._api.get(f"{self._base}/upload", path_=path, **asked)["offset"]
        pieces = _pieces(source, query.get("offset", 0))
        done = self._send(path, pieces, found.st_size, size=found.st_size, **query)
        note(f"{done['size']} bytes are now in {done['path']}")

    def _send(self, path: str, pieces: Iterator[Any], total: int | None, **query: Any) -> dict[str, Any]:
        own = hashlib.sha256()

        def body() -> Iterator[bytes]:
            for piece in pieces:
                own.update(piece)
                self._progress(len(piece), total)
                if isinstance(piece, bytes):
                    yield piece
            yield own.hexdigest().encode()

        done = self._api.send(
            f"{self._base}/upload", body(), path_=path, trailer=True, **query, **self._query
        )
        if done["sha256"] != own.hexdigest():
            raise IntegrityError(
                "the container holds other content than this machine", remedy="Copy it again."
            )
        return done

    def down(self, path: str, target: Path, *, resume: bool) -> None:
        """Out of the container. Raises IntegrityError, and what the API refuses."""
        into = target / (path.rstrip("/").rpartition("/")[2] or "root") if target.is_dir() else target
        part, headers = (_part(into) if resume else None), dict[str, str]()
        if part is not None:
            headers = {
                "Range": f"bytes={part.stat().st_size}-",
                "If-Range": f'"{part.name.rpartition("-")[2]}"',
            }
        asked = self._api.stream(f"{self._base}/download", headers, path_=path, trailer=True, **self._query)
        with asked as (answer, pieces):
            if "kubelore-file-size" in answer:
                self._file(answer, pieces, into, part if "content-range" in answer else None)
            else:
                self._tree(pieces, into)

    def _file(self, answer: Any, pieces: Iterator[bytes], into: Path, part: Path | None) -> None:
        size = int(answer["kubelore-file-size"])
        own = hashlib.sha256()
        kept = into.parent / f".{into.name}.kubelore-{answer['etag'].strip(chr(34))}"
        with kept.open("r+b" if part == kept else "wb") as file:
            if part is not None:
                while piece := file.read(PIECE):
                    own.update(piece)
                    self._progress(len(piece), size)
            ending = _Ending(pieces)
            for piece in ending.content():
                own.update(piece)
                file.write(piece)
                self._progress(len(piece), size)
            length = file.tell()
        account = ending.account()
        expected = account.get("whole") or account["sha256"]
        if length != size or own.hexdigest() != expected:
            kept.unlink()
            raise IntegrityError(f"{into} is not what the container sent", remedy="Copy it again.")
        kept.chmod(int(answer["kubelore-file-mode"], 8) & 0o777)
        kept.replace(into)
        note(f"{size} bytes are now in {into}")

    def _tree(self, pieces: Iterator[bytes], into: Path) -> None:
        import shutil
        import tempfile

        from kubelore.cli.local_trees import Unpacking

        fresh = not into.exists()
        stage = Path(tempfile.mkdtemp(prefix=".kubelore-", dir=into.parent)) if fresh else into
        own = hashlib.sha256()
        try:
            ending = _Ending(pieces)
            with Unpacking(stage) as unpacking:
                for piece in ending.content():
                    own.update(piece)
                    unpacking.feed(piece)
                    self._progress(len(piece), None)
                account = ending.account()
                if own.hexdigest() != account["sha256"]:
                    raise IntegrityError("the tree is not what the container sent", remedy="Copy it again.")
                unpacking.finish()
            if fresh:
                stage.rename(into)
        except BaseException:
            if fresh:
                shutil.rmtree(stage, ignore_errors=True)
            raise
        self._tell(account.get("left_out", []), account.get("left_out_count", 0))
        if account.get("incomplete"):
            self._tell([f"not all of the tree could be read: {account['incomplete']}"])
        note(f"{account.get('entries', 0)} entries are now in {into}")

    def _tell(self, left_out: list[str], count: int = 0) -> None:
        for one in left_out:
            warn(f"left out: {one}")
        if count > len(left_out):
            warn(f"and {count - len(left_out)} more")
        self.missing = self.missing or bool(left_out)


class _Ending:
    """A download with its account at the end: a JSON document, and its length in eight hexadecimal digits."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._held = bytearray()

    def content(self) -> Iterator[bytes]:
        """What comes before the account."""
        for piece in self._pieces:
            self._held += piece
            if len(self._held) > _TAIL:
                yield bytes(self._held[:-_TAIL])
                del self._held[:-_TAIL]
        digits = bytes(self._held[-LENGTH_DIGITS:])
        try:
            cut = len(self._held) - LENGTH_DIGITS - int(digits, 16)
            self._account = json.loads(self._held[cut:-LENGTH_DIGITS])
        except (ValueError, IndexError) as error:
            raise IntegrityError(
                "the download broke off", remedy="Copy it again, or with --resume."
            ) from error
        yield bytes(self._held[:cut])

    def account(self) -> dict[str, Any]:
        """What the other side says of it, once all content was taken."""
        return self._account


def _pieces(source: Path, offset: int) -> Iterator[bytes | memoryview]:
    """The content of a file: as a view what the container has already, and is only to be hashed."""
    left = offset
    with source.open("rb") as file:
        while piece := file.read(min(PIECE, left) if left else PIECE):
            yield memoryview(piece) if left else piece
            left -= len(piece) if left else 0


def _part(into: Path) -> Path | None:
    """What an earlier download of a file left behind; None when there is nothing."""
    found = sorted(into.parent.glob(f".{glob_escaped(into.name)}.kubelore-*"))
    return found[-1] if found else None


def glob_escaped(name: str) -> str:
    """A name that means itself in a glob."""
    return "".join(f"[{char}]" if char in "*?[" else char for char in name)


def _upload_id(place: str, source: Path, found: os.stat_result) -> str:
    said = f"{place}\0{source.resolve()}\0{found.st_size}\0{found.st_mtime_ns}"
    return hashlib.sha256(said.encode(errors="surrogateescape")).hexdigest()[:24]


@contextmanager
def _bar() -> Iterator[Callable[[int, int | None], None]]:
    """A bar on a terminal, nothing elsewhere; what it gives is called with bytes more, and how many there are."""
    import sys

    if not sys.stderr.isatty():
        yield lambda _more, _all: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("bytes", total=None)

        def more(count: int, size: int | None) -> None:
            progress.update(task, advance=count, total=size)

        yield more
