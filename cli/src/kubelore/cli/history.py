"""`kubelore history`, `diff`, `blame`, `snapshot`: what changed, when, and by whom."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from kubelore.cli.connection import Api, connect
from kubelore.cli.output import print_coloured, print_document, print_table, warn
from kubelore.cli.selection import Format, Namespace, Output

Object = Annotated[
    str,
    typer.Argument(metavar="ID|TYPE/NAME", help="cluster:type:namespace:name, or deploy/web with -c and -n."),
]
OneCluster = Annotated[str, typer.Option("-c", "--cluster", help="The object's cluster.")]
_COLORS = {"+": "green", "-": "red", "@": "cyan"}


def history(
    context: typer.Context,
    object_: Object,
    cluster: OneCluster = "",
    namespace: Namespace = "",
    since: Annotated[str, typer.Option(help="Only from this time on (ISO 8601).")] = "",
    until: Annotated[str, typer.Option(help="Only up to this time (ISO 8601).")] = "",
    actor: Annotated[str, typer.Option(help="Only versions of this user or field manager.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many, newest first.")] = 50,
    output: Output = Format.TABLE,
) -> None:
    """Who changed an object when: its versions, newest first."""
    with connect(context) as api:
        path = object_path(api, object_, cluster, namespace)
        page = api.get(path, since=since or None, until=until or None, actor=actor or None, limit=limit)
    if output in (Format.JSON, Format.YAML):
        print_document(page, output)
        return
    print_table(
        ("VERSION", "WHEN", "WHAT", "BY", "WHY"),
        _history_rows(page),
    )
    if page["continue"]:
        warn(
            f"There are older versions; ask for more with --limit, or with --until {page['items'][-1]['created_at']}."
        )


def _history_rows(page: dict[str, Any]) -> list[tuple[str, ...]]:
    """The versions, and between them what is not known, where it belongs."""
    gaps: dict[int, list[tuple[str, ...]]] = {}
    for gap in reversed(page["gaps"]):
        gaps.setdefault(gap["after_version"], []).append(_gap_row(gap))
    rows: list[tuple[str, ...]] = []
    for item in page["items"]:
        rows += gaps.pop(item["version"], [])
        rows.append(
            (
                f"{item['version']}{' *' if item['is_current'] else ''}",
                item["created_at"],
                f"{item['happened']}, redacted" if item["redacted"] else item["happened"],
                _author(item),
                item["change_log"] or "",
            )
        )
    return rows + gaps.pop(0, [])


def _gap_row(gap: dict[str, Any]) -> tuple[str, ...]:
    if gap["kind"] == "gap":
        ended = f"until {gap['until']}" if gap["until"] else "not over"
        return "", gap["since"], "gap", "", f"changes after {gap['resource_version']} are not known; {ended}"
    if gap["kind"] == "late":
        return "", gap["since"], f"{gap['happened']}, late", "", f"replayed from parked {gap['parked']}"
    return "", gap["since"], "missing", "", f"parked as {gap['parked']}: {gap['reason']}"


def diff(
    context: typer.Context,
    object_: Object,
    cluster: OneCluster = "",
    namespace: Namespace = "",
    from_: Annotated[
        int | None, typer.Option("--from", min=0, help="The older version; 0 for nothing.")
    ] = None,
    to: Annotated[int | None, typer.Option(min=1, help="The newer version.")] = None,
    live: Annotated[bool, typer.Option("--live", help="To the object as the cluster has it now.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """What differs between two versions; without numbers, between the last two."""
    if live and to is not None:
        raise typer.BadParameter("say --to or --live")
    with connect(context) as api:
        upto = "live" if live else to
        found = api.get(object_path(api, object_, cluster, namespace) + "/diff", from_=from_, to=upto)
    if output in (Format.JSON, Format.YAML):
        print_document(found, output)
        return
    print_diff(found["diff_content"])
    if live and not found["diff_content"]:
        warn(f"The cluster holds what version {found['from_version']} says.")
    elif not found["diff_content"]:
        warn(f"Versions {found['from_version']} and {found['to_version']} hold the same.")


def blame(
    context: typer.Context,
    object_: Object,
    cluster: OneCluster = "",
    namespace: Namespace = "",
    version: Annotated[
        int | None, typer.Option(min=1, help="Of this version; the newest when not given.")
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Which version set each line, by whom."""
    with connect(context) as api:
        found = api.get(object_path(api, object_, cluster, namespace) + "/blame", version=version)
    if output in (Format.JSON, Format.YAML):
        print_document(found, output)
        return
    known = {item["version"]: item for item in found["versions"]}
    heads = {number: (str(number), item["created_at"][:19], _author(item)) for number, item in known.items()}
    rows = [heads.get(number, (str(number), "", "")) for number, _ in found["lines"]]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    for row, (_, text) in zip(rows, found["lines"], strict=True):
        typer.echo(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            + "  "
            + _clean(text)
        )


