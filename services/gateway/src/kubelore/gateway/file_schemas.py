"""What goes in and out where files in containers are worked on."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from kubelore.common.contracts.files import MAX_PATH, FileAction, FileType
from kubelore.gateway.file_texts import LineEnds, TextEncoding
from kubelore.gateway.write_schemas import Reason

MAX_ITEMS = 1000
PATH = (
    "Absolute. A path that is not UTF-8 is `base64:` and the base64 of its bytes; "
    "every `path` of an answer can be sent back."
)
DEBUG = "Work through an ephemeral debug container where this one has no shell; it stays in the pod until that ends."

FilePath = Annotated[str, StringConstraints(min_length=1, max_length=2 * MAX_PATH)]
PathQuery = Annotated[str, Query(min_length=1, max_length=2 * MAX_PATH, description=PATH)]
DebugQuery = Annotated[bool, Query(description=DEBUG)]
ReasonQuery = Annotated[Reason, Query(description="Why; a policy may ask for it.")]
FileMode = Annotated[str, StringConstraints(min_length=1, max_length=100)]
Account = Annotated[str, StringConstraints(max_length=64, pattern=r"^[-.A-Za-z0-9_]*\$?$")]


class FileItem(BaseModel):
    """One file in a container."""

    name: str = Field(description="For people: bytes that are no UTF-8 are \\xNN in it.")
    path: str = Field(description=PATH)
    type: FileType
    size: int
    mode: str = Field(description="Octal, without the type.", examples=["0644"])
    owner: str
    group: str
    uid: int
    gid: int
    modified: str
    target: str = Field("", description="Where a link leads.")


class FileItemList(BaseModel):
    """One page of a directory by the bytes of names; of what is no directory, itself."""

    container: str
    path: str
    items: list[FileItem]
    total: int = Field(description="Files in the whole directory.")
    continue_: str | None = Field(None, alias="continue")


class FileDocument(BaseModel):
    """A file with its text."""

    container: str
    file: FileItem
    content: str
    encoding: TextEncoding = Field(description="base64 where it is no text.")
    line_ends: LineEnds
    etag: str = Field(description="Of its bytes, for If-Match.")
    sha256: str
    operation_id: str


class _FileBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    path: FilePath = Field(description=PATH)
    debug: bool = Field(False, description=DEBUG)
    reason: Reason = Field("", description="Why; a policy may ask for it.")


class ContentBody(BaseModel):
    """The whole new content of a file. Send If-Match with its ETag, or If-None-Match: * for a new file."""

    model_config = ConfigDict(extra="forbid")

    content: str = Field(max_length=3 * 1024 * 1024)
    encoding: TextEncoding = "utf-8"
    line_ends: Literal["lf", "crlf", "cr"] | None = Field(
        None, description="Write these instead of those in the content."
    )
    mode: FileMode = Field("0644", description="Of a new file; one that is there keeps its mode and owner.")
    debug: bool = Field(False, description=DEBUG)
    reason: Reason = Field("", description="Why; a policy may ask for it.")


class WrittenDocument(BaseModel):
    """The file as it is now."""

    container: str
    file: FileItem
    etag: str
    sha256: str
    operation_id: str


class ChmodBody(_FileBody):
    """Which mode a file gets."""

    mode: FileMode = Field(description="Octal or symbolic.", examples=["0644", "u+x,go-w"])
    recursive: bool = False


class ChownBody(_FileBody):
    """Whose a file becomes; names of the container's accounts, or numbers."""

    owner: Annotated[str, StringConstraints(max_length=130)] = Field("", description="user, or user:group.")
    group: Account = ""
    recursive: bool = Field(
        False, description="Links in the tree are changed themselves, not what they lead to."
    )

    def whole(self) -> str:
        """As chown takes it."""
        return f"{self.owner}:{self.group}" if self.group else self.owner


class MkdirBody(_FileBody):
    """A directory to be made."""

    mode: FileMode = "0755"
    parents: bool = Field(
        False, description="Make the directories above it too, and mind none that is there."
    )


class RenameBody(_FileBody):
    """A file's new name."""

    to: FilePath = Field(description=PATH)
    overwrite: bool = Field(False, description="Replace a file of that name; never a directory.")


class DeleteBody(_FileBody):
    """What is to be deleted."""

    recursive: bool = Field(False, description="Needed for a directory that is not empty.")


class FileChangeReport(BaseModel):
    """The file after its change; of a deleted one what it was."""

    container: str
    file: FileItem
    operation_id: str


class FileOperation(BaseModel):
    """One change of one file."""

    model_config = ConfigDict(extra="forbid")

    action: FileAction
    path: FilePath = Field(description=PATH)
    mode: Annotated[str, StringConstraints(max_length=100)] = Field(
        "", description="For chmod and mkdir (there 0755 when empty)."
    )
    owner: Annotated[str, StringConstraints(max_length=130)] = Field("", description="For chown.")
    to: Annotated[str, StringConstraints(max_length=2 * MAX_PATH)] = Field("", description="For rename.")
    recursive: bool = Field(False, description="For chmod, chown, delete; for mkdir with its parents.")
    overwrite: bool = Field(False, description="For rename.")

    def plain(self) -> dict[str, Any]:
        """As it goes over the bus."""
        more = {"mode": "0755"} if self.action == "mkdir" and not self.mode else {}
        return self.model_dump() | more


class FileBatchBody(BaseModel):
    """Changes in one container, in order."""

    model_config = ConfigDict(extra="forbid")

    operations: list[FileOperation] = Field(min_length=1, max_length=MAX_ITEMS)
    stop_on_error: bool = Field(
        False, description="Begin nothing more in a container once something failed there."
    )
    debug: bool = Field(False, description=DEBUG)
    reason: Reason = Field("", description="Why; a policy may ask for it.")


class ManyFilesBody(FileBatchBody):
    """The same changes in each of several containers."""

    containers: list[Annotated[str, StringConstraints(min_length=1, max_length=512)]] = Field(
        min_length=1, max_length=MAX_ITEMS, description="Container ids."
    )


class FileFault(BaseModel):
    """Why an item failed, as in a problem document."""

    status: int
    reason: str
    detail: str
    remedy: str


class FileResult(BaseModel):
    """What became of one change in one container."""

    index: int
    container: str
    action: FileAction
    path: str
    ok: bool
    skipped: bool = Field(description="Not begun: something before it failed, or the time was over.")
    file: FileItem | None
    operation_id: str
    error: FileFault | None


class FileBatchReport(BaseModel):
    """Every item's result: container by container, in the order of the operations."""

    results: list[FileResult]
    succeeded: int
    failed: int
    skipped: int
