"""The file tree of a simulated container. In memory, bounded, and never the host's."""

from __future__ import annotations

import io
import posixpath
import tarfile
import time
from collections import OrderedDict
from dataclasses import dataclass, field

MAX_BYTES = 64 * 1024 * 1024
MAX_ENTRIES = 10_000
ROOT_OF_INIT = "/proc/1/root"  # leads to where it is looked at from
MAX_TREES = 64  # containers of one cluster whose files are kept; the longest unused is forgotten


class SandboxError(Exception):
    """What a command prints behind its own name: "x: No such file or directory"."""


@dataclass(slots=True)
class Node:
    """A file, or a directory when `data` is None."""

    data: bytes | None = None
    mode: int = 0o644
    modified: float = field(default_factory=time.time)
    uid: int = 0
    gid: int = 0

    @property
    def is_dir(self) -> bool:
        return self.data is None


class FileTree:
    """Paths are absolute and normal; `resolve` makes them so."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self._nodes: dict[str, Node] = {"/": Node(mode=0o755)}
        for path in ("/bin", "/tmp", "/var/log", "/root", "/proc"):  # noqa: S108 - of the sandbox
            self.make_dir(path, parents=True)
        for path, data in files.items():
            self.write(path, data, parents=True)

    @staticmethod
    def resolve(path: str, cwd: str = "/") -> str:
        if "\0" in path:
            raise SandboxError(f"{path!r}: Invalid argument")
        resolved = "/" + posixpath.normpath(posixpath.join(cwd, path)).lstrip("/")
        inside = resolved.removeprefix(ROOT_OF_INIT)
        return inside or "/" if inside[:1] in ("", "/") else resolved

    def node(self, path: str) -> Node:
        node = self._nodes.get(path)
        if node is None:
            raise SandboxError(f"{path}: No such file or directory")
        return node

    def get(self, path: str) -> Node | None:
        return self._nodes.get(path)

    def read(self, path: str) -> bytes:
        node = self.node(path)
        if node.data is None:
            raise SandboxError(f"{path}: Is a directory")
        return node.data

    def write(self, path: str, data: bytes, mode: int = 0o644, *, parents: bool = False) -> None:
        old = self._nodes.get(path)
        if old is not None and old.is_dir:
            raise SandboxError(f"{path}: Is a directory")
        self._need_parent(path, parents=parents)
        used = sum(len(node.data or b"") for node in self._nodes.values()) - len(
            old.data or b"" if old else b""
        )
        if used + len(data) > MAX_BYTES or len(self._nodes) >= MAX_ENTRIES:
            raise SandboxError(f"{path}: No space left on device")
        self._nodes[path] = Node(data, mode)

    def make_dir(self, path: str, *, parents: bool = False) -> None:
        if path in self._nodes:
            if parents and self._nodes[path].is_dir:
                return
            raise SandboxError(f"{path}: File exists")
        self._need_parent(path, parents=parents)
        if len(self._nodes) >= MAX_ENTRIES:
            raise SandboxError(f"{path}: No space left on device")
        self._nodes[path] = Node(mode=0o755)

    def _need_parent(self, path: str, *, parents: bool) -> None:
        parent = posixpath.dirname(path)
        if parents and parent not in self._nodes:
            self.make_dir(parent, parents=True)
        if not self.node(parent).is_dir:
            raise SandboxError(f"{parent}: Not a directory")

    def remove(self, path: str, *, recursive: bool = False) -> None:
        below = self.below(path)
        if self.node(path).is_dir and not recursive:
            raise SandboxError(f"{path}: Is a directory")
        for gone in [path, *below] if path != "/" else below:
            del self._nodes[gone]

    def move(self, path: str, to: str) -> None:
        """Give a file or a directory another name; a file that has that name is replaced."""
        node, target = self.node(path), self.get(to)
        if (to + "/").startswith(path + "/"):
            raise SandboxError(f"{path}: Invalid argument")
        if target is not None and target.is_dir != node.is_dir:
            raise SandboxError(f"{to}: {'Is' if target.is_dir else 'Not'} a directory")
        self._need_parent(to, parents=False)
        for name in [path, *self.below(path)]:
            self._nodes[to + name[len(path) :]] = self._nodes.pop(name)

    def below(self, path: str) -> list[str]:
        """Every path under a directory, sorted."""
        prefix = path.rstrip("/") + "/"
        return sorted(name for name in self._nodes if name.startswith(prefix) and name != "/")

    def children(self, path: str) -> list[str]:
        prefix = path.rstrip("/") + "/"
        return [name for name in self.below(path) if "/" not in name[len(prefix) :]]

    def pack(self, paths: list[str], cwd: str) -> bytes:
        """A tar archive of files and directories, named as they were given."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for given in paths:
                path = self.resolve(given, cwd)
                self.node(path)
                for member in [path, *self.below(path)]:
                    node = self.node(member)
                    info = tarfile.TarInfo(given.strip("/") + member[len(path) :])
                    info.mode, info.mtime, info.size = node.mode, int(node.modified), len(node.data or b"")
                    info.type = tarfile.DIRTYPE if node.is_dir else tarfile.REGTYPE
                    archive.addfile(info, io.BytesIO(node.data) if node.data else None)
        return buffer.getvalue()

    def unpack(self, archive_bytes: bytes, cwd: str) -> list[str]:
        """Extracts files and directories; the names of what was skipped (links, devices, "..")."""
        skipped: list[str] = []
        try:
            with tarfile.open(fileobj=io.BytesIO(archive_bytes), mode="r:") as archive:
                for member in archive:
                    path = self.resolve(member.name.lstrip("/"), cwd)
                    content = archive.extractfile(member) if member.isfile() else None
                    if ".." in member.name.split("/") or not (member.isdir() or content):
                        skipped.append(member.name)
                    elif content is not None:
                        self.write(path, content.read(), member.mode, parents=True)
                    else:
                        self.make_dir(path, parents=True)
        except tarfile.TarError as error:
            raise SandboxError(f"This does not look like a tar archive: {error}") from error
        return skipped


class Sandboxes:
    """The trees of one cluster's containers, by pod uid and container; they die with the process."""

    def __init__(self) -> None:
        self._trees: OrderedDict[tuple[str, str], FileTree] = OrderedDict()

    def tree(self, uid: str, container: str, hostname: str) -> FileTree:
        key = uid, container
        if key not in self._trees:
            self._trees[key] = FileTree(
                {
                    "/etc/hostname": f"{hostname}\n".encode(),
                    "/etc/os-release": b'NAME="kubesim"\nID=kubesim\n',
                    "/etc/passwd": b"root:x:0:0:root:/root:/bin/sh\n",
                    "/app/config.yaml": f"service: {container}\nlog:\n  level: info\n".encode(),
                    "/app/README": b"This file tree is simulated and lives in memory.\n",
                }
            )
        self._trees.move_to_end(key)
        while len(self._trees) > MAX_TREES:
            self._trees.popitem(last=False)
        return self._trees[key]
