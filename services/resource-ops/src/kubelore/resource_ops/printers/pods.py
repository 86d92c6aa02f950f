"""A pod's row: what `kubectl get pods` says of a pod is computed, not stored."""

from __future__ import annotations

from kubelore.common.durations import human_duration
from kubelore.resource_ops.printers.formats import (
    Cells,
    Object,
    age,
    items,
    name_of,
    or_none,
    part,
    seconds_of,
)


class _Tally:
    """Containers counted so far, and the reason shown as the pod's status."""

    def __init__(self, reason: str, total: int) -> None:
        self.reason = reason
        self.total = total
        self.ready = 0
        self.restarts = 0
        self.last_restart = 0.0

    def restarted(self, container: Object) -> None:
        self.restarts += container.get("restartCount") or 0
        finished = seconds_of(part(container, "lastState", "terminated").get("finishedAt"))
        self.last_restart = max(self.last_restart, finished or 0.0)

    def restarts_text(self, now: float) -> str:
        if self.restarts and self.last_restart:
            return f"{self.restarts} ({human_duration(now - self.last_restart)} ago)"
        return str(self.restarts)


def pod_cells(pod: Object, now: float) -> Cells:
    """Name, ready, status, restarts, age; IP, node, nominated node and readiness gates when wide."""
    spec, status = part(pod, "spec"), part(pod, "status")
    tally = _tally(spec, status)
    conditions = items(status, "conditions")
    gates = items(spec, "readinessGates")
    passed = sum(_is_true(conditions, gate.get("conditionType", "")) for gate in gates)
    addresses = items(status, "podIPs")
    return [
        name_of(pod),
        f"{tally.ready}/{tally.total}",
        _deleting(pod, tally.reason),
        tally.restarts_text(now),
        age(pod, now),
        or_none(addresses[0].get("ip") if addresses else ""),
        or_none(spec.get("nodeName")),
        or_none(status.get("nominatedNodeName")),
        f"{passed}/{len(gates)}" if gates else "<none>",
    ]


def _tally(spec: Object, status: Object) -> _Tally:
    reason = status.get("reason") or status.get("phase") or ""
    for condition in items(status, "conditions"):
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "SchedulingGated":
            reason = "SchedulingGated"
    sidecars = {
        container.get("name", "")
        for container in items(spec, "initContainers")
        if container.get("restartPolicy") == "Always"
    }
    tally = _Tally(reason, len(items(spec, "containers")) + len(sidecars))
    initializing = _count_init_containers(tally, spec, status, sidecars)
    if not initializing or _is_true(items(status, "conditions"), "Initialized"):
        _count_containers(tally, status, sidecars)
    return tally


def _count_init_containers(tally: _Tally, spec: Object, status: Object, sidecars: set[str]) -> bool:
    """Whether the pod still initializes; the first init container that is not done gives the reason."""
    for place, container in enumerate(items(status, "initContainerStatuses")):
        tally.restarted(container)
        terminated = part(container, "state").get("terminated")
        if terminated is not None and not terminated.get("exitCode"):
            continue
        if container.get("name") in sidecars and container.get("started"):
            tally.ready += bool(container.get("ready"))
            continue
        waiting = part(container, "state", "waiting").get("reason")
        if terminated is not None:
            tally.reason = f"Init:{_end_of(terminated)}"
        elif waiting and waiting != "PodInitializing":
            tally.reason = f"Init:{waiting}"
        else:
            tally.reason = f"Init:{place}/{len(items(spec, 'initContainers'))}"
        return True
    return False


def _count_containers(tally: _Tally, status: Object, sidecars: set[str]) -> None:
    """The last container that has something to say gives the reason; only sidecars' restarts count on."""
    tally.restarts, tally.last_restart = 0, 0.0
    for container in items(status, "initContainerStatuses"):
        if container.get("name") in sidecars:
            tally.restarted(container)
    running = False
    for container in reversed(items(status, "containerStatuses")):
        tally.restarted(container)
        state = part(container, "state")
        if reason := part(state, "waiting").get("reason"):
            tally.reason = reason
        elif state.get("terminated") is not None:
            tally.reason = _end_of(state["terminated"])
        elif container.get("ready") and state.get("running") is not None:
            running = True
            tally.ready += 1
    if tally.reason == "Completed" and running:
        tally.reason = "Running" if _is_true(items(status, "conditions"), "Ready") else "NotReady"


def _end_of(terminated: Object) -> str:
    if reason := terminated.get("reason"):
        return reason
    if signal := terminated.get("signal"):
        return f"Signal:{signal}"
    return f"ExitCode:{terminated.get('exitCode') or 0}"


def _deleting(pod: Object, reason: str) -> str:
    status = part(pod, "status")
    if not part(pod, "metadata").get("deletionTimestamp"):
        return reason
    if status.get("reason") == "NodeLost":
        return "Unknown"
    return reason if status.get("phase") in ("Failed", "Succeeded") else "Terminating"


def _is_true(conditions: object, kind: str) -> bool:
    assert isinstance(conditions, list | tuple)
    return any(
        condition.get("type") == kind and condition.get("status") == "True" for condition in conditions
    )
