"""`kubelore clusters`: onboard, list, show, test and remove clusters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from kubelore.cli.connection import Api, connect
from kubelore.cli.output import print_document, print_table, warn
from kubelore.cli.selection import Format, Output

app = typer.Typer(no_args_is_help=True, help="Onboard, list, show, test and remove clusters.")

_COLUMNS = ("NAME", "STATUS", "VERSION", "PROVIDER", "REGION", "OBJECTS", "LAST SYNC")
_WIDE = (*_COLUMNS, "GROUP", "TAGS", "SERVER", "DETAIL")


@app.command("list")
def list_clusters(
    context: typer.Context,
    tag: Annotated[str | None, typer.Option(help="Only clusters with this tag.")] = None,
    group: Annotated[str | None, typer.Option(help="Only clusters of this group.")] = None,
    output: Output = Format.TABLE,
) -> None:
    """List the onboarded clusters."""
    with connect(context) as api:
        items = list(_all(api, tag=tag, group=group))
    if output in (Format.JSON, Format.YAML):
        print_document({"items": items}, output)
    elif output == Format.NAME:
        print_table((), [(item["name"],) for item in items])
    elif not items:
        warn("No clusters yet. Add one: kubelore clusters add NAME --from-kubeconfig FILE")
    else:
        print_table(
            _WIDE if output == Format.WIDE else _COLUMNS,
            [_row(item, output == Format.WIDE) for item in items],
        )


@app.command()
def show(context: typer.Context, name: str, output: Output = Format.YAML) -> None:
    """Show everything known of one cluster."""
    with connect(context) as api:
        print_document(
            api.get(f"/api/k8s/clusters/{name}"), Format.JSON if output == Format.JSON else Format.YAML
        )


@app.command()
def add(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(help="A DNS label. Made from the context when not given.")
    ] = None,
    from_kubeconfig: Annotated[
        Path | None,
        typer.Option(
            "--from-kubeconfig", help="Kubeconfig to read; $KUBECONFIG or ~/.kube/config when not given."
        ),
    ] = None,
    kube_context: Annotated[
        str | None, typer.Option("--context", help="Which context of the kubeconfig.")
    ] = None,
    all_contexts: Annotated[
        bool, typer.Option("--all-contexts", help="Add every context that can be used.")
    ] = False,
    display_name: Annotated[str | None, typer.Option(help="A name for people.")] = None,
    provider: Annotated[
        str | None, typer.Option(help="aws, huawei, aliyun, tencent, azure, google or other.")
    ] = None,
    region: Annotated[str | None, typer.Option(help="Detected from node labels when not given.")] = None,
    group: Annotated[str | None, typer.Option(help="Group to put the cluster in.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A tag; repeat for more.")] = None,
    description: Annotated[str | None, typer.Option(help="What this cluster is for.")] = None,
) -> None:
    """Onboard a cluster, or every context of a kubeconfig.

    Files that the kubeconfig names (certificates, tokens) are read here and
    sent along: the server never opens a path.
    """
    if all_contexts and (name or kube_context):
        raise typer.BadParameter("--all-contexts takes neither a name nor --context")
    text = _read_kubeconfig(from_kubeconfig)
    common = {
        "display_name": display_name,
        "provider": provider,
        "region": region,
        "group": group,
        "tags": tag or [],
        "description": description,
    }
    with connect(context) as api:
        contexts = _contexts(api, text, kube_context, all_contexts)
        failed = 0 if contexts else 1
        for found in contexts:
            chosen = name or found["suggested_name"]
            body = {"name": chosen, "kubeconfig": text, "context": found["name"], **common}
            failed += not _add_one(api, body, tolerant=all_contexts)
    raise typer.Exit(1 if failed else 0)


@app.command()
def inspect(
    context: typer.Context,
    from_kubeconfig: Annotated[
        Path | None, typer.Option("--from-kubeconfig", help="Kubeconfig to read.")
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Look into a kubeconfig without onboarding anything."""
    text = _read_kubeconfig(from_kubeconfig)
    with connect(context) as api:
        report = api.post("/api/k8s/clusters/inspect", {"kubeconfig": text})
    if output in (Format.JSON, Format.YAML):
        print_document(report, output)
        return
    rows = [
        (
            "*" if found["name"] == report["current_context"] else "",
            found["name"],
            found["suggested_name"],
            found["server"],
            found["authentication"],
            "yes" if found["usable"] else f"no: {found['detail']}",
        )
        for found in report["contexts"]
    ]
    print_table(("CURRENT", "CONTEXT", "NAME", "SERVER", "AUTHENTICATION", "USABLE"), rows)


@app.command()
def remove(
    context: typer.Context,
    names: Annotated[list[str], typer.Argument(help="Clusters to remove.")],
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
def test(context: typer.Context, name: str, output: Output = Format.TABLE) -> None:
    """Test the connection to a cluster, step by step."""
    with connect(context) as api:
        report = api.post(f"/api/k8s/clusters/{name}/test", None)
    if output in (Format.JSON, Format.YAML):
        print_document(report, output)
    else:
        print_table(("STEP", "RESULT", "TIME", "DETAIL"), [_step(step) for step in report["steps"]])
        for step in report["steps"]:
            if step.get("remedy"):
                warn(f"{step['name']}: {step['remedy']}")
    raise typer.Exit(0 if report["ok"] else 1)


def _all(api: Api, **filters: str | None) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    position: str | None = None
    while True:
        page = api.get("/api/k8s/clusters/list", continue_=position, **filters)
        items += page["items"]
        position = page["continue"]
        if position is None:
            return items


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


def _read_kubeconfig(path: Path | None) -> str:
    import os

    from kubelore.common.kube import inline_kubeconfig

    if path is None:
        first = os.environ.get("KUBECONFIG", "").split(os.pathsep)[0]
        path = Path(first) if first else Path.home() / ".kube" / "config"
    try:
        return inline_kubeconfig(path.read_text(), path.parent)
    except OSError as error:
        raise typer.BadParameter(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"{path} is not a text file") from error


def _contexts(api: Api, text: str, chosen: str | None, every: bool) -> list[dict[str, Any]]:
    report = api.post("/api/k8s/clusters/inspect", {"kubeconfig": text})
    contexts: list[dict[str, Any]] = report["contexts"]
    if every:
        for found in contexts:
            if not found["usable"]:
                warn(f"{found['name']} skipped: {found['detail']}. {found['remedy'] or ''}".rstrip())
        return [found for found in contexts if found["usable"]]
    wanted = chosen or report["current_context"] or (contexts[0]["name"] if len(contexts) == 1 else None)
    if wanted is None:
        raise typer.BadParameter(f"choose a context with --context: {', '.join(c['name'] for c in contexts)}")
    match = [found for found in contexts if found["name"] == wanted]
    if not match:
        raise typer.BadParameter(
            f"no context named {wanted!r}; there are: {', '.join(c['name'] for c in contexts)}"
        )
    return match


def _add_one(api: Api, body: dict[str, Any], tolerant: bool) -> bool:
    problem = api.try_post("/api/k8s/clusters/add", body)
    if problem is None:
        typer.echo(f"cluster {body['name']} added")
        return True
    if not tolerant:
        problem.exit()
    warn(f"{body['name']}: {problem.message()}")
    return False
