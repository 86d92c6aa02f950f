"""`kubelore audit`: who did what, and whether the log of it is whole."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from kubelore.cli.connection import Api, ApiError, connect
from kubelore.cli.output import print_document, print_table, warn
from kubelore.cli.selection import Format, Output

app = typer.Typer(invoke_without_command=True, help="Show who did what; verify that the log of it is whole.")

PAGE = 500
POLL_S = 2.0
OVERLAP_S = 30.0
"""Gateways write by their own clocks: this far back entries may still come."""
MAX_REMEMBERED = 20_000

_COLUMNS = ("TIME", "ACTOR", "ACTION", "RESOURCE", "OUTCOME", "FROM")
_WIDE = (*_COLUMNS, "STATUS", "REASON", "CREDENTIAL", "TOOK", "OPERATION", "TRACE", "USER AGENT")
_SPAN = re.compile(r"(\d+)([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@app.callback()
def audit(
    context: typer.Context,
    actor: Annotated[str | None, typer.Option(help="Only what this subject did.")] = None,
    action: Annotated[
        str | None, typer.Option(help="Only this action; `clusters.*` for all of a kind.")
    ] = None,
    resource: Annotated[
        str | None, typer.Option(help="Only this resource; with * at the end, all that begins so.")
    ] = None,
    cluster: Annotated[str | None, typer.Option("--cluster", "-c", help="Only in this cluster.")] = None,
    outcome: Annotated[str | None, typer.Option(help="ok, refused, failed or unknown.")] = None,
    since: Annotated[
        str | None, typer.Option(help="A time (RFC 3339), or a span before now: 90m, 2d.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="The same.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is added.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Show who did what to which resource, from where, and how it ended; the newest first.

    With --follow the oldest first, until Ctrl-C.
    """
    if context.invoked_subcommand is not None:
        return
    filters = {
        "actor": actor,
        "action": action,
        "resource": resource,
        "cluster": cluster,
        "outcome": outcome,
        "since": _time(since),
        "until": _time(until),
    }
    with connect(context) as api:
        items = list(_newest(api, limit, filters))
        if follow:
            _follow(api, items, filters, output)
        else:
            _show(items, output)


@app.command()
def verify(context: typer.Context, output: Output = Format.TABLE) -> None:
    """Verify every chain of the log. Ends with 1 when an entry was changed, dropped or cut."""
    chains: list[dict[str, Any]] = []
    total: dict[str, Any] = {}
    with connect(context) as api:
        for line in api.lines("/api/audit/verify"):
            if "chain" in line:
                chains.append(line)
            else:
                total = line
    if output in (Format.JSON, Format.YAML):
        print_document({"chains": chains, **total}, output)
    else:
        print_table(("CHAIN", "WRITER", "ENTRIES", "SIGNED", "RESULT"), [_verdict(chain) for chain in chains])
    if not total or "error" in total:
        warn(f"The log was not verified to its end: {total.get('error', 'the connection broke')}")
    elif not total["ok"]:
        warn(f"{total['broken']} of {total['chains']} chains do not verify.")
    raise typer.Exit(0 if total.get("ok") else 1)


def _newest(api: Api, limit: int, filters: dict[str, Any]) -> Iterator[dict[str, Any]]:
    position: str | None = None
    while limit > 0:
        page = api.get("/api/audit", limit=min(PAGE, limit), continue_=position, **filters)
        yield from page["items"]
        limit -= len(page["items"])
        position = page["continue"]
        if position is None:
            return


def _follow(api: Api, items: list[dict[str, Any]], filters: dict[str, Any], output: Format) -> None:
    seen: dict[str, None] = {}
    header = True
    try:
        while True:
            fresh = [item for item in reversed(items) if item["id"] not in seen]
            seen.update(dict.fromkeys(item["id"] for item in fresh))
            for old in list(seen)[: max(0, len(seen) - MAX_REMEMBERED)]:
                del seen[old]
            _show(fresh, output, header=header, lines=True)
            header = header and not fresh
            time.sleep(POLL_S)
            since = (datetime.now(UTC) - timedelta(seconds=OVERLAP_S)).isoformat()
            try:
                items = list(_newest(api, MAX_REMEMBERED, {**filters, "since": since}))
            except ApiError as error:
                if not error.transient:
                    raise
                warn(f"connection lost ({error.message()}), trying again")
                items = []
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _show(items: list[dict[str, Any]], output: Format, *, header: bool = True, lines: bool = False) -> None:
    if output == Format.JSON and lines:
        for item in items:
            typer.echo(json.dumps(item, ensure_ascii=False))
    elif output in (Format.JSON, Format.YAML):
        print_document({"items": items}, output)
    elif output == Format.NAME:
        print_table((), [(item["id"],) for item in items])
    elif items:
        wide = output == Format.WIDE
        print_table((_WIDE if wide else _COLUMNS) if header else (), [_row(item, wide) for item in items])
    elif not lines:
        warn("No entries.")


def _row(item: dict[str, Any], wide: bool) -> tuple[str, ...]:
    repeated = f" (x{item['count']})" if item["count"] > 1 else ""
    short = (
        datetime.fromisoformat(item["at"]).astimezone().strftime("%Y-%m-%d %H:%M:%S"),
        item["actor"] or "-",
        item["action"],
        item["resource"] or "-",
        f"{item['outcome']}{repeated}",
        item["address"] or "-",
    )
    if not wide:
        return short
    return (
        *short,
        str(item["status"] or "-"),
        item["reason"] or "-",
        item["credential"] or "-",
        f"{item['took_ms']} ms",
        item["operation_id"] or "-",
        item["trace_id"] or "-",
        item["user_agent"] or "-",
    )


def _verdict(chain: dict[str, Any]) -> tuple[str, ...]:
    fault = chain["fault"]
    tail = chain["last"] - chain["signed"]
    fine = f"ok, {tail} not signed yet" if tail else "ok"
    return (
        chain["chain"],
        chain["writer"] or "-",
        str(chain["entries"]),
        str(chain["signed"]),
        f"{fault['kind']} at {fault['number']}: {fault['detail']}" if fault else fine,
    )


def _time(given: str | None) -> str | None:
    """RFC 3339 for the API, from a time or from a span before now."""
    if given is None:
        return None
    if (span := _SPAN.fullmatch(given)) is not None:
        try:
            return (datetime.now(UTC) - timedelta(**{_UNITS[span[2]]: int(span[1])})).isoformat()
        except OverflowError as error:
            raise typer.BadParameter(f"{given!r} is longer ago than there is time") from error
    try:
        parsed = datetime.fromisoformat(given)
    except ValueError as error:
        raise typer.BadParameter(
            f"{given!r} is neither a time like 2026-11-24T13:00 nor a span like 90m"
        ) from error
    return (parsed if parsed.tzinfo else parsed.astimezone()).isoformat()
