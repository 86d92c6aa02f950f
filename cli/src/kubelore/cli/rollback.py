"""`kubelore rollback`, `snapshot diff`, `snapshot rollback`: an object or a namespace as it was, shown before it is done."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from kubelore.cli.changing import DryRun, Reason, StopOnError
from kubelore.cli.connection import connect
from kubelore.cli.history import Object, OneCluster, object_path, one_cluster, print_diff
from kubelore.cli.output import note, print_document, print_table, warn
from kubelore.cli.selection import Format, Namespace, Output

SNAPSHOT = "/api/k8s/yaml/snapshot"
ROLLBACK_S = 130.0
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Force = Annotated[bool, typer.Option("--force", help="Also when it changes while you look at it.")]
OfNamespace = Annotated[str, typer.Option("-n", "--namespace", help="Of which namespace.")]


def rollback(
    context: typer.Context,
    object_: Object,
    to: Annotated[int, typer.Option("--to", min=1, help="The version to go back to.")],
    cluster: OneCluster = "",
    namespace: Namespace = "",
    reason: Reason = "",
    dry_run: DryRun = False,
    yes: Yes = False,
    force: Force = False,
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete the object, where that is what the version says.")
    ] = False,
    output: Output = Format.TABLE,
) -> None:
    """Make an object what one of its versions says: the difference first, then on your word."""
    with connect(context) as api:
        path = object_path(api, object_, cluster, namespace) + "/rollback"
        body: dict[str, Any] = {"version": to, "reason": reason, "delete": delete}
        preview = api.post(path, {**body, "dry_run": True}, timeout_s=ROLLBACK_S)
        shown = output in (Format.JSON, Format.YAML)
        if not shown:
            _show(preview)
        if dry_run or preview["method"] == "none" or preview["refusal"]:
            if shown:
                print_document(preview, output)
            raise typer.Exit(1 if preview["refusal"] else 0)
        if not yes:
            _confirm(f"{preview['id']}: {preview['method']}?")
        body |= {"force": force, "expected": {"content_hash": preview["content_hash"]}}
        done = api.post(path, body, timeout_s=ROLLBACK_S)
    if shown:
        print_document(done, output)
        return
    print_table((), [(f"{done['id']} rolled back to version {to} ({done['method']})",)])
    note(f"operation {done['operation']}")


def snapshot_diff(
    context: typer.Context,
    from_: Annotated[str, typer.Option("--from", help="The earlier time (ISO 8601).")],
    to: Annotated[str, typer.Option(help="The later time; now when not given.")] = "",
    cluster: OneCluster = "",
    namespace: OfNamespace = "",
    output: Output = Format.TABLE,
) -> None:
    """What came, went and changed in a namespace between two times."""
    with connect(context) as api:
        query = {"cluster": one_cluster(api, cluster), "namespace": namespace, "to": to or None}
        items = list(api.items(f"{SNAPSHOT}/diff", from_=from_, **query))
    items.sort(key=lambda item: item["id"])
    if output in (Format.JSON, Format.YAML):
        print_document({"items": items}, output)
        return
    for item in items:
        note(f"{item['change']}: {item['id']}")
        print_diff(item["diff_content"])
    if not items:
        warn("Nothing differs.")


def snapshot_rollback(
    context: typer.Context,
    at: Annotated[str, typer.Option("--at", help="The time to go back to (ISO 8601).")],
    namespace: OfNamespace,
    cluster: OneCluster = "",
    reason: Reason = "",
    dry_run: DryRun = False,
    yes: Yes = False,
    force: Force = False,
    stop_on_error: StopOnError = False,
    output: Output = Format.TABLE,
) -> None:
    """Make a namespace hold what it held at a time: the plan first, then on your word."""
    with connect(context) as api:
        body: dict[str, Any] = {"cluster": one_cluster(api, cluster), "namespace": namespace, "at": at}
        body |= {"reason": reason, "stop_on_error": stop_on_error}
        plan = api.post(f"{SNAPSHOT}/rollback", {**body, "dry_run": True}, timeout_s=ROLLBACK_S)
        steps = [item for item in plan["items"] if item["step"] != "leave"]
        shown = output in (Format.JSON, Format.YAML)
        if not shown:
            _show_plan(plan)
        if dry_run or not steps:
            if shown:
                print_document(plan, output)
            raise typer.Exit(1 if any(item["refusal"] for item in steps) else 0)
        if not yes:
            _confirm(f"{len(steps)} steps in {body['cluster']}/{namespace}. Go on?")
        body |= {"force": force, "expected": plan["plan"]}
        done = api.post(f"{SNAPSHOT}/rollback", body, timeout_s=ROLLBACK_S)
    failed = [item for item in done["items"] if item["error"] or item["skipped"]]
    if shown:
        print_document(done, output)
    else:
        print_table((), [(f"{item['id']} {item['result']}",) for item in done["items"] if item["result"]])
        for item in failed:
            warn(f"{item['id']}: {item['error']['detail'] if item['error'] else 'skipped'}")
    raise typer.Exit(1 if failed else 0)


def _show(preview: dict[str, Any]) -> None:
    print_diff(preview["diff_content"])
    if preview["method"] == "none":
        note(f"{preview['id']} is as version {preview['version']} says.")
    if preview["recreates"]:
        note("It is gone, and is made anew.")
    for one in preview["notes"]:
        note(one)
    _tell_refusal(preview["id"], preview["refusal"])


def _show_plan(plan: dict[str, Any]) -> None:
    for item in plan["items"]:
        if item["step"] == "leave":
            note(f"leave {item['id']}: {item['why']}")
            continue
        note(f"{item['step']} {item['id']}")
        print_diff(item["diff_content"])
        for one in item["notes"]:
            note(f"    {one}")
        _tell_refusal(item["id"], item["refusal"])
    note(f"{len(plan['items'])} steps, {plan['unchanged']} objects as they were")


def _tell_refusal(id_: str, refusal: dict[str, Any] | None) -> None:
    if refusal is None:
        return
    warn(f"{id_} would be refused: {refusal['detail']}")
    if refusal["remedy"]:
        warn(f"    {refusal['remedy']}")


def _confirm(question: str) -> None:
    if not sys.stdin.isatty():
        warn("nothing was changed: say --yes to do it")
        raise typer.Exit(1)
    if not typer.confirm(question, err=True):
        raise typer.Exit(1)
