"""What programs for files say when they fail, as typed errors. Pure; their English is forced by the toolbox."""

from __future__ import annotations

from kubelore.common.errors import (
    AlreadyExists,
    BadRequest,
    Conflict,
    Forbidden,
    Invalid,
    KubeloreError,
    NotFound,
    TooLarge,
    Unsupported,
    UpstreamError,
)
from kubelore.container_ops.file_paths import shown
from kubelore.container_ops.toolbox import Ran

EXISTS = 17
NO_FILE = 21
CHANGED = 22
"""Exit codes of our own scripts."""

_SHOWN = 300
_READ_ONLY = "Files of this mount come from elsewhere: change its ConfigMap, Secret, image or volume."
_SAID: tuple[tuple[bytes, type[KubeloreError], str], ...] = (
    (b"No such file or directory", NotFound, "List its directory to see what is there."),
    (b"nonexistent directory", NotFound, "List its directory to see what is there."),
    (b"Permission denied", Forbidden, "The container's user may not; an exec has that user's rights."),
    (b"Operation not permitted", Forbidden, "The container's user may not; an exec has that user's rights."),
    (b"Read-only file system", Conflict, _READ_ONLY),
    (b"File exists", AlreadyExists, "Choose another name, or delete it first."),
    (b"Directory not empty", Conflict, "Delete it recursively."),
    (b"Resource busy", Conflict, "It is mounted into the container by itself, and cannot be replaced."),
    (b"resource busy", Conflict, "It is mounted into the container by itself, and cannot be replaced."),
    (b"Not a directory", Invalid, "A part of the path is a file."),
    (b"Is a directory", Invalid, "That is a directory."),
    (b"No space left on device", Conflict, "Make room on the volume."),
    (b"Disk quota exceeded", Conflict, "Make room on the volume."),
    (b"Text file busy", Conflict, "It is being executed."),
    (b"File name too long", BadRequest, "Choose a shorter name."),
    (b"oo many levels of symbolic links", Conflict, "Links lead in a circle."),
    (b"nvalid mode", Invalid, "Write an octal mode such as 0644, or a symbolic one such as u+x."),
    (b"nvalid user", Invalid, "Name a user of the container, or give the user's number."),
    (b"nvalid group", Invalid, "Name a group of the container, or give the group's number."),
    (b"nknown user", Invalid, "Name a user of the container, or give the user's number."),
    (b"nknown group", Invalid, "Name a group of the container, or give the group's number."),
)


def failure(ran: Ran, path: bytes) -> KubeloreError:
    """The error that a failed program stands for."""
    what = shown(path)
    if ran.code == EXISTS:
        return AlreadyExists(f"{what} is there already", remedy="Choose another name, or overwrite it.")
    if ran.code == NO_FILE:
        return Invalid(
            f"{what} is no regular file", remedy="Only content of regular files is read and written."
        )
    if ran.code == CHANGED:
        return changed(path)
    words = shown(ran.errors[-_SHOWN:].strip()) or f"exit code {ran.code}"
    for said, kind, remedy in _SAID:
        if said in ran.errors:
            return kind(f"{what}: {words}", remedy=remedy)
    if ran.code in (126, 127):
        return Unsupported(
            f"a program is missing in the container: {words}", remedy="Ask for a debug container."
        )
    return UpstreamError(f"{what}: {words}")


def changed(path: bytes) -> Conflict:
    """Somebody else wrote to a file meanwhile."""
    return Conflict(f"{shown(path)} was changed meanwhile", remedy="Read it again.")


def too_large(path: bytes, size: int, most: int) -> TooLarge:
    """A file that is not edited in place."""
    return TooLarge(
        f"{shown(path)} has {size} bytes; files of at most {most} are edited in place",
        remedy="Download it, and upload it again.",
    )
