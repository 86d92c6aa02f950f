"""Files in containers: what lies there, their content, and changes of them.

A path is absolute. One that is not UTF-8 is written `base64:` and the base64 of
its bytes, which no absolute path begins with; every `path` of an answer can be
sent back as it is.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from kubelore.common.contracts.containers import SERVICE
from kubelore.common.contracts.endpoint import Endpoint

FileType: TypeAlias = Literal[
    "file", "directory", "link", "fifo", "socket", "block-device", "char-device", "other"
]
FileAction: TypeAlias = Literal["chmod", "chown", "mkdir", "rename", "delete"]

MAX_CONTENT = 1024 * 1024
"""Bytes of a file that is edited in place; larger ones are downloaded and uploaded."""
MAX_PATH = 4096
MAX_FILES = 1000
"""Files in one page of a directory."""


class FileInfo(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One file. `name` is for people: bytes that are no UTF-8 are `\\xNN` in it; `path` names the file exactly.

    `mode` is octal without the type (`0644`), `modified` RFC 3339 in whole
    seconds, `target` where a link leads, written as `name` is.
    """

    name: str
    path: str
    type: FileType
    size: int
    mode: str
    owner: str
    group: str
    uid: int
    gid: int
    modified: str
    target: str = ""


class ListFiles(msgspec.Struct, kw_only=True):
    """A page of a directory by the bytes of names, those behind `after`; of what is no directory, itself.

    `debug` lets a container without a shell be looked into through a debug
    container, which stays in its pod.
    """

    container: str
    path: str
    after: bytes = b""
    limit: int = 200
    debug: bool = False
    reason: str = ""


class FilePage(msgspec.Struct, kw_only=True):
    """`total` counts the whole directory; `next` is empty on the last page. `container` is a whole container id."""

    container: str
    path: str
    items: list[FileInfo]
    total: int
    next: bytes = b""


class ReadContent(msgspec.Struct, kw_only=True):
    """The content of a file of at most `MAX_CONTENT` bytes."""

    container: str
    path: str
    debug: bool = False
    reason: str = ""


class FileBytes(msgspec.Struct, kw_only=True):
    """A file and its bytes, whose SHA-256 was taken in the container and here."""

    container: str
    file: FileInfo
    content: bytes
    sha256: str
    operation_id: str


class WriteContent(msgspec.Struct, kw_only=True):
    """The whole new content of a file, put in its place at once, or not at all.

    `expected` is the SHA-256 that the file must have (`*`: whatever it has);
    without one there must be no file yet. Mode and owner stay; `mode` is for a
    new file.
    """

    container: str
    path: str
    content: bytes
    expected: str = ""
    mode: str = "0644"
    debug: bool = False
    reason: str = ""


class WrittenContent(msgspec.Struct, kw_only=True):
    """The file as it is now."""

    container: str
    file: FileInfo
    sha256: str
    operation_id: str


class ChangeFile(msgspec.Struct, kw_only=True):
    """One change of one file.

    `mode` is for chmod (octal or symbolic) and mkdir (octal), `owner` for chown
    (`user`, `user:group`, `:group`; names or numbers), `to` for rename.
    `recursive` is for chmod, chown, delete, and for mkdir: with its parents.
    `overwrite` lets rename replace a file.
    """

    container: str
    path: str
    action: FileAction
    mode: str = ""
    owner: str = ""
    to: str = ""
    recursive: bool = False
    overwrite: bool = False
    debug: bool = False
    reason: str = ""


class ChangedFile(msgspec.Struct, kw_only=True):
    """The file after its change; of a deleted one what it was."""

    container: str
    file: FileInfo
    operation_id: str


LIST_FILES = Endpoint(SERVICE, "file-list", ListFiles, FilePage, deadline_s=75.0)
READ_CONTENT = Endpoint(SERVICE, "file-read", ReadContent, FileBytes, deadline_s=75.0)
WRITE_CONTENT = Endpoint(SERVICE, "file-write", WriteContent, WrittenContent, deadline_s=90.0)
CHANGE_FILE = Endpoint(SERVICE, "file-change", ChangeFile, ChangedFile, deadline_s=90.0)

ENDPOINTS = (LIST_FILES, READ_CONTENT, WRITE_CONTENT, CHANGE_FILE)
