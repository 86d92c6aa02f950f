"""`kubelore clusters`: list, show, change, test, measure and remove clusters; `onboarding` has what brings them in."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from kubelore.cli import groups, onboarding
from kubelore.cli.completing import complete_cluster_names, complete_cluster_tags, complete_groups
from kubelore.cli.connection import connect
from kubelore.cli.onboarding import ClusterName, Namespaces
from kubelore.cli.output import print_document, print_table, warn
from kubelore.cli.quantities import rounded
from kubelore.cli.selection import Format, Output

app = typer.Typer(no_args_is_help=True, help="Onboard, list, change, test, measure and remove clusters.")
app.command()(onboarding.inspect)
app.command()(onboarding.add)
app.command()(onboarding.rotate)
app.add_typer(groups.app, name="groups")

_COLUMNS = ("NAME", "STATUS", "VERSION", "PROVIDER", "REGION", "OBJECTS", "LAST SYNC")
_WIDE = (*_COLUMNS, "GROUP", "TAGS", "SERVER", "DETAIL")


@app.command("list")
def list_clusters(
    context: typer.Context,
    tag: Annotated[
        str | None, typer.Option(help="Only clusters with this tag.", autocompletion=complete_cluster_tags)
    ] = None,
    group: Annotated[
        str | None, typer.Option(help="Only clusters of this group.", autocompletion=complete_groups)
    ] = None,
    provider: Annotated[str | None, typer.Option(help="Only clusters of this provider.")] = None,
    status: Annotated[str | None, typer.Option(help="connected, disconnected or error.")] = None,
    output: Output = Format.TABLE,
) -> None:
    """List the onboarded clusters."""
    filters = {"tag": tag, "group": group, "provider": provider, "status": status}
    with connect(context) as api:
        items = list(api.items("/api/k8s/clusters/list", **filters))
    if output in (Format.JSON, Format.YAML):
        print_document({"items": items}, output)
    elif output == Format.NAME:
        print_table((), [(item["name"],) for item in items])
    elif not items and any(filters.values()):
        warn("No cluster is so: `kubelore clusters list` without filters shows all.")
    elif not items:
        warn("No clusters yet. Add one: kubelore clusters add NAME --from-kubeconfig FILE")
    else:
        print_table(
            _WIDE if output == Format.WIDE else _COLUMNS,
            [_row(item, output == Format.WIDE) for item in items],
        )


@app.command()
def show(context: typer.Context, name: ClusterName, output: Output = Format.YAML) -> None:
    """Show everything known of one cluster."""
    with connect(context) as api:
        print_document(
            api.get(f"/api/k8s/clusters/{name}"), Format.JSON if output == Format.JSON else Format.YAML
        )


@app.command()
def update(
    context: typer.Context,
    name: ClusterName,
    display_name: Annotated[str | None, typer.Option(help="A name for people; empty: the name.")] = None,
    provider: Annotated[
        str | None, typer.Option(help="aws, huawei, aliyun, tencent, azure, google or other.")
    ] = None,
    region: Annotated[str | None, typer.Option(help="Where it is.")] = None,
    group: Annotated[
        str | None,
        typer.Option(help="Group to put the cluster in; empty: none.", autocompletion=complete_groups),
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option(help="The tags, all of them; repeat for more.", autocompletion=complete_cluster_tags),
    ] = None,
    no_tags: Annotated[bool, typer.Option("--no-tags", help="Take all tags away.")] = False,
    description: Annotated[str | None, typer.Option(help="What this cluster is for.")] = None,
    namespace: Namespaces = None,
    all_namespaces: Annotated[
        bool, typer.Option("--all-namespaces", "-A", help="Observe the whole cluster again.")
    ] = False,
) -> None:
    """Change what is said of a cluster; what is not named stays as it is."""
    changes = {
        "display_name": display_name,
        "provider": provider,
        "region": region,
        "group": group,
        "tags": [] if no_tags else tag or None,
        "description": description,
        "namespaces": [] if all_namespaces else namespace or None,
    }
    said = {field: value for field, value in changes.items() if value is not None}
    if not said:
        raise typer.BadParameter("nothing to change: name what shall be different")
    with connect(context) as api:
        api.patch(f"/api/k8s/clusters/{name}", said)
    typer.echo(f"cluster {name} updated")


@app.command()
def sync(context: typer.Context, name: ClusterName, output: Output = Format.TABLE) -> None:
    """Look at a cluster again now, and tell how every type stands."""
    with connect(context) as api:
        report = api.post(f"/api/k8s/clusters/{name}/sync", None)
    if output in (Format.JSON, Format.YAML):
        print_document(report, output)
    elif output == Format.NAME:
        print_table((), [(state["type"],) for state in report["types"]])
    else:
        rows = [
            (state["type"], state["status"], str(state["count"]), state["detail"] or "-")
            for state in report["types"]
        ]
        print_table(("TYPE", "STATUS", "OBJECTS", "DETAIL"), rows)
        reached = f"as of {report['as_of']}" if report["as_of"] else "never reached"
        said = f"{report['cluster']} is {report['status']}, {reached}"
        warn(f"{said}: {report['error']}" if report["error"] else said)
    raise typer.Exit(0 if report["status"] == "live" else 1)


@app.command()
def metrics(context: typer.Context, name: ClusterName, output: Output = Format.TABLE) -> None:
    """Show what a cluster has, what its pods ask for, and what they use."""
    with connect(context) as api:
        report = api.get(f"/api/k8s/clusters/{name}/metrics")
    if output in (Format.JSON, Format.YAML):
        print_document(report, output)
        return
    if output == Format.NAME:
        print_table((), [(report["cluster"],)])
        return
    if (nodes := report["nodes"]) is not None:
        typer.echo(f"nodes: {nodes['total']}, {nodes['ready']} ready, {nodes['schedulable']} take pods")
    if (pods := report["pods"]) is not None:
        phases = ", ".join(f"{count} {phase}" for phase, count in pods["by_phase"].items())
        typer.echo(f"pods: {pods['total']}" + (f" ({phases})" if phases else ""))
    rows = [_figures(report, field) for field in ("capacity", "allocatable", "requests", "limits", "usage")]
    print_table(("", "CPU", "MEMORY", "PODS"), rows)
    for field, why in report["missing"].items():
        warn(f"{field}: {why}")


@app.command()
def remove(
    context: typer.Context,
    names: Annotated[
        list[str], typer.Argument(help="Clusters to remove.", autocompletion=complete_cluster_names)
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove clusters. Their credentials are deleted; their history stays."""
    if not yes:
        typer.confirm(f"Remove {', '.join(names)}?", abort=True, err=True)
    with connect(context) as api:
        for name in names:
            api.delete(f"/api/k8s/clusters/{name}")
            typer.echo(f"cluster {name} removed")


