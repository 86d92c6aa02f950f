"""`kubelore login`, `logout`, `whoami` and `tokens`: who you are to Kubelore, and who else gets in."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from kubelore.cli.connection import Target, at, connect
from kubelore.cli.logins import Login, Logins, name_of
from kubelore.cli.output import print_document, print_table, warn
from kubelore.cli.selection import Format, Output
from kubelore.common.durations import parse_duration
from kubelore.common.errors import Invalid, Unauthenticated

tokens = typer.Typer(no_args_is_help=True, help="Make, list and revoke API tokens.")

_COLUMNS = ("ID", "NAME", "GRANTS", "CREATED BY", "EXPIRES", "LAST USED")
_LOCAL = ("127.0.0.1", "localhost", "::1")


def login(
    context: typer.Context,
    url: Annotated[
        str, typer.Argument(help="Address of a Kubelore; the one on this machine when not given.")
    ] = "",
    name: Annotated[str, typer.Option(help="How to call it for --target; its host when not given.")] = "",
) -> None:
    """Log in with a token, asked for without showing it or read from standard input, and keep it for later commands."""
    target = context.find_object(Target) or Target()
    url = (url or target.url or target.local_url()).rstrip("/")
    name = name or name_of(url)
    if url.startswith("http:") and urlsplit(url).hostname not in _LOCAL:
        warn(f"{url} is not https: whoever is on the way can read the token")
    token = target.token or _ask_for_token()
    with at(url, token) as api:
        who = api.get("/api/whoami")
    Logins.load().having(name, Login(url, token)).save()
    typer.echo(f"Logged in to {url} as {who['subject']}{_until(who['expires_at'])}.")


def logout(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Which login; the current one when not given.")] = "",
) -> None:
    """Forget a login. Its token keeps working until it is revoked (`kubelore tokens revoke`) or expires."""
    logins = Logins.load()
    target = context.find_object(Target) or Target()
    name = name or target.login or logins.current
    if not name:
        raise Unauthenticated("you are not logged in", remedy="`kubelore login URL` does that.")
    logins.without(name).save()
    typer.echo(f"Logged out of {name}.")


def whoami(context: typer.Context, output: Output = Format.TABLE) -> None:
    """Show who you are to Kubelore, and what you may do."""
    with connect(context) as api:
        who = api.get("/api/whoami")
    if output in (Format.JSON, Format.YAML):
        print_document(who, output)
        return
    if output == Format.NAME:
        typer.echo(who["subject"])
        return
    typer.echo(f"{who['subject']} by {who['credential']}{_until(who['expires_at'])}")
    rows = [
        (g["role"], _words(g["rights"]), _words(g["clusters"]), _words(g["namespaces"]))
        for g in who["grants"]
    ]
    print_table(("ROLE", "RIGHTS", "CLUSTERS", "NAMESPACES"), rows)


@tokens.command()
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Whom it acts as; audit and history show it.")],
    role: Annotated[str, typer.Option(help="viewer, operator or admin.")] = "viewer",
    cluster: Annotated[
        list[str] | None,
        typer.Option("--cluster", "-c", help="Clusters, with * and ?; repeat. Default: all."),
    ] = None,
    namespace: Annotated[
        list[str] | None,
        typer.Option("--namespace", "-n", help="Namespaces, with * and ?; repeat. Default: all."),
    ] = None,
    right: Annotated[list[str] | None, typer.Option(help="exec, secrets or backup; repeat.")] = None,
    expires: Annotated[str, typer.Option(help="30d, 12h, 90m ...")] = "30d",
    output: Output = Format.TABLE,
) -> None:
    """Make a token and print its secret, which is not shown again: to stdout alone, so that it can be redirected."""
    grant = {
        "role": role,
        "rights": _listed(right, []),
        "clusters": _listed(cluster, ["*"]),
        "namespaces": _listed(namespace, ["*"]),
    }
    body = {"name": name, "grants": [grant], "expires_in_s": _seconds(expires)}
    with connect(context) as api:
        made = api.post("/api/tokens", body)
    if output in (Format.JSON, Format.YAML):
        print_document(made, output)
        return
    warn(f"Token {made['id']} of {made['name']}{_until(made['expires_at'])}. It is not shown again:")
    typer.echo(made["token"])


@tokens.command("list")
def list_tokens(context: typer.Context, output: Output = Format.TABLE) -> None:
    """List tokens, without their secrets."""
    with connect(context) as api:
        items = sorted(api.items("/api/tokens"), key=lambda token: token["created_at"])
    if output in (Format.JSON, Format.YAML):
        print_document({"items": items}, output)
    elif output == Format.NAME:
        print_table((), [(token["id"],) for token in items])
    elif not items:
        warn("No tokens. Make one: kubelore tokens create NAME --role viewer")
    else:
        print_table(_COLUMNS, [_row(token) for token in items])


@tokens.command()
def revoke(
    context: typer.Context,
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="As `list` shows them.")],
) -> None:
    """Revoke tokens: they are refused within ten seconds, and their open watches end."""
    with connect(context) as api:
        for token_id in ids:
            api.delete(f"/api/tokens/{token_id}")
            typer.echo(f"token {token_id} revoked")


def _ask_for_token() -> str:
    hidden = sys.stdin.isatty()
    token = typer.prompt("Token", hide_input=True, err=True) if hidden else sys.stdin.readline()
    token = str(token).strip()
    if not token or not token.isascii() or not token.isprintable():
        raise Invalid("no token was given", remedy="Paste it when asked, or pipe it in.")
    return token


def _row(token: dict[str, Any]) -> tuple[str, ...]:
    grants = "; ".join(_grant(grant) for grant in token["grants"])
    used = _day(token["last_used_at"]) if token["last_used_at"] else "never"
    expired = datetime.fromisoformat(token["expires_at"]) <= datetime.now(UTC)
    expires = "expired" if expired else _day(token["expires_at"])
    return (token["id"], token["name"], grants, token["created_by"], expires, used)


def _grant(grant: dict[str, Any]) -> str:
    rights = "".join(f"+{right}" for right in grant["rights"])
    return f"{grant['role']}{rights} {_words(grant['clusters'])}/{_words(grant['namespaces'])}"


def _words(values: list[str]) -> str:
    return ",".join(values) or "-"


def _listed(values: list[str] | None, default: list[str]) -> list[str]:
    found = [part.strip() for value in values or [] for part in value.split(",") if part.strip()]
    return found or default


def _day(at: str) -> str:
    return datetime.fromisoformat(at).astimezone().strftime("%Y-%m-%d %H:%M")


def _until(at: str | None) -> str:
    return f", until {_day(at)}" if at else ""


def _seconds(text: str) -> int:
    try:
        return int(parse_duration(text))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--expires") from error
