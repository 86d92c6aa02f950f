"""Asking for the objects that a command means, page by page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from kubelore.cli.connection import Api
from kubelore.cli.targets import Target

PAGE = 500
_LIST = "/api/k8s/unified/resources"


@dataclass
class Answer:
    """Objects, the columns of their table cells, how far each cluster can be trusted, and what is missing."""

    items: list[dict[str, Any]] = field(default_factory=list)
    columns: list[dict[str, Any]] = field(default_factory=list)
    states: list[dict[str, Any]] = field(default_factory=list)
    watch_from: str = ""
    """Where a watch begins that misses nothing after this answer."""
    missing: list[str] = field(default_factory=list)
    """Names that were asked for and are nowhere, as kubectl writes them: `pods "web"`."""

    @property
    def types(self) -> list[str]:
        """The types of the objects, in the order of their first."""
        return list(dict.fromkeys(item["id"].split(":", 3)[1] for item in self.items))


def ask(api: Api, target: Target, query: dict[str, Any], limit: int = 0) -> list[Answer]:
    """The objects of one target; one answer a type where the table view would mix the columns of several."""
    whole = _ask(api, target, query, limit)
    mixed = "," in target.types or len(whole.types) > 1
    if query["view"] != "table" or not mixed or not whole.items:
        return [whole]
    parts = [_ask(api, Target(kind, target.names), query, limit) for kind in whole.types]
    parts[-1].missing = whole.missing
    for part in parts[:-1]:
        part.missing = []
    return parts


def _ask(api: Api, target: Target, query: dict[str, Any], limit: int) -> Answer:
    answer = Answer()
    if not target.names:
        _add(answer, _pages(api, {**query, "type": target.types}, limit))
    for name in target.names:
        before = len(answer.items)
        _add(answer, _pages(api, _named(target, query, name), limit))
        if len(answer.items) == before:
            answer.missing.append(f'{target.types} "{name}"')
    return answer


def add_labels(api: Api, answers: list[Answer]) -> None:
    """Put each object's labels behind its table cells, as `--show-labels` does."""
    for answer in answers:
        if not answer.items:
            continue
        labels: dict[str, str] = {}
        chosen = {
            "type": ",".join(answer.types),
            "clusters": ",".join(sorted({item["cluster"] for item in answer.items})),
            "namespace": ",".join(sorted({item["id"].split(":", 3)[2] for item in answer.items} - {""})),
        }
        for page in _pages(api, {**chosen, "view": "metadata", "sort": "cluster"}, 0):
            for item in page["items"]:
                pairs = (item["object"]["metadata"].get("labels") or {}).items()
                labels[item["id"]] = ",".join(f"{key}={value}" for key, value in pairs) or "<none>"
        answer.columns = [*answer.columns, {"name": "Labels", "priority": 0}]
        for item in answer.items:
            item["object"] = [*item["object"], labels.get(item["id"], "<none>")]


def row_of(api: Api, id: str) -> Answer:
    """One object's table cells by its id; without an item when it is there no more."""
    cluster, kind, namespace, name = id.split(":", 3)
    answer = Answer()
    query = {"clusters": cluster, "type": kind, "fields": f"metadata.name={_escaped(name)}", "view": "table"}
    if namespace:
        query["namespace"] = namespace
    _add(answer, _pages(api, query, 1))
    return answer


def _named(target: Target, query: dict[str, Any], name: str) -> dict[str, Any]:
    fields = ",".join(part for part in (query["fields"], f"metadata.name={_escaped(name)}") if part)
    asked = {**query, "type": target.types, "fields": fields}
    if target.cluster:
        asked["clusters"] = target.cluster
    if target.namespace is not None:
        asked["namespace"] = target.namespace
    return asked


def _escaped(text: str) -> str:
    """A value in a field selector (pkg/fields escapes backslash, comma and equals sign)."""
    return text.replace("\\", "\\\\").replace(",", "\\,").replace("=", "\\=")


def _add(answer: Answer, pages: Iterator[dict[str, Any]]) -> None:
    for page in pages:
        answer.items += page["items"]
        answer.columns = answer.columns or page.get("columns") or []
        answer.states = page["clusters"]
        answer.watch_from = answer.watch_from or page["watch_from"]


def _pages(api: Api, query: dict[str, Any], limit: int) -> Iterator[dict[str, Any]]:
    left = limit or None
    position: str | None = None
    while True:
        size = min(PAGE, left) if left else PAGE
        page = api.get(_LIST, limit=size, continue_=position, **query)
        yield page
        position = page["continue"]
        if left is not None:
            left -= size
        if position is None or left == 0:
            return
