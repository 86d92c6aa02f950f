"""Answers for the files of containers: each is allowed, written down, and then done with what the container has."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from kubelore.common.callers import current_caller
from kubelore.common.contracts.containers import ContainerId
from kubelore.common.contracts.files import (
    MAX_CONTENT,
    MAX_FILES,
    ChangedFile,
    ChangeFile,
    FileBytes,
    FilePage,
    ListFiles,
    ReadContent,
    WriteContent,
    WrittenContent,
)
from kubelore.common.errors import BadRequest
from kubelore.common.reach import Reach, Reached
from kubelore.container_ops.exec_policy import ExecPolicies
from kubelore.container_ops.file_changes import change_file, check_change, told
from kubelore.container_ops.file_content import check_write, read_content, write_content
from kubelore.container_ops.file_errors import too_large
from kubelore.container_ops.file_listing import list_files
from kubelore.container_ops.file_paths import path_bytes, path_text
from kubelore.container_ops.operations import Entry, Journal
from kubelore.container_ops.pods import named_container, read_pod
from kubelore.container_ops.toolbox import Toolbox, Toolboxes


@dataclass(frozen=True, slots=True)
class Work:
    """One allowed piece of work on files, while it is being done."""

    target: ContainerId
    reached: Reached
    box: Toolbox
    entry: Entry


class FileWork:
    """Opens containers for work on their files, for whoever may exec in them."""

    def __init__(
        self, reach: Reach, toolboxes: Toolboxes, policies: ExecPolicies, journal: Journal, debug_image: str
    ) -> None:
        self._reach = reach
        self._debug_image = debug_image
        self._toolboxes = toolboxes
        self._policies = policies
        self._journal = journal

    @asynccontextmanager
    async def on(
        self,
        container: str,
        words: list[str],
        *,
        debug: bool = False,
        reason: str = "",
        session_id: str = "",
    ) -> AsyncGenerator[Work]:
        """Do what the block does on a container's files, as an operation `words` of the current caller.

        Raises NotFound and Forbidden before anything is asked of the cluster,
        Conflict when the container does not run, Unsupported when it has no shell.
        """
        asked = ContainerId.parse(container)
        caller = current_caller()
        caller.check_right("exec", asked.cluster, asked.namespace)
        async with self._reach.streaming(asked.cluster) as reached:
            pod = await read_pod(reached, asked)
            target = named_container(pod, asked)
            for asked_for in [words, ["debug", self._debug_image]] if debug else [words]:
                await self._policies.check_exec(caller, target, asked_for, reason)
            recording = self._journal.recording("file", target, words, session_id=session_id, reason=reason)
            async with recording as entry:
                box = await self._toolboxes.of(reached, target, debug=debug, pod=pod)
                yield Work(target, reached, box, entry)


class Files:
    """Answers LIST_FILES, READ_CONTENT, WRITE_CONTENT and CHANGE_FILE."""

    def __init__(self, work: FileWork) -> None:
        self._work = work

    async def list(self, request: ListFiles) -> FilePage:
        """A page of a directory. Raises NotFound, Forbidden."""
        if not 0 < request.limit <= MAX_FILES:
            raise BadRequest(
                f"between 1 and {MAX_FILES} files are listed at once", remedy="Follow the pages."
            )
        path = path_bytes(request.path)
        words = ["files:list", request.path]
        async with self._work.on(
            request.container, words, debug=request.debug, reason=request.reason
        ) as work:
            page = await list_files(work.reached, work.box, path, request.after, request.limit)
            work.entry.result = {"total": page.total}
        items, following = page.finished()
        return FilePage(
            container=str(work.target), path=path_text(path), items=items, total=page.total, next=following
        )

    async def read(self, request: ReadContent) -> FileBytes:
        """The content of a small file. Raises NotFound, Forbidden, TooLarge, Invalid."""
        path = path_bytes(request.path)
        words = ["files:read", request.path]
        async with self._work.on(
            request.container, words, debug=request.debug, reason=request.reason
        ) as work:
            info, content, sha256 = await read_content(work.reached, work.box, path)
            work.entry.result = {"size": len(content), "sha256": sha256}
        return FileBytes(
            container=str(work.target),
            file=info,
            content=content,
            sha256=sha256,
            operation_id=work.entry.operation_id,
        )

    async def write(self, request: WriteContent) -> WrittenContent:
        """Replace a small file at once. Raises Conflict when it was changed meanwhile; then nothing is written."""
        path = path_bytes(request.path)
        check_write(path, request.expected, request.mode)
        if len(request.content) > MAX_CONTENT:
            raise too_large(path, len(request.content), MAX_CONTENT)
        words = ["files:write", request.path]
        async with self._work.on(
            request.container, words, debug=request.debug, reason=request.reason
        ) as work:
            info, sha256 = await write_content(
                work.reached,
                work.box,
                path,
                request.content,
                expected=request.expected,
                mode=request.mode,
                operation_id=work.entry.operation_id,
            )
            work.entry.result = {"size": len(request.content), "sha256": sha256, "replaced": request.expected}
        return WrittenContent(
            container=str(work.target), file=info, sha256=sha256, operation_id=work.entry.operation_id
        )

    async def change(self, request: ChangeFile) -> ChangedFile:
        """chmod, chown, mkdir, rename or delete. Raises NotFound, Forbidden, AlreadyExists, Conflict."""
        check_change(request)
        async with self._work.on(
            request.container, told(request), debug=request.debug, reason=request.reason
        ) as work:
            info = await change_file(work.reached, work.box, request)
            work.entry.result = {"mode": info.mode, "owner": info.owner, "group": info.group}
        return ChangedFile(container=str(work.target), file=info, operation_id=work.entry.operation_id)
