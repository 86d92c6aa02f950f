"""Pods as a busy cluster has them: about 4.4 KB of JSON each, in replica sets of up to a dozen."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any
from uuid import UUID

_APPS = [
    f"{word}-{part}"
    for word in (
        "checkout",
        "catalog",
        "search",
        "payment",
        "ledger",
        "mail",
        "cart",
        "pricing",
        "stock",
        "media",
    )
    for part in ("api", "worker", "web", "proxy", "cache", "sync")
]
_CONDITIONS = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"


def pods(count: int, seed: int) -> Iterator[bytes]:
    """That many pods of one cluster, the same for the same seed, in the order a list has."""
    rng = random.Random(seed)
    made = 0
    while made < count:
        replica_set = _ReplicaSet(rng)
        for _ in range(min(rng.randrange(1, 12), count - made)):
            yield replica_set.pod(rng)
            made += 1


def _moment(rng: random.Random) -> str:
    return f"2026-0{rng.randrange(1, 10)}-{rng.randrange(10, 28)}T{rng.randrange(10, 24)}:{rng.randrange(10, 60)}:00Z"


def _uid(rng: random.Random) -> str:
    return str(UUID(int=rng.getrandbits(128), version=4))


def _ip(rng: random.Random) -> str:
    return f"10.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(1, 255)}"


class _ReplicaSet:
    """What its pods have in common."""

    def __init__(self, rng: random.Random) -> None:
        self.app = rng.choice(_APPS)
        self.namespace = f"team-{rng.randrange(50):02d}"
        self.hash = f"{rng.getrandbits(40):010x}"
        self.version = f"v{rng.randrange(9)}.{rng.randrange(30)}.{rng.randrange(10)}"
        self.uid = _uid(rng)
        self.tier = rng.choice(("web", "back"))
        self.image = f"registry.example.com/{self.app}:{self.version}"

    def pod(self, rng: random.Random) -> bytes:
        suffix = "".join(rng.choice(_SUFFIX) for _ in range(5))
        moment, ip = _moment(rng), _ip(rng)
        body = {
            "metadata": self._metadata(rng, suffix, moment, ip),
            "spec": self._spec(rng, f"kube-api-access-{suffix}"),
            "status": self._status(rng, moment, ip),
        }
        return json.dumps(body, separators=(",", ":")).encode()

    def _metadata(self, rng: random.Random, suffix: str, moment: str, ip: str) -> dict[str, Any]:
        owner = f"{self.app}-{self.hash}"
        return {
            "name": f"{owner}-{suffix}",
            "generateName": f"{owner}-",
            "namespace": self.namespace,
            "uid": _uid(rng),
            "resourceVersion": str(1_000_000 + rng.randrange(10**8)),
            "creationTimestamp": moment,
            "labels": {
                "app": self.app,
                "app.kubernetes.io/name": self.app,
                "app.kubernetes.io/version": self.version,
                "pod-template-hash": self.hash,
                "tier": self.tier,
                "team": self.namespace,
            },
            "annotations": {
                "prometheus.io/scrape": "true",
                "prometheus.io/port": "9090",
                "checksum/config": self.hash * 4,
                "cni.projectcalico.org/podIP": f"{ip}/32",
            },
            "ownerReferences": [
                {
                    "apiVersion": "apps/v1",
                    "kind": "ReplicaSet",
                    "name": owner,
                    "uid": self.uid,
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
            "managedFields": [_managed(self.uid, moment)],
        }

    def _spec(self, rng: random.Random, volume: str) -> dict[str, Any]:
        node = f"ip-10-{rng.randrange(4)}-{rng.randrange(50)}-{rng.randrange(5)}.eu-west-1.compute.internal"
        mount = {
            "name": volume,
            "readOnly": True,
            "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
        }
        return {
            "volumes": [_token_volume(volume)],
            "containers": [
                {
                    "name": "main",
                    "image": self.image,
                    "ports": [{"containerPort": 8080, "protocol": "TCP"}],
                    "env": [{"name": "LOG_LEVEL", "value": "info"}, {"name": "REGION", "value": "eu-west-1"}],
                    "resources": {
                        "limits": {"cpu": "500m", "memory": "512Mi"},
                        "requests": {"cpu": "100m", "memory": "128Mi"},
                    },
                    "volumeMounts": [mount],
                    "livenessProbe": {"httpGet": {"path": "/livez", "port": 8080, "scheme": "HTTP"}},
                    "terminationMessagePath": "/dev/termination-log",
                    "terminationMessagePolicy": "File",
                    "imagePullPolicy": "IfNotPresent",
                }
            ],
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
            "dnsPolicy": "ClusterFirst",
            "serviceAccountName": "default",
            "nodeName": node,
            "securityContext": {},
            "schedulerName": "default-scheduler",
            "tolerations": [
                {
                    "key": f"node.kubernetes.io/{taint}",
                    "operator": "Exists",
                    "effect": "NoExecute",
                    "tolerationSeconds": 300,
                }
                for taint in ("not-ready", "unreachable")
            ],
            "priority": 0,
            "enableServiceLinks": True,
            "preemptionPolicy": "PreemptLowerPriority",
        }

    def _status(self, rng: random.Random, moment: str, ip: str) -> dict[str, Any]:
        return {
            "phase": rng.choices(("Running", "Pending", "Failed", "Succeeded"), (90, 5, 2, 3))[0],
            "conditions": [
                {"type": kind, "status": "True", "lastProbeTime": None, "lastTransitionTime": _moment(rng)}
                for kind in _CONDITIONS
            ],
            "hostIP": _ip(rng),
            "podIP": ip,
            "podIPs": [{"ip": ip}],
            "startTime": moment,
            "containerStatuses": [
                {
                    "name": "main",
                    "state": {"running": {"startedAt": moment}},
                    "lastState": {},
                    "ready": True,
                    "restartCount": rng.randrange(3),
                    "image": self.image,
                    "imageID": f"{self.image.partition(':')[0]}@sha256:{rng.getrandbits(256):064x}",
                    "containerID": f"containerd://{rng.getrandbits(256):064x}",
                    "started": True,
                }
            ],
            "qosClass": "Burstable",
        }


def _token_volume(name: str) -> dict[str, Any]:
    namespace = {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
    sources = [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [namespace]}},
    ]
    return {"name": name, "projected": {"sources": sources, "defaultMode": 420}}


def _managed(owner: str, moment: str) -> dict[str, Any]:
    ports = {".": {}, 'k:{"containerPort":8080,"protocol":"TCP"}': {"f:containerPort": {}, "f:protocol": {}}}
    quantities = {".": {}, "f:cpu": {}, "f:memory": {}}
    container = {
        ".": {},
        "f:env": {".": {}, 'k:{"name":"LOG_LEVEL"}': {"f:name": {}, "f:value": {}}},
        "f:image": {},
        "f:imagePullPolicy": {},
        "f:livenessProbe": {"f:httpGet": {"f:path": {}, "f:port": {}, "f:scheme": {}}},
        "f:name": {},
        "f:ports": ports,
        "f:resources": {".": {}, "f:limits": quantities, "f:requests": quantities},
        "f:terminationMessagePath": {},
        "f:terminationMessagePolicy": {},
    }
    fields = {
        "f:metadata": {
            "f:annotations": {".": {}, "f:checksum/config": {}},
            "f:generateName": {},
            "f:labels": {".": {}, "f:app": {}, "f:pod-template-hash": {}, "f:team": {}, "f:tier": {}},
            "f:ownerReferences": {".": {}, f'k:{{"uid":"{owner}"}}': {}},
        },
        "f:spec": {
            "f:containers": {'k:{"name":"main"}': container},
            "f:dnsPolicy": {},
            "f:enableServiceLinks": {},
            "f:restartPolicy": {},
            "f:schedulerName": {},
            "f:securityContext": {},
            "f:terminationGracePeriodSeconds": {},
        },
    }
    return {
        "manager": "kube-controller-manager",
        "operation": "Update",
        "apiVersion": "v1",
        "time": moment,
        "fieldsType": "FieldsV1",
        "fieldsV1": fields,
    }
