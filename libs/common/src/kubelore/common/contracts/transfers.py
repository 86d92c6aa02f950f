"""Files and whole trees into and out of a container.

The answer to a request is the id of a session over which the content flows.
Each of its frames begins with a byte that says what follows: `CONTENT` is a
piece of the file or archive, `ENDING` the sender's account of all of it, which
comes last. Whoever receives content without an ending has not received it.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from kubelore.common.contracts.containers import SERVICE
from kubelore.common.contracts.endpoint import Endpoint

CONTENT = b"\0"
ENDING = b"\1"

FRAME_BYTES = 256 * 1024
"""Of one frame of a transfer; both sides open their sessions with it."""

Form = Literal["file", "tar", "tar.gz", "zip"]
"""As what something travels: a file as it is, or a tree as an archive."""

Kind = Literal["file", "tree"]

MAX_PATH_BYTES = 4096
MAX_UPLOAD_ID = 64


class Upload(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What is to be put where.

    `path` is absolute. As `file` it is that of the file, or of an existing
    directory that the file is put into as `name`; as `tar` it is that of the
    directory which the archive's entries are put into, or of an existing one that
    the tree is put into as `name`. `size` is in bytes, None
    where nobody knows. An upload with an id can be taken up again: its content
    then begins at `offset`. `mode`, `uid` and `gid` are kept from a file that is
    replaced where they are None. With `debug` an image without the programs that
    this needs gets an ephemeral container that has them.
    """

    container: str
    path: str
    name: str = ""
    form: Literal["file", "tar"] = "file"
    size: int | None = None
    upload: str = ""
    offset: int = 0
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    debug: bool = False
    reason: str = ""


class FindUpload(msgspec.Struct, kw_only=True, omit_defaults=True):
    """How far an upload came that broke off."""

    container: str
    path: str
    upload: str
    name: str = ""
    debug: bool = False
    reason: str = ""


class UploadFound(msgspec.Struct):
    """Bytes of it that are in the container: 0 when nothing is."""

    offset: int


class UploadOpened(msgspec.Struct):
    """The session that takes the content, and the path that it will have."""

    session: str
    path: str


class Account(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What was sent, by whoever sent it: `sha256` is hexadecimal, of all the bytes of the file or archive.

    `left_out` names what of a tree was not sent, since it is no file, directory
    or link within the tree, at most the first 100 of `left_out_count`.
    """

    size: int
    sha256: str = ""
    whole: str = ""
    """Of a part of a file, the hash of all of it, where that was asked for."""
    entries: int = 0
    left_out: list[str] = []
    left_out_count: int = 0
    incomplete: str = ""
    """Why the tree is not all there, in the words of the tar of the container; empty when it is."""
    checked: bool = False
    """Whether the container itself has computed the same hash of what it read or wrote."""


class Uploaded(msgspec.Struct, kw_only=True):
    """What is in the container now. `size` is that of the file, or of all files of the tree."""

    path: str
    size: int
    sha256: str
    entries: int
    checked: bool


class Download(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What is to be read: a file from `offset` on, for `length` bytes where that is not None, or a tree.

    Without a `form` a file comes as it is and a directory as `tar`. With `tag`
    only the file that has it is read. `check` compares with a hash that the
    container computes, `whole` tells that of the whole file besides.
    """

    container: str
    path: str
    form: Form | None = None
    offset: int = 0
    length: int | None = None
    tag: str = ""
    check: bool = True
    whole: bool = False
    head: bool = False
    """Whether nothing but the answer is wanted: then no session is opened."""
    debug: bool = False
    reason: str = ""


class DownloadOpened(msgspec.Struct, kw_only=True):
    """The session that the content comes from, and what it is: `size`, `modified` (seconds since 1970) of a file.

    `offset` and `length` are what will be sent of a file. `tag` names the file's state.
    """

    session: str
    kind: Kind
    form: Form
    name: str
    size: int
    offset: int
    length: int
    mode: int
    uid: int
    gid: int
    modified: float
    tag: str


UPLOAD = Endpoint(SERVICE, "upload", Upload, UploadOpened, deadline_s=60.0)
FIND_UPLOAD = Endpoint(SERVICE, "find-upload", FindUpload, UploadFound, deadline_s=60.0)
DOWNLOAD = Endpoint(SERVICE, "download", Download, DownloadOpened, deadline_s=60.0)

ENDPOINTS = (UPLOAD, FIND_UPLOAD, DOWNLOAD)
