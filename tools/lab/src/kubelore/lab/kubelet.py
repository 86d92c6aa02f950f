"""The kubelet's configuration and command line."""

import json
from pathlib import Path
from typing import Any

from kubelore.lab import build, kubeconfig, recipes
from kubelore.lab.cluster import ControlPlane
from kubelore.lab.machine import DATA, NODE_ADDRESS, RUN, SOCKET
from kubelore.lab.pki import write_secret
from kubelore.lab.ports import free_ports
from kubelore.lab.process import Program

CLUSTER_DNS = "10.96.0.10"
_CONFIG = RUN / "kubelet.json"


def kubelet_program(plane: ControlPlane, node: str, log: Path) -> Program:
    """A kubelet that registers as `node`, with certificates of the control plane's authority."""
    cluster = plane.authorities.cluster
    serving = cluster.server(f"system:node:{node}", [NODE_ADDRESS, node]).write(RUN, "kubelet")
    user = f"system:node:{node}"
    write_secret(
        RUN / "kubelet.kubeconfig",
        kubeconfig.with_certificate(
            plane.name,
            plane.server,
            plane.authorities.cluster_certificate,
            user,
            cluster.client(user, ["system:nodes"]),
        ),
    )
    (RUN / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    _CONFIG.write_text(json.dumps(_configuration(plane.layout.pki / "ca.crt", *serving)))
    command = [
        str(build.program(recipes.KUBERNETES, "kubelet")),
        f"--config={_CONFIG}",
        f"--kubeconfig={RUN / 'kubelet.kubeconfig'}",
        f"--root-dir={DATA / 'kubelet'}",
        f"--hostname-override={node}",
        f"--node-ip={NODE_ADDRESS}",
        # cAdvisor finds out which container a control group belongs to by asking containerd itself.
        f"--containerd={SOCKET}",
        "--containerd-namespace=k8s.io",
    ]
    return Program("kubelet", command, log)


def _configuration(client_ca: Path, certificate: Path, key: Path) -> dict[str, Any]:
    """Made for a small machine with old control groups: nothing is evicted and no image collected."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_ADDRESS,
        "port": free_ports(1, NODE_ADDRESS)[0],
        "healthzPort": 0,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(client_ca)},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(certificate),
        "tlsPrivateKeyFile": str(key),
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": False,
        "failSwapOn": False,
        "makeIPTablesUtilChains": False,
        # Nothing answers there; without one every pod gets a warning event about it.
        "clusterDNS": [CLUSTER_DNS],
        "resolvConf": str(RUN / "resolv.conf"),
        "podLogsDir": str(DATA / "pods"),
        "volumePluginDir": str(DATA / "volume-plugins"),
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {
            "memory.available": "1Mi",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
            "imagefs.available": "0%",
            "imagefs.inodesFree": "0%",
        },
        "nodeStatusUpdateFrequency": "5s",
    }
