"""`kubelore apply`, `delete`, `scale`, `restart`, `label`, `annotate`, `patch`: kubectl's verbs, over many clusters.

What is meant is found first, what would change more than one cluster is asked
about, and each object has its own line. Ends with 1 when any of them failed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any

import typer

from kubelore.cli.completing import complete_namespaces, complete_words
from kubelore.cli.connection import Api, connect
from kubelore.cli.listing import ask
from kubelore.cli.manifest_files import Recursive, ids_of, manifest_texts
from kubelore.cli.output import print_document, print_table, warn
from kubelore.cli.selection import AllNamespaces, Cluster, Selector, namespaces
from kubelore.cli.targets import parse_targets

BATCH = "/api/k8s/unified/batch"
BATCH_S = 150.0
MAX_OPERATIONS = 100
MAX_BYTES = 4 * 1024 * 1024
_DONE = {"created": "created", "changed": "changed", "unchanged": "unchanged", "deleted": "deleted"}


class Shown(StrEnum):
    """What `-o` accepts of a change."""

    TEXT = "text"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


class PatchType(StrEnum):
    """What `--type` accepts, as kubectl's."""

    MERGE = "merge"
    JSON = "json"
    STRATEGIC = "strategic"


DryRun = Annotated[bool, typer.Option("--dry-run", help="Let the API servers do all but store it.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before changing several clusters.")]
Reason = Annotated[str, typer.Option("--reason", help="Why, for the audit and the object's history.")]
ChangeLog = Annotated[str, typer.Option("--change-log", help="What changed, for each object's history.")]
Diff = Annotated[bool, typer.Option("--diff", help="Show each place that changes.")]
StopOnError = Annotated[bool, typer.Option("--stop-on-error", help="Begin nothing more once one has failed.")]
Output = Annotated[Shown, typer.Option("--output", "-o", help="text, json, yaml or name.")]
Namespace = Annotated[
    str,
    typer.Option("--namespace", "-n", help="The namespace.", autocompletion=complete_namespaces),
]
_WORDS: Any = typer.Argument(
    metavar="TYPE NAME ... | TYPE/NAME ... | ID ...",
    help="As kubectl, or ids.",
    autocompletion=complete_words,
)
Words = Annotated[list[str], _WORDS]
NoWords = Annotated[list[str] | None, _WORDS]
Pairs = Annotated[
    list[str],
    typer.Argument(metavar="TYPE NAME ... KEY=VALUE ... KEY- ...", autocompletion=complete_words),
]


@dataclass
class Wish:
    """What was said about a change as a whole."""

    dry_run: bool = False
    yes: bool = False
    reason: str = ""
    diff: bool = False
    stop_on_error: bool = False
    output: Shown = Shown.TEXT
    change_log: str = ""


@dataclass
class Report:
    """The results of every part that was sent."""

    results: list[dict[str, Any]] = field(default_factory=list)
    operations: list[str] = field(default_factory=list)

    @property
    def failed(self) -> int:
        """How many were not done."""
        return sum(not one["ok"] for one in self.results)


def apply(
    context: typer.Context,
    filename: Annotated[
        list[str], typer.Option("--filename", "-f", help="A file, a directory, or - for stdin; repeat it.")
    ],
    recursive: Recursive = False,
    cluster: Cluster = None,
    namespace: Namespace = "default",
    force_conflicts: Annotated[
        bool, typer.Option("--force-conflicts", help="Take over fields that other managers own.")
    ] = False,
    dry_run: DryRun = False,
    diff: Diff = False,
    stop_on_error: StopOnError = False,
    yes: Yes = False,
    reason: Reason = "",
    change_log: ChangeLog = "",
    output: Output = Shown.TEXT,
) -> None:
    """Apply manifests to clusters (server-side, as field manager `kubelore`)."""
    texts = list(manifest_texts(filename, recursive))
    with connect(context) as api:
        clusters = _chosen(api, cluster)
        operations: list[dict[str, Any]] = [
            {
                "action": "apply",
                "clusters": clusters,
                "manifest": text,
                "namespace": namespace,
                "force": force_conflicts,
            }
            for text in texts
        ]
        wish = Wish(dry_run, yes, reason, diff, stop_on_error, output, change_log)
        _carry_out(api, operations, clusters, wish)


