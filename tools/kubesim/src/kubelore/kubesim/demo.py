"""The demo world: two believable clusters with workloads, troubles and slow, gentle changes."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from importlib import resources

import yaml

from . import population, rules
from .cluster import ClusterState
from .controllers import Controllers
from .status import Json

_log = logging.getLogger(__name__)
# cluster -> provider id of its nodes, region, number of nodes
CLUSTERS = {
    "demo-shop": ("aws:///eu-central-1a/i-0{0:016x}", "eu-central-1", 3),
    "demo-data": ("gce://kubelore-demo/europe-west1-b/{1}", "europe-west1", 2),
}
_PASS_S = 1.0
_JOBS_KEPT = 3


class DemoWorld:
    """One demo cluster: `seed` fills it, `live` keeps it moving until cancelled."""

    def __init__(self, cluster: ClusterState) -> None:
        self.cluster = cluster
        self._controllers = Controllers(cluster)
        self._random = random.Random()  # noqa: S311 - when things happen need not be the same

    def seed(self) -> None:
        provider_id, region, nodes = CLUSTERS[self.cluster.name]
        population.furnish(self.cluster, nodes=0)
        for number in range(nodes):
            name = f"{self.cluster.name}-node-{number + 1}"
            identifier = provider_id.format(0xB1A5 * (number + 3), name)
            labels = {
                "topology.kubernetes.io/region": region,
                "node.kubernetes.io/instance-type": "m6i.2xlarge",
            }
            population.add_node(self.cluster, name, identifier, labels)
        text = (resources.files("kubelore.kubesim") / "world" / f"{self.cluster.name}.yaml").read_text()
        for document in yaml.safe_load_all(text):
            self._plant(document)
        for _ in range(5):  # deployment, replica set, pod, scheduled, running: then the status of all
            self._controllers.step()
        self._controllers.seeded()

    def _plant(self, obj: Json) -> None:
        group, _, version = obj["apiVersion"].rpartition("/")
        types = self.cluster.types.all()
        key = next(t.key for t in types if (t.group, t.version, t.kind) == (group, version, obj["kind"]))
        meta = obj["metadata"]
        if key == "namespaces":
            population.add_namespace(self.cluster, meta["name"], meta.get("labels"))
            return
        status = obj.get("status")
        rules.complete(self.cluster, self.cluster.types.named(key), obj)
        if status is not None:
            obj["status"] = status
        meta["generation"] = 1
        self.cluster.seed_object(key, obj)
        if obj["kind"] == "CustomResourceDefinition":
            self.cluster.types.add_definition(obj)

    async def live(self) -> None:
        """Runs until cancelled; a pass that fails is logged, and the next one tries again."""
        passes = 0
        while True:
            await asyncio.sleep(_PASS_S)
            passes += 1
            try:
                self._stir(passes)
                self._controllers.step()
            except Exception:  # noqa: BLE001 - the boundary of the task: users may write any object
                _log.exception("a pass over the demo cluster %s failed", self.cluster.name)

    def _stir(self, passes: int) -> None:
        if passes % 120 == 5:
            self._run_cron_jobs()
        if passes % 45 == 0:
            self._breathe()
        if passes % 90 == 0:
            self._controllers.evict(self._random)

    def _run_cron_jobs(self) -> None:
        jobs, cron_jobs = self.cluster.types.named("jobs.batch"), self.cluster.types.named("cronjobs.batch")
        for entry in list(self.cluster.store.of(cron_jobs).entries.values()):
            cron_job = entry.decode()
            if cron_job["spec"].get("suspend"):
                continue
            metadata = {"name": f"{entry.name}-{int(time.time() // 60)}", "namespace": entry.namespace}
            template = cron_job["spec"]["jobTemplate"]["spec"]["template"]
            spec = {"completions": 1, "parallelism": 1, "backoffLimit": 6, "template": template}
            job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec, "status": {}}
            if self.cluster.store.find(jobs, entry.namespace, metadata["name"]) is None:
                self._controllers.make("jobs.batch", job, cron_job)
            cron_job.setdefault("status", {})["lastScheduleTime"] = self._controllers.now
            self.cluster.store.put(cron_jobs, cron_job)
            self._controllers.forget_jobs(cron_job, _JOBS_KEPT)

    def _breathe(self) -> None:
        """Autoscalers move their deployment by one, as load comes and goes."""
        deployments = self.cluster.types.named("deployments.apps")
        autoscalers = self.cluster.types.named("horizontalpodautoscalers.autoscaling")
        for entry in list(self.cluster.store.of(autoscalers).entries.values()):
            spec = entry.decode()["spec"]
            target = self.cluster.store.find(deployments, entry.namespace, spec["scaleTargetRef"]["name"])
            if target is not None:
                deployment = target.decode()
                replicas = deployment["spec"]["replicas"] + self._random.choice((-1, 1))
                deployment["spec"]["replicas"] = min(max(replicas, spec["minReplicas"]), spec["maxReplicas"])
                self.cluster.store.put(deployments, deployment)
