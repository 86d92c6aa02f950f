"""`kubelore backup`: encrypted backups, made by a running Kubelore, and read with or without one."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from kubelore.cli.connection import Api, connect
from kubelore.cli.output import note, print_document, print_lines, print_table, warn
from kubelore.cli.selection import Cluster, Format, Namespace, Output, Selector
from kubelore.common.errors import AlreadyExists, IntegrityError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

POLL_S = 0.5
ROUND_S = 90.0
"""How long one round over the blob store is waited for."""

app = typer.Typer(no_args_is_help=True, help="Make, verify, fetch and read encrypted backups.")

Id = Annotated[str, typer.Argument(metavar="ID", help="As `kubelore backup list` shows it.")]
Keyring = Annotated[
    Path | None, typer.Option(help="The keyring file versions.json; then no service is asked.")
]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until it has ended, and show how far it is.")]


class Form(StrEnum):
    """How objects are written."""

    YAML = "yaml"
    JSON = "json"


@app.command()
def create(
    context: typer.Context,
    cluster: Cluster = None,
    namespace: Namespace = "",
    types: Annotated[
        str, typer.Option(help="Types, comma separated; all that are restored when empty.")
    ] = "",
    labels: Selector = "",
    name: Annotated[str, typer.Option(help="What people will look for.")] = "",
    retention: Annotated[int, typer.Option(min=0, help="Days to keep it; 0 for ever.")] = 30,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
    wait: Wait = False,
    output: Output = Format.TABLE,
) -> None:
    """Begin a backup; all of every cluster when nothing is said."""
    body = {
        "clusters": _comma(",".join(cluster or ())),
        "namespaces": _comma(namespace),
        "types": _comma(types),
        "labels": labels,
        "name": name,
        "retention_days": retention,
        "reason": reason,
    }
    with connect(context) as api:
        made = api.post("/api/k8s/yaml/backup/create", body)
        if wait:
            made = _until_ended(api, made["id"])
    _show(made, output)
    if made["status"] in ("failed", "cancelled"):
        raise typer.Exit(1)


@app.command("list")
def list_backups(
    context: typer.Context,
    cluster: Annotated[str, typer.Option("-c", "--cluster", help="Only those with this cluster.")] = "",
    status: Annotated[str, typer.Option(help="pending, running, completed, failed or cancelled.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=500, help="At most so many, newest first.")] = 50,
    output: Output = Format.TABLE,
) -> None:
    """The backups, newest first."""
    with connect(context) as api:
        page = api.get("/api/k8s/yaml/backup", cluster=cluster or None, status=status or None, limit=limit)
    if output in (Format.JSON, Format.YAML):
        print_document(page, output)
        return
    if output == Format.NAME:
        print_lines(item["id"] for item in page["items"])
        return
    if not page["items"]:
        warn("No backups there. Make one: kubelore backup create -c CLUSTER")
        return
    header = ("ID", "NAME", "STATUS", "CLUSTERS", "OBJECTS", "SIZE", "CREATED", "BY")
    print_table(header, [_row(item) for item in page["items"]])
    if page["continue"]:
        warn("There are older backups; ask for more with --limit.")


@app.command()
def get(context: typer.Context, id: Id, output: Output = Format.YAML) -> None:
    """One backup: how far it is, what is in it, what is missing."""
    with connect(context) as api:
        _show(api.get(_path(id)), output)


@app.command()
def verify(
    context: typer.Context,
    backup: Annotated[
        str, typer.Argument(metavar="ID|FILE|DIR", help="A backup, or its files with --keyring.")
    ],
    keyring: Keyring = None,
) -> None:
    """Read all of a backup and compare it with its manifest; exits with 1 when it is not whole."""
    if keyring is not None:
        from kubelore.cli import backup_files

        seen = asyncio.run(backup_files.verify(Path(backup), keyring, _bar("verifying")))
        note(f"{seen.objects} objects in {seen.chunks} chunks verify.")
        return
    with connect(context) as api:
        found = api.post(f"{_path(backup)}/verify", None)
        show = _bar("verifying")
        while found["verification"]["state"] == "running":
            time.sleep(POLL_S)
            found = api.get(_path(backup))
            show(found["verification"]["objects"], found["objects"])
    told = found["verification"]
    if told["state"] != "passed":
        raise IntegrityError(f"{told.get('reason', '')}: {told.get('error', '')}")
    note(f"{told['objects']} objects verify.")


@app.command()
def cancel(context: typer.Context, id: Id) -> None:
    """Stop making a backup; what was written of it is removed."""
    with connect(context) as api:
        api.post(f"{_path(id)}/cancel", None)
    note(f"{id} is being stopped.")


@app.command()
def delete(
    context: typer.Context,
    id: Id,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a backup with its files; nothing brings it back."""
    if not yes:
        typer.confirm(f"Delete the backup {id} for good?", abort=True)
    with connect(context) as api:
        api.delete(_path(id))
    note(f"{id} is deleted.")