def delete(
    context: typer.Context,
    words: NoWords = None,
    filename: Annotated[
        list[str] | None,
        typer.Option("--filename", "-f", help="What a file, directory or - for stdin names; repeat it."),
    ] = None,
    recursive: Recursive = False,
    cluster: Cluster = None,
    namespace: Namespace = "",
    all_namespaces: AllNamespaces = False,
    selector: Selector = "",
    cascade: Annotated[str, typer.Option(help="background, foreground or orphan.")] = "",
    grace_period: Annotated[int, typer.Option(help="Seconds to end in; -1 for the type's own.")] = -1,
    dry_run: DryRun = False,
    stop_on_error: StopOnError = False,
    yes: Yes = False,
    reason: Reason = "",
    output: Output = Shown.TEXT,
) -> None:
    """Delete objects by type and name, by label, by id, or those that manifests name."""
    if bool(words) == bool(filename):
        raise typer.BadParameter("say which objects: by words, or by -f FILE")
    if filename and (selector or all_namespaces):
        raise typer.BadParameter("-l and -A choose among what words name, not among what is in files")
    deletion = _deletion(cascade, grace_period)
    wish = Wish(dry_run, yes, reason, False, stop_on_error, output)
    with connect(context) as api:
        if filename:
            texts = manifest_texts(filename, recursive)
            found = ids_of(api, texts, _chosen(api, cluster), namespace or "default")
        else:
            found = _meant(api, words or [], cluster, namespaces(namespace, all_namespaces), selector)
        _each(api, found, deletion, wish)


def _deletion(cascade: str, grace_period: int) -> dict[str, Any]:
    """The operation without its id. Raises BadParameter."""
    if cascade not in ("", "background", "foreground", "orphan"):
        raise typer.BadParameter("--cascade is background, foreground or orphan")
    propagation = {"propagation": cascade.capitalize()} if cascade else {}
    grace = {"grace_period_s": grace_period} if grace_period >= 0 else {}
    return {"action": "delete", **propagation, **grace}


def scale(
    context: typer.Context,
    words: Words,
    replicas: Annotated[int, typer.Option("--replicas", min=0, help="How many.")],
    cluster: Cluster = None,
    namespace: Namespace = "",
    selector: Selector = "",
    dry_run: DryRun = False,
    yes: Yes = False,
    reason: Reason = "",
    output: Output = Shown.TEXT,
) -> None:
    """Set how many replicas a workload has."""
    with connect(context) as api:
        found = _meant(api, words, cluster, namespaces(namespace, False), selector)
        _each(
            api, found, {"action": "scale", "replicas": replicas}, Wish(dry_run, yes, reason, output=output)
        )


def restart(
    context: typer.Context,
    words: Words,
    cluster: Cluster = None,
    namespace: Namespace = "",
    selector: Selector = "",
    dry_run: DryRun = False,
    yes: Yes = False,
    reason: Reason = "",
    output: Output = Shown.TEXT,
) -> None:
    """Replace the pods of Deployments, StatefulSets or DaemonSets, one after another."""
    with connect(context) as api:
        found = _meant(api, words, cluster, namespaces(namespace, False), selector)
        _each(api, found, {"action": "restart"}, Wish(dry_run, yes, reason, output=output))


def label(
    context: typer.Context,
    words: Pairs,
    cluster: Cluster = None,
    namespace: Namespace = "",
    selector: Selector = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Change what has another value.")] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    reason: Reason = "",
    output: Output = Shown.TEXT,
) -> None:
    """Set labels (KEY=VALUE) and remove them (KEY-)."""
    wish = Wish(dry_run, yes, reason, output=output)
    _mark(context, "labels", words, cluster, namespace, selector, overwrite, wish)


