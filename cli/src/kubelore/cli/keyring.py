"""`kubelore keyring`: the keys that everything at rest is sealed with."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kubelore.cli.connection import Target
from kubelore.common.errors import AlreadyExists, NotFound, Unavailable

if TYPE_CHECKING:
    from kubelore.common.crypto import Keyring

app = typer.Typer(no_args_is_help=True, help="Show, export and rotate the keys that seal data at rest.")


@app.command("list")
def list_keyrings(context: typer.Context) -> None:
    """List the keys of every purpose; nothing secret is shown."""
    from kubelore.cli.output import print_table

    rows = [
        (keyring.purpose, key.id, key.state, key.created_at)
        for keyring in _keyrings(_folder(context))
        for key in keyring.keys
    ]
    print_table(("PURPOSE", "KEY", "STATE", "CREATED"), rows)


@app.command()
def export(
    context: typer.Context,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to create; stdout when not given.")
    ] = None,
) -> None:
    """Write every keyring into one file (0600), to be kept apart from the data.

    Without it no backup can be read. Whoever has it can read every backup.
    """
    from kubelore.stack.private_files import create_private

    exported = {keyring.purpose: keyring.export() for keyring in _keyrings(_folder(context))}
    keyrings = {purpose: base64.b64encode(content).decode() for purpose, content in exported.items()}
    document = {"kind": "KubeloreKeyrings", "version": 1, "keyrings": keyrings}
    content = json.dumps(document, indent=2).encode() + b"\n"
    if output is None:
        typer.echo(content, nl=False)
        return
    try:
        create_private(output, content)
    except FileExistsError as error:
        raise AlreadyExists(f"{output} exists", remedy="Name another: a file is never replaced.") from error
    except OSError as error:
        raise Unavailable(f"{output} cannot be written: {error.strerror}") from error
    typer.echo(f"{len(keyrings)} keyrings written to {output}. Keep it apart from the data.")


@app.command()
def rotate(
    context: typer.Context,
    purpose: Annotated[str, typer.Argument(help="clusters, versions, logs or gateway.")],
) -> None:
    """Make a new key for a purpose; what older keys sealed stays readable."""
    folder = _folder(context)
    for keyring in _keyrings(folder):
        if keyring.purpose == purpose:
            typer.echo(f"{purpose}: key {keyring.rotate()} seals from now on. Export the keyrings again.")
            return
    raise NotFound(f"no keyring for {purpose!r} in {folder}", remedy="`kubelore keyring list` shows them.")


def _folder(context: typer.Context) -> Path:
    from kubelore.stack.layout import DataDirectory

    target = context.find_object(Target) or Target()
    return DataDirectory(target.directory()).keyring


def _keyrings(folder: Path) -> list[Keyring]:
    from kubelore.common.crypto import Keyring

    paths = sorted(folder.glob("*.json"))
    if not paths:
        remedy = "`kubelore up` makes them; `kubelore --data DIR` looks in another directory."
        raise NotFound(f"no keyrings in {folder}", remedy=remedy)
    return [Keyring.load(path) for path in paths]
