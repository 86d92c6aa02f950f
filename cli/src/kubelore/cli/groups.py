"""`kubelore clusters groups`: groups of clusters, as things of their own."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer

from kubelore.cli.completing import complete_groups
from kubelore.cli.connection import connect
from kubelore.cli.output import print_document, print_table, warn
from kubelore.cli.selection import Format, Output

app = typer.Typer(no_args_is_help=True, help="List, make, rename, describe and delete groups of clusters.")

_GROUPS = "/api/k8s/groups"
GroupName = Annotated[str, typer.Argument(autocompletion=complete_groups)]


@app.command("list")
def list_groups(context: typer.Context, output: Output = Format.TABLE) -> None:
    """List the groups and how many clusters are in each."""
    with connect(context) as api:
        items = list(api.items(_GROUPS))
    if output in (Format.JSON, Format.YAML):
        print_document({"items": items}, output)
    elif output == Format.NAME:
        print_table((), [(item["name"],) for item in items])
    elif not items:
        warn("No groups. A cluster is put into one with: kubelore clusters update NAME --group GROUP")
    else:
        rows = [(item["name"], str(item["clusters"]), item["description"] or "-") for item in items]
        print_table(("NAME", "CLUSTERS", "DESCRIPTION"), rows)


@app.command()
def create(
    context: typer.Context,
    name: str,
    description: Annotated[str, typer.Option(help="What its clusters have in common.")] = "",
) -> None:
    """Make a group without members."""
    with connect(context) as api:
        api.post(_GROUPS, {"name": name, "description": description})
    typer.echo(f"group {name} made")


@app.command()
def rename(context: typer.Context, name: GroupName, to: str) -> None:
    """Give a group another name, with all its members."""
    with connect(context) as api:
        group = api.patch(_path(name), {"name": to})
    members = "1 cluster" if group["clusters"] == 1 else f"{group['clusters']} clusters"
    typer.echo(f"group {name} is now {to}, with {members}")


@app.command()
def describe(context: typer.Context, name: GroupName, description: str) -> None:
    """Say what the clusters of a group have in common."""
    with connect(context) as api:
        api.patch(_path(name), {"description": description})
    typer.echo(f"group {name} described")


@app.command()
def delete(context: typer.Context, name: GroupName) -> None:
    """Delete a group that has no members."""
    with connect(context) as api:
        api.delete(_path(name))
    typer.echo(f"group {name} deleted")


def _path(name: str) -> str:
    return f"{_GROUPS}/{quote(name)}"
