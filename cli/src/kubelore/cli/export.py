"""`kubelore export --git DIR`: the history of a cluster or namespace as a git repository of one's own."""

from __future__ import annotations

import json
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Any
from urllib.parse import quote

import typer

from kubelore.cli import git_stream
from kubelore.cli.completing import complete_clusters
from kubelore.cli.connection import Api, connect
from kubelore.cli.output import note, warn
from kubelore.common.errors import Conflict, KubeloreError, Unavailable, Unsupported

READERS = 8
GIT_S = 600.0

Positions = dict[str, tuple[int, str]]
"""How far each object's history is exported: the number of its newest version there, and that one's commit hash."""


def export(
    context: typer.Context,
    git: Annotated[Path, typer.Option("--git", help="The repository: made when it is not there yet.")],
    cluster: Annotated[
        str, typer.Option("-c", "--cluster", help="Of which cluster.", autocompletion=complete_clusters)
    ],
    namespace: Annotated[
        str | None,
        typer.Option("-n", "--namespace", help="Of which namespace; of the whole cluster when left out."),
    ] = None,
) -> None:
    """Write the history of a cluster or namespace into a git repository; run again, it goes on from there.

    Every version is a commit with its author and time, so that `git log -p` and
    `git blame` tell who changed what. Values of Secrets are not in it.
    """
    scope = {"cluster": cluster, "namespace": "*" if namespace is None else namespace}
    repository = Repository.at(git)
    known = repository.positions(scope)
    with connect(context) as api, repository.importing() as stream:
        exporter = Exporter(api, stream, known)
        exporter.run(cluster, namespace)
        if exporter.found:
            stream.commits(exporter.found, onto=repository.head is not None)
        if exporter.positions != known:
            stream.write(git_stream.state(exporter.positions, scope, time.time(), onto=bool(known)))
    if not exporter.found:
        warn("Nothing was recorded since the last export." if known else "Nothing was recorded there.")
        return
    repository.check_out()
    note(f"{len(exporter.found)} versions of {exporter.objects} objects are now in {git}.")


class Exporter:
    """Reads what is new of every object, and hands contents to git as they come."""

    def __init__(self, api: Api, stream: ImportStream, known: Positions) -> None:
        self._api = api
        self._stream = stream
        self.positions: Positions = dict(known)
        self.found: list[git_stream.Commit] = []
        self.objects = 0

    def run(self, cluster: str, namespace: str | None) -> None:
        """Read everything that is not exported yet; a few objects at once, in bounded memory."""
        with ThreadPoolExecutor(READERS) as pool, _bar() as advance:
            waiting: deque[Future[list[dict[str, Any]]]] = deque()
            for one in self._changed(cluster, namespace):
                waiting.append(pool.submit(lambda one=one: list(self._steps(one))))
                if len(waiting) >= 2 * READERS:
                    self._take(waiting.popleft().result())
                    advance()
            while waiting:
                self._take(waiting.popleft().result())
                advance()

    def _changed(self, cluster: str, namespace: str | None) -> Iterator[dict[str, Any]]:
        for one in self._api.items("/api/k8s/yaml/objects", cluster=cluster, namespace=namespace):
            if self.positions.get(one["id"]) != (one["version"], one["commit_hash"]):
                yield one

    def _steps(self, one: dict[str, Any]) -> Iterator[dict[str, Any]]:
        after, _ = self.positions.get(one["id"], (0, ""))
        # A history that is shorter than what was exported has begun anew.
        after = 0 if after >= one["version"] else after
        while after is not None:
            page = self._api.get(f"/api/k8s/yaml/versions/{quote(one['id'], safe='')}/history", after=after)
            yield from page["items"]
            after = page["next"]

    def _take(self, steps: list[dict[str, Any]]) -> None:
        for step in steps:
            version, text = step["version"], step["yaml_content"]
            mark = self._stream.blob(text) if text else 0
            self.found.append(git_stream.commit_of(version, mark))
            self.positions[version["resource_id"]] = (version["version"], version["commit_hash"])
        self.objects += bool(steps)


