"""`kubelore backup restore` and `kubelore restore`: get back what a backup holds, and see what became of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any

import typer

from kubelore.cli.connection import Api, ApiError, connect
from kubelore.cli.output import note, print_document, print_table, warn
from kubelore.cli.selection import Format, Output

RESTORES = "/api/k8s/yaml/restore"
POLL_S = 0.5
AWAY_S = 120.0
"""How long a Kubelore that does not answer is waited for, while a restore goes on in it."""
SHOWN = 200
_ENDED = ("completed", "failed", "cancelled")
_BAR = 30


class Existing(StrEnum):
    """What becomes of an object that is there already."""

    SKIP = "skip"
    UPDATE = "update"
    FAIL = "fail"


class Result(StrEnum):
    """What can become of an object."""

    CREATED = "created"
    CHANGED = "changed"
    UNCHANGED = "unchanged"
    SKIPPED = "skipped"
    FAILED = "failed"


RestoreId = Annotated[str, typer.Argument(metavar="RESTORE", help="Its id: kubelore restore list.")]

app = typer.Typer(no_args_is_help=True, help="What became of restores.", rich_markup_mode=None)


def restore(
    context: typer.Context,
    backup: Annotated[str, typer.Argument(metavar="BACKUP", help="The id of a backup.")],
    cluster: Annotated[str, typer.Option("-c", "--cluster", help="Into this cluster.")] = "",
    source: Annotated[str, typer.Option(help="Only what was backed up of this cluster.")] = "",
    namespace: Annotated[
        list[str] | None, typer.Option("-n", "--namespace", help="Only this namespace; repeat it.")
    ] = None,
    type_: Annotated[
        list[str] | None, typer.Option("--type", "-t", help="Only this type, as deployments.apps; repeat it.")
    ] = None,
    name: Annotated[
        list[str] | None, typer.Option(help="Only objects of this name (a glob); repeat it.")
    ] = None,
    selector: Annotated[str, typer.Option("-l", "--selector", help="Only objects with these labels.")] = "",
    map_namespace: Annotated[
        list[str] | None, typer.Option(metavar="OLD=NEW", help="Into another namespace; repeat it.")
    ] = None,
    existing: Annotated[
        Existing, typer.Option(help="What becomes of objects that are there.")
    ] = Existing.SKIP,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Let the API servers do all but store it.")
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Print the id, and do not wait.")] = False,
    reason: Annotated[str, typer.Option("--reason", help="Why, for the audit and each history.")] = "",
    output: Output = Format.TABLE,
) -> None:
    """Restore from a backup, into the same or another cluster. Ends with 1 when anything failed."""
    body = {
        "backup_id": backup,
        "source": source,
        "cluster": cluster,
        "namespaces": namespace or [],
        "types": type_ or [],
        "names": name or [],
        "labels": selector,
        "namespace_map": dict(_renamed(one) for one in map_namespace or []),
        "existing": existing.value,
        "dry_run": dry_run,
        "reason": reason,
    }
    with connect(context) as api:
        begun = api.post("/api/k8s/yaml/backup/restore", body)
        if detach:
            typer.echo(begun["id"])
            return
        note(f"restore {begun['id']}; it goes on without this command too")
        ended = _follow(api, begun)
        _tell(api, ended, output)


@app.command("list")
def list_(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, max=999, help="At most so many, newest first.")] = 50,
    output: Output = Format.TABLE,
) -> None:
    """Restores, newest first."""
    with connect(context) as api:
        found = api.get(RESTORES, limit=limit)
    if output in (Format.JSON, Format.YAML):
        print_document(found, output)
        return
    if not found["items"]:
        warn("Nothing was restored yet: kubelore backup restore BACKUP")
        return
    print_table(
        ("ID", "BACKUP", "INTO", "STATE", "DONE", "FAILED", "BY", "WHEN"),
        [
            (
                one["id"],
                one["backup_id"],
                one["cluster"] or "where it was",
                one["state"] + (" (dry run)" if one["dry_run"] else ""),
                f"{sum(one['counts'].values())}/{one['total']}",
                str(one["counts"]["failed"]),
                one["created_by"],
                one["created_at"],
            )
            for one in found["items"]
        ],
    )


@app.command("get")
def get(
    context: typer.Context,
    id_: RestoreId,
    result: Annotated[Result | None, typer.Option(help="Only objects with this result.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many objects.")] = SHOWN,
    output: Output = Format.TABLE,
) -> None:
    """How far a restore is, and what became of each object."""
    with connect(context) as api:
        found = api.get(f"{RESTORES}/{id_}")
        items = list(_items(api, id_, result.value if result else None, limit))
    if output in (Format.JSON, Format.YAML):
        print_document({**found, "items": items}, output)
        return
    _table(items)
    warn(_summary(found))


@app.command("cancel")
def cancel(context: typer.Context, id_: RestoreId) -> None:
    """Restore no more; what was restored stays."""
    with connect(context) as api:
        api.post(f"{RESTORES}/{id_}/cancel", {})
    note(f"restore {id_} ends; what it has restored stays")


def _renamed(text: str) -> tuple[str, str]:
    old, equals, new = text.partition("=")
    if not (old and equals and new):
        raise typer.BadParameter("write --map-namespace OLD=NEW")
    return old, new


def _follow(api: Api, found: dict[str, Any]) -> dict[str, Any]:
    """Until it has ended, with a bar on a terminal; a Kubelore that restarts meanwhile is waited for."""
    shown = sys.stderr.isatty()
    away_since: float | None = None
    while found["state"] not in _ENDED:
        if shown:
            typer.echo(f"\r{_bar(found)}\x1b[K", err=True, nl=False)
        time.sleep(POLL_S)
        try:
            found, away_since = api.get(f"{RESTORES}/{found['id']}"), None
        except ApiError as error:
            away_since = away_since or time.monotonic()
            if not error.transient or time.monotonic() - away_since > AWAY_S:
                raise
    if shown:
        typer.echo("\r\x1b[K", err=True, nl=False)
    return found


def _bar(found: dict[str, Any]) -> str:
    done, total = sum(found["counts"].values()), found["total"]
    filled = _BAR * done // total if total else 0
    failed = f", {found['counts']['failed']} failed" if found["counts"]["failed"] else ""
    return f"{found['state']:<9} [{'#' * filled}{'.' * (_BAR - filled)}] {done}/{total or '?'}{failed}"


def _tell(api: Api, ended: dict[str, Any], output: Format) -> None:
    """What became of it: what failed and what was left out, then everything else, as far as it is shown."""
    items = list(_items(api, ended["id"], None, SHOWN if output == Format.TABLE else sys.maxsize))
    if output in (Format.JSON, Format.YAML):
        print_document({**ended, "items": items}, output)
    else:
        failed = list(_items(api, ended["id"], "failed", SHOWN))
        known = {one["number"] for one in items}
        _table([*items, *(one for one in failed if one["number"] not in known)])
        if ended["total"] > len(items):
            warn(f"{ended['total'] - len(items)} more: kubelore restore get {ended['id']} --limit ...")
        warn(_summary(ended))
    if ended["state"] != "completed" or ended["counts"]["failed"]:
        raise typer.Exit(1)


def _table(items: list[dict[str, Any]]) -> None:
    if items:
        print_table(("OBJECT", "RESULT", "WHY"), [(one["id"], one["result"], _why(one)) for one in items])


def _why(item: dict[str, Any]) -> str:
    reasons = "; ".join(one["why"] for one in item["reasons"])
    failure = f"{item['error']}: {item['detail']}" if item["error"] else ""
    return "; ".join(part for part in (failure, reasons) if part)


def _summary(found: dict[str, Any]) -> str:
    counts = ", ".join(f"{count} {result}" for result, count in found["counts"].items() if count)
    told = f"{found['state']}{' (dry run: nothing was written)' if found['dry_run'] else ''}: {counts or 'nothing'}"
    more = [found["error"], found["remedy"]] if found["error"] else []
    return " - ".join([told, *filter(None, more)])


def _items(api: Api, id_: str, result: str | None, most: int) -> Iterator[dict[str, Any]]:
    continue_ = None
    left = most
    while left > 0:
        page = api.get(f"{RESTORES}/{id_}/items", result=result, limit=min(left, 999), continue_=continue_)
        yield from page["items"]
        left -= len(page["items"])
        continue_ = page["continue"]
        if not continue_:
            return
