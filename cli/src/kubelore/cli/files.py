"""`kubelore ls`, `edit-file` and `files`: what lies in a container, edited and changed."""

from __future__ import annotations

import base64
import sys
import tempfile
from pathlib import Path, PurePosixPath
from typing import Annotated, Any
from urllib.parse import quote

import typer

from kubelore.cli.connection import Api, connect
from kubelore.cli.container_names import ContainerName, OneCluster, OneNamespace, container_id
from kubelore.cli.editing import edited
from kubelore.cli.output import note, print_document, print_lines, print_table, warn
from kubelore.cli.selection import Format, Output
from kubelore.common.errors import Unsupported

PREFIX = "/api/k8s/containers"
WAIT_S = 130.0

app = typer.Typer(no_args_is_help=True, help="Change files in a container: modes, owners, names.")

Pod = Annotated[str, typer.Argument(metavar="POD", help="A pod, namespace/pod or a container id.")]
FilePath = Annotated[str, typer.Argument(metavar="PATH", help="An absolute path in the container.")]
FilePaths = Annotated[list[str], typer.Argument(metavar="PATH...", help="Absolute paths in the container.")]
Reason = Annotated[str, typer.Option(help="Why, for the history; a policy may ask for it.")]
Debug = Annotated[
    bool,
    typer.Option("--debug", help="Where there is no shell, by a debug container, which stays in the pod."),
]
Recursive = Annotated[bool, typer.Option("--recursive", "-R", help="With all that is below.")]


def ls(
    context: typer.Context,
    pod: Pod,
    path: FilePath = "/",
    container: ContainerName = "",
    namespace: OneNamespace = "",
    cluster: OneCluster = "",
    reason: Reason = "",
    debug: Debug = False,
    output: Output = Format.TABLE,
) -> None:
    """List a directory of a container; names that are no text are shown with \\xNN, and -o name writes exact paths."""
    with connect(context) as api:
        base = _base(api, pod, cluster, namespace, container)
        found = list(api.items(base, path_=path, limit=1000, debug=debug, reason=reason))
    if output in (Format.JSON, Format.YAML):
        print_document({"items": found}, output)
    elif output == Format.NAME:
        print_lines(exact(one["path"]) for one in found)
    elif not found:
        note(f"{path} is empty.")
    else:
        print_table(("MODE", "OWNER", "GROUP", "SIZE", "MODIFIED", "NAME"), [_row(one) for one in found])


def edit_file(
    context: typer.Context,
    pod: Pod,
    path: FilePath,
    container: ContainerName = "",
    namespace: OneNamespace = "",
    cluster: OneCluster = "",
    create: Annotated[bool, typer.Option("--create", help="Make a new file.")] = False,
    reason: Reason = "",
    debug: Debug = False,
) -> None:
    """Edit a file of a container in $EDITOR; refused when somebody else changed it meanwhile."""
    with connect(context) as api:
        base = _base(api, pod, cluster, namespace, container)
        found: dict[str, Any] = {"content": "", "encoding": "utf-8", "line_ends": "none", "etag": ""}
        if not create:
            found = api.get(f"{base}/content", path_=path, debug=debug, reason=reason)
        if found["encoding"] == "base64":
            raise Unsupported(f"{path} is no text", remedy="Copy it with kubelore cp, and back again.")
        text = found["content"]
        ends = "crlf" if found["line_ends"] == "crlf" else None
        before = text.replace("\r\n", "\n") if ends else text
        after = edited(before, "file" + suffix(path), newline="")
        if after == before:
            warn("Nothing was changed.")
            return
        body = {
            "content": after,
            "encoding": found["encoding"],
            "line_ends": ends,
            "reason": reason,
            "debug": debug,
        }
        headers = {"If-None-Match": "*"} if create else {"If-Match": found["etag"]}
        try:
            api.put(f"{base}/content?path={quote(path, safe='')}", body, headers=headers)
        except BaseException:
            _keep(after)
            raise
    typer.echo(f"{path} written")


@app.command()
def cat(
    context: typer.Context,
    pod: Pod,
    path: FilePath,
    container: ContainerName = "",
    namespace: OneNamespace = "",
    cluster: OneCluster = "",
    reason: Reason = "",
    debug: Debug = False,
) -> None:
    """Write a small file of a container to stdout, byte for byte."""
    with connect(context) as api:
        base = _base(api, pod, cluster, namespace, container)
        found = api.get(f"{base}/content", path_=path, encoding="base64", debug=debug, reason=reason)
    sys.stdout.buffer.write(base64.b64decode(found["content"]))
    sys.stdout.buffer.flush()