class ImportStream:
    """The way into a running `git fast-import`. Nothing of it is seen in the repository before `close`."""

    def __init__(self, process: subprocess.Popen[bytes], pipe: IO[bytes]) -> None:
        self._process = process
        self._pipe = pipe
        self._marks = 0

    def __enter__(self) -> ImportStream:
        self.write(b"feature done\n")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            # Without its last word git takes nothing over.
            self._process.kill()
            self._process.wait(GIT_S)
            return
        self.write(b"done\n")
        with suppress(BrokenPipeError):
            self._pipe.close()
        if self._process.wait(GIT_S) != 0:
            raise Unavailable("git fast-import has failed", remedy="What it said stands above.")

    def write(self, data: bytes) -> None:
        """Hand on a part of the stream. Raises Unavailable when git has ended."""
        try:
            self._pipe.write(data)
        except BrokenPipeError as error:
            raise Unavailable(
                "git fast-import has ended early", remedy="What it said stands above."
            ) from error

    def blob(self, content: str) -> int:
        """A file's content; the mark it is known by."""
        self._marks += 1
        self.write(git_stream.blob(self._marks, content))
        return self._marks

    def commits(self, found: list[git_stream.Commit], *, onto: bool) -> None:
        """Everything that was found, in the order of time."""
        for part in git_stream.commits(found, onto=onto):
            self.write(part)


@dataclass(frozen=True, slots=True)
class Repository:
    """A git repository on this machine; `head` is the commit its branch was at."""

    folder: Path
    head: str | None

    @classmethod
    def at(cls, folder: Path) -> Repository:
        """The repository of a folder, made when the folder is empty or missing.

        Raises Conflict for a folder with other things in it, and Unsupported without git.
        """
        if not (folder / ".git").exists():
            if folder.exists() and any(folder.iterdir()):
                raise Conflict(
                    f"{folder} holds other things than a git repository",
                    remedy="Name an empty or new folder.",
                )
            folder.mkdir(parents=True, exist_ok=True)
            _git(folder, "init", "--quiet")
            _git(folder, "symbolic-ref", "HEAD", git_stream.BRANCH)
        return cls(folder, _revision(folder, git_stream.BRANCH))

    def positions(self, scope: dict[str, str]) -> Positions:
        """How far an earlier run came. Raises Conflict when that was of another cluster or namespace."""
        if _revision(self.folder, git_stream.STATE) is None:
            if self.head is not None:
                raise Conflict(
                    f"{self.folder} is a repository with another history",
                    remedy="Name an empty or new folder.",
                )
            return {}
        text = _git(self.folder, "cat-file", "blob", f"{git_stream.STATE}:{git_stream.STATE_FILE}")
        kept = json.loads(text)
        if any(kept.get(part) != value for part, value in scope.items()):
            raise Conflict(
                f"{self.folder} holds the history of {kept['cluster']}, namespace {kept['namespace'] or 'none'}",
                remedy="Name another folder for each cluster and namespace.",
            )
        return {id_: (number, commit) for id_, (number, commit) in kept["positions"].items()}

    def importing(self) -> ImportStream:
        """A running `git fast-import`."""
        process = subprocess.Popen(
            ["git", "-C", str(self.folder), "fast-import", "--quiet", "--date-format=raw"],
            stdin=subprocess.PIPE,
        )
        assert process.stdin is not None
        return ImportStream(process, process.stdin)

    def check_out(self) -> None:
        """Bring the files up to the branch, where it is checked out; what was edited by hand stays, or git says no."""
        if _git(self.folder, "rev-parse", "--symbolic-full-name", "HEAD").strip() != git_stream.BRANCH:
            return
        if self.head is None:
            _git(self.folder, "read-tree", "-u", "--reset", git_stream.BRANCH)
        else:
            _git(self.folder, "read-tree", "-m", "-u", self.head, git_stream.BRANCH)


def _revision(folder: Path, ref: str) -> str | None:
    try:
        return _git(folder, "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}").strip()
    except Unavailable:
        return None


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=GIT_S, check=False
        )
    except FileNotFoundError as error:
        raise _no_git() from error
    if done.returncode != 0:
        raise Unavailable(f"git {arguments[0]} has failed: {done.stderr.strip()[:500]}")
    return done.stdout


def _no_git() -> KubeloreError:
    return Unsupported("there is no git on this machine", remedy="Install git, then run this again.")


@contextmanager
def _bar() -> Iterator[Callable[[], None]]:
    """A bar on a terminal, nothing elsewhere; what it gives is called after each object."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("objects read"), MofNCompleteColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("objects", total=None)
        yield lambda: progress.advance(task)