def annotate(
    context: typer.Context,
    words: Pairs,
    cluster: Cluster = None,
    namespace: Namespace = "",
    selector: Selector = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Change what has another value.")] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    reason: Reason = "",
    output: Output = Shown.TEXT,
) -> None:
    """Set annotations (KEY=VALUE) and remove them (KEY-)."""
    wish = Wish(dry_run, yes, reason, output=output)
    _mark(context, "annotations", words, cluster, namespace, selector, overwrite, wish)


def patch(
    context: typer.Context,
    words: Words,
    body: Annotated[str, typer.Option("--patch", "-p", help="The patch as YAML or JSON.")],
    type_: Annotated[
        PatchType, typer.Option("--type", help="merge, json or strategic.")
    ] = PatchType.STRATEGIC,
    cluster: Cluster = None,
    namespace: Namespace = "",
    selector: Selector = "",
    dry_run: DryRun = False,
    diff: Diff = False,
    yes: Yes = False,
    reason: Reason = "",
    output: Output = Shown.TEXT,
) -> None:
    """Change some fields of objects."""
    wish = Wish(dry_run, yes, reason, diff, output=output)
    with connect(context) as api:
        found = _meant(api, words, cluster, namespaces(namespace, False), selector)
        _each(api, found, {"action": "patch", "patch": _patch(body), "patch_type": type_.value}, wish)


def _patch(text: str) -> Any:
    from kubelore.common.kube.documents import load_documents

    # A JSON patch is a list, which is no document by itself.
    (document,) = load_documents("patch:\n" + "\n".join(f"  {line}" for line in text.splitlines()))
    return document["patch"]


def _mark(
    context: typer.Context,
    what: str,
    words: list[str],
    cluster: list[str] | None,
    namespace: str,
    selector: str,
    overwrite: bool,
    wish: Wish,
) -> None:
    names, pairs = split_pairs(words)
    with connect(context) as api:
        found = _meant(api, names, cluster, namespaces(namespace, False), selector)
        _each(api, found, {"action": "label", what: pairs, "overwrite": overwrite}, wish)


def split_pairs(words: Sequence[str]) -> tuple[list[str], dict[str, str | None]]:
    """The objects named, and what to set (KEY=VALUE) or remove (KEY-). Raises BadParameter."""
    names = [word for word in words if "=" not in word and not word.endswith("-")]
    pairs: dict[str, str | None] = {}
    for word in words:
        if "=" in word:
            key, _, value = word.partition("=")
            pairs[key] = value
        elif word.endswith("-"):
            pairs[word[:-1]] = None
    if not pairs or "" in pairs:
        raise typer.BadParameter("say what to set (KEY=VALUE) or remove (KEY-)")
    if not names:
        raise typer.BadParameter("say which objects: TYPE NAME, TYPE/NAME, or ids")
    return names, pairs


def _chosen(api: Api, cluster: list[str] | None) -> list[str]:
    """The clusters meant by their names. Raises BadParameter when none is named and there are several."""
    page = api.get("/api/k8s/unified/resources", type="namespaces", limit=1, clusters=",".join(cluster or []))
    names = [state["name"] for state in page["clusters"]]
    if not names:
        raise typer.BadParameter("no cluster is chosen; `kubelore clusters list` shows them")
    if not cluster and len(names) > 1:
        raise typer.BadParameter(f"say which clusters with -c: {', '.join(names)}, group:NAME or tag:NAME")
    return names


def _meant(api: Api, words: list[str], cluster: list[str] | None, namespace: str, selector: str) -> list[str]:
    """The ids of the objects meant. Raises Exit when one that was named is nowhere."""
    query: dict[str, Any] = {
        "clusters": ",".join(cluster or []),
        "namespace": namespace,
        "labels": selector,
        "fields": "",
        "view": "metadata",
        "sort": "cluster",
    }
    targets = parse_targets(words)
    if not selector and any(not target.names for target in targets):
        raise typer.BadParameter("say which: names, or a label selector with -l")
    answers = [answer for target in targets for answer in ask(api, target, query)]
    missing = [name for answer in answers for name in answer.missing]
    for name in missing:
        warn(f"{name} not found")
    if missing:
        raise typer.Exit(1)
    found = list(dict.fromkeys(item["id"] for answer in answers for item in answer.items))
    if not found:
        warn("nothing is selected")
    return found


