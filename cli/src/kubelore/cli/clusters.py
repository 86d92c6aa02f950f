"""`kubelore clusters`: onboard, list, show, change, test, measure and remove clusters."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from kubelore.cli import contexts, groups, service_account
from kubelore.cli.connection import Api, ApiError, connect
from kubelore.cli.contexts import Choice, Context
from kubelore.cli.output import print_document, print_table, warn
from kubelore.cli.quantities import rounded
from kubelore.cli.selection import Format, Output
from kubelore.cli.service_account import Account, Role

app = typer.Typer(no_args_is_help=True, help="Onboard, list, change, test, measure and remove clusters.")
app.add_typer(groups.app, name="groups")

GRANT_S = 10.0
"""Longest wait for a role that was just bound: API servers learn of it within a moment."""

FromKubeconfig = Annotated[
    Path | None,
    typer.Option(
        "--from-kubeconfig", help="Kubeconfig to read; $KUBECONFIG or ~/.kube/config when not given."
    ),
]
KubeContext = Annotated[str | None, typer.Option("--context", help="Which context of the kubeconfig.")]
Namespaces = Annotated[
    list[str] | None,
    typer.Option("--namespace", "-n", help="Observe this namespace alone; repeat for more."),
]
CreateAccount = Annotated[
    bool,
    typer.Option(
        "--create-service-account",
        help="Make a service account with your own kubectl, and use its token, which Kubelore renews.",
    ),
]
AccountRole = Annotated[Role, typer.Option("--role", help="The service account's role.")]
AccountNamespace = Annotated[str, typer.Option("--sa-namespace", help="Where the service account is made.")]

_COLUMNS = ("NAME", "STATUS", "VERSION", "PROVIDER", "REGION", "OBJECTS", "LAST SYNC")
_WIDE = (*_COLUMNS, "GROUP", "TAGS", "SERVER", "DETAIL")


@app.command("list")
def list_clusters(
    context: typer.Context,
    tag: Annotated[str | None, typer.Option(help="Only clusters with this tag.")] = None,
    group: Annotated[str | None, typer.Option(help="Only clusters of this group.")] = None,
    provider: Annotated[str | None, typer.Option(help="Only clusters of this provider.")] = None,
    status: Annotated[str | None, typer.Option(help="connected, disconnected or error.")] = None,
    output: Output = Format.TABLE,
) -> None:
    """List the onboarded clusters."""
    with connect(context) as api:
        items = list(
            api.items("/api/k8s/clusters/list", tag=tag, group=group, provider=provider, status=status)
        )
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
    from_kubeconfig: FromKubeconfig = None,
    kube_context: KubeContext = None,
    all_contexts: Annotated[
        bool, typer.Option("--all-contexts", help="Add every cluster that a context leads to, each once.")
    ] = False,
    display_name: Annotated[str | None, typer.Option(help="A name for people.")] = None,
    provider: Annotated[
        str | None, typer.Option(help="aws, huawei, aliyun, tencent, azure, google or other.")
    ] = None,
    region: Annotated[str | None, typer.Option(help="Detected from node labels when not given.")] = None,
    group: Annotated[str | None, typer.Option(help="Group to put the cluster in.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A tag; repeat for more.")] = None,
    description: Annotated[str | None, typer.Option(help="What this cluster is for.")] = None,
    namespace: Namespaces = None,
    create_service_account: CreateAccount = False,
    role: AccountRole = Role.VIEW,
    sa_namespace: AccountNamespace = "kubelore-system",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell what would be added, and what is one cluster.")
    ] = False,
) -> None:
    """Onboard a cluster, or every cluster of a kubeconfig.

    Files that the kubeconfig names (certificates, tokens) are read here and
    sent along: the server never opens a path. Of several contexts that lead to
    one server, one is added.
    """
    if all_contexts and (name or kube_context):
        raise typer.BadParameter("--all-contexts takes neither a name nor --context")
    text = contexts.read_kubeconfigs(from_kubeconfig)
    common = {
        "display_name": display_name,
        "provider": provider,
        "region": region,
        "group": group,
        "tags": tag or [],
        "description": description,
        "namespaces": namespace or [],
    }
    account = _account(role, sa_namespace, namespace) if create_service_account else None
    with connect(context) as api:
        choices = _choices(api, text, kube_context, every=all_contexts, local=create_service_account)
        if dry_run:
            _show_choices(choices, name)
            raise typer.Exit(0)
        failed = 0 if choices else 1
        for choice in choices:
            chosen = {"name": name or choice.context.suggested, **common}
            credentials = _credentials(text, choice.context, account, from_kubeconfig)
            failed += not _add_one(api, {**chosen, **credentials}, choice, tolerant=all_contexts)
    raise typer.Exit(1 if failed else 0)


@app.command()
def update(
    context: typer.Context,
    name: str,
    display_name: Annotated[str | None, typer.Option(help="A name for people; empty: the name.")] = None,
    provider: Annotated[
        str | None, typer.Option(help="aws, huawei, aliyun, tencent, azure, google or other.")
    ] = None,
    region: Annotated[str | None, typer.Option(help="Where it is.")] = None,
    group: Annotated[str | None, typer.Option(help="Group to put the cluster in; empty: none.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="The tags, all of them; repeat for more.")] = None,
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
def rotate(
    context: typer.Context,
    name: str,
    from_kubeconfig: FromKubeconfig = None,
    kube_context: KubeContext = None,
    create_service_account: CreateAccount = False,
    role: AccountRole = Role.VIEW,
    sa_namespace: AccountNamespace = "kubelore-system",
) -> None:
    """Give a cluster other credentials; they must lead to the same cluster."""
    text = contexts.read_kubeconfigs(from_kubeconfig)
    with connect(context) as api:
        account = None
        if create_service_account:
            limited = api.get(f"/api/k8s/clusters/{name}")["namespaces"]
            account = _account(role, sa_namespace, limited)
        (choice,) = _choices(api, text, kube_context, every=False, local=create_service_account)
        body = _credentials(text, choice.context, account, from_kubeconfig)
        _until_granted(lambda: api.put(f"/api/k8s/clusters/{name}/kubeconfig", body))
    typer.echo(f"cluster {name} rotated")


@app.command()
def sync(context: typer.Context, name: str, output: Output = Format.TABLE) -> None:
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
        said = f"{report['cluster']} is {report['status']}, as of {report['as_of'] or 'never'}"
        warn(f"{said}: {report['error']}" if report["error"] else said)
    raise typer.Exit(0 if report["status"] == "live" else 1)


@app.command()
def metrics(context: typer.Context, name: str, output: Output = Format.TABLE) -> None:
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
def inspect(
    context: typer.Context,
    from_kubeconfig: FromKubeconfig = None,
    output: Output = Format.TABLE,
) -> None:
    """Look into a kubeconfig without onboarding anything."""
    text = contexts.read_kubeconfigs(from_kubeconfig)
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


def _account(role: Role, namespace: str, namespaces: list[str] | None) -> Account:
    return Account(role=role, namespace=namespace, namespaces=tuple(namespaces or ()))


def _choices(api: Api, text: str, chosen: str | None, *, every: bool, local: bool) -> list[Choice]:
    """What to add. `local`: the contexts are not sent anywhere, since their users need a program to run."""
    if local:
        found, current = contexts.contexts_of_text(text)
    else:
        report = api.post("/api/k8s/clusters/inspect", {"kubeconfig": text})
        found, current = contexts.contexts_of_report(report), report["current_context"]
    if not every:
        return [Choice(contexts.choose(found, current, chosen))]
    for context in found:
        if not context.usable:
            warn(f"{context.name} skipped: {context.detail}. {context.remedy}".rstrip())
    choices = contexts.one_per_server([context for context in found if context.usable], current)
    for choice in choices:
        if choice.merged:
            others = ", ".join(context.name for context in choice.merged)
            warn(f"{others} merged into {choice.context.name}: the same server, {choice.context.server}")
    return choices


def _show_choices(choices: list[Choice], name: str | None) -> None:
    rows = [
        (
            name or choice.context.suggested,
            choice.context.name,
            choice.context.server,
            ", ".join(context.name for context in choice.merged) or "-",
            "yes" if choice.context.usable else f"no: {choice.context.detail}",
        )
        for choice in choices
    ]
    print_table(("NAME", "CONTEXT", "SERVER", "MERGED", "USABLE"), rows)


def _credentials(
    text: str, context: Context, account: Account | None, kubeconfig: Path | None
) -> dict[str, Any]:
    """The part of a body that holds credentials: the context's own, or those of an account made for it."""
    if account is None:
        return {"kubeconfig": text, "context": context.name}
    made = service_account.create(service_account.Kubectl(context.name, kubeconfig), account)
    typer.echo(
        f"service account {account.namespace}/{service_account.ACCOUNT} made with the role {account.role}"
    )
    return {"kubeconfig": made, "renew_token": True}


def _add_one(api: Api, body: dict[str, Any], choice: Choice, *, tolerant: bool) -> bool:
    try:
        _until_granted(lambda: api.post("/api/k8s/clusters/add", body))
    except ApiError as problem:
        existing = problem.error.extra.get("existing")
        if tolerant and existing:
            warn(f"{choice.context.name} merged: it is the cluster {existing}, which is there already")
            return True
        if not tolerant:
            problem.exit()
        warn(f"{body['name']}: {problem.message()}")
        return False
    typer.echo(f"cluster {body['name']} added")
    return True


def _until_granted(call: Callable[[], object]) -> None:
    """Call; again while what was bound a moment ago is not in force yet in the API server."""
    until = time.monotonic() + GRANT_S
    while True:
        try:
            call()
            return
        except ApiError as problem:
            if problem.error.extra.get("code") != "not-renewable" or time.monotonic() > until:
                raise
        time.sleep(0.3)
