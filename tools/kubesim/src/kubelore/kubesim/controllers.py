"""Controllers of the demo world: workloads make pods, pods start, run, crash and end. One pass at a time."""

from __future__ import annotations

import random
import uuid
import zlib
from collections.abc import Iterator

import msgspec

from . import podlife, quota
from .cluster import BORN, NAME_ALPHABET, ClusterState, timestamp
from .deletion import delete
from .status import Json
from .store import Entry

_EVENTS_KEPT = 300
_CRASH_EVERY_S = 40
_REPEAT_EVENT_S = 30


class Controllers:
    """`seeding` makes names, uids and times that are the same in every run; afterwards they are fresh."""

    def __init__(self, cluster: ClusterState) -> None:
        self.cluster = cluster
        self.seeding = True
        self._random = random.Random(f"{cluster.seed}/{cluster.name}")  # noqa: S311 - a reproducible world

    def seeded(self) -> None:
        """From now on everything is new."""
        self.seeding = False
        self._random = random.Random()  # noqa: S311 - names, not secrets

    @property
    def now(self) -> str:
        return BORN if self.seeding else timestamp()

    def step(self) -> None:
        """One pass over everything; what it makes is taken up by the next."""
        self._jobs()
        for key in ("deployments.apps", "replicasets.apps", "statefulsets.apps", "daemonsets.apps"):
            for _, workload in self._objects(key):
                getattr(self, "_" + key.partition(".")[0])(workload)
        for entry, pod in self._objects("pods"):
            if entry.template is None and "deletionTimestamp" not in pod["metadata"]:
                self._pod(pod)
        quota.publish_usage(self.cluster)
        self._trim_events()

    def suffix(self, length: int = 5) -> str:
        return "".join(self._random.choices(NAME_ALPHABET, k=length))

    def make(self, key: str, obj: Json, owner: Json | None = None) -> Json:
        meta = obj["metadata"]
        fresh = str(uuid.uuid4())
        meta["uid"] = self.cluster.uid(key, meta["namespace"], meta["name"]) if self.seeding else fresh
        meta |= {"creationTimestamp": self.now, "generation": 1}
        if owner is not None:
            reference = {"apiVersion": owner["apiVersion"], "kind": owner["kind"]}
            named = {"name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"], "controller": True}
            meta["ownerReferences"] = [{**reference, **named, "blockOwnerDeletion": True}]
        self.cluster.store.put(self.cluster.types.named(key), obj)
        return obj

    def event(
        self, about: Json, reason: str, message: str, kind: str = "Normal", source: str = "kubelet"
    ) -> None:
        """Records an event, or counts it up when it was there; what was normal in the first world is past."""
        if self.seeding and kind == "Normal":
            return
        meta = about["metadata"]
        subject = f"{meta['uid']}/{reason}".encode()
        name = f"{meta['name']}.{zlib.crc32(subject):016x}"
        resource_type = self.cluster.types.named("events")
        found = self.cluster.store.find(resource_type, meta["namespace"], name)
        if found is not None:
            event = found.decode()
            if podlife.seconds_since(event["lastTimestamp"]) < _REPEAT_EVENT_S:
                return
            event |= {"count": event["count"] + 1, "lastTimestamp": timestamp(), "message": message}
            self.cluster.store.put(resource_type, event)
            return
        target = {"kind": about["kind"], "apiVersion": about["apiVersion"], "uid": meta["uid"]}
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": meta["namespace"]},
            "involvedObject": {**target, "namespace": meta["namespace"], "name": meta["name"]},
            "reason": reason,
            "message": message,
            "source": {"component": source},
            "firstTimestamp": timestamp(),
            "lastTimestamp": timestamp(),
            "count": 1,
            "type": kind,
            "reportingComponent": source,
            "reportingInstance": "",
        }
        self.make("events", event)

    def forget_jobs(self, cron_job: Json, kept: int) -> None:
        """Deletes the oldest jobs of a CronJob beyond `kept`, with their pods."""
        jobs = sorted(self._owned("jobs.batch", cron_job), key=lambda pair: pair[0].name)
        for entry, _ in jobs[:-kept]:
            delete(self.cluster, self.cluster.types.named("jobs.batch"), entry)

    def evict(self, rng: random.Random) -> None:
        """Deletes a running pod of some replica set; its controller makes another."""
        running = [(entry, pod) for entry, pod in self._objects("pods") if _is_ready(pod)]
        owned = [pair for pair in running if "pod-template-hash" in pair[0].labels]
        if owned:
            entry, pod = rng.choice(owned)
            name = pod["spec"]["containers"][0]["name"]
            self.event(pod, "Killing", f"Stopping container {name}")
            delete(self.cluster, self.cluster.types.named("pods"), entry)

    def _objects(self, key: str) -> Iterator[tuple[Entry, Json]]:
        collection = self.cluster.store.of(self.cluster.types.named(key))
        for entry in list(collection.entries.values()):
            if entry.key in collection.entries:
                yield entry, entry.decode()

    def _owned(self, key: str, owner: Json) -> list[tuple[Entry, Json]]:
        uid, namespace = owner["metadata"]["uid"], owner["metadata"]["namespace"]
        return [
            (entry, obj)
            for entry, obj in self._objects(key)
            if entry.namespace == namespace
            and any(reference["uid"] == uid for reference in obj["metadata"].get("ownerReferences", ()))
        ]

    def _write(self, key: str, obj: Json, **status: object) -> None:
        after = {**obj.get("status", {}), **status}
        if after != obj.get("status"):
            obj["status"] = after
            self.cluster.store.put(self.cluster.types.named(key), obj)

    def _deployments(self, deployment: Json) -> None:
        meta, spec = deployment["metadata"], deployment["spec"]
        digest = zlib.crc32(msgspec.json.encode(spec["template"], order="sorted"))
        name = f"{meta['name']}-{''.join(NAME_ALPHABET[digest >> shift & 15] for shift in range(0, 36, 4))}"
        sets = self._owned("replicasets.apps", deployment)
        current: Json | None = None
        for _, replica_set in sets:
            wanted = spec["replicas"] if replica_set["metadata"]["name"] == name else 0
            current = replica_set if replica_set["metadata"]["name"] == name else current
            if replica_set["spec"]["replicas"] != wanted:
                replica_set["spec"]["replicas"] = wanted
                self.cluster.store.put(self.cluster.types.named("replicasets.apps"), replica_set)
        if current is None:
            self._make_replica_set(deployment, name)
            return
        ready = sum(replica_set.get("status", {}).get("readyReplicas", 0) for _, replica_set in sets)
        have = current.get("status", {}).get("replicas", 0)
        available = {"type": "Available", "status": "True" if ready >= spec["replicas"] else "False"}
        self._write(
            "deployments.apps",
            deployment,
            observedGeneration=meta.get("generation", 1),
            replicas=have,
            updatedReplicas=have,
            readyReplicas=ready,
            availableReplicas=ready,
            conditions=[available],
        )

    def _make_replica_set(self, deployment: Json, name: str) -> None:
        meta, spec = deployment["metadata"], deployment["spec"]
        pod_hash = {"pod-template-hash": name.rpartition("-")[2]}
        labels = {**spec["template"]["metadata"].get("labels", {}), **pod_hash}
        template = {**spec["template"], "metadata": {**spec["template"]["metadata"], "labels": labels}}
        selector = {"matchLabels": {**spec["selector"].get("matchLabels", {}), **pod_hash}}
        metadata = {"name": name, "namespace": meta["namespace"], "labels": labels}
        body = {"replicas": spec["replicas"], "selector": selector, "template": template}
        replica_set = {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": metadata,
            "spec": body,
            "status": {},
        }
        self.make("replicasets.apps", replica_set, deployment)

    def _replicasets(self, replica_set: Json) -> None:
        meta, wanted = replica_set["metadata"], replica_set["spec"].get("replicas", 1)
        pods = self._owned("pods", replica_set)
        pods.sort(key=lambda pair: pair[1]["metadata"]["creationTimestamp"])
        for entry, _pod in pods[wanted:]:
            delete(self.cluster, self.cluster.types.named("pods"), entry)
        for _ in range(wanted - len(pods)):
            if not self._make_pod(replica_set, f"{meta['name']}-{self.suffix()}"):
                break
        self._write_counts("replicasets.apps", replica_set)

    def _statefulsets(self, stateful_set: Json) -> None:
        meta, wanted = stateful_set["metadata"], stateful_set["spec"].get("replicas", 1)
        names = [f"{meta['name']}-{ordinal}" for ordinal in range(wanted)]
        self._keep_named(stateful_set, dict.fromkeys(names, ""))
        self._write_counts("statefulsets.apps", stateful_set)

    def _daemonsets(self, daemon_set: Json) -> None:
        name = daemon_set["metadata"]["name"]
        nodes = [entry.name for entry, _ in self._objects("nodes")]
        wanted = {f"{name}-{zlib.crc32(node.encode()) & 0xFFFFF:05x}": node for node in nodes}
        self._keep_named(daemon_set, wanted)
        ready = sum(_is_ready(pod) for _, pod in self._owned("pods", daemon_set))
        number = len(nodes)
        self._write(
            "daemonsets.apps",
            daemon_set,
            desiredNumberScheduled=number,
            currentNumberScheduled=number,
            numberReady=ready,
            numberAvailable=ready,
            numberMisscheduled=0,
        )

    def _keep_named(self, workload: Json, wanted: dict[str, str]) -> None:
        there = {entry.name: entry for entry, _ in self._owned("pods", workload)}
        for name in there.keys() - wanted.keys():
            delete(self.cluster, self.cluster.types.named("pods"), there[name])
        for name, node in wanted.items():
            if name not in there:
                self._make_pod(workload, name, node)

    def _write_counts(self, key: str, workload: Json) -> None:
        pods = [pod for _, pod in self._owned("pods", workload)]
        ready = sum(map(_is_ready, pods))
        self._write(key, workload, replicas=len(pods), readyReplicas=ready, availableReplicas=ready)

    def _make_pod(self, owner: Json, name: str, node: str = "") -> bool:
        template, namespace = owner["spec"]["template"], owner["metadata"]["namespace"]
        given = template.get("metadata", {})
        metadata = {"name": name, "namespace": namespace, "labels": dict(given.get("labels", {}))}
        if given.get("annotations"):
            metadata["annotations"] = dict(given["annotations"])
        spec = {"schedulerName": "default-scheduler", "serviceAccountName": "default", **template["spec"]}
        if node:
            spec["nodeName"] = node
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": metadata,
            "spec": spec,
            "status": {"phase": "Pending"},
        }
        why = quota.refusal(self.cluster, namespace, pod)
        if why:
            message = f'Error creating: pods "{name}" is forbidden: {why}'
            self.event(owner, "FailedCreate", message, "Warning", "replicaset-controller")
            return False
        self.make("pods", pod, owner)
        return True

    def _jobs(self) -> None:
        for _, job in self._objects("jobs.batch"):
            pods = [pod for _, pod in self._owned("pods", job)]
            if not pods and not job.get("status", {}).get("succeeded"):
                self._make_pod(job, f"{job['metadata']['name']}-{self.suffix()}")
                self._write("jobs.batch", job, active=1, startTime=self.now)
            elif any(pod["status"]["phase"] == "Succeeded" for pod in pods):
                done = {"type": "Complete", "status": "True"}
                ended = job["status"].get("completionTime", self.now)
                self._write("jobs.batch", job, active=0, succeeded=1, completionTime=ended, conditions=[done])

    def _pod(self, pod: Json) -> None:
        status = pod.get("status", {})
        acts = podlife.behaviour(pod)
        match status.get("phase"):
            case "Pending" if acts == "unschedulable":
                self._leave_pending(pod)
            case "Pending" if not pod["spec"].get("nodeName"):
                self._schedule(pod)
            case "Pending":
                started = (
                    podlife.crashing(pod, self.now, 1) if acts == "crash" else podlife.running(pod, self.now)
                )
                self.event(pod, "Started", f"Started container {pod['spec']['containers'][0]['name']}")
                self._write("pods", pod, **started)
            case "Running" if acts == "crash" and _age(status) >= _CRASH_EVERY_S:
                restarts = status["containerStatuses"][0]["restartCount"] + 1
                self.event(pod, "BackOff", "Back-off restarting failed container", "Warning")
                self._write("pods", pod, **podlife.crashing(pod, self.now, restarts))
            case "Running" if acts == "complete" and _age(status) >= podlife.RUN_S:
                self._write("pods", pod, **podlife.succeeded(pod, status["startTime"], self.now))
            case _:
                pass

    def _leave_pending(self, pod: Json) -> None:
        if not pod.get("status", {}).get("conditions"):
            nodes = sum(1 for _ in self._objects("nodes"))
            pod["status"] = podlife.unschedulable(self.now, nodes)
            self.cluster.store.put(self.cluster.types.named("pods"), pod)
            message = pod["status"]["conditions"][0]["message"]
            self.event(pod, "FailedScheduling", message, "Warning", "default-scheduler")

    def _schedule(self, pod: Json) -> None:
        nodes = [entry.name for entry, _ in self._objects("nodes")]
        if nodes:
            meta = pod["metadata"]
            pod["spec"]["nodeName"] = nodes[zlib.crc32(meta["uid"].encode()) % len(nodes)]
            message = f"Successfully assigned {meta['namespace']}/{meta['name']} to {pod['spec']['nodeName']}"
            self.event(pod, "Scheduled", message, source="default-scheduler")
            self._write("pods", pod, **podlife.starting(pod, self.now))

    def _trim_events(self) -> None:
        resource_type = self.cluster.types.named("events")
        entries = list(self.cluster.store.of(resource_type).entries.values())
        for entry in sorted(entries, key=lambda entry: entry.rv)[: max(0, len(entries) - _EVENTS_KEPT)]:
            self.cluster.store.remove(resource_type, entry)


def _age(status: Json) -> float:
    """Seconds that the pod is in its present state."""
    return podlife.seconds_since(status["conditions"][0]["lastTransitionTime"])


def _is_ready(pod: Json) -> bool:
    conditions = pod.get("status", {}).get("conditions", ())
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
