"""`kubelore edit`: an object or a draft in the user's own editor, checked, shown and asked about before it is written.

What is wrong comes back as comments on top of the text in the editor, as kubectl
does it. Whoever leaves the text as it is, or empties it, has given up; what was
written is kept in a file then.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from kubelore.cli.branch import MERGE_S, ChangeLog, Reason, Resolve, Yes, merged, problem_lines, resolved
from kubelore.cli.completing import complete_branches
from kubelore.cli.connection import Api, ApiError, connect
from kubelore.cli.history import Object, OneCluster, object_path
from kubelore.cli.output import warn
from kubelore.cli.selection import Namespace

HEADER = "# Edit the object below. Lines that begin with '#' here on top are left out.\n"
_MARK = "#! "


def edit(
    context: typer.Context,
    object_: Object,
    cluster: OneCluster = "",
    namespace: Namespace = "",
    branch: Annotated[
        str,
        typer.Option(help="Edit this draft, and apply nothing.", autocompletion=complete_branches),
    ] = "",
    resolve: Resolve = None,
    yes: Yes = False,
    reason: Reason = "",
    change_log: ChangeLog = "",
) -> None:
    """Edit an object, or a draft of it, in $EDITOR."""
    with connect(context) as api:
        path = object_path(api, object_, cluster, namespace)
        base = _text(api, path, branch)
        session = _Editing(api, path, branch, base, change_log)
        try:
            text = session.until_valid()
            if branch:
                made = api.post(path, session.recording(text))
                typer.echo(f"version {made['version']} recorded on {branch}")
                return
            body = {
                "content": text,
                "base": base["version"]["version"],
                "resolve": resolved(resolve),
                "reason": reason,
                "change_log": change_log,
            }
            done = merged(api, f"{path}/merge", body, dry_run=False, yes=yes)
        except (ApiError, typer.Exit):
            session.keep()
            raise
    if done is not None:
        typer.echo(f"{done['id']} {done['result']}")


class _Editing:
    """One text on its way through the editor until nothing is wrong with it."""

    def __init__(self, api: Api, path: str, branch: str, base: dict[str, Any], change_log: str) -> None:
        self._api = api
        self._path = path
        self._branch = branch
        self._base = base
        self._change_log = change_log
        self._text = base["yaml_content"]

    def until_valid(self) -> str:
        """The text as it was left, when the cluster would take it. Raises Exit when the user has given up."""
        told: list[str] = []
        while True:
            before = self._text
            self._text = without_notes(edited(with_notes(self._text, told)))
            unchanged = self._text.strip() == (before if told else self._base["yaml_content"]).strip()
            if not self._text.strip() or unchanged:
                warn("Nothing was changed." if not told else "Given up: the text is as it was refused.")
                raise typer.Exit(1 if told else 0)
            told = self._problems()
            if not told:
                return self._text

    def recording(self, text: str) -> dict[str, Any]:
        """The request that records a text on the branch."""
        on_branch = self._base["version"]["branch"] == self._branch
        after = {"after": self._base["version"]["version"]} if on_branch else {}
        return {"content": text, "branch": self._branch, "change_log": self._change_log, **after}

    def keep(self) -> None:
        """Leave what was written in a file of the user's own, so that nothing is lost."""
        if self._text.strip() == self._base["yaml_content"].strip():
            return
        number, name = tempfile.mkstemp(prefix="kubelore-edit-", suffix=".yaml")
        with os.fdopen(number, "w") as file:
            file.write(self._text)
        warn(f"What you wrote is in {name}.")

    def _problems(self) -> list[str]:
        try:
            found = self._api.post(f"{self._path}/validate", {"content": self._text}, timeout_s=MERGE_S)
        except ApiError as error:
            if error.error.status in (400, 413, 422):
                return [error.error.detail, *([error.error.remedy] if error.error.remedy else [])]
            raise
        return [] if found["valid"] else problem_lines(found)


def with_notes(text: str, told: list[str]) -> str:
    """A text with what is wrong on top, as comments."""
    lines = [f"{_MARK}{line}" for one in told for line in one.splitlines()]
    return HEADER + "".join(f"{line}\n" for line in lines) + text


def without_notes(text: str) -> str:
    """A text without what `with_notes` put on top; other comments stay."""
    lines = text.splitlines(keepends=True)
    while lines and (lines[0] == HEADER or lines[0].startswith(_MARK)):
        del lines[0]
    return "".join(lines)


def edited(text: str, name: str = "object.yaml", newline: str | None = None) -> str:
    """What the user's editor ($KUBE_EDITOR, $EDITOR, vi) makes of a text. Raises BadParameter when it fails.

    With an empty `newline` line ends are left as the text and the editor have them.
    """
    command = os.environ.get("KUBE_EDITOR") or os.environ.get("EDITOR") or "vi"
    with tempfile.TemporaryDirectory(prefix="kubelore-") as folder:
        file = Path(folder) / name
        file.write_text(text, encoding="utf-8", newline=newline)
        try:
            ended = subprocess.run([*shlex.split(command), str(file)], check=False).returncode
        except (OSError, ValueError) as error:
            raise typer.BadParameter(f"the editor {command!r} cannot be started: {error}") from error
        if ended:
            raise typer.BadParameter(f"the editor {command!r} ended with {ended}")
        with file.open(encoding="utf-8", newline=newline) as read:
            return read.read()


def _text(api: Api, path: str, branch: str) -> dict[str, Any]:
    """The newest version of a draft, or of main where there is no such draft yet."""
    for name in dict.fromkeys((branch or "main", "main")):
        try:
            page = api.get(path, branch=name, limit=1)
        except ApiError as error:
            if error.error.status == 404 and name != "main":
                continue
            raise
        if page["items"]:
            return api.get(f"{path}/{page['items'][0]['version']}", branch=name)
    raise typer.BadParameter("the object has no version yet")