@app.command()
def chmod(
    context: typer.Context,
    mode: Annotated[str, typer.Argument(metavar="MODE", help="Octal or symbolic, as 0644 or u+x.")],
    pod: Pod,
    paths: FilePaths,
    container: ContainerName = "",
    namespace: OneNamespace = "",
    cluster: OneCluster = "",
    recursive: Recursive = False,
    reason: Reason = "",
    debug: Debug = False,
) -> None:
    """Give files another mode."""
    change = {"action": "chmod", "mode": mode, "recursive": recursive}
    _change(context, (pod, cluster, namespace, container), paths, change, reason, debug)


@app.command()
def chown(
    context: typer.Context,
    owner: Annotated[str, typer.Argument(metavar="OWNER", help="user, user:group or :group.")],
    pod: Pod,
    paths: FilePaths,
    container: ContainerName = "",
    namespace: OneNamespace = "",
    cluster: OneCluster = "",
    recursive: Recursive = False,
    reason: Reason = "",
    debug: Debug = False,
) -> None:
    """Give files another owner or group."""
    change = {"action": "chown", "owner": owner, "recursive": recursive}
    _change(context, (pod, cluster, namespace, container), paths, change, reason, debug)


@app.command()
def mkdir(
    context: typer.Context,
    pod: Pod,
    paths: FilePaths,
    container: ContainerName = "",
    namespace: OneNamespace = "",
    cluster: OneCluster = "",
    mode: Annotated[str, typer.Option("--mode", "-m", help="Octal.")] = "0755",
    parents: Annotated[bool, typer.Option("--parents", "-p", help="Those above it too.")] = False,
    reason: Reason = "",
    debug: Debug = False,
) -> None:
    """Make directories."""
    change = {"action": "mkdir", "mode": mode, "recursive": parents}
    _change(context, (pod, cluster, namespace, container), paths, change, reason, debug)


@app.command()
def mv(
    context: typer.Context,
    pod: Pod,
    path: FilePath,
    to: Annotated[str, typer.Argument(metavar="TO", help="Its new path.")],
    container: ContainerName = "",
    namespace: OneNamespace = "",
    cluster: OneCluster = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file of that name.")] = False,
    reason: Reason = "",
    debug: Debug = False,
) -> None:
    """Give a file another name or place."""
    change = {"action": "rename", "to": to, "overwrite": overwrite}
    _change(context, (pod, cluster, namespace, container), [path], change, reason, debug)


@app.command()
def rm(
    context: typer.Context,
    pod: Pod,
    paths: FilePaths,
    container: ContainerName = "",
    namespace: OneNamespace = "",
    cluster: OneCluster = "",
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="With all that is below.")] = False,
    reason: Reason = "",
    debug: Debug = False,
) -> None:
    """Delete files; directories that are not empty with -r."""
    change = {"action": "delete", "recursive": recursive}
    _change(context, (pod, cluster, namespace, container), paths, change, reason, debug)


def _base(api: Api, pod: str, cluster: str, namespace: str, container: str) -> str:
    target = container_id(api, pod, cluster, namespace, container)
    return f"{PREFIX}/{quote(str(target), safe=':')}/files"


def _change(
    context: typer.Context,
    place: tuple[str, str, str, str],
    paths: list[str],
    change: dict[str, Any],
    reason: str,
    debug: bool,
) -> None:
    """Change every one of the files and tell of each; exits with 1 when one failed."""
    operations = [{"path": path, **change} for path in paths]
    with connect(context) as api:
        body = {"operations": operations, "reason": reason, "debug": debug}
        found = api.post(f"{_base(api, *place)}/batch", body, timeout_s=WAIT_S)
    for one in found["results"]:
        if one["ok"]:
            print_lines(
                [f"{one['file']['mode']} {one['file']['owner']}:{one['file']['group']} {one['path']}"]
            )
        else:
            warn(f"error: {one['error']['detail']}")
    if found["failed"] or found["skipped"]:
        raise typer.Exit(1)


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    letter = {
        "directory": "d",
        "link": "l",
        "fifo": "p",
        "socket": "s",
        "char-device": "c",
        "block-device": "b",
    }
    name = f"{one['name']} -> {one['target']}" if one["type"] == "link" else one["name"]
    kind = letter.get(one["type"], "-")
    return f"{kind}{one['mode']}", one["owner"], one["group"], str(one["size"]), one["modified"], name


def exact(path: str) -> str:
    """A path as a terminal shows it and every command takes it: what cannot be printed in base64."""
    return path if path.isprintable() else "base64:" + base64.b64encode(path.encode()).decode()


def suffix(path: str) -> str:
    """The end of a file's name by which editors know its language; nothing for what is no plain one."""
    found = PurePosixPath(path).suffix
    return found if found[1:].isalnum() and found.isascii() else ""


def _keep(text: str) -> None:
    """Leave what was written in a file of the user's own, so that nothing is lost."""
    with tempfile.NamedTemporaryFile("w", prefix="kubelore-edit-", delete=False, newline="") as file:
        file.write(text)
    warn(f"What you wrote is in {Path(file.name)}.")
