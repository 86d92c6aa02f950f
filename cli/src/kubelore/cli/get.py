"""`kubelore get`: objects of every cluster as if they were one cluster's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from kubelore.cli.completing import complete_words
from kubelore.cli.connection import connect
from kubelore.cli.follow import follow_up
from kubelore.cli.freshness import warn_of_states
from kubelore.cli.listing import Answer, add_labels, ask
from kubelore.cli.output import print_document, print_table, warn
from kubelore.cli.selection import (
    AllNamespaces,
    Cluster,
    FieldSelector,
    Format,
    Namespace,
    Selector,
    namespaces,
)
from kubelore.cli.targets import parse_targets
from kubelore.cli.templates import CustomColumns, Template

_VIEWS = {Format.TABLE: "table", Format.WIDE: "table", Format.NAME: "metadata"}
_SORT_PATHS = {
    "metadata.name": "name",
    "metadata.namespace": "namespace",
    "metadata.creationTimestamp": "created",
    "status.phase": "phase",
}
_JSONPATH, _COLUMNS = "jsonpath=", "custom-columns="

Words = Annotated[
    list[str],
    typer.Argument(
        metavar="TYPE[,TYPE] [NAME ...]",
        help="As kubectl: pods, deploy,svc, pod web-0, pod/web-0, or an id.",
        autocompletion=complete_words,
    ),
]
Search = Annotated[str, typer.Option(help="Substring of name, labels, annotations or images.")]
SortBy = Annotated[
    str, typer.Option(help="name, namespace, cluster, type, created or phase; -created for newest.")
]
Limit = Annotated[int, typer.Option(min=0, help="At most so many objects of a type; 0 for all.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Leave out rows of clusters that are not live.")]
ManagedFields = Annotated[
    bool, typer.Option("--show-managed-fields", help="Keep managedFields in JSON and YAML.")
]
NoHeaders = Annotated[bool, typer.Option("--no-headers", help="Print no line of column names.")]
ShowLabels = Annotated[bool, typer.Option("--show-labels", help="The labels as the last column of tables.")]
Watching = Annotated[bool, typer.Option("--watch", "-w", help="Go on with the changes, until Ctrl-C.")]
Output = Annotated[
    str,
    typer.Option(
        "--output",
        "-o",
        help="table, wide, json, yaml, name, jsonpath=TEMPLATE or custom-columns=HEADER:PATH,...",
    ),
]


@dataclass(frozen=True)
class _Wanted:
    """What `-o` said: a format, or a template or columns of one's own for the objects."""

    format: Format
    template: Template | None = None
    columns: CustomColumns | None = None

    @classmethod
    def parse(cls, text: str) -> _Wanted:
        """Raises BadParameter for what is no output."""
        if text.startswith(_JSONPATH):
            return cls(Format.JSON, template=Template(text.removeprefix(_JSONPATH)))
        if text.startswith(_COLUMNS):
            return cls(Format.JSON, columns=CustomColumns(text.removeprefix(_COLUMNS)))
        if text not in list(Format):
            raise typer.BadParameter(
                f"{text!r} is not table, wide, json, yaml, name, jsonpath=TEMPLATE or custom-columns=SPEC"
            )
        return cls(Format(text))


def get(
    context: typer.Context,
    words: Words,
    cluster: Cluster = None,
    namespace: Namespace = "",
    all_namespaces: AllNamespaces = False,
    selector: Selector = "",
    field_selector: FieldSelector = "",
    search: Search = "",
    sort_by: SortBy = "",
    limit: Limit = 0,
    fresh: Fresh = False,
    managed_fields: ManagedFields = False,
    no_headers: NoHeaders = False,
    show_labels: ShowLabels = False,
    watching: Watching = False,
    output: Output = "table",
) -> None:
    """List objects across clusters.

    Clusters that are not live are named on stderr, and their rows are as old as
    it says there. Ends with 1 when a named object is nowhere, and when nothing
    was found and a cluster could not be asked.
    """
    wanted = _Wanted.parse(output)
    query: dict[str, Any] = {
        "clusters": ",".join(cluster or []),
        "namespace": namespaces(namespace, all_namespaces),
        "labels": selector,
        "fields": field_selector,
        "sort": _sort(sort_by),
        "stale": "exclude" if fresh else "include",
        "view": _VIEWS.get(wanted.format, "object"),
        "search": search,
    }
    targets = parse_targets(words)
    with connect(context) as api:
        answers = [answer for target in targets for answer in ask(api, target, query, limit)]
        if show_labels and query["view"] == "table":
            add_labels(api, answers)
        single = len(targets) == 1 and len(targets[0].names) == 1
        table = _Table(wanted.format == Format.WIDE, all_namespaces or "," in namespace, not no_headers)
        _print(answers, wanted, table, managed_fields, single)
        code = _explain(answers, " ".join(words), query["namespace"], query["clusters"])
        if watching:
            follow_up(api, targets, query, answers, wanted.format, table.row)
    raise typer.Exit(code)


