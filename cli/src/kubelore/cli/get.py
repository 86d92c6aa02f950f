"""`kubelore get`: objects of every cluster as if they were one cluster's."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from kubelore.cli.connection import connect
from kubelore.cli.listing import Answer, ask
from kubelore.cli.output import print_document, print_table, warn
from kubelore.cli.selection import (
    AllNamespaces,
    Cluster,
    FieldSelector,
    Format,
    Namespace,
    Output,
    Selector,
    namespaces,
)
from kubelore.cli.targets import parse_targets
from kubelore.common.durations import human_duration

_VIEWS = {Format.TABLE: "table", Format.WIDE: "table", Format.NAME: "metadata"}


def get(
    context: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="TYPE[,TYPE] [NAME ...]",
            help="As kubectl: pods, deploy,svc, pod web-0, pod/web-0, or an id.",
        ),
    ],
    cluster: Cluster = None,
    namespace: Namespace = "",
    all_namespaces: AllNamespaces = False,
    selector: Selector = "",
    field_selector: FieldSelector = "",
    search: Annotated[str, typer.Option(help="Substring of name, labels, annotations or images.")] = "",
    sort_by: Annotated[
        str, typer.Option(help="name, namespace, cluster, type, created or phase; -created for newest.")
    ] = "",
    limit: Annotated[int, typer.Option(min=0, help="At most so many objects of a type; 0 for all.")] = 0,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Leave out rows of clusters that are not live.")
    ] = False,
    managed_fields: Annotated[
        bool, typer.Option("--show-managed-fields", help="Keep managedFields in JSON and YAML.")
    ] = False,
    no_headers: Annotated[bool, typer.Option("--no-headers", help="Print no line of column names.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """List objects across clusters.

    Clusters that are not live are named on stderr, and their rows are as old as
    it says there. Ends with 1 when a named object is nowhere, and when nothing
    was found and a cluster could not be asked.
    """
    query: dict[str, Any] = {
        "clusters": ",".join(cluster or []),
        "namespace": namespaces(namespace, all_namespaces),
        "labels": selector,
        "fields": field_selector,
        "sort": sort_by or "cluster",
        "stale": "exclude" if fresh else "include",
        "view": _VIEWS.get(output, "object"),
        "search": search,
    }
    targets = parse_targets(words)
    with connect(context) as api:
        answers = [answer for target in targets for answer in ask(api, target, query, limit)]
    found = sum(len(answer.items) for answer in answers)
    single = len(targets) == 1 and len(targets[0].names) == 1 and found == 1
    if output in (Format.JSON, Format.YAML):
        print_document(_document(answers, managed_fields, single), output)
    elif output == Format.NAME:
        print_table((), [(item["id"],) for answer in answers for item in answer.items])
    else:
        _print_tables(answers, output == Format.WIDE, all_namespaces or "," in namespace, not no_headers)
    raise typer.Exit(_explain(answers, " ".join(words), query["namespace"], found))


def _explain(answers: list[Answer], asked: str, namespace: str, found: int) -> int:
    """Say on stderr what the rows do not say themselves; returns the exit code."""
    states = {state["name"]: state for answer in answers for state in answer.states}
    troubled = [state for state in states.values() if state["status"] != "live"]
    for state in troubled:
        warn(_freshness(state))
    missing = [name for answer in answers for name in answer.missing]
    for name in missing:
        warn(f"{name} not found")
    if found or missing:
        return 1 if missing else 0
    if not states:
        warn(
            "No cluster was asked. `kubelore clusters list` shows them, `kubelore clusters add` onboards one."
        )
        return 1
    where = f"namespace {namespace} (-A looks into all of them)" if namespace else "any namespace"
    warn(f"No {asked} found in {where}.")
    return 1 if len(troubled) == len(states) or any(state["status"] == "error" for state in troubled) else 0


def _freshness(state: dict[str, Any]) -> str:
    verdict = "cannot be read" if state["status"] == "error" else f"is {state['status']}"
    since = ""
    if state["as_of"]:
        then = datetime.fromisoformat(state["as_of"])
        ago = human_duration(max(0, int((datetime.now(UTC) - then).total_seconds())))
        since = f", as of {then.astimezone():%H:%M:%S} ({ago} ago)"
    reason = f": {state['error']}" if state["error"] else ""
    return f"cluster {state['name']} {verdict}{since}{reason}"


def _document(answers: list[Answer], managed_fields: bool, single: bool) -> dict[str, Any]:
    """One object as it is, or a Kubernetes List; where several clusters answered, an annotation names each object's."""
    items = [item for answer in answers for item in answer.items]
    several = len({item["cluster"] for item in items}) > 1
    for item in items:
        metadata = item["object"]["metadata"]
        if not managed_fields:
            metadata.pop("managedFields", None)
        if several:
            metadata["annotations"] = {
                **(metadata.get("annotations") or {}),
                "kubelore.io/cluster": item["cluster"],
            }
    if single:
        return items[0]["object"]
    return {"apiVersion": "v1", "items": [item["object"] for item in items], "kind": "List"}


def _print_tables(answers: list[Answer], wide: bool, with_namespace: bool, headers: bool) -> None:
    filled = [answer for answer in answers if answer.items]
    several = len({kind for answer in filled for kind in answer.types}) > 1
    for number, answer in enumerate(filled):
        if number:
            typer.echo()
        _print_table(answer, wide, with_namespace, headers, several)


def _print_table(answer: Answer, wide: bool, with_namespace: bool, headers: bool, with_type: bool) -> None:
    shown = [index for index, column in enumerate(answer.columns) if wide or column["priority"] == 0]
    namespaced = with_namespace and any(item["id"].split(":", 3)[2] for item in answer.items)
    names = (answer.columns[index]["name"].upper() for index in shown)
    header = ["CLUSTER", *(["NAMESPACE"] if namespaced else []), *names]
    rows: list[list[str]] = []
    for item in answer.items:
        _, kind, namespace, _ = item["id"].split(":", 3)
        cells = ["<none>" if item["object"][i] is None else str(item["object"][i]) for i in shown]
        if with_type:
            cells[0] = f"{kind}/{cells[0]}"
        rows.append([item["cluster"], *([namespace] if namespaced else []), *cells])
    print_table(header if headers else (), rows)
