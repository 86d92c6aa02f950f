"""`kubelore keyring`: the keys that everything at rest is sealed with."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kubelore.cli.connection import Target
from kubelore.common.errors import AlreadyExists, Invalid, NotFound, Unavailable

if TYPE_CHECKING:
    from kubelore.common.crypto import Keyring

_KIND, _VERSION = "KubeloreKeyrings", 1
_MAX_EXPORT_BYTES = 1024 * 1024

app = typer.Typer(
    no_args_is_help=True, help="Show, export, restore and rotate the keys that seal data at rest."
)


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
    document = {"kind": _KIND, "version": _VERSION, "keyrings": keyrings}
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
def restore(
    context: typer.Context,
    exported: Annotated[Path, typer.Argument(help="File that `kubelore keyring export` wrote.")],
) -> None:
    """Put keyrings back from an export where they are missing, while Kubelore is down.

    All or nothing is restored, and no keyring that is there is ever written over.
    """
    from kubelore.common.crypto import Keyring

    folder = _folder(context)
    contents = _read_export(exported)
    missing = [purpose for purpose in contents if not _is_there(folder, purpose, contents[purpose])]
    for purpose in missing:
        Keyring.restore(folder / f"{purpose}.json", contents[purpose])
    for purpose in contents:
        typer.echo(f"{purpose}: {'restored' if purpose in missing else 'already there'}")


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


def _read_export(exported: Path) -> dict[str, bytes]:
    """The keyrings of an export by their own purpose. Raises Invalid, NotFound, Unavailable, KeyringError."""
    from kubelore.common.crypto.content import decode

    try:
        with exported.open("rb") as file:
            document = json.loads(file.read(_MAX_EXPORT_BYTES))
        if (document["kind"], document["version"]) != (_KIND, _VERSION):
            raise ValueError(document["kind"])
        contents = {
            str(purpose): base64.b64decode(content, validate=True)
            for purpose, content in document["keyrings"].items()
        }
    except FileNotFoundError as error:
        raise NotFound(f"there is no file {exported}") from error
    except OSError as error:
        raise Unavailable(f"{exported} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Invalid(
            f"{exported} is no export of keyrings", remedy="`kubelore keyring export` writes one."
        ) from error
    for purpose, content in contents.items():
        # The file's name comes from it, so it must be what the keyring itself says.
        if (found := decode(content, "in the export").purpose) != purpose:
            raise Invalid(f"{exported} holds the keyring for {found!r} as {purpose[:40]!r}")
    return contents


def _is_there(folder: Path, purpose: str, content: bytes) -> bool:
    """Whether the keyring is in its place. Raises AlreadyExists when another one is."""
    from kubelore.common.crypto import Keyring
    from kubelore.common.crypto.content import decode

    path = folder / f"{purpose}.json"
    if not path.exists():
        return False
    wanted = {key.id for key in decode(content, "in the export").keys}
    if not wanted <= {key.id for key in Keyring.load(path).keys}:
        raise AlreadyExists(
            f"{path} is another keyring than the exported one",
            remedy="Move it away, if nothing that it sealed is needed any more.",
        )
    return True


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
