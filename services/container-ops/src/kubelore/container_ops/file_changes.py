"""chmod, chown, mkdir, rename and delete: constant scripts, to which everything is an argument."""

from __future__ import annotations

import re

from kubelore.common.contracts.files import ChangeFile, FileInfo
from kubelore.common.errors import BadRequest, Invalid
from kubelore.common.reach import Reached
from kubelore.container_ops.file_errors import EXISTS, failure
from kubelore.container_ops.file_listing import stat_file
from kubelore.container_ops.file_paths import is_root, path_bytes
from kubelore.container_ops.stat_records import FORMAT, single
from kubelore.container_ops.toolbox import Toolbox, Word

TREE_S = 60.0
"""How long a change of a whole tree may take."""
OCTAL = re.compile(r"[0-7]{3,4}\Z")
_SYMBOLIC = re.compile(r"[ugoa]*[-+=][rwxXst]*(?:,[ugoa]*[-+=][rwxXst]*){0,9}\Z")
_OWNER = re.compile(r"(?=.)(?:[A-Za-z0-9_][-.A-Za-z0-9_]{0,63}\$?)?(?::[A-Za-z0-9_][-.A-Za-z0-9_]{0,63})?\Z")

_TOLD = f'stat -c "{FORMAT}" "$2"'
_CHMOD = f'chmod -- "$1" "$2" && {_TOLD}'
_CHMOD_TREE = f'chmod -R -- "$1" "$2" && {_TOLD}'
_CHOWN = f'chown -- "$1" "$2" && {_TOLD}'
# Not what links in the tree lead to, which anybody may have put there.
_CHOWN_TREE = f'chown -R -h -- "$1" "$2" && {_TOLD}'
_MKDIR = f'mkdir -m "$1" -- "$2" && {_TOLD}'
_MKDIR_PARENTS = f'mkdir -p -m "$1" -- "$2" && {_TOLD}'
# Onto a directory `mv` would move into it; a link that leads nowhere is there too.
_RENAME_OVER = f'test -d "$2" && exit {EXISTS}; mv -f -- "$1" "$2" && {_TOLD}'
_RENAME = f'test -e "$2" && exit {EXISTS}; test -L "$2" && exit {EXISTS}; {_RENAME_OVER}'


def check_change(change: ChangeFile) -> None:
    """Raise BadRequest or Invalid for what no container has to be asked about."""
    path = path_bytes(change.path)
    if change.action in ("chmod", "mkdir"):
        octal = bool(OCTAL.match(change.mode))
        if not octal and (change.action == "mkdir" or not _SYMBOLIC.match(change.mode)):
            raise Invalid(f"{change.mode[:40]!r} is no mode", remedy="Write an octal mode such as 0755.")
    if change.action == "chown" and not _OWNER.match(change.owner):
        raise Invalid(f"{change.owner[:80]!r} is no owner", remedy="Write user, user:group or :group.")
    if change.action == "rename":
        if path == path_bytes(change.to):
            raise Invalid("a file cannot be renamed to its own name", remedy="Choose another one.")
    elif change.to:
        raise BadRequest("`to` is for rename alone", remedy="Leave it out.")
    if change.action in ("delete", "rename") and is_root(path):
        raise Invalid("the root directory is neither deleted nor renamed", remedy="Name what is below it.")


def told(change: ChangeFile) -> list[str]:
    """A change as history and policies see it: `files:chmod`, the path, and what is made of it."""
    more = [one for one in (change.mode, change.owner, change.to) if one]
    return [f"files:{change.action}", change.path, *more, *(["--recursive"] if change.recursive else [])]


async def change_file(reached: Reached, box: Toolbox, change: ChangeFile) -> FileInfo:
    """Carry a change out; the file afterwards, of a deleted one what it was.

    Raises NotFound, Forbidden, AlreadyExists, Conflict, Invalid and others.
    """
    path = path_bytes(change.path)
    if change.action == "delete":
        return await _delete(reached, box, path, recursive=change.recursive)
    box.need("stat", _PROGRAMS[change.action])
    match change.action:
        case "chmod":
            words, place = [_CHMOD_TREE if change.recursive else _CHMOD, change.mode], path
        case "chown":
            words, place = [_CHOWN_TREE if change.recursive else _CHOWN, change.owner], path
        case "mkdir":
            words, place = [_MKDIR_PARENTS if change.recursive else _MKDIR, change.mode], path
        case _:
            words, place = [_RENAME_OVER if change.overwrite else _RENAME, path], path_bytes(change.to)
    script: list[Word] = ["sh", "-c", words[0], "sh", words[1], place]
    ran = await box.run(reached, script, seconds=TREE_S)
    if ran.code:
        raise failure(ran, place if ran.code == EXISTS else path)
    return single(place, ran.out)[0]


_PROGRAMS = {"chmod": "chmod", "chown": "chown", "mkdir": "mkdir", "rename": "mv"}


async def _delete(reached: Reached, box: Toolbox, path: bytes, *, recursive: bool) -> FileInfo:
    box.need("stat", "rm", "rmdir")
    was = await stat_file(reached, box, path)
    if was.type != "directory":
        words: list[Word] = ["rm", "--", path]
    elif recursive:
        words = ["rm", "-r", "--", path]
    else:
        words = ["rmdir", "--", path]
    ran = await box.run(reached, words, seconds=TREE_S)
    if ran.code:
        raise failure(ran, path)
    return was
