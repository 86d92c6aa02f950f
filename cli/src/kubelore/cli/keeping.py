"""`kubelore versions`: what the histories keep, show only to some, and let go."""

from __future__ import annotations

import base64
import sys
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from kubelore.cli.connection import connect
from kubelore.cli.history import Object, OneCluster, object_path
from kubelore.cli.output import print_document, print_table, warn
from kubelore.cli.selection import Format, Namespace, Output

app = typer.Typer(
    no_args_is_help=True, help="Keep histories: values, redactions, proofs, policies.", rich_markup_mode=None
)

Number = Annotated[int, typer.Option("--version", min=1, help="Which version.")]
Reason = Annotated[str, typer.Option(help="Why; it is kept.")]


@app.command()
def reveal(
    context: typer.Context,
    object_: Object,
    version: Number,
    reason: Reason,
    cluster: OneCluster = "",
    namespace: Namespace = "",
    key: Annotated[list[str] | None, typer.Option(help="Only this key; may be repeated.")] = None,
    output: Output = Format.TABLE,
) -> None:
    """Show the values of a Secret as they were. Needs the right `secrets`, and is audited.

    The value of a single --key is printed as it is, to be piped; others in base64.
    """
    with connect(context) as api:
        path = f"{object_path(api, object_, cluster, namespace)}/{version}/reveal"
        found = api.post(path, {"keys": key or [], "reason": reason})
    if output in (Format.JSON, Format.YAML):
        print_document(found, output)
    elif key and len(key) == 1:
        sys.stdout.buffer.write(base64.b64decode(found["data"][key[0]]))
    else:
        for name, value in sorted(found["data"].items()):
            typer.echo(f"{name}: {value}")


@app.command()
def redact(
    context: typer.Context,
    object_: Object,
    version: Number,
    reason: Reason,
    cluster: OneCluster = "",
    namespace: Namespace = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Take the content of a version out of the history, wherever the object held it, for good."""
    with connect(context) as api:
        path = object_path(api, object_, cluster, namespace)
        if not yes:
            typer.confirm(f"Version {version} of {object_} cannot be brought back. Redact it?", abort=True)
        found = api.post(f"{path}/{version}/redact", {"reason": reason})
    warn(f"Redacted: {', '.join(map(str, found['versions']))}.")


@app.command()
def policy(
    context: typer.Context,
    cluster: Annotated[str, typer.Option("-c", "--cluster", help="Of which cluster.")],
    file: Annotated[
        Path | None, typer.Option("-f", "--file", help="Set it to what this YAML or JSON file says.")
    ] = None,
    reset: Annotated[bool, typer.Option("--reset", help="Go back to what holds everywhere.")] = False,
    output: Output = Format.YAML,
) -> None:
    """What is versioned of a cluster and for how long: show it, or set it from a file."""
    path = f"/api/k8s/yaml/policies/{quote(cluster, safe='')}"
    if file is not None and reset:
        raise typer.BadParameter("give either --file or --reset")
    with connect(context) as api:
        shown = api.delete if reset else api.get
        found = shown(path) if file is None else api.put(path, _document(file))
    print_document(found, output)


@app.command()
def parked(context: typer.Context, output: Output = Format.TABLE) -> None:
    """Changes that could not be taken, oldest first. For administrators."""
    items: list[dict[str, Any]] = []
    after: int | None = 0
    with connect(context) as api:
        while after is not None:
            page = api.get("/api/k8s/yaml/parked", after=after)
            items += page["items"]
            after = page["next"]
    if output in (Format.JSON, Format.YAML):
        print_document({"items": items}, output)
        return
    if not items:
        warn("Nothing is parked.")
        return
    print_table(
        ("NUMBER", "WHEN", "OBJECT", "WHAT", "WHY"),
        [
            (
                str(one["number"]),
                one["changed_at"] or one["parked_at"],
                one["resource_id"] or one["cluster"],
                one["happened"],
                one["reason"],
            )
            for one in items
        ],
    )


@app.command()
def replay(
    context: typer.Context,
    number: Annotated[int, typer.Argument(min=1, help="As `versions parked` shows it.")],
) -> None:
    """Take a parked change again, once its cause is mended. For administrators, and audited."""
    with connect(context) as api:
        found = api.post(f"/api/k8s/yaml/parked/{number}/replay", {})
    warn(f"Parked change {number}: {found['outcome']}.")


def _document(file: Path) -> dict[str, Any]:
    """What may be set of a policy as it was shown: who changed it when is not ours to say."""
    import yaml

    found = yaml.safe_load(file.read_text())
    if not isinstance(found, dict):
        raise typer.BadParameter(f"{file} holds no policy")
    shown_only = ("cluster", "number", "changed_by", "changed_at")
    return {name: value for name, value in found.items() if name not in shown_only}
