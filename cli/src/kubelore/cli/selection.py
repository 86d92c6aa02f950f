"""The options that every reading command shares, with kubectl's names and habits."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from kubelore.cli.completing import complete_clusters, complete_namespaces


class Format(StrEnum):
    """What `-o` accepts."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


Output = Annotated[Format, typer.Option("--output", "-o", help="table, wide, json, yaml or name.")]
Namespace = Annotated[
    str,
    typer.Option(
        "--namespace", "-n", help="Namespaces, comma separated.", autocompletion=complete_namespaces
    ),
]
AllNamespaces = Annotated[bool, typer.Option("--all-namespaces", "-A", help="Every namespace.")]
Selector = Annotated[str, typer.Option("--selector", "-l", help="Label selector, as kubectl's.")]
FieldSelector = Annotated[str, typer.Option("--field-selector", help="Field selector, as kubectl's.")]
Cluster = Annotated[
    list[str] | None,
    typer.Option(
        "--cluster",
        "-c",
        help="Cluster, group:NAME or tag:NAME; repeat or separate by commas. Default: all.",
        autocompletion=complete_clusters,
    ),
]


def namespaces(namespace: str, every: bool) -> str:
    """What to ask the API for: kubectl looks into `default` when nothing is said."""
    if every:
        return ""
    return namespace or "default"