@app.command()
def test(context: typer.Context, name: ClusterName, output: Output = Format.TABLE) -> None:
    """Test the connection to a cluster, step by step."""
    with connect(context) as api:
        report = api.post(f"/api/k8s/clusters/{name}/test", None)
    if output in (Format.JSON, Format.YAML):
        print_document(report, output)
    else:
        print_table(("STEP", "RESULT", "TIME", "DETAIL"), [_step(step) for step in report["steps"]])
        _tell_rights(report, wide=output == Format.WIDE)
        for step in report["steps"]:
            if step.get("remedy"):
                warn(f"{step['name']}: {step['remedy']}")
    raise typer.Exit(0 if report["ok"] else 1)


def _row(item: dict[str, Any], wide: bool) -> tuple[str, ...]:
    count = item["resource_count"]
    short = (
        item["name"],
        item["status"],
        item["version"],
        item["provider"],
        item["region"] or "-",
        "-" if count is None else str(count),
        item["last_sync_time"] or "-",
    )
    if not wide:
        return short
    return (
        *short,
        item["group"] or "-",
        ",".join(item["tags"]) or "-",
        item["server"],
        item["status_detail"] or "-",
    )


def _step(step: dict[str, Any]) -> tuple[str, ...]:
    result = {True: "ok", False: "failed", None: "not tried"}[step["ok"]]
    latency = step.get("latency_ms")
    return step["name"], result, f"{latency:.0f} ms" if latency is not None else "-", step["detail"]


def _tell_rights(report: dict[str, Any], *, wide: bool) -> None:
    """What the credentials may do where that is not everything, and how long they last."""
    if report["verbs"] and "*" not in report["verbs"]:
        typer.echo("")
        rows = [(kind, ",".join(verbs) or "nothing") for kind, verbs in report["verbs"].items()]
        print_table(("TYPE", "MAY"), rows)
    if (skipped := report["skipped_types"]) and wide:
        warn(f"left out, since they may not be listed and watched: {', '.join(skipped)}")
    elif skipped:
        warn(f"{len(skipped)} types may not be listed and watched, and are left out (-o wide names them)")
    for what in ("certificate", "token"):
        if (days := report[f"{what}_days_left"]) is not None:
            warn(f"the {what} expires at {report[f'{what}_expires_at']}, in {days} days")


def _figures(report: dict[str, Any], field: str) -> tuple[str, ...]:
    amount = report[field]
    if amount is None:
        return field, "-", "-", "-"
    fit = amount.get("pods")
    return field, rounded(amount["cpu"]), rounded(amount["memory"]), "-" if fit is None else str(fit)
