"""`kubelore logs --stored`: lines that were collected, of pods that are gone too, and what runs now."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kubelore.cli.connection import Api
from kubelore.cli.output import warn

PATH = "/api/k8s/logs/search"
PAGE = 1000
_KINDS = {
    ("deploy", "deployment", "deployments"): "deployments.apps",
    ("sts", "statefulset", "statefulsets"): "statefulsets.apps",
    ("ds", "daemonset", "daemonsets"): "daemonsets.apps",
    ("rs", "replicaset", "replicasets"): "replicasets.apps",
    ("job", "jobs"): "jobs.batch",
    ("cj", "cronjob", "cronjobs"): "cronjobs.batch",
}
_PODS = ("po", "pod", "pods")


def stored_pages(
    api: Api, place: dict[str, Any], filter_: dict[str, Any], tail: int | None
) -> Iterator[list[dict[str, Any]]]:
    """The lines that match, oldest first: all of them, or the last `tail`. What could not be searched is said."""
    query = {**filter_, **searched_place(place)}
    if tail is None:
        for page in api.pages(PATH, **query, direction="forward", limit=PAGE):
            _tell(page)
            yield page["items"]
        return
    newest: list[dict[str, Any]] = []
    if tail:
        for page in api.pages(PATH, **query, direction="backward", limit=min(PAGE, tail)):
            _tell(page)
            newest += page["items"]
            if len(newest) >= tail:
                break
    yield newest[:tail][::-1]


def searched_place(place: dict[str, Any]) -> dict[str, Any]:
    """Whose lines, as the search takes it: by the pod's name, or the workload as its pods were labelled with it."""
    kind, _, name = (place.get("workload") or "").partition("/")
    found = {key: value for key, value in place.items() if key != "workload"}
    if kind in _PODS:
        return {**found, "pod": name}
    if kind:
        known = next((full for names, full in _KINDS.items() if kind in names), kind)
        return {**found, "workload": f"{known}/{name}"}
    return found


def place_of_container(id_: str) -> dict[str, Any]:
    """The place of one container, or pod, by its id."""
    cluster, namespace, pod, *container = id_.split(":")
    return {
        "clusters": cluster,
        "namespace": namespace,
        "pod": pod,
        "container": "".join(container) or None,
    }


def _tell(page: dict[str, Any]) -> None:
    for problem in page["problems"]:
        warn(problem)
    for gap in page["gaps"]:
        warn(
            f"{gap['pod']} {gap['container']}: lines are missing from {gap['since']} to {gap['until']}: {gap['reason']}"
        )
