"""Pods and what makes them."""

from __future__ import annotations

from kubelore.common.durations import human_duration
from kubelore.resource_ops.printers.formats import (
    Cells,
    Object,
    Printer,
    age,
    columns,
    containers_and_images,
    items,
    labels_line,
    name_of,
    part,
    seconds_of,
    selector_line,
    selector_text,
    since,
)
from kubelore.resource_ops.printers.pods import pod_cells


def _replicas(of: Object) -> int:
    """Desired replicas; the API server defaults an absent number to 1."""
    replicas = part(of, "spec").get("replicas")
    return 1 if replicas is None else replicas


def _template(of: Object) -> Object:
    return part(of, "spec", "template", "spec")


def _deployment(of: Object, now: float) -> Cells:
    status = part(of, "status")
    return [
        name_of(of),
        f"{status.get('readyReplicas', 0)}/{_replicas(of)}",
        status.get("updatedReplicas", 0),
        status.get("availableReplicas", 0),
        age(of, now),
        *containers_and_images(_template(of)),
        selector_text(part(of, "spec").get("selector")),
    ]


def _replica_set(of: Object, now: float) -> Cells:
    status = part(of, "status")
    selector = part(of, "spec").get("selector")
    return [
        name_of(of),
        _replicas(of),
        status.get("replicas", 0),
        status.get("readyReplicas", 0),
        age(of, now),
        *containers_and_images(_template(of)),
        selector_line(selector),
    ]


def _replication_controller(of: Object, now: float) -> Cells:
    return [*_replica_set(of, now)[:-1], labels_line(part(of, "spec").get("selector"))]


def _stateful_set(of: Object, now: float) -> Cells:
    ready = part(of, "status").get("readyReplicas", 0)
    return [name_of(of), f"{ready}/{_replicas(of)}", age(of, now), *containers_and_images(_template(of))]


def _daemon_set(of: Object, now: float) -> Cells:
    status = part(of, "status")
    counts = (
        "desiredNumberScheduled",
        "currentNumberScheduled",
        "numberReady",
        "updatedNumberScheduled",
        "numberAvailable",
    )
    return [
        name_of(of),
        *(status.get(count, 0) for count in counts),
        labels_line(_template(of).get("nodeSelector")),
        age(of, now),
        *containers_and_images(_template(of)),
        selector_line(part(of, "spec").get("selector")),
    ]


_JOB_STATES = (
    ("Complete", "Complete"),
    ("Failed", "Failed"),
    ("", "Terminating"),
    ("Suspended", "Suspended"),
    ("FailureTarget", "FailureTarget"),
    ("SuccessCriteriaMet", "SuccessCriteriaMet"),
)
"""Conditions of a job, the first that holds wins; the empty one stands for being deleted."""


def _job_status(of: Object) -> str:
    true = {
        condition.get("type")
        for condition in items(part(of, "status"), "conditions")
        if condition.get("status") == "True"
    }
    if part(of, "metadata").get("deletionTimestamp"):
        true.add("")
    return next((status for condition, status in _JOB_STATES if condition in true), "Running")


def _completions(of: Object) -> str:
    spec, done = part(of, "spec"), part(of, "status").get("succeeded", 0)
    if spec.get("completions") is not None:
        return f"{done}/{spec['completions']}"
    parallelism = spec.get("parallelism") or 0
    return f"{done}/1 of {parallelism}" if parallelism > 1 else f"{done}/1"


def _job(of: Object, now: float) -> Cells:
    status = part(of, "status")
    started, ended = seconds_of(status.get("startTime")), seconds_of(status.get("completionTime"))
    took = "" if started is None else human_duration((now if ended is None else ended) - started)
    return [
        name_of(of),
        _job_status(of),
        _completions(of),
        took,
        age(of, now),
        *containers_and_images(_template(of)),
        selector_line(part(of, "spec").get("selector")),
    ]


def _cron_job(of: Object, now: float) -> Cells:
    spec, status = part(of, "spec"), part(of, "status")
    last = status.get("lastScheduleTime")
    suspend = spec.get("suspend")
    job = part(spec, "jobTemplate", "spec")
    return [
        name_of(of),
        spec.get("schedule", ""),
        "<none>" if spec.get("timeZone") is None else spec["timeZone"],
        "<unset>" if suspend is None else str(suspend),
        len(items(status, "active")),
        since(last, now) if last else "<none>",
        age(of, now),
        *containers_and_images(part(job, "template", "spec")),
        selector_line(job.get("selector")),
    ]


def _controller_revision(of: Object, now: float) -> Cells:
    owner = next(
        (one for one in items(part(of, "metadata"), "ownerReferences") if one.get("controller")), None
    )
    controller = "<none>"
    if owner:
        group = owner.get("apiVersion", "").rpartition("/")[0]
        kind = f"{owner.get('kind', '')}.{group}" if group else owner.get("kind", "")
        controller = f"{kind.lower()}/{owner.get('name', '')}"
    return [name_of(of), controller, of.get("revision", 0), age(of, now)]


def _pod_template(of: Object, now: float) -> Cells:
    del now
    template = part(of, "template")
    labels = part(template, "metadata").get("labels")
    return [name_of(of), *containers_and_images(part(template, "spec")), labels_line(labels)]


_WIDE = ("Containers+", "Images+", "Selector+")
_COUNTED = ("Name", "Desired:integer", "Current:integer", "Ready:integer", "Age", *_WIDE)

WORKLOADS: dict[str, Printer] = {
    "pods": Printer(
        columns(
            "Name",
            "Ready",
            "Status",
            "Restarts",
            "Age",
            "IP+",
            "Node+",
            "Nominated Node+",
            "Readiness Gates+",
        ),
        pod_cells,
    ),
    "deployments.apps": Printer(
        columns("Name", "Ready", "Up-to-date", "Available", "Age", *_WIDE), _deployment
    ),
    "replicasets.apps": Printer(columns(*_COUNTED), _replica_set),
    "replicationcontrollers": Printer(columns(*_COUNTED), _replication_controller),
    "statefulsets.apps": Printer(columns("Name", "Ready", "Age", "Containers+", "Images+"), _stateful_set),
    "daemonsets.apps": Printer(
        columns(
            "Name",
            "Desired:integer",
            "Current:integer",
            "Ready:integer",
            "Up-to-date:integer",
            "Available:integer",
            "Node Selector",
            "Age",
            *_WIDE,
        ),
        _daemon_set,
    ),
    "jobs.batch": Printer(columns("Name", "Status", "Completions", "Duration", "Age", *_WIDE), _job),
    "cronjobs.batch": Printer(
        columns(
            "Name",
            "Schedule",
            "Timezone",
            "Suspend:boolean",
            "Active:integer",
            "Last Schedule",
            "Age",
            *_WIDE,
        ),
        _cron_job,
    ),
    "controllerrevisions.apps": Printer(
        columns("Name", "Controller", "Revision", "Age"), _controller_revision
    ),
    "podtemplates": Printer(columns("Name", "Containers", "Images", "Pod Labels"), _pod_template),
}
