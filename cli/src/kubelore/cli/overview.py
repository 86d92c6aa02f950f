"""`kubelore summary` and `kubelore api-resources`: how much there is, and of which types."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import typer

from kubelore.cli.completing import complete_types
from kubelore.cli.connection import connect
from kubelore.cli.freshness import warn_of_states
from kubelore.cli.output import print_document, print_table
from kubelore.cli.selection import Cluster, FieldSelector, Format, Namespace, Output, Selector

_TOP = 20


def summary(
    context: typer.Context,
    types: Annotated[
        str,
        typer.Argument(metavar="TYPE[,TYPE]", help="Every type when empty.", autocompletion=complete_types),
    ] = "",
    cluster: Cluster = None,
    namespace: Namespace = "",
    selector: Selector = "",
    field_selector: FieldSelector = "",
    search: Annotated[str, typer.Option(help="Substring of name, labels, annotations or images.")] = "",
    output: Output = Format.TABLE,
) -> None:
    """Count objects by cluster, type, namespace and phase; in every namespace when none is named."""
    query = {
        "type": types,
        "clusters": ",".join(cluster or []),
        "namespace": namespace,
        "labels": selector,
        "fields": field_selector,
        "search": search,
    }
    with connect(context) as api:
        found = api.get("/api/k8s/unified/summary", **query)
    if output in (Format.JSON, Format.YAML):
        print_document(found, output)
    else:
        most = None if output == Format.WIDE else _TOP
        clusters = [(state["name"], state["count"]) for state in found["clusters"]]
        _print("CLUSTER", clusters, None)
        _print("TYPE", found["types"].items(), most)
        _print(
            "NAMESPACE", ((name or "<none>", number) for name, number in found["namespaces"].items()), most
        )
        phases = [(name, number) for name, number in found["phases"].items() if name]
        if phases:
            _print("PHASE", phases, most)
        typer.echo(f"{found['total']} objects")
    warn_of_states(found["clusters"])


def _print(title: str, counted: Iterable[tuple[str, int]], most: int | None) -> None:
    rows = sorted(counted, key=lambda one: -one[1])
    print_table((title, "OBJECTS"), [(name, str(number)) for name, number in rows[:most]])
    if most is not None and len(rows) > most:
        typer.echo(f"... and {len(rows) - most} more (-o wide shows them)")
    typer.echo()


def api_resources(
    context: typer.Context,
    cluster: Cluster = None,
    group: Annotated[str | None, typer.Option("--api-group", help="Only types of this API group.")] = None,
    namespaced: Annotated[
        bool | None,
        typer.Option("--namespaced/--cluster-scoped", help="Only those in namespaces, or in none."),
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """List the types that the clusters serve, with how many objects there are."""
    with connect(context) as api:
        found = api.get("/api/k8s/unified/types", clusters=",".join(cluster or []))
    items = [
        item
        for item in found["items"]
        if group in (None, item["group"]) and namespaced in (None, item["namespaced"])
    ]
    if output in (Format.JSON, Format.YAML):
        print_document({"items": items}, output)
    elif output == Format.NAME:
        print_table((), [(item["name"],) for item in items])
    else:
        wide = output == Format.WIDE
        header = ("NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND", "OBJECTS")
        print_table((*header, "CLUSTERS") if wide else header, [_type_row(item, wide) for item in items])
    warn_of_states(found["clusters"])


def _type_row(item: dict[str, Any], wide: bool) -> list[str]:
    api_version = f"{item['group']}/{item['version']}" if item["group"] else item["version"]
    return [
        item["plural"],
        ",".join(item["short_names"]),
        api_version,
        str(item["namespaced"]).lower(),
        item["kind"],
        str(item["count"]),
        *([",".join(item["clusters"])] if wide else []),
    ]