def _each(api: Api, ids: Sequence[str], operation: dict[str, Any], wish: Wish) -> None:
    clusters = sorted({one.partition(":")[0] for one in ids})
    _carry_out(api, [{**operation, "id": one} for one in ids], clusters, wish)


def _carry_out(api: Api, operations: Sequence[dict[str, Any]], clusters: Sequence[str], wish: Wish) -> None:
    """Send what was asked for, in parts, and tell what became of it. Raises Exit."""
    if operations and len(clusters) > 1 and not (wish.dry_run or wish.yes):
        _confirm(len(operations), clusters)
    report = Report()
    for part in _parts(operations):
        body: dict[str, Any] = {
            "operations": part,
            "dry_run": wish.dry_run,
            "stop_on_error": wish.stop_on_error,
            "reason": wish.reason,
            "change_log": wish.change_log,
        }
        answer = api.post(BATCH, body, timeout_s=BATCH_S)
        report.results += answer["results"]
        report.operations.append(answer["operation"])
        if wish.output == Shown.TEXT:
            _tell(answer["results"], wish)
        if wish.stop_on_error and report.failed:
            break
    _show(report, wish)
    raise typer.Exit(1 if report.failed else 0)


def _confirm(count: int, clusters: Sequence[str]) -> None:
    named = ", ".join(clusters)
    if not sys.stdin.isatty():
        warn(f"this would change {len(clusters)} clusters ({named}): say --yes to do it")
        raise typer.Exit(1)
    if not typer.confirm(f"{count} operations in {len(clusters)} clusters ({named}). Go on?", err=True):
        raise typer.Exit(1)


def _parts(operations: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """As many operations as fit one request, in order."""
    part: list[dict[str, Any]] = []
    size = 0
    for operation in operations:
        grown = len(json.dumps(operation))
        if part and (len(part) >= MAX_OPERATIONS or size + grown > MAX_BYTES):
            yield part
            part, size = [], 0
        part.append(operation)
        size += grown
    if part:
        yield part


def _tell(results: Sequence[dict[str, Any]], wish: Wish) -> None:
    tried = " (dry run)" if wish.dry_run else ""
    for one in results:
        cluster, kind, namespace, name = (one["id"].split(":", 3) + [""] * 4)[:4]
        place = f" in {namespace}" if namespace else ""
        what = f"{one['cluster'] or cluster}: {kind}/{name}{place}"
        if not one["ok"]:
            warn(f"{what} {'skipped' if one.get('skipped') else 'failed'}: {one['error']['detail']}")
            if remedy := one["error"].get("remedy"):
                warn(f"    {remedy}")
            continue
        print_table((), [(f"{what} {_DONE[one['result']]}{tried}",)])
        if wish.diff:
            print_table((), [(f"    {_change(change)}",) for change in one.get("changes", ())])


def _change(change: dict[str, Any]) -> str:
    if change.get("hidden"):
        old, new = ("(hidden)" if side in change else "" for side in ("old", "new"))
    else:
        old, new = (
            json.dumps(change[side], ensure_ascii=False) if side in change else "" for side in ("old", "new")
        )
    if not old:
        return f"+ {change['path']}: {new}"
    return f"~ {change['path']}: {old} -> {new}" if new else f"- {change['path']}: {old}"


def _show(report: Report, wish: Wish) -> None:
    if wish.output in (Shown.JSON, Shown.YAML):
        print_document({"operations": report.operations, "results": report.results}, wish.output.value)
    elif wish.output == Shown.NAME:
        print_table((), [(one["id"],) for one in report.results if one["ok"]])
        for one in report.results:
            if not one["ok"]:
                warn(f"{one['id']}: {one['error']['detail']}")
