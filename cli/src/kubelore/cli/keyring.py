"""`kubelore keyring`: the keys that everything at rest is sealed with."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kubelore.cli.connection import Target, connect
from kubelore.cli.selection import Format, Output
from kubelore.common.errors import AlreadyExists, Conflict, Invalid, NotFound, Unavailable

if TYPE_CHECKING:
    from kubelore.common.crypto import Keyring

_KIND, _VERSION = "KubeloreKeyrings", 1
_MAX_EXPORT_BYTES = 1024 * 1024
_IN_USE = "/api/k8s/yaml/backup/keys"

app = typer.Typer(
    no_args_is_help=True, help="Show, export, restore, rotate and remove the keys that seal data at rest."
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


@app.command()
def status(context: typer.Context, output: Output = Format.TABLE) -> None:
    """Show how many backups and policies still need each key of `versions`; asks the running Kubelore."""
    from kubelore.cli.output import print_document, print_table, warn

    with connect(context) as api:
        found = api.get(_IN_USE)
    if output in (Format.JSON, Format.YAML):
        print_document(found, output)
        return
    rows = [
        (key["id"], key["state"], str(key["backups"]), str(key["policies"]), key["created_at"])
        for key in found["keys"]
    ]
    print_table(("KEY", "STATE", "BACKUPS", "POLICIES", "CREATED"), rows)
    if found["unlooked"]:
        warn(f"{found['unlooked']} backups have yet to be looked at; ask again in half a minute.")
    for backup in found["unreadable"]:
        warn(f"backup {backup} cannot be read: its key was removed")


@app.command()
def remove(
    context: typer.Context,
    purpose: Annotated[str, typer.Argument(help="clusters, versions, logs or gateway.")],
    key_id: Annotated[str, typer.Argument(metavar="KEY", help="A retired key, as `list` shows it.")],
    yes: Annotated[bool, typer.Option("--yes", help="Although something may need it.")] = False,
) -> None:
    """Forget a retired key for good: what only it opens can never be read again."""
    folder = _folder(context)
    keyring = next((found for found in _keyrings(folder) if found.purpose == purpose), None)
    if keyring is None:
        raise NotFound(
            f"no keyring for {purpose!r} in {folder}", remedy="`kubelore keyring list` shows them."
        )
    if not yes:
        _check_unneeded(context, purpose, key_id)
    keyring.remove(key_id)
    typer.echo(f"{purpose}: key {key_id} is gone. Export the keyrings again.")


def _check_unneeded(context: typer.Context, purpose: str, key_id: str) -> None:
    """Raise Conflict unless it is known that nothing needs a key."""
    if purpose != "versions":
        raise Conflict(
            f"nobody keeps count of what the keys of {purpose!r} have sealed",
            remedy="Remove it with --yes, once you know that nothing is left of it.",
        )
    with connect(context) as api:
        found = api.get(_IN_USE)
    use = next((key for key in found["keys"] if key["id"] == key_id), None)
    if found["unlooked"] or (use is not None and (use["backups"] or use["policies"])):
        needed = f"{use['backups'] if use else 0} backups and {use['policies'] if use else 0} policies"
        raise Conflict(
            f"{needed} need the key {key_id}, and {found['unlooked']} backups have yet to be looked at",
            remedy="They are re-wrapped within a minute of a rotation; --yes removes the key all the same.",
        )


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
