"""`kubelore watch`: changes of every cluster as they happen, resumed by itself after a lost connection."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any

import typer

from kubelore.cli.completing import complete_types
from kubelore.cli.connection import Api, ApiError, connect
from kubelore.cli.freshness import freshness
from kubelore.cli.output import warn
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

RETRY_S = 1.0
RETRY_LIMIT_S = 15.0


def watch(
    context: typer.Context,
    types: Annotated[
        str,
        typer.Argument(
            metavar="TYPE[,TYPE]",
            help="As kubectl names them; every type when empty.",
            autocompletion=complete_types,
        ),
    ] = "",
    cluster: Cluster = None,
    namespace: Namespace = "",
    all_namespaces: AllNamespaces = False,
    selector: Selector = "",
    field_selector: FieldSelector = "",
    since: Annotated[
        str, typer.Option(help="Begin at the `watch_from` of a list, or at an event's id.")
    ] = "",
    output: Output = Format.TABLE,
) -> None:
    """Show every change across clusters until Ctrl-C: who was added, modified or deleted where."""
    query = {
        "type": types,
        "clusters": ",".join(cluster or []),
        "namespace": "" if not namespace else namespaces(namespace, all_namespaces),
        "labels": selector,
        "fields": field_selector,
        "since": since,
    }
    with connect(context) as api:
        try:
            for name, data in changes(api, query):
                show(name, data, output)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


def changes(api: Api, query: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Events by name with their data, the connection made anew whenever it is lost."""
    position, delay = "", RETRY_S
    while True:
        try:
            for event_id, name, data in api.events("/api/k8s/unified/watch", last_event_id=position, **query):
                position, delay = event_id or position, RETRY_S
                yield name, data
            delay = RETRY_S
        except ApiError as error:
            if not error.transient:
                raise
            warn(f"connection lost ({error.message()}), trying again")
        time.sleep(delay)
        delay = min(delay * 2, RETRY_LIMIT_S)


def show(name: str, data: dict[str, Any], output: Format) -> None:
    """One event on the terminal."""
    if name == "bookmark":
        return
    if name == "reset":
        where = f"{data['type'] or 'everything'} in {data['cluster'] or 'every cluster'}"
        warn(f"changes of {where} were missed: list again for what is there now")
        return
    if name == "status":
        warn(freshness({"name": data["cluster"], **data}))
        return
    if name == "error":
        warn(f"the stream ended: {data['detail']}")
        return
    if output == Format.JSON:
        typer.echo(json.dumps({"event": name, **data}, ensure_ascii=False))
        return
    if output == Format.NAME:
        typer.echo(data["id"])
        return
    _, kind, namespace, object_name = data["id"].split(":", 3)
    where = f"{namespace}/" if namespace else ""
    now = datetime.now().astimezone().strftime("%H:%M:%S")
    typer.echo(f"{now}  {name.upper():<8}  {data['cluster']}  {kind}  {where}{object_name}  rv={data['rv']}")
