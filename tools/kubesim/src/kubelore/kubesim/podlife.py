"""The states of a pod: what a scheduler and a kubelet write into it. Pure functions over decoded pods."""

from __future__ import annotations

import zlib
from datetime import UTC, datetime
from typing import Literal

from .status import Json

Behaviour = Literal["run", "complete", "crash", "unschedulable"]
BEHAVIOUR = "kubesim.kubelore.dev/behaviour"
RUN_S = 25  # how long a pod that completes runs
_BACK_OFF = "back-off 5m0s restarting failed container={0} pod={1}_{2}({3})"


def behaviour(pod: Json) -> str:
    """From the pod's annotation; anything unknown just runs."""
    return (pod["metadata"].get("annotations") or {}).get(BEHAVIOUR, "run")


def seconds_since(stamp: str) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(stamp.replace("Z", "+00:00"))).total_seconds()


def address(pod: Json) -> str:
    number = zlib.crc32(pod["metadata"]["uid"].encode())
    return f"10.244.{number >> 8 & 0xFF}.{number & 0xFF}"


def _container(pod: Json, container: Json, state: Json, *, ready: bool, restarts: int = 0) -> Json:
    image, uid = container["image"], pod["metadata"]["uid"].replace("-", "")
    return {
        "name": container["name"],
        "state": state,
        "lastState": {},
        "ready": ready,
        "started": ready,
        "restartCount": restarts,
        "image": image,
        "imageID": f"{image.partition(':')[0]}@sha256:{zlib.crc32(image.encode()):064x}",
        "containerID": f"containerd://{uid}{uid}",
    }


def _conditions(since: str, *, ready: bool) -> list[Json]:
    return [
        {
            "type": kind,
            "status": "True" if ready or kind in ("PodScheduled", "Initialized") else "False",
            "lastProbeTime": None,
            "lastTransitionTime": since,
        }
        for kind in ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
    ]


def _status(pod: Json, phase: str, since: str, containers: list[Json], *, ready: bool) -> Json:
    ip = address(pod)
    return {
        "phase": phase,
        "conditions": _conditions(since, ready=ready),
        "hostIP": "10.0.0.1",
        "podIP": ip,
        "podIPs": [{"ip": ip}],
        "startTime": pod.get("status", {}).get("startTime", since),
        "containerStatuses": containers,
        "qosClass": "Burstable",
    }


def starting(pod: Json, since: str) -> Json:
    waiting = {"waiting": {"reason": "ContainerCreating"}}
    containers = [_container(pod, container, waiting, ready=False) for container in pod["spec"]["containers"]]
    return _status(pod, "Pending", since, containers, ready=False)


def running(pod: Json, since: str) -> Json:
    state = {"running": {"startedAt": since}}
    containers = [_container(pod, container, state, ready=True) for container in pod["spec"]["containers"]]
    return _status(pod, "Running", since, containers, ready=True)


def debugged(pod: Json, since: str) -> Json:
    """Ephemeral containers run at once."""
    state = {"running": {"startedAt": since}}
    added = pod["spec"].get("ephemeralContainers", [])
    return {"ephemeralContainerStatuses": [_container(pod, one, state, ready=False) for one in added]}


def succeeded(pod: Json, started: str, finished: str) -> Json:
    ended = {"exitCode": 0, "reason": "Completed", "startedAt": started, "finishedAt": finished}
    containers = [
        _container(pod, container, {"terminated": ended}, ready=False)
        for container in pod["spec"]["containers"]
    ]
    return _status(pod, "Succeeded", finished, containers, ready=False)


def crashing(pod: Json, now: str, restarts: int) -> Json:
    meta = pod["metadata"]
    container = pod["spec"]["containers"][0]
    message = _BACK_OFF.format(container["name"], meta["name"], meta["namespace"], meta["uid"])
    waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": message}}
    status = _container(pod, container, waiting, ready=False, restarts=restarts)
    ended = {"exitCode": 1, "reason": "Error", "startedAt": now, "finishedAt": now}
    status["lastState"] = {"terminated": ended}
    return _status(pod, "Running", now, [status], ready=False)


def unschedulable(since: str, nodes: int) -> Json:
    message = f"0/{nodes} nodes are available: {nodes} Insufficient cpu, {nodes} Insufficient memory."
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return {
        "phase": "Pending",
        "conditions": [{**condition, "lastProbeTime": None, "lastTransitionTime": since}],
        "qosClass": "Burstable",
    }
