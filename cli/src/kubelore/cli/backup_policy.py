"""`kubelore backup policy`: backups by schedule."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from kubelore.cli.connection import connect
from kubelore.cli.output import print_document, print_table, warn
from kubelore.cli.selection import Cluster, Format, Namespace, Output, Selector

app = typer.Typer(no_args_is_help=True, help="Make, show, change, pause and run backup policies.")

_POLICIES = "/api/k8s/yaml/backup/policies"
_SHOWN_RUNS = 10

Name = Annotated[str, typer.Argument(metavar="NAME", help="As `kubelore backup policy list` shows it.")]
Schedule = Annotated[str | None, typer.Option(help="Cron, as '30 2 * * *'.")]
Zone = Annotated[str | None, typer.Option("--time-zone", help="As Europe/Berlin; UTC when not given.")]
Jitter = Annotated[int | None, typer.Option(min=0, help="Seconds that a run may be later.")]
Types = Annotated[str | None, typer.Option(help="Types, comma separated; all when not given.")]
KeepCount = Annotated[int | None, typer.Option(min=0, help="Backups to keep; 0 without limit.")]
KeepDays = Annotated[int | None, typer.Option(min=0, help="Days to keep them; 0 without limit.")]
LateAfter = Annotated[int | None, typer.Option(min=60, help="Seconds after which a backup is late.")]


@app.command()
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Lower-case letters, digits and '-'.")],
    schedule: Annotated[str, typer.Option(help="Cron, as '30 2 * * *'.")],
    cluster: Cluster = None,
    namespace: Namespace = "",
    types: Types = None,
    labels: Selector = "",
    time_zone: Zone = None,
    jitter: Jitter = None,
    keep_count: KeepCount = None,
    keep_days: KeepDays = None,
    late_after: LateAfter = None,
    output: Output = Format.TABLE,
) -> None:
    """Back up by schedule, for whom you are: it goes on for as long as your token stands."""
    body = {
        "name": name,
        **_said(schedule, cluster, namespace or None, types, labels or None),
        **_timing(time_zone, jitter, keep_count, keep_days, late_after),
    }
    with connect(context) as api:
        _show(api.post(_POLICIES, body), output)


@app.command("list")
def list_policies(context: typer.Context, output: Output = Format.TABLE) -> None:
    """List the policies, when each runs next, and how it went last."""
    with connect(context) as api:
        items = list(api.items(_POLICIES))
    if output in (Format.JSON, Format.YAML):
        print_document({"items": items}, output)
    elif output == Format.NAME:
        print_table((), [(item["name"],) for item in items])
    elif not items:
        warn("No policies. Make one: kubelore backup policy create NAME -c CLUSTER --schedule '15 2 * * *'")
    else:
        print_table(("NAME", "SCHEDULE", "CLUSTERS", "NEXT", "LAST", "LAST SUCCESS"), map(_row, items))


@app.command()
def get(context: typer.Context, name: Name, output: Output = Format.TABLE) -> None:
    """Show a policy, its next three runs and its last ten."""
    with connect(context) as api:
        policy = api.get(_path(name))
        runs = api.get(f"{_path(name)}/runs", limit=_SHOWN_RUNS)["items"]
    if output in (Format.JSON, Format.YAML):
        print_document({**policy, "runs": runs}, output)
        return
    _show(policy, output)
    if runs and output != Format.NAME:
        typer.echo("")
        print_table(
            ("SLOT", "STATE", "STARTED", "ENDED", "BACKUP", "WHY"),
            [
                (
                    run["slot"] or "by hand",
                    run["state"] + (" (caught up)" if run["caught_up"] else ""),
                    run["started_at"] or "-",
                    run["ended_at"] or "-",
                    run["backup_id"] or "-",
                    run["error"],
                )
                for run in runs
            ],
        )


@app.command()
def update(
    context: typer.Context,
    name: Name,
    schedule: Schedule = None,
    cluster: Cluster = None,
    namespace: Annotated[str | None, typer.Option("-n", "--namespace", help="Comma separated.")] = None,
    types: Types = None,
    labels: Annotated[str | None, typer.Option("-l", "--selector", help="Label selector.")] = None,
    time_zone: Zone = None,
    jitter: Jitter = None,
    keep_count: KeepCount = None,
    keep_days: KeepDays = None,
    late_after: LateAfter = None,
    output: Output = Format.TABLE,
) -> None:
    """Change what is said of a policy; from then on it runs for whom you are."""
    changes = {
        **_said(schedule, cluster, namespace, types, labels),
        **_timing(time_zone, jitter, keep_count, keep_days, late_after),
    }
    with connect(context) as api:
        found = api.get(_path(name))
        _show(api.put(_path(name), {**found["spec"], **changes, "revision": found["revision"]}), output)


@app.command()
def delete(context: typer.Context, name: Name) -> None:
    """Delete a policy; the backups that it made stay."""
    with connect(context) as api:
        gone = api.delete(_path(name))
    typer.echo(f"policy {name} deleted; {gone['backups']} of its backups stay")


@app.command()
def pause(context: typer.Context, name: Name) -> None:
    """Let a policy rest; what comes due meanwhile is not caught up."""
    with connect(context) as api:
        api.patch(_path(name), {"paused": True})
    typer.echo(f"policy {name} rests")


@app.command()
def resume(context: typer.Context, name: Name) -> None:
    """Go on with a policy that rests."""
    with connect(context) as api:
        policy = api.patch(_path(name), {"paused": False})
    typer.echo(f"policy {name} goes on: next at {policy['next_runs'][0]}")


@app.command()
def run(context: typer.Context, name: Name) -> None:
    """Run a policy now, for whom it always does."""
    with connect(context) as api:
        api.post(f"{_path(name)}/run", {})
    typer.echo(f"policy {name} runs; see `kubelore backup policy get {name}`")


def _said(
    schedule: str | None,
    cluster: list[str] | None,
    namespace: str | None,
    types: str | None,
    labels: str | None,
) -> dict[str, Any]:
    said = {
        "schedule": schedule,
        "clusters": _comma(",".join(cluster)) if cluster else None,
        "namespaces": None if namespace is None else _comma(namespace),
        "types": None if types is None else _comma(types),
        "labels": labels,
    }
    return {name: value for name, value in said.items() if value is not None}


def _timing(
    zone: str | None, jitter: int | None, count: int | None, days: int | None, late: int | None
) -> dict[str, Any]:
    said = {
        "time_zone": zone,
        "jitter_s": jitter,
        "keep_count": count,
        "keep_days": days,
        "late_after_s": late,
    }
    return {name: value for name, value in said.items() if value is not None}


def _show(policy: dict[str, Any], output: Format) -> None:
    if output in (Format.JSON, Format.YAML):
        print_document(policy, output)
        return
    if output == Format.NAME:
        typer.echo(policy["name"])
        return
    spec = policy["spec"]
    scope = [",".join(spec["namespaces"]) or "all namespaces", ",".join(spec["types"]) or "all types"]
    kept = f"{spec['keep_count'] or 'all'} backups" + (
        f", {spec['keep_days']} days" if spec["keep_days"] else ""
    )
    rows = [
        ("name", policy["name"] + (" (paused)" if spec["paused"] else "")),
        ("runs for", policy["subject"]),
        ("clusters", ",".join(spec["clusters"])),
        ("scope", "; ".join([*scope, *([spec["labels"]] if spec["labels"] else [])])),
        ("schedule", f"{spec['schedule']} {spec['time_zone']}, up to {spec['jitter_s']} s later"),
        ("keeps", kept),
        ("next", ", ".join(policy["next_runs"]) or "-"),
        ("last success", (policy["last_success"] or "-") + (" (late)" if policy["late"] else "")),
    ]
    print_table((), rows)


def _row(item: dict[str, Any]) -> tuple[str, ...]:
    spec, last = item["spec"], item["last_run"]
    coming = "paused" if spec["paused"] else item["next_runs"][0]
    state = f"{last['state']}{' (late)' if item['late'] else ''}" if last else "-"
    return (
        item["name"],
        f"{spec['schedule']} {spec['time_zone']}",
        ",".join(spec["clusters"]),
        coming,
        state,
        item["last_success"] or "-",
    )


def _path(name: str) -> str:
    return f"{_POLICIES}/{quote(name, safe='')}"


def _comma(text: str) -> list[str]:
    return [part for part in (piece.strip() for piece in text.split(",")) if part]
