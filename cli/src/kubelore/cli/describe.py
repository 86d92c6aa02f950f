"""`kubelore describe`: everything known of an object, for reading: itself, its owners, its pods, its events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from kubelore.cli.completing import complete_words
from kubelore.cli.connection import Api, ApiError, connect
from kubelore.cli.description import Related, describe_object
from kubelore.cli.freshness import warn_of_states
from kubelore.cli.listing import ask
from kubelore.cli.output import print_lines, warn
from kubelore.cli.selection import AllNamespaces, Cluster, Namespace, Selector, namespaces
from kubelore.cli.targets import Target, parse_targets

MOST_OWNERS = 5
MOST_PODS = 50
MOST_EVENTS = 50
_LIST = "/api/k8s/unified/resources"


def describe(
    context: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="TYPE [NAME ...]",
            help="As kubectl: TYPE NAME, TYPE/NAME, or an id.",
            autocompletion=complete_words,
        ),
    ],
    cluster: Cluster = None,
    namespace: Namespace = "",
    all_namespaces: AllNamespaces = False,
    selector: Selector = "",
    limit: Annotated[int, typer.Option(min=1, max=500, help="At most so many objects.")] = 20,
    events: Annotated[
        bool, typer.Option("--show-events/--no-events", help="With the object's events.")
    ] = True,
) -> None:
    """Describe objects: metadata, owners, spec, status, conditions, pods of workloads, events.

    Ends with 1 when a named object is nowhere.
    """
    query = {
        "clusters": ",".join(cluster or []),
        "namespace": namespaces(namespace, all_namespaces),
        "labels": selector,
        "fields": "",
        "sort": "cluster",
        "view": "object",
    }
    with connect(context) as api:
        answers = [answer for target in parse_targets(words) for answer in ask(api, target, query, limit)]
        items = [item for answer in answers for item in answer.items]
        for number, item in enumerate(items):
            if number:
                typer.echo("\n")
            print_lines(describe_object(item, _related(api, item, events)))
    warn_of_states({state["name"]: state for answer in answers for state in answer.states}.values())
    missing = [name for answer in answers for name in answer.missing]
    for name in missing:
        warn(f"{name} not found")
    if not items and not missing:
        warn(f"No {' '.join(words)} found.")
    raise typer.Exit(1 if missing or not items else 0)


def _related(api: Api, item: dict[str, Any], with_events: bool) -> Related:
    return Related(
        owners=list(_owners(api, item)),
        pods=_pods(api, item),
        events=_events(api, item) if with_events else None,
    )


def _owners(api: Api, item: dict[str, Any]) -> Iterator[str]:
    """The controllers above an object, the nearest first, as far as they can be found."""
    cluster, _, namespace, _ = item["id"].split(":", 3)
    found = item["object"]
    for _ in range(MOST_OWNERS):
        owners = found["metadata"].get("ownerReferences") or []
        owner = next((one for one in owners if one.get("controller")), None)
        if owner is None:
            return
        yield f"{owner['kind']}/{owner['name']}"
        group = owner["apiVersion"].rpartition("/")[0]
        kind = f"{owner['kind'].lower()}.{group}" if group else owner["kind"].lower()
        try:
            found = api.get(f"{_LIST}/{cluster}:{kind}:{namespace}:{owner['name']}")["object"]
        except ApiError:
            # Gone, or in no namespace: what is known of it stands.
            return


def _pods(api: Api, item: dict[str, Any]) -> list[list[str]] | None:
    """The pods of a workload by its selector as table rows with their header; None where there is none."""
    selector = (item["object"].get("spec") or {}).get("selector")
    cluster, _, namespace, _ = item["id"].split(":", 3)
    if not isinstance(selector, dict) or not namespace or not selector:
        return None
    labels = _selector(selector)
    if not labels:
        return None
    query = {
        "clusters": cluster,
        "namespace": namespace,
        "labels": labels,
        "fields": "",
        "view": "table",
        "sort": "name",
    }
    answer = ask(api, Target("pods"), query, MOST_PODS)[0]
    shown = [at for at, column in enumerate(answer.columns) if column["priority"] == 0]
    header = [answer.columns[at]["name"] for at in shown]
    return [header, *([str(one["object"][at]) for at in shown] for one in answer.items)]


def _selector(selector: dict[str, Any]) -> str:
    """A label selector as text: of a Service a map, of other workloads matchLabels and matchExpressions."""
    if "matchLabels" not in selector and "matchExpressions" not in selector:
        return ",".join(f"{key}={value}" for key, value in selector.items() if isinstance(value, str))
    parts = [f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items()]
    for one in selector.get("matchExpressions") or []:
        values = ",".join(one.get("values") or [])
        operator = one["operator"]
        parts.append(
            {
                "In": f"{one['key']} in ({values})",
                "NotIn": f"{one['key']} notin ({values})",
                "Exists": one["key"],
                "DoesNotExist": f"!{one['key']}",
            }.get(operator, one["key"])
        )
    return ",".join(parts)


def _events(api: Api, item: dict[str, Any]) -> list[dict[str, Any]]:
    """The newest events about an object."""
    cluster, _, namespace, name = item["id"].split(":", 3)
    query = {
        "type": "events",
        "clusters": cluster,
        "namespace": namespace,
        "fields": f"involvedObject.name={name},involvedObject.kind={item['object'].get('kind', '')}",
        "sort": "-created",
        "limit": MOST_EVENTS,
    }
    try:
        return [one["object"] for one in api.get(_LIST, **query)["items"]]
    except ApiError as error:
        warn(f"its events cannot be read: {error.message()}")
        return []
