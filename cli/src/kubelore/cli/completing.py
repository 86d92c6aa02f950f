"""What a shell offers behind the commands: clusters, types, namespaces and names as Kubelore knows them.

A shell asks while somebody types, so an answer that does not come within a
second is none, and nothing is ever said about it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import typer

ANSWER_S = 0.8
MOST = 200


def complete_clusters(ctx: typer.Context, incomplete: str) -> list[str]:
    """Clusters, `group:` and `tag:`, behind the last comma."""
    before, _, last = incomplete.rpartition(",")
    items = _clusters(ctx)
    words: list[str] = [one["name"] for one in items]
    words += sorted({f"group:{one['group']}" for one in items if one["group"]})
    words += [f"tag:{tag}" for tag in _tags(items)]
    return _fitting(words, last, f"{before}," if before else "")


def complete_cluster_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Clusters by name, but for those that stand there already."""
    said = ctx.params.get("names") or ()
    return _fitting([one["name"] for one in _clusters(ctx) if one["name"] not in said], incomplete, "")


def complete_cluster_tags(ctx: typer.Context, incomplete: str) -> list[str]:
    """The tags of all clusters."""
    return _fitting(_tags(_clusters(ctx)), incomplete, "")


def complete_groups(ctx: typer.Context, incomplete: str) -> list[str]:
    """Groups of clusters, the empty ones too."""
    found = _ask(ctx, "/api/k8s/groups", limit=MOST).get("items", [])
    return _fitting([one["name"] for one in found], incomplete, "")


def complete_types(ctx: typer.Context, incomplete: str) -> list[str]:
    """Types by plural and by full name, behind the last comma."""
    before, _, last = incomplete.rpartition(",")
    items = _ask(ctx, "/api/k8s/unified/types", clusters=_chosen(ctx)).get("items", [])
    words: list[str] = [one["plural"] for one in items] + [one["name"] for one in items]
    return _fitting(sorted(set(words)), last, f"{before}," if before else "")


def complete_namespaces(ctx: typer.Context, incomplete: str) -> list[str]:
    """Namespaces of the chosen clusters, behind the last comma."""
    before, _, last = incomplete.rpartition(",")
    found = _ask(ctx, "/api/k8s/unified/summary", type="namespaces", clusters=_chosen(ctx))
    return _fitting(sorted(found.get("namespaces", {})), last, f"{before}," if before else "")


def complete_words(ctx: typer.Context, incomplete: str) -> list[str]:
    """A type, then names of objects of it; `TYPE/` goes on with names as well."""
    words: list[str] = list(ctx.params.get("words") or [])
    if words:
        return [name for name in _names(ctx, words[0], incomplete) if name not in words]
    kind, slash, name = incomplete.partition("/")
    if slash:
        return [f"{kind}/{found}" for found in _names(ctx, kind, name)]
    return complete_types(ctx, incomplete)


def complete_tags(ctx: typer.Context, incomplete: str) -> list[str]:
    """The tags of the object that is named before, where its id is written whole."""
    return _of_object(ctx, "tags", incomplete)


def complete_branches(ctx: typer.Context, incomplete: str) -> list[str]:
    """The drafts of the object that is named before, where its id is written whole."""
    return _of_object(ctx, "branches", incomplete)


def _clusters(ctx: typer.Context) -> list[dict[str, Any]]:
    return _ask(ctx, "/api/k8s/clusters/list", limit=MOST).get("items", [])


def _tags(clusters: list[dict[str, Any]]) -> list[str]:
    return sorted({tag for one in clusters for tag in one["tags"]})


def _of_object(ctx: typer.Context, what: str, begun: str) -> list[str]:
    from urllib.parse import quote

    object_ = str(ctx.params.get("object_") or "")
    if object_.count(":") < 3:
        return []
    found = _ask(ctx, f"/api/k8s/yaml/versions/{quote(object_, safe='')}/{what}")
    return _fitting([one["name"] for one in found.get("items", [])], begun, "")


def _names(ctx: typer.Context, kind: str, begun: str) -> list[str]:
    every = ctx.params.get("all_namespaces")
    page = _ask(
        ctx,
        "/api/k8s/unified/resources",
        type=kind,
        clusters=_chosen(ctx),
        namespace="" if every else ctx.params.get("namespace") or "default",
        search=begun,
        view="metadata",
        limit=MOST,
    )
    return _fitting(
        list(dict.fromkeys(item["id"].split(":", 3)[3] for item in page.get("items", []))), begun, ""
    )


def _chosen(ctx: typer.Context) -> str:
    return ",".join(ctx.params.get("cluster") or ())


def _fitting(words: list[str], begun: str, before: str) -> list[str]:
    return [before + word for word in words if word.startswith(begun)][:MOST]


def _ask(ctx: typer.Context, path: str, **query: Any) -> dict[str, Any]:
    """The answer, empty when there is none: a completion must not fail into somebody's line."""
    with contextlib.suppress(Exception), _silenced():
        import httpx

        from kubelore.cli.connection import Target

        said = ctx.find_root().params
        url, token = Target(said.get("url") or "", said.get("token") or "", said.get("data")).resolve()
        answer = httpx.get(
            f"{url}{path}",
            params={name: value for name, value in query.items() if value},
            headers={"Authorization": f"Bearer {token}", "User-Agent": "kubelore-cli"},
            timeout=httpx.Timeout(ANSWER_S),
            follow_redirects=False,
        )
        if answer.status_code == 200:
            return answer.json()
    return {}


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    import logging

    logging.disable()
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
