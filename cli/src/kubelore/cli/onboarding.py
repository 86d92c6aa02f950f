"""`kubelore clusters inspect`, `add` and `rotate`: clusters and their credentials, from the kubeconfigs of this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from kubelore.cli import contexts, service_account
from kubelore.cli.completing import complete_cluster_names, complete_cluster_tags, complete_groups
from kubelore.cli.connection import Api, ApiError, connect
from kubelore.cli.contexts import Choice, Context
from kubelore.cli.output import print_document, print_table, warn
from kubelore.cli.selection import Format, Output
from kubelore.cli.service_account import Account, Role
from kubelore.common.errors import KubeloreError

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
ClusterName = Annotated[str, typer.Argument(autocompletion=complete_cluster_names)]
CreateAccount = Annotated[
    bool,
    typer.Option(
        "--create-service-account",
        help="Make a service account with your own kubectl, and use its token, which Kubelore renews.",
    ),
]
AccountRole = Annotated[Role, typer.Option("--role", help="The service account's role.")]
AccountNamespace = Annotated[str, typer.Option("--sa-namespace", help="Where the service account is made.")]

NewName = Annotated[str | None, typer.Argument(help="A DNS label. Made from the context when not given.")]
AllContexts = Annotated[
    bool, typer.Option("--all-contexts", help="Add every cluster that a context leads to, each once.")
]
DisplayName = Annotated[str | None, typer.Option(help="A name for people.")]
Provider = Annotated[str | None, typer.Option(help="aws, huawei, aliyun, tencent, azure, google or other.")]
Region = Annotated[str | None, typer.Option(help="Detected from node labels when not given.")]
Group = Annotated[
    str | None, typer.Option(help="Group to put the cluster in.", autocompletion=complete_groups)
]
Tags = Annotated[
    list[str] | None, typer.Option(help="A tag; repeat for more.", autocompletion=complete_cluster_tags)
]
Description = Annotated[str | None, typer.Option(help="What this cluster is for.")]
AllowDuplicate = Annotated[
    bool, typer.Option("--allow-duplicate", help="Though this very cluster is there under another name.")
]
NewHistory = Annotated[
    bool,
    typer.Option("--new-history", help="Though the name was another cluster's: its history is archived."),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Only tell what would be added, and what is one cluster.")
]


def add(
    context: typer.Context,
    name: NewName = None,
    from_kubeconfig: FromKubeconfig = None,
    kube_context: KubeContext = None,
    all_contexts: AllContexts = False,
    display_name: DisplayName = None,
    provider: Provider = None,
    region: Region = None,
    group: Group = None,
    tag: Tags = None,
    description: Description = None,
    namespace: Namespaces = None,
    create_service_account: CreateAccount = False,
    role: AccountRole = Role.VIEW,
    sa_namespace: AccountNamespace = "kubelore-system",
    allow_duplicate: AllowDuplicate = False,
    new_history: NewHistory = False,
    dry_run: DryRun = False,
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
        "allow_duplicate": allow_duplicate,
        "new_history": new_history,
    }
    account = _account(role, sa_namespace, namespace) if create_service_account else None
    credentials = partial(_credentials, text, account, from_kubeconfig)
    with connect(context) as api:
        choices = _choices(api, text, kube_context, every=all_contexts, local=create_service_account)
        if dry_run:
            _show_choices(choices, name)
            raise typer.Exit(0)
        done = [
            _add_one(
                api,
                {"name": name or choice.context.suggested, **common},
                choice.context,
                credentials,
                tolerant=all_contexts,
            )
            for choice in choices
        ]
    raise typer.Exit(0 if done and all(done) else 1)


def rotate(
    context: typer.Context,
    name: ClusterName,
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
        body = _credentials(text, account, from_kubeconfig, choice.context)
        _until_granted(lambda: api.put(f"/api/k8s/clusters/{name}/kubeconfig", body))
    typer.echo(f"cluster {name} rotated")


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
            found["user"] or "-",
            found["authentication"],
            min(filter(None, (found["certificate_expires_at"], found["token_expires_at"])), default="-"),
            "yes" if found["usable"] else f"no: {found['detail']}",
        )
        for found in report["contexts"]
    ]
    print_table(("CURRENT", "CONTEXT", "NAME", "SERVER", "USER", "AUTHENTICATION", "EXPIRES", "USABLE"), rows)


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
    text: str, account: Account | None, kubeconfig: Path | None, context: Context
) -> dict[str, Any]:
    """The part of a body that holds credentials: the context's own, or those of an account made for it."""
    if account is None:
        return {"kubeconfig": text, "context": context.name}
    made = service_account.create(service_account.Kubectl(context.name, kubeconfig), account)
    typer.echo(
        f"service account {account.namespace}/{service_account.ACCOUNT} made with the role {account.role}"
    )
    return {"kubeconfig": made, "renew_token": True}


def _add_one(
    api: Api,
    body: dict[str, Any],
    context: Context,
    credentials: Callable[[Context], dict[str, Any]],
    *,
    tolerant: bool,
) -> bool:
    """Onboard one; whether it is there now. `tolerant`: what stands in the way is told, for others are to follow."""
    try:
        body |= credentials(context)
    except KubeloreError as error:
        if not tolerant:
            raise
        warn(f"{context.name}: {ApiError(error).message()}")
        return False
    try:
        _until_granted(lambda: api.post("/api/k8s/clusters/add", body))
    except ApiError as problem:
        existing = problem.error.extra.get("existing")
        if tolerant and existing:
            warn(f"{context.name} merged: it is the cluster {existing}, which is there already")
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
