"""The content of small files: read whole or not at all, and replaced at once or not at all.

A file is written beside its place under a name of its own, given the owner and
mode of the file it replaces, compared by its SHA-256, and moved over it when
that is still what was expected. A link is followed; what it leads to is replaced.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from contextlib import suppress

from kubelore.common.contracts.files import MAX_CONTENT, FileInfo
from kubelore.common.errors import (
    AlreadyExists,
    BadRequest,
    Conflict,
    IntegrityError,
    Invalid,
    KubeloreError,
    NotFound,
)
from kubelore.common.reach import Reached
from kubelore.container_ops.file_changes import OCTAL
from kubelore.container_ops.file_errors import CHANGED, EXISTS, NO_FILE, changed, failure, too_large
from kubelore.container_ops.file_listing import stat_file
from kubelore.container_ops.file_paths import is_root, shown
from kubelore.container_ops.stat_records import FORMAT, single
from kubelore.container_ops.toolbox import Ran, Toolbox, Word

ANY = "*"
_TRIES = 3
_HASHED = 64
_LINE = len(b"  -\n") + _HASHED
_TIDY_S = 5.0
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")

# A FIFO would be waited for, and not be there: `-f` follows links and is false for both.
_STAT = f'test -e "$1" || stat "$1" || exit 1; test -f "$1" || exit {NO_FILE}; stat -L -c "{FORMAT}" "$1"'
_READ = f'{_STAT} && head -c "$2" "$1" && sha256sum < "$1"'
_HASH = f'{_STAT} && sha256sum < "$1"'
_WRITE_NEW = 'umask 077 && head -c "$2" > "$1" && chmod "$3" "$1" && sha256sum < "$1"'
_WRITE_KEPT = 'umask 077 && head -c "$2" > "$1" && chown "$4" "$1" && chmod "$3" "$1" && sha256sum < "$1"'
_PUT_NEW = f'test -e "$2" && exit {EXISTS}; test -L "$2" && exit {EXISTS}; mv -f "$1" "$2"'
_PUT = f'sha256sum < "$2" | grep -q "^$3 " || exit {CHANGED}; mv -f "$1" "$2"'
_PUT_ANY = 'mv -f "$1" "$2"'


def check_write(path: bytes, expected: str, mode: str) -> None:
    """Raise BadRequest or Invalid for what no container has to be asked about."""
    if is_root(path):
        raise Invalid("the root directory has no content", remedy="Name a file.")
    if not (expected in ("", ANY) or _SHA256.match(expected)):
        raise BadRequest(
            f"{expected[:80]!r} is no ETag of a file", remedy="Send the one that reading answered."
        )
    if not OCTAL.match(mode):
        raise Invalid(f"{mode[:40]!r} is no mode", remedy="Write an octal mode such as 0644.")


async def read_content(reached: Reached, box: Toolbox, path: bytes) -> tuple[FileInfo, bytes, str]:
    """A file, its bytes and their SHA-256, which the container's own says too.

    Raises NotFound, Forbidden, Invalid (no regular file), TooLarge, and Conflict
    for one that is written to all the time.
    """
    box.need("stat", "head", "sha256sum")
    for _ in range(_TRIES):
        words: list[Word] = ["sh", "-c", _READ, "sh", path, str(MAX_CONTENT + 1)]
        info, rest = _told(await box.run(reached, words), path)
        content, said = rest[:-_LINE], rest[-_LINE:]
        if max(info.size, len(content)) > MAX_CONTENT:
            raise too_large(path, info.size, MAX_CONTENT)
        sha256 = hashlib.sha256(content).hexdigest()
        if said[:_HASHED].decode(errors="replace") == sha256:
            return info, content, sha256
    raise changed(path)


async def write_content(
    reached: Reached,
    box: Toolbox,
    path: bytes,
    content: bytes,
    *,
    expected: str,
    mode: str,
    operation_id: str,
) -> tuple[FileInfo, str]:
    """Put new content in a file's place; the file afterwards and its SHA-256.

    `expected` is the SHA-256 of the file it replaces, `*` for any, empty for
    none; until it is in its place the file is named by `operation_id`. Raises
    Conflict when that is not what is there, AlreadyExists, and what else speaks
    against it; then everything is as it was.
    """
    box.need("stat", "head", "sha256sum", "chmod", "chown", "mv", "rm", "grep", "readlink")
    place = await _place(reached, box, path)
    kept, sha256 = await _current(reached, box, place)
    _check(path, sha256, expected)
    directory, _, _ = place.rpartition(b"/")
    draft = directory + b"/.kubelore-" + operation_id.encode()
    try:
        made = await _write(reached, box, draft, content, kept, mode)
        await _put(reached, box, draft, place, expected if kept else None)
    except (KubeloreError, asyncio.CancelledError):
        await _tidy(reached, box, draft)
        raise
    return await stat_file(reached, box, place), made


async def _place(reached: Reached, box: Toolbox, path: bytes) -> bytes:
    """Where a path leads in the end, which need not be there yet."""
    ran = await box.run(reached, ["readlink", "-f", path])
    return ran.out.removesuffix(b"\n") if ran.code == 0 and ran.out.startswith(b"/") else path


async def _current(reached: Reached, box: Toolbox, place: bytes) -> tuple[FileInfo | None, str]:
    try:
        info, said = _told(await box.run(reached, ["sh", "-c", _HASH, "sh", place]), place)
    except NotFound:
        return None, ""
    return info, said[:_HASHED].decode(errors="replace")


def _check(path: bytes, sha256: str, expected: str) -> None:
    if not expected and sha256:
        raise AlreadyExists(
            f"{shown(path)} is there already",
            remedy="Read it, and send its ETag as If-Match to replace it.",
        )
    if expected and not sha256:
        if expected == ANY:
            return
        raise Conflict(f"{shown(path)} is not there any more", remedy="Write it as a new file.")
    if expected not in ("", ANY, sha256):
        raise changed(path)


async def _write(
    reached: Reached, box: Toolbox, draft: bytes, content: bytes, kept: FileInfo | None, mode: str
) -> str:
    words: list[Word] = ["sh", "-c", _WRITE_NEW, "sh", draft, str(len(content)), mode]
    if kept is not None:
        owner = f"{kept.uid}:{kept.gid}"
        words = ["sh", "-c", _WRITE_KEPT, "sh", draft, str(len(content)), kept.mode, owner]
    ran = await box.run(reached, words, given=content)
    if ran.code:
        raise failure(ran, draft.rpartition(b"/")[0] or b"/")
    sha256 = hashlib.sha256(content).hexdigest()
    if ran.out[:_HASHED].decode(errors="replace") != sha256:
        raise IntegrityError("what arrived in the container is not what was sent", remedy="Try it again.")
    return sha256


async def _put(reached: Reached, box: Toolbox, draft: bytes, place: bytes, expected: str | None) -> None:
    script = _PUT_NEW if expected is None else _PUT_ANY if expected == ANY else _PUT
    ran = await box.run(reached, ["sh", "-c", script, "sh", draft, place, expected or ""])
    if ran.code:
        raise failure(ran, place)


async def _tidy(reached: Reached, box: Toolbox, draft: bytes) -> None:
    """Remove what was written beside the file. Where that fails too, its name tells what it is."""
    with suppress(KubeloreError):
        await box.run(reached, ["rm", "-f", "--", draft], seconds=_TIDY_S)


def _told(ran: Ran, path: bytes) -> tuple[FileInfo, bytes]:
    if ran.code:
        raise failure(ran, path)
    return single(path, ran.out)
