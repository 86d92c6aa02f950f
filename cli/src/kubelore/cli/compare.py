"""`kubelore compare`: what is the same in several clusters, what differs and where, what is missing."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Any

import typer

from kubelore.cli.completing import complete_words
from kubelore.cli.connection import Api, connect
from kubelore.cli.freshness import warn_of_states
from kubelore.cli.output import note, print_document, print_table, warn
from kubelore.cli.selection import AllNamespaces, Cluster, Format, Namespace, Output, Selector, namespaces

PAGE = 1000
_SHOWN_PATHS = 3
_CELLS = {"present": "yes", "absent": "-", "unknown": "?"}


class Only(StrEnum):
    """What `--only` accepts."""

    SAME = "same"
    DIFFERENT = "different"
    MISSING = "missing"
    UNKNOWN = "unknown"


def compare(
    context: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="TYPE[,TYPE] [NAME]", help="As kubectl names them.", autocompletion=complete_words
        ),
    ],
    cluster: Cluster = None,
    namespace: Namespace = "",
    all_namespaces: AllNamespaces = False,
    selector: Selector = "",
    ignore: Annotated[
        list[str] | None,
        typer.Option(help="A path to leave out as well, as spec.replicas; repeat or separate by commas."),
    ] = None,
    only: Annotated[Only | None, typer.Option(help="same, different, missing or unknown.")] = None,
    output: Output = Format.TABLE,
) -> None:
    """Compare objects of the same names between clusters.

    What servers and controllers write by themselves does not count. Ends with 0
    when all are the same, 1 when any differs or is missing, or what is named is
    nowhere, and 3 when that cannot be told of some; with --only, what it leaves
    out does not count.
    """
    types, name = _target(words)
    query = {
        "type": types,
        "name": name,
        "clusters": ",".join(cluster or []),
        "namespace": namespaces(namespace, all_namespaces),
        "labels": selector,
        "ignore": ",".join(ignore or []),
        "status": only.value if only else "",
    }
    with connect(context) as api:
        items, summary, states = _pages(api, query)
    if output in (Format.JSON, Format.YAML):
        print_document({"items": items, "summary": summary, "clusters": states}, output)
    elif output == Format.NAME:
        print_table((), [(f"{item['type']}:{item['namespace']}:{item['name']}",) for item in items])
    else:
        chosen = [state["name"] for state in states]
        several = len({item["type"] for item in items}) > 1
        if items:
            print_table(_header(chosen, several), [_row(item, chosen, several) for item in items])
        if output == Format.WIDE or name:
            _print_changes(items)
    warn_of_states(states)
    _tell(summary, items)
    nowhere = bool(name) and not sum(summary.values())
    raise typer.Exit(1 if nowhere else _exit_code({only.value: len(items)} if only else summary))


def _exit_code(found: dict[str, int]) -> int:
    if found.get("different") or found.get("missing"):
        return 1
    return 3 if found.get("unknown") else 0


def _target(words: list[str]) -> tuple[str, str]:
    if len(words) == 1 and "/" in words[0]:
        words = words[0].split("/", 1)
    if len(words) > 2 or not all(words):
        raise typer.BadParameter("write TYPE or TYPE NAME")
    return words[0], words[1] if len(words) == 2 else ""


def _pages(api: Api, query: dict[str, Any]) -> tuple[list[Any], dict[str, int], list[Any]]:
    items: list[Any] = []
    summary: dict[str, int] = {}
    position: str | None = None
    while True:
        page = api.get("/api/k8s/unified/compare", limit=PAGE, continue_=position, **query)
        items += page["items"]
        summary = {status: summary.get(status, 0) + number for status, number in page["summary"].items()}
        position = page["continue"]
        if position is None:
            return items, summary, page["clusters"]


def _header(clusters: list[str], several: bool) -> list[str]:
    return [*(["TYPE"] if several else []), "NAMESPACE", "NAME", "STATUS", *clusters, "DIFFERS IN"]


def _row(item: dict[str, Any], clusters: list[str], several: bool) -> list[str]:
    paths = [change["path"] for change in item["changes"]]
    left = len(paths) - _SHOWN_PATHS + item.get("more_changes", 0)
    more = f" and {left} more" if left > 0 else ""
    return [
        *([item["type"]] if several else []),
        item["namespace"] or "-",
        item["name"],
        item["status"],
        *(_CELLS[item["clusters"][name]] for name in clusters),
        ", ".join(paths[:_SHOWN_PATHS]) + more,
    ]


def _print_changes(items: list[dict[str, Any]]) -> None:
    for item in items:
        if not item["changes"]:
            continue
        where = f"{item['namespace']}/" if item["namespace"] else ""
        typer.echo(f"\n{item['type']} {where}{item['name']}")
        present = [name for name, presence in item["clusters"].items() if presence == "present"]
        rows = [
            (f"  {change['path']}" if number == 0 else "", name, _value(change["values"], name))
            for change in item["changes"]
            for number, name in enumerate(present)
        ]
        print_table((), rows)
        if item.get("more_changes"):
            typer.echo(f"  and {item['more_changes']} more places")


def _value(values: dict[str, Any], cluster: str) -> str:
    if cluster not in values:
        return "<none>"
    value = values[cluster]
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _tell(summary: dict[str, int], items: list[Any]) -> None:
    total = sum(summary.values())
    if not total and not items:
        warn("Nothing of that in any of the clusters (-A looks into all namespaces).")
        return
    told = ", ".join(f"{number} {status}" for status, number in summary.items() if number)
    note(f"{total} compared: {told}")
