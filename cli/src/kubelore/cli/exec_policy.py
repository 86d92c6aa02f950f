"""`kubelore exec-policy`: who may run what in which containers."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import quote

import typer

from kubelore.cli.connection import connect
from kubelore.cli.output import print_document, print_table, warn
from kubelore.cli.selection import Format, Output

app = typer.Typer(no_args_is_help=True, help="Who may run what in which containers.", rich_markup_mode=None)

POLICIES = "/api/k8s/containers/exec/policies"


class Effect(StrEnum):
    """What a policy does."""

    DENY = "deny"
    REASON = "reason"


Name = Annotated[str, typer.Argument(metavar="NAME", help="As `kubelore exec-policy list` shows it.")]
Globs = list[str] | None


@app.command("set")
def set_(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Lower-case letters, digits and '-'.")],
    effect: Annotated[Effect, typer.Option(help="deny, or reason: refuse what comes without one.")],
    cluster: Annotated[Globs, typer.Option("-c", "--cluster", help="In these (a glob); repeat it.")] = None,
    namespace: Annotated[
        Globs, typer.Option("-n", "--namespace", help="In these (a glob); repeat it.")
    ] = None,
    subject: Annotated[Globs, typer.Option(help="For these people (a glob); repeat it.")] = None,
    exempt: Annotated[Globs, typer.Option(help="But not for these (a glob); repeat it.")] = None,
    command: Annotated[
        Globs, typer.Option(help="Only these programs or command lines (a glob); repeat it.")
    ] = None,
    message: Annotated[str, typer.Option(help="What whoever is refused is told.")] = "",
    output: Output = Format.TABLE,
) -> None:
    """Make an exec policy, or change it whole."""
    body = {
        "effect": effect.value,
        "clusters": cluster or ["*"],
        "namespaces": namespace or ["*"],
        "subjects": subject or ["*"],
        "exempt": exempt or [],
        "commands": command or [],
        "message": message,
    }
    with connect(context) as api:
        known = {one["name"] for one in api.get(POLICIES)["items"]}
        if name in known:
            made = api.put(f"{POLICIES}/{quote(name, safe='')}", body)
        else:
            made = api.post(POLICIES, {**body, "name": name})
    _print([made], output)


@app.command("list")
def list_(context: typer.Context, output: Output = Format.TABLE) -> None:
    """The exec policies that you may change."""
    with connect(context) as api:
        _print(api.get(POLICIES)["items"], output)


@app.command()
def delete(context: typer.Context, name: Name) -> None:
    """Delete an exec policy."""
    with connect(context) as api:
        api.delete(f"{POLICIES}/{quote(name, safe='')}")
    typer.echo(f"exec policy {name} deleted")


def _print(items: list[dict[str, Any]], output: Format) -> None:
    if output in (Format.JSON, Format.YAML):
        print_document({"items": items}, output)
    elif output == Format.NAME:
        print_table((), [(one["name"],) for one in items])
    elif not items:
        warn("No exec policies. Make one: kubelore exec-policy set NAME --effect reason -c 'prod-*'")
    else:
        header = ("NAME", "EFFECT", "CLUSTERS", "NAMESPACES", "FOR", "NOT FOR", "COMMANDS")
        print_table(header, map(_row, items))


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    rule = one["rule"]
    lists = ("clusters", "namespaces", "subjects", "exempt", "commands")
    shown = [", ".join(rule[name]) or ("all" if name == "commands" else "-") for name in lists]
    return (one["name"], rule["effect"], *shown)