def snapshot(
    context: typer.Context,
    cluster: OneCluster = "",
    namespace: Annotated[
        str, typer.Option("-n", "--namespace", help="Of which namespace; what lies in none when empty.")
    ] = "",
    at: Annotated[str, typer.Option(help="At which time (ISO 8601); now when not given.")] = "",
    output: Output = Format.TABLE,
) -> None:
    """What a namespace held at a time: as a table, or whole as YAML documents."""
    if context.invoked_subcommand:
        return
    with connect(context) as api:
        cluster = one_cluster(api, cluster)
        items = list(api.items("/api/k8s/yaml/snapshot", cluster=cluster, namespace=namespace, at=at or None))
    items.sort(key=lambda item: item["version"]["resource_id"])
    if output == Format.YAML:
        typer.echo("---\n".join(item["yaml_content"] for item in items), nl=False)
    elif output == Format.JSON:
        print_document(items, output)
    else:
        print_table(
            ("TYPE", "NAME", "VERSION", "SINCE", "BY"),
            [
                (one["resource_type"], one["name"], str(one["version"]), one["created_at"], _author(one))
                for one in (item["version"] for item in items)
            ],
        )
    if not items:
        warn("Nothing was recorded there at that time.")


def object_path(api: Api, object_: str, cluster: str, namespace: str) -> str:
    """Where the API has the history of an object written in either way. Raises BadParameter."""
    return f"/api/k8s/yaml/versions/{quote(_id(api, object_, cluster, namespace), safe='')}"


def _id(api: Api, object_: str, cluster: str, namespace: str) -> str:
    """The id of an object written in either way; what it is now says how its type is called."""
    if object_.count(":") >= 3:
        return object_
    type_name, _, name = object_.partition("/")
    if not name:
        raise typer.BadParameter("write cluster:type:namespace:name, or TYPE/NAME with -c and -n")
    cluster = one_cluster(api, cluster)
    found = api.get(
        "/api/k8s/unified/resources",
        type=type_name,
        clusters=cluster,
        namespace=namespace or "default",
        fields=f"metadata.name={name}",
        view="metadata",
        limit=1,
    )
    if found["items"]:
        return found["items"][0]["id"]
    # It may be gone, and have a history all the same, under the type's own name.
    return f"{cluster}:{type_name}:{namespace or 'default'}:{name}"


def one_cluster(api: Api, cluster: str) -> str:
    """The cluster that was named, or for want of one the only one there is. Raises BadParameter."""
    if cluster:
        return cluster
    page = api.get("/api/k8s/unified/resources", type="namespaces", limit=1)
    names = [state["name"] for state in page["clusters"]]
    if len(names) != 1:
        raise typer.BadParameter(f"say which cluster with -c: {', '.join(names) or 'there is none'}")
    return names[0]


def print_diff(text: str) -> None:
    """A unified diff, in colours on a terminal."""
    for line in text.splitlines():
        print_coloured(_clean(line), _COLORS.get(line[:1]))


def _author(item: dict[str, Any]) -> str:
    actor = item["actor"]
    if actor["kind"] == "manager":
        return f"{actor['name']} ({actor['operation'].lower()})" if actor["operation"] else actor["name"]
    return actor["name"] or "unknown"


def _clean(text: str) -> str:
    return "".join(
        char if char.isprintable() or char == "\t" else "\N{REPLACEMENT CHARACTER}" for char in text
    )
