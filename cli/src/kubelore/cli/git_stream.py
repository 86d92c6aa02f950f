"""A history as the stream that `git fast-import` reads. Pure: what is known of versions in, bytes out.

The format is that of git's own documentation (git-fast-import, "Input Format").
Each version is one commit with its author and time; the file of an object lies
at namespace/type/name.yaml, and what belongs to no namespace under _cluster.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

from kubelore.cli.file_names import file_name

BRANCH = "refs/heads/main"
STATE = "refs/kubelore/exported"
"""Where the repository itself keeps how far it has come: moved together with the branch, or not at all."""
STATE_FILE = "positions.json"
_STATE_AUTHOR = "kubelore <export@kubelore.invalid>"


@dataclass(frozen=True, slots=True)
class Commit:
    """One version without its content, which is the blob of `mark`; 0 for an object that was gone."""

    at: float
    id: str
    version: int
    mark: int
    author: str
    message: str

    @property
    def order(self) -> tuple[float, str, int]:
        """By time; an object's versions stay in their order."""
        return self.at, self.id, self.version


def commit_of(version: Mapping[str, Any], mark: int) -> Commit:
    """The commit of a version as the API tells it."""
    return Commit(
        at=datetime.fromisoformat(version["created_at"]).timestamp(),
        id=version["resource_id"],
        version=version["version"],
        mark=mark,
        author=author_of(version["actor"]),
        message=message_of(version),
    )


def author_of(actor: Mapping[str, Any]) -> str:
    """Who made a version as git writes it: a user by the name Kubelore knows, a field manager as what it is."""
    name = "".join(char for char in actor["name"] if char.isprintable() and char not in "<>").strip()
    if not name:
        return "unknown <unknown@kubelore.invalid>"
    if actor["kind"] == "user" and "@" in name and " " not in name:
        return f"{name} <{name}>"
    return f"{name} <{quote(name, safe='')}@{actor['kind']}.kubelore.invalid>"


def message_of(version: Mapping[str, Any]) -> str:
    """A commit message: what happened, what its author wrote about it, and trailers to find the version by."""
    where = f" in {version['namespace']}" if version["namespace"] else ""
    lines = [f"{version['happened']} {version['resource_type']}/{version['name']}{where}"]
    if version["change_log"]:
        lines += ["", version["change_log"].replace("\0", "")]
    lines += [
        "",
        f"Kubelore-Version: {version['resource_id']} {version['branch']} {version['version']}",
        f"Kubelore-Commit: {version['commit_hash']}",
    ]
    if version["operation_id"]:
        lines.append(f"Kubelore-Operation: {version['operation_id']}")
    return "\n".join(lines) + "\n"


def path_of(resource_id: str) -> str:
    """Where an object's file lies; what a file name could not hold everywhere is percent-encoded."""
    _, type_name, namespace, name = resource_id.split(":", 3)
    folders = [
        file_name(quote(part, safe="")) for part in (namespace or "_cluster", type_name) if part.strip(".")
    ]
    # A name of `..` alone is no object's, but what is written must not depend on it.
    return "/".join([*folders, file_name(quote(name, safe=""), ".yaml")])


def blob(mark: int, content: str) -> bytes:
    """A file's content under a mark."""
    return b"blob\nmark :%d\n%b" % (mark, _data(content.encode()))


def commits(found: Iterable[Commit], *, onto: bool) -> Iterator[bytes]:
    """Commits on the branch, oldest first; `onto` what is there already, if anything is."""
    parent = f"from {BRANCH}^0\n" if onto else ""
    for one in sorted(found, key=lambda commit: commit.order):
        who = f"{one.author} {int(one.at)} +0000"
        path = path_of(one.id)
        change = f"M 100644 :{one.mark} {path}" if one.mark else f"D {path}"
        head = f"commit {BRANCH}\nauthor {who}\ncommitter {who}\n".encode()
        yield head + _data(one.message.encode()) + f"{parent}{change}\n\n".encode()
        parent = ""


def state(
    positions: Mapping[str, tuple[int, str]], scope: Mapping[str, str], at: float, *, onto: bool
) -> bytes:
    """The commit that says how far the export has come; `onto` the one that said so before, if any did."""
    parent = f"from {STATE}^0\n" if onto else ""
    content = json.dumps({**scope, "positions": positions}, sort_keys=True, indent=1).encode()
    return (
        f"commit {STATE}\ncommitter {_STATE_AUTHOR} {int(at)} +0000\n".encode()
        + _data(b"how far the export has come\n")
        + f"{parent}M 100644 inline {STATE_FILE}\n".encode()
        + _data(content)
        + b"\n"
    )


def _data(content: bytes) -> bytes:
    return b"data %d\n%b\n" % (len(content), content)