@app.command()
def rescan(context: typer.Context, output: Output = Format.TABLE) -> None:
    """Know the backups of the blob store again, after MongoDB was lost; exits with 1 when one cannot be opened."""
    told: dict[str, Any] = {"found": [], "known": 0, "refused": []}
    with connect(context) as api:
        position = ""
        while True:
            query = f"?continue={quote(position, safe='')}" if position else ""
            page = api.post(f"/api/k8s/yaml/backup/rescan{query}", None, timeout_s=ROUND_S)
            for key in told:
                told[key] += page[key]
            if not (position := page["continue"] or ""):
                break
    if output in (Format.JSON, Format.YAML):
        print_document(told, output)
    else:
        for backup_id in told["found"]:
            typer.echo(backup_id)
        note(f"{len(told['found'])} found, {told['known']} known before.")
    for refused in told["refused"]:
        warn(f"{refused['id']}: {refused['reason']}: {refused['error']}")
    if told["refused"]:
        raise typer.Exit(1)


@app.command()
def download(
    context: typer.Context,
    id: Id,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to create; kubelore-backup-ID.tar otherwise.")
    ] = None,
) -> None:
    """Fetch a backup as one file, still encrypted."""
    path = output or Path(f"kubelore-backup-{id}.tar")
    if path.exists():
        raise AlreadyExists(f"{path} is there already.", remedy="Name another file with --output.")
    draft = path.with_name(f".{path.name}.part")
    show, seen = _bar("downloading"), 0
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with (
            os.fdopen(descriptor, "wb") as file,
            connect(context) as api,
            api.file(f"{_path(id)}/download") as (size, pieces),
        ):
            for piece in pieces:
                file.write(piece)
                seen += len(piece)
                show(seen, size)
        if seen != size:
            raise Unavailable(f"The download ended after {seen} of {size} bytes.", remedy="Try again.")
        draft.rename(path)
    finally:
        draft.unlink(missing_ok=True)
    note(f"{path}: {size} bytes.")


@app.command()
def decrypt(
    files: Annotated[
        Path, typer.Argument(metavar="FILE|DIR", help="A downloaded archive, or a backup's folder.")
    ],
    keyring: Annotated[Path, typer.Option(help="The keyring file versions.json.")],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="DIR|-", help="A new folder, or - for stdout.")
    ] = "-",
    form: Annotated[Form, typer.Option("--format", help="yaml or json.")] = Form.YAML,
    secrets: Annotated[bool, typer.Option("--secrets", help="With the values of Secrets.")] = False,
) -> None:
    """Read a backup without any service running; nothing is written before all of it has verified."""
    from kubelore.cli import backup_files

    out = None if output == "-" else Path(output)
    work = backup_files.decrypt(
        files, keyring, out, form=form.value, secrets=secrets, progress=_bar("verifying")
    )
    count = asyncio.run(work)
    note(f"{count} objects{'' if out is None else f' in {out}'}.")
    if not secrets:
        note("Secrets are without their values; --secrets shows them.")


def _until_ended(api: Api, backup_id: str) -> dict[str, Any]:
    show = _bar("backing up")
    while True:
        found = api.get(_path(backup_id))
        show(found["objects"], max(sum(one["expected"] for one in found["clusters"]), found["objects"]))
        if found["status"] in ("completed", "failed", "cancelled"):
            return found
        time.sleep(POLL_S)


def _show(found: dict[str, Any], output: Format) -> None:
    if output in (Format.JSON, Format.YAML):
        print_document(found, output)
        return
    typer.echo(f"{found['id']}   {_status(found)}   {found['objects']} objects   {_size(found['size'])}")
    if found["error"]:
        warn(found["error"])
    for missing in found["missing"]:
        place = ":".join(part for key in ("cluster", "type", "namespace") if (part := missing.get(key)))
        warn(f"not in it: {place}: {missing.get('error', '')}")


def _row(item: dict[str, Any]) -> tuple[str, ...]:
    clusters = ",".join(one["cluster"] for one in item["clusters"])
    return (
        item["id"],
        item["name"] or "-",
        _status(item),
        clusters,
        str(item["objects"]),
        _size(item["size"]),
        item["created_at"],
        item["created_by"],
    )


def _status(item: dict[str, Any]) -> str:
    return (
        f"{item['status']} (partial)" if item["partial"] and item["status"] == "completed" else item["status"]
    )


def _size(count: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _bar(what: str) -> Callable[[int, int], None]:
    """Shows how far something is, on a terminal; elsewhere nothing."""
    if not sys.stderr.isatty():
        return lambda _seen, _all: None

    def show(seen: int, of: int) -> None:
        share = seen / of if of else 0.0
        filled = "#" * int(share * 30)
        end = "\n" if of and seen >= of else ""
        sys.stderr.write(f"\r{what} [{filled:<30}] {share:4.0%} {seen}{end}")
        sys.stderr.flush()

    return show


def _path(backup_id: str) -> str:
    return f"/api/k8s/yaml/backup/{quote(backup_id, safe='')}"


def _comma(text: str) -> list[str]:
    return [part for raw in text.split(",") if (part := raw.strip())]
