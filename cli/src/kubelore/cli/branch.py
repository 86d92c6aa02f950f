"""`kubelore tag`, `branch`, `merge`, `drift`: names for versions, drafts, and what departed from a name."""

from __future__ import annotations

import sys
from typing import Annotated, Any
from urllib.parse import quote

import typer

from kubelore.cli.completing import complete_branches, complete_tags
from kubelore.cli.connection import Api, connect
from kubelore.cli.history import Object, OneCluster, object_path, print_diff
from kubelore.cli.output import print_document, print_table, warn
from kubelore.cli.selection import Format, Namespace, Output

MERGE_S = 75.0
PLAIN = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Drafts of objects.")

Reason = Annotated[str, typer.Option("--reason", help="Why, for the audit and the object's history.")]
ChangeLog = Annotated[str, typer.Option("--change-log", "-m", help="What changed, in your words.")]
TagName = Annotated[str, typer.Argument(metavar="TAG", autocompletion=complete_tags)]
BranchName = Annotated[str, typer.Argument(metavar="BRANCH", autocompletion=complete_branches)]
Resolve = Annotated[
    list[str] | None,
    typer.Option(
        "--resolve", help="PATH=ours (the cluster's value) or PATH=theirs (the draft's); repeat it."
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")]


def tag(
    context: typer.Context,
    object_: Object,
    name: Annotated[str, typer.Argument(metavar="[TAG]", autocompletion=complete_tags)] = "",
    cluster: OneCluster = "",
    namespace: Namespace = "",
    version: Annotated[int | None, typer.Option(min=1, help="The newest when not given.")] = None,
    branch: Annotated[str, typer.Option(help="Of which branch.")] = "main",
    note: Annotated[str, typer.Option(help="What it is about.")] = "",
    alert: Annotated[bool, typer.Option("--alert", help="Tell when the object departs from it.")] = False,
    move: Annotated[bool, typer.Option("--move", help="From the version that has the tag.")] = False,
    delete: Annotated[bool, typer.Option("--delete", "-d", help="Remove the tag.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Name a version of an object; without a name, list its tags."""
    with connect(context) as api:
        path = object_path(api, object_, cluster, namespace) + "/tags"
        if delete:
            if not name:
                raise typer.BadParameter("say which tag to remove")
            found = api.delete(f"{path}?name={quote(name, safe='')}")
            warn(f"{name} is no longer on version {found['version']}.")
            return
        if name:
            body = {"name": name, "branch": branch, "note": note, "alert": alert, "move": move}
            made = api.post(path, body | ({"version": version} if version else {}))
            if output == Format.TABLE:
                typer.echo(f"{made['id']} version {made['version']} tagged {made['name']}")
                return
            print_document(made, output)
            return
        found = api.get(path)
    if output in (Format.JSON, Format.YAML):
        print_document(found, output)
        return
    print_table(
        ("TAG", "VERSION", "BRANCH", "BY", "WHEN", "ALERT", "NOTE"),
        [
            (
                one["name"],
                str(one["version"]),
                one["branch"],
                one["created_by"],
                one["created_at"],
                f"drifted ({one['drifted']})" if one["drifted"] else "yes" if one["alert"] else "",
                one["note"],
            )
            for one in found["items"]
        ],
    )


def tag_namespace(
    context: typer.Context,
    name: TagName,
    cluster: Annotated[str, typer.Option("-c", "--cluster", help="Of which cluster.")],
    namespace: Annotated[str, typer.Option("-n", "--namespace", help="Of which namespace.")] = "",
    at: Annotated[str, typer.Option(help="As it was at this time (ISO 8601); now when not given.")] = "",
    note: Annotated[str, typer.Option(help="What it is about.")] = "",
    alert: Annotated[bool, typer.Option("--alert", help="Tell when an object departs from it.")] = False,
    move: Annotated[bool, typer.Option("--move", help="From the versions that have the tag.")] = False,
) -> None:
    """Name everything that a namespace held at a time."""
    body = {
        "cluster": cluster,
        "namespace": namespace,
        "name": name,
        "note": note,
        "alert": alert,
        "move": move,
    }
    with connect(context) as api:
        found = api.post("/api/k8s/yaml/snapshot/tags", body | ({"at": at} if at else {}), timeout_s=MERGE_S)
    typer.echo(f"{found['tagged']} objects tagged {name}")
    if found["kept"]:
        warn(f"{found['kept']} have that tag, and keep it where it is; --move moves it.")
    if found["skipped"]:
        warn(f"{found['skipped']} are not yours to tag.")


def drift(
    context: typer.Context,
    name: TagName,
    cluster: Annotated[str, typer.Option("-c", "--cluster", help="In which cluster.")],
    namespace: Annotated[str, typer.Option("-n", "--namespace", help="Only in this namespace.")] = "",
    output: Output = Format.TABLE,
) -> None:
    """What is not as it was tagged. Ends with 1 when anything is."""
    items: list[dict[str, Any]] = []
    compared = 0
    with connect(context) as api:
        for page in api.pages("/api/k8s/yaml/drift", cluster=cluster, namespace=namespace, tag=name):
            items += page["items"]
            compared += page["compared"]
    if output in (Format.JSON, Format.YAML):
        print_document(items, output)
    else:
        print_table(
            ("OBJECT", "TAGGED", "NOW", "BY", "DIFFERS IN"),
            [
                (
                    one["id"],
                    str(one["tagged_version"]),
                    str(one["version"]["version"]),
                    one["version"]["created_by"] or "unknown",
                    "gone" if one["gone"] else ", ".join(change["path"] for change in one["changes"][:5]),
                )
                for one in items
            ],
        )
        if not compared:
            warn(f"Nothing there is tagged {name}.")
    raise typer.Exit(1 if items else 0)


@PLAIN.command("list")
def list_branches(
    context: typer.Context,
    object_: Object,
    cluster: OneCluster = "",
    namespace: Namespace = "",
    output: Output = Format.TABLE,
) -> None:
    """The drafts of an object."""
    with connect(context) as api:
        found = api.get(object_path(api, object_, cluster, namespace) + "/branches")
    if output in (Format.JSON, Format.YAML):
        print_document(found, output)
        return
    print_table(
        ("BRANCH", "VERSION", "BASE", "BEHIND", "MERGED", "BY", "WHEN", "NOTE"),
        [
            (
                one["name"],
                *(str(one[what]) for what in ("version", "base_version", "behind")),
                str(one["merged"] or ""),
                one["created_by"],
                one["created_at"],
                one["note"],
            )
            for one in found["items"]
        ],
    )


@PLAIN.command("create")
def create(
    context: typer.Context,
    object_: Object,
    name: BranchName,
    cluster: OneCluster = "",
    namespace: Namespace = "",
    version: Annotated[int | None, typer.Option(min=1, help="The newest when not given.")] = None,
    note: Annotated[str, typer.Option(help="What it is about.")] = "",
) -> None:
    """Branch a draft off a version."""
    body = {"name": name, "note": note} | ({"version": version} if version else {})
    with connect(context) as api:
        made = api.post(object_path(api, object_, cluster, namespace) + "/branches", body)
    typer.echo(f"{made['name']} branched off version {made['base_version']}")


@PLAIN.command("delete")
def delete(
    context: typer.Context,
    object_: Object,
    name: BranchName,
    cluster: OneCluster = "",
    namespace: Namespace = "",
) -> None:
    """Delete a draft with its versions."""
    with connect(context) as api:
        gone = api.delete(f"{object_path(api, object_, cluster, namespace)}/branches/{quote(name, safe='')}")
    typer.echo(f"{gone['name']} deleted, {gone['version']} versions")


@PLAIN.command("diff")
def diff(
    context: typer.Context,
    object_: Object,
    name: BranchName,
    cluster: OneCluster = "",
    namespace: Namespace = "",
    against: Annotated[str, typer.Option(help="Another branch.")] = "main",
) -> None:
    """What a draft has otherwise than the cluster, or another draft."""
    with connect(context) as api:
        path = object_path(api, object_, cluster, namespace) + "/diff"
        print_diff(api.get(path, branch=name, against=against)["diff_content"])


@PLAIN.command("update")
def update(
    context: typer.Context,
    object_: Object,
    name: BranchName,
    cluster: OneCluster = "",
    namespace: Namespace = "",
    resolve: Resolve = None,
) -> None:
    """Bring into a draft what the cluster became since it was branched off."""
    with connect(context) as api:
        path = f"{object_path(api, object_, cluster, namespace)}/branches/{quote(name, safe='')}/update"
        found = api.post(path, {"resolve": resolved(resolve)})
    tell_conflicts(found["conflicts"])
    if _open(found["conflicts"]):
        raise typer.Exit(1)
    typer.echo(
        f"{name} is at version {found['branch']['version']}, up to version {found['branch']['base_version']}"
    )


@PLAIN.command("validate")
def validate(
    context: typer.Context,
    object_: Object,
    name: BranchName,
    cluster: OneCluster = "",
    namespace: Namespace = "",
) -> None:
    """Check a draft against the cluster's schema, and by a dry run. Ends with 1 when something is wrong."""
    with connect(context) as api:
        path = object_path(api, object_, cluster, namespace) + "/validate"
        found = api.post(path, {"branch": name}, timeout_s=MERGE_S)
    for line in problem_lines(found):
        warn(line)
    if not found["valid"]:
        raise typer.Exit(1)
    typer.echo(f"{name} is valid")


def merge(
    context: typer.Context,
    object_: Object,
    name: BranchName,
    cluster: OneCluster = "",
    namespace: Namespace = "",
    resolve: Resolve = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    reason: Reason = "",
    change_log: ChangeLog = "",
) -> None:
    """Bring a draft into the cluster: shows what would change, asks, and writes just that."""
    with connect(context) as api:
        path = object_path(api, object_, cluster, namespace) + "/merge"
        body = {"branch": name, "resolve": resolved(resolve), "reason": reason, "change_log": change_log}
        done = merged(api, path, body, dry_run=dry_run, yes=yes)
    if done is not None:
        typer.echo(f"{done['id']} {done['result']}")


PLAIN.command("merge")(merge)


def merged(api: Api, path: str, body: dict[str, Any], *, dry_run: bool, yes: bool) -> dict[str, Any] | None:
    """Show a merge, ask, and carry out what was shown; None when nothing was to be done. Raises Exit."""
    shown = api.post(path, {**body, "dry_run": True}, timeout_s=MERGE_S)
    tell_conflicts(shown["conflicts"])
    if _open(shown["conflicts"]):
        raise typer.Exit(1)
    if not shown["changes"]:
        warn("The cluster has all of it.")
        return None
    print_diff(shown["diff_content"])
    if dry_run:
        return None
    if not yes:
        if not sys.stdin.isatty():
            warn("say --yes to do it")
            raise typer.Exit(1)
        if not typer.confirm("Write this into the cluster?", err=True):
            raise typer.Exit(1)
    return api.post(path, {**body, "seen": shown["live"]}, timeout_s=MERGE_S)


def resolved(words: list[str] | None) -> dict[str, str]:
    """`PATH=ours` and `PATH=theirs` as the API takes them. Raises BadParameter."""
    found: dict[str, str] = {}
    for word in words or ():
        path, _, side = word.rpartition("=")
        if not path or side not in ("ours", "theirs"):
            raise typer.BadParameter(f"write PATH=ours or PATH=theirs, not {word}")
        found[path] = side
    return found


def tell_conflicts(conflicts: list[dict[str, Any]]) -> None:
    """Each conflict that nobody has decided, with what either side says."""
    for one in _open(conflicts):
        warn(f"conflict at {one['path']}")
        for what, side in (("base", "base"), ("cluster", "ours"), ("draft", "theirs")):
            warn(f"  {what}: {one.get(side, 'not there')}")
    if _open(conflicts):
        warn("Decide each with --resolve PATH=ours or --resolve PATH=theirs.")


def problem_lines(report: dict[str, Any]) -> list[str]:
    """What a validation found, a line each."""
    lines = [f"{one['path'] or 'object'}: {one['message']} ({one['source']})" for one in report["problems"]]
    return [*lines, *(f"not checked: {one}" for one in report["unchecked"])]


def _open(conflicts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for one in conflicts if not one.get("resolved")]