def _sort(wanted: str) -> str:
    """The column to sort by; kubectl's paths of what can be sorted by are known, too."""
    return _SORT_PATHS.get(wanted.strip("{}").lstrip("."), wanted or "cluster")


def _print(answers: list[Answer], wanted: _Wanted, table: _Table, managed_fields: bool, single: bool) -> None:
    items = [item for answer in answers for item in answer.items]
    if wanted.template is not None:
        # As with kubectl, it ends without a line's end unless the template has one.
        typer.echo(
            wanted.template.render(_document(items, managed_fields, single and len(items) == 1)), nl=False
        )
    elif wanted.columns is not None:
        objects = _document(items, managed_fields, single=False)["items"]
        print_table(wanted.columns.header if table.headers else (), map(wanted.columns.cells, objects))
    elif wanted.format in (Format.JSON, Format.YAML):
        print_document(_document(items, managed_fields, single and len(items) == 1), wanted.format)
    elif wanted.format == Format.NAME:
        print_table((), [(item["id"],) for item in items])
    else:
        table.print(answers)


def _explain(answers: list[Answer], asked: str, namespace: str, clusters: str) -> int:
    """Say on stderr what the rows do not say themselves; returns the exit code."""
    found = sum(len(answer.items) for answer in answers)
    states = {state["name"]: state for answer in answers for state in answer.states}
    troubled = warn_of_states(states.values())
    missing = [name for answer in answers for name in answer.missing]
    for name in missing:
        warn(f"{name} not found")
    if found or missing:
        return 1 if missing else 0
    if not states:
        said = f"No cluster is in {clusters}." if clusters else "No cluster is onboarded, or none for you."
        warn(f"{said} `kubelore clusters list -o wide` shows them, `kubelore clusters add` onboards one.")
        return 1
    where = f"namespace {namespace} (-A looks into all of them)" if namespace else "any namespace"
    warn(f"No {asked} found in {where}.")
    return 1 if len(troubled) == len(states) or any(state["status"] == "error" for state in troubled) else 0


def _document(items: list[dict[str, Any]], managed_fields: bool, single: bool) -> dict[str, Any]:
    """One object as it is, or a Kubernetes List; where several clusters answered, an annotation names each object's."""
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


def _text(cell: Any) -> str:
    """A cell as kubectl prints it: nothing where there is nothing."""
    if cell is None:
        return ""
    return str(cell).lower() if isinstance(cell, bool) else str(cell)


@dataclass(frozen=True)
class _Table:
    """How tables look: all columns or the usual ones, with namespaces, with headers."""

    wide: bool
    with_namespace: bool
    headers: bool

    def print(self, answers: list[Answer]) -> None:
        """A table for each type, an empty line between them."""
        filled = [answer for answer in answers if answer.items]
        several = len({kind for answer in filled for kind in answer.types}) > 1
        for number, answer in enumerate(filled):
            if number:
                typer.echo()
            self._print(answer, several)

    def _print(self, answer: Answer, with_type: bool) -> None:
        shown = [index for index, column in enumerate(answer.columns) if self.wide or column["priority"] == 0]
        namespaced = self.with_namespace and any(item["id"].split(":", 3)[2] for item in answer.items)
        names = (answer.columns[index]["name"].upper() for index in shown)
        header = ["CLUSTER", *(["NAMESPACE"] if namespaced else []), *names]
        rows = [self._cells(item, shown, namespaced, with_type) for item in answer.items]
        print_table(header if self.headers else (), rows)

    def row(self, answer: Answer) -> list[str]:
        """One object's row in a stream of them, its type before the name."""
        shown = [index for index, column in enumerate(answer.columns) if self.wide or column["priority"] == 0]
        return self._cells(answer.items[0], shown, self.with_namespace, with_type=True)

    @staticmethod
    def _cells(item: dict[str, Any], shown: list[int], namespaced: bool, with_type: bool) -> list[str]:
        _, kind, namespace, _ = item["id"].split(":", 3)
        cells = [_text(item["object"][i]) for i in shown]
        if with_type:
            cells[0] = f"{kind}/{cells[0]}"
        return [item["cluster"], *([namespace] if namespaced else []), *cells]
