"""`kubelore get`: objects of every cluster as if they were one cluster's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from kubelore.cli.connection import Api, connect
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

PAGE = 500
_LIST = "/api/k8s/unified/resources"


def get(
    context: typer.Context,
    types: Annotated[
        str, typer.Argument(metavar="TYPE[,TYPE]", help="As kubectl names them: pods, deploy, svc ...")
    ],
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Only objects of these names.")
    ] = None,
    cluster: Cluster = None,
    namespace: Namespace = "",
    all_namespaces: AllNamespaces = False,
    selector: Selector = "",
    field_selector: FieldSelector = "",
    search: Annotated[str, typer.Option(help="Substring of name, labels, annotations or images.")] = "",
    sort_by: Annotated[
        str, typer.Option(help="name, namespace, cluster, type, created or phase; -created for newest.")
    ] = "",
    limit: Annotated[int, typer.Option(min=0, help="At most so many objects; 0 for all.")] = 0,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Leave out rows of clusters that are not live.")
    ] = False,
    managed_fields: Annotated[
        bool, typer.Option("--show-managed-fields", help="Keep managedFields in JSON and YAML.")
    ] = False,
    output: Output = Format.TABLE,
) -> None:
    """List objects across clusters.

    Clusters that are not live are named on stderr, and their rows are as old as
    it says there.
    """
    query = {
        "type": types,
        "clusters": ",".join(cluster or []),
        "namespace": namespaces(namespace, all_namespaces),
        "labels": selector,
        "fields": _with_names(field_selector, names or []),
        "sort": sort_by or "cluster",
        "stale": "exclude" if fresh else "include",
        "view": "table"
        if output in (Format.TABLE, Format.WIDE)
        else ("metadata" if output == Format.NAME else "object"),
        "search": search,
    }
    with connect(context) as api:
        pages = list(_pages(api, query, limit, names or []))
    _say_freshness(pages[-1])
    items = [item for page in pages for item in page["items"]]
    if output in (Format.JSON, Format.YAML) and not managed_fields:
        for item in items:
            item["object"]["metadata"].pop("managedFields", None)
    if not items:
        warn(_nothing_found(query, names or []))
        raise typer.Exit(1 if names else 0)
    _print(
        items,
        pages[0].get("columns") or [],
        output,
        all_namespaces or "," in namespace,
        single=len(names or []) == 1,
    )


def _with_names(field_selector: str, names: list[str]) -> str:
    by_name = f"metadata.name={names[0]}" if len(names) == 1 else ""
    return ",".join(part for part in (field_selector, by_name) if part)


def _pages(api: Api, query: dict[str, Any], limit: int, names: list[str]) -> Iterator[dict[str, Any]]:
    left = limit or None
    position: str | None = None
    while True:
        size = min(PAGE, left) if left else PAGE
        page = api.get(_LIST, limit=size, continue_=position, **query)
        if len(names) > 1:
            page["items"] = [item for item in page["items"] if item["id"].split(":", 3)[3] in names]
        yield page
        position = page["continue"]
        if left is not None:
            left -= size
        if position is None or left == 0:
            return


def _say_freshness(page: dict[str, Any]) -> None:
    for state in page["clusters"]:
        if state["status"] != "live":
            since = f" as of {state['as_of']}" if state["as_of"] else ""
            reason = f": {state['error']}" if state["error"] else ""
            warn(f"cluster {state['name']} is {state['status']}{since}{reason}")


def _nothing_found(query: dict[str, Any], names: list[str]) -> str:
    what = f"{query['type']} {', '.join(names)}".strip()
    where = f"namespace {query['namespace']}" if query["namespace"] else "any namespace"
    hint = " (-A looks into all of them)" if query["namespace"] else ""
    return f"No {what} found in {where}{hint}."


def _print(
    items: list[dict[str, Any]],
    columns: list[dict[str, Any]],
    output: Format,
    with_namespace: bool,
    single: bool,
) -> None:
    if output in (Format.JSON, Format.YAML):
        whole = items[0]["object"] if single and len(items) == 1 else _as_list(items)
        print_document(whole, output)
    elif output == Format.NAME:
        print_table((), [(item["id"],) for item in items])
    else:
        _print_rows(items, columns, output == Format.WIDE, with_namespace)


def _as_list(items: list[dict[str, Any]]) -> dict[str, Any]:
    """A Kubernetes List, with the cluster of each object in an annotation that kubectl leaves alone."""
    objects = []
    for item in items:
        found = item["object"]
        annotations = {**(found["metadata"].get("annotations") or {}), "kubelore.io/cluster": item["cluster"]}
        objects.append({**found, "metadata": {**found["metadata"], "annotations": annotations}})
    return {"apiVersion": "v1", "kind": "List", "items": objects}


def _print_rows(
    items: list[dict[str, Any]], columns: list[dict[str, Any]], wide: bool, with_namespace: bool
) -> None:
    shown = [index for index, column in enumerate(columns) if wide or column["priority"] == 0]
    header = [
        "CLUSTER",
        *(["NAMESPACE"] if with_namespace else []),
        *(columns[i]["name"].upper() for i in shown),
    ]
    rows = []
    for item in items:
        namespace = item["id"].split(":", 3)[2]
        cells = ["<none>" if item["object"][i] is None else str(item["object"][i]) for i in shown]
        rows.append([item["cluster"], *([namespace] if with_namespace else []), *cells])
    print_table(header, rows)
