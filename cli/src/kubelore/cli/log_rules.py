"""`kubelore logs-policy` and `kubelore logs-alert`: which logs are kept, and which lines raise an alert."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from kubelore.cli.completing import complete_clusters
from kubelore.cli.connection import connect
from kubelore.cli.output import print_document, print_table
from kubelore.cli.selection import Format, Output
from kubelore.common.errors import BadRequest

policies = typer.Typer(no_args_is_help=True, help="Collect and keep the logs of containers.")
alerts = typer.Typer(no_args_is_help=True, help="Raise alerts for what containers log.")

_POLICIES = "/api/k8s/logs/policies"
_ALERTS = "/api/k8s/logs/alerts"
_UNITS = {"K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}

Name = Annotated[str, typer.Argument(metavar="NAME", help="Lower-case letters, digits and '-'.")]
Clusters = Annotated[
    list[str] | None,
    typer.Option(
        "--cluster",
        help="Cluster, group:NAME or tag:NAME; repeat or separate by commas. All when new.",
        autocompletion=complete_clusters,
    ),
]
Namespaces = Annotated[
    str | None, typer.Option("-n", "--namespace", help="Names or globs, comma separated. All when new.")
]
Labels = Annotated[str | None, typer.Option("-l", "--selector", help="Label selector of pods.")]
Containers = Annotated[
    str | None, typer.Option("-c", "--container", help="Names or globs, comma separated. All when new.")
]
Days = Annotated[int | None, typer.Option(min=1, help="Days that lines are kept; 14 when new.")]
MaxSize = Annotated[str | None, typer.Option(help="Stored bytes, as 500M or 20Gi; 0 without limit.")]
Paused = Annotated[bool | None, typer.Option("--pause/--resume", help="Let it rest, or go on.")]
Search = Annotated[str | None, typer.Option("-s", "--search", help="Text that a line holds.")]
Regex = Annotated[str | None, typer.Option(help="A regular expression (RE2) that it matches.")]
Fields = Annotated[
    list[str] | None,
    typer.Option("--field", help="Condition on JSON lines, as status>=500; repeat for more."),
]
Inverse = Annotated[bool | None, typer.Option("--inverse/--straight", help="Lines that do not hold it.")]
Level = Annotated[str | None, typer.Option(help="This level or worse: warn, error, …")]
Count = Annotated[int | None, typer.Option(min=1, help="So many lines; 1 when new.")]
Window = Annotated[int | None, typer.Option(min=1, help="…within so many seconds; 60 when new.")]
Rest = Annotated[int | None, typer.Option(min=0, help="Seconds until it is raised again; 300 when new.")]
Per = Annotated[str | None, typer.Option(help="Count lines per container, or per cluster.")]
Severity = Annotated[str | None, typer.Option(help="info, warning or critical.")]


@policies.command("set")
def set_policy(
    context: typer.Context,
    name: Name,
    cluster: Clusters = None,
    namespace: Namespaces = None,
    labels: Labels = None,
    container: Containers = None,
    days: Days = None,
    max_size: MaxSize = None,
    paused: Paused = None,
    output: Output = Format.TABLE,
) -> None:
    """Make a policy, or change what is said of one: the rest stays as it was."""
    said = {"days": days, "max_bytes": None if max_size is None else _bytes(max_size), "paused": paused}
    _set(context, _POLICIES, name, _scope(cluster, namespace, labels, container), said, output)


@policies.command("list")
def list_policies(context: typer.Context, output: Output = Format.TABLE) -> None:
    """List the policies, and what each holds."""
    _list(
        context, _POLICIES, output, ("NAME", "SCOPE", "DAYS", "LINES", "RAW", "STORED", "OLDEST"), _policy_row
    )


@policies.command("get")
def get_policy(context: typer.Context, name: Name, output: Output = Format.TABLE) -> None:
    """Show a policy, and what it holds."""
    with connect(context) as api:
        _show(api.get(_path(_POLICIES, name)), output)


@policies.command("delete")
def delete_policy(
    context: typer.Context,
    name: Name,
    logs: Annotated[bool, typer.Option("--logs", help="Delete what it collected too.")] = False,
) -> None:
    """Collect no more by a policy; what it holds goes by its limits."""
    with connect(context) as api:
        gone = api.delete(f"{_path(_POLICIES, name)}{'?logs=true' if logs else ''}")
    stay = f"{gone['kept']['lines']} lines stay until its limits take them"
    typer.echo(f"log policy {name} deleted; {'its logs too' if logs else stay}")


@alerts.command("set")
def set_alert(
    context: typer.Context,
    name: Name,
    search: Search = None,
    regex: Regex = None,
    inverse: Inverse = None,
    level: Level = None,
    field: Fields = None,
    cluster: Clusters = None,
    namespace: Namespaces = None,
    labels: Labels = None,
    container: Containers = None,
    count: Count = None,
    window: Window = None,
    rest: Rest = None,
    per: Per = None,
    severity: Severity = None,
    paused: Paused = None,
    output: Output = Format.TABLE,
) -> None:
    """Make an alert, or change what is said of one: the rest stays as it was."""
    lines = {"search": search, "regex": regex, "inverse": inverse, "level": level, "fields": field}
    when = {"count": count, "window_s": window, "rest_s": rest, "per": per}
    said = {**when, "filter": _given(lines), "severity": severity, "paused": paused}
    _set(context, _ALERTS, name, _scope(cluster, namespace, labels, container), said, output)


@alerts.command("list")
def list_alerts(context: typer.Context, output: Output = Format.TABLE) -> None:
    """List the alerts, and when each was raised last."""
    _list(context, _ALERTS, output, ("NAME", "SCOPE", "LINES", "WHEN", "RAISED", "LAST"), _alert_row)


@alerts.command("get")
def get_alert(context: typer.Context, name: Name, output: Output = Format.TABLE) -> None:
    """Show an alert."""
    with connect(context) as api:
        _show(api.get(_path(_ALERTS, name)), output)


@alerts.command("delete")
def delete_alert(context: typer.Context, name: Name) -> None:
    """Delete an alert."""
    with connect(context) as api:
        api.delete(_path(_ALERTS, name))
    typer.echo(f"log alert {name} deleted")


def _set(
    context: typer.Context,
    kind: str,
    name: str,
    scope: dict[str, Any],
    said: dict[str, Any],
    output: Format,
) -> None:
    """Make a rule, or change the one of that name by what is not None."""
    said = _given(said)
    with connect(context) as api:
        found = next((one for one in api.items(kind) if one["name"] == name), None)
        if found is None:
            made = api.post(kind, {"name": name, "scope": scope, **said})
        else:
            spec = {**found["spec"], **said, "scope": {**found["spec"]["scope"], **scope}}
            if "filter" in said:
                spec["filter"] = {**found["spec"]["filter"], **said["filter"]}
            made = api.put(_path(kind, name), {**spec, "revision": found["revision"]})
    _show(made, output)


def _list(context: typer.Context, kind: str, output: Format, header: tuple[str, ...], row: Any) -> None:
    with connect(context) as api:
        items = list(api.items(kind))
    if output in (Format.JSON, Format.YAML):
        print_document({"items": items}, output)
    elif output == Format.NAME:
        print_table((), [(item["name"],) for item in items])
    elif items:
        print_table(header, map(row, items))
    else:
        what = "policy" if kind == _POLICIES else "alert"
        typer.echo(f"There is no log {what} yet: `kubelore logs-{what} set NAME` makes one.", err=True)


def _show(rule: dict[str, Any], output: Format) -> None:
    if output in (Format.JSON, Format.YAML):
        print_document(rule, output)
        return
    if output == Format.NAME:
        typer.echo(rule["name"])
        return
    spec = rule["spec"]
    rows = [("name", rule["name"] + (" (paused)" if spec["paused"] else "")), ("by", rule["subject"])]
    rows.append(("clusters", ",".join(spec["scope"]["clusters"])))
    if "held" in rule:
        rows += [("scope", _scope_text(spec)), ("keeps", _kept(spec)), ("holds", _held(rule["held"]))]
    else:
        last = f", last {rule['last_raised']}" if rule["last_raised"] else ""
        rows += [("scope", _scope_text(spec)), ("lines", _lines(spec)), ("raises", _when(spec))]
        rows.append(("raised", f"{rule['raised']} times{last}"))
    print_table((), rows)


def _policy_row(item: dict[str, Any]) -> tuple[str, ...]:
    held = item["held"]
    return (
        item["name"] + (" (paused)" if item["spec"]["paused"] else ""),
        _scope_text(item["spec"]),
        str(item["spec"]["days"]),
        str(held["lines"]),
        _size(held["raw_bytes"]),
        _size(held["stored_bytes"]),
        held["oldest"] or "-",
    )


def _alert_row(item: dict[str, Any]) -> tuple[str, ...]:
    spec = item["spec"]
    name = item["name"] + (" (paused)" if spec["paused"] else "")
    last = item["last_raised"] or "-"
    return name, _scope_text(spec), _lines(spec), _when(spec), str(item["raised"]), last


def _scope_text(spec: dict[str, Any]) -> str:
    scope = spec["scope"]
    parts = [
        ",".join(scope["namespaces"]) or "all namespaces",
        scope["labels"],
        ",".join(scope["containers"]),
    ]
    return "; ".join(part for part in parts if part)


def _lines(spec: dict[str, Any]) -> str:
    lines = spec["filter"]
    level = f"{lines['level']} or worse" if lines.get("level") else ""
    parts = [lines.get("search", ""), lines.get("regex", ""), level, *lines.get("fields", ())]
    said = ", ".join(part for part in parts if part) or "all lines"
    return f"not {said}" if lines.get("inverse") else said


def _when(spec: dict[str, Any]) -> str:
    return f"{spec['severity']}: {spec['count']} in {spec['window_s']} s per {spec['per']}"


def _kept(spec: dict[str, Any]) -> str:
    size = f", at most {_size(spec['max_bytes'])}" if spec["max_bytes"] else ""
    return f"{spec['days']} days{size}"


def _held(held: dict[str, Any]) -> str:
    if not held["lines"]:
        return "nothing yet"
    sizes = f"{_size(held['raw_bytes'])} in {_size(held['stored_bytes'])}"
    return f"{held['lines']} lines, {sizes}, from {held['oldest']} to {held['newest']}"


def _size(number: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" or number >= 10 else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


def _bytes(text: str) -> int:
    number, unit = text.rstrip("bBkKmMgGtTiI"), text.lstrip("0123456789.").upper().rstrip("B")
    try:
        return round(float(number) * (_UNITS[unit] if unit else 1))
    except (ValueError, KeyError):
        raise BadRequest(f"{text!r} is no size", remedy="Write 500M, 20Gi or a number of bytes.") from None


def _scope(
    cluster: list[str] | None, namespace: str | None, labels: str | None, container: str | None
) -> dict[str, Any]:
    said = {
        "clusters": _comma(",".join(cluster)) if cluster else None,
        "namespaces": None if namespace is None else _comma(namespace),
        "labels": labels,
        "containers": None if container is None else _comma(container),
    }
    return _given(said)


def _given(said: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in said.items() if value is not None}


def _path(kind: str, name: str) -> str:
    return f"{kind}/{quote(name, safe='')}"


def _comma(text: str) -> list[str]:
    return [part for part in (piece.strip() for piece in text.split(",")) if part]
