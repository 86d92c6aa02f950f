"""metrics-server beside the node, and the objects that make the API server ask it for metrics.k8s.io.

It runs as a process of the machine and listens on the bridge, for an endpoint may not be a loopback address.
"""

from pathlib import Path
from typing import Any

from kubelore.lab import build, recipes
from kubelore.lab.api import Api
from kubelore.lab.cluster import ControlPlane
from kubelore.lab.machine import NODE_ADDRESS, RUN
from kubelore.lab.pki import write_secret
from kubelore.lab.ports import free_ports
from kubelore.lab.process import Program

_NAME = "metrics-server"
_NAMESPACE = "kube-system"
GROUP_VERSION = "/apis/metrics.k8s.io/v1beta1"


class MetricsServer:
    """metrics-server for the node of one control plane."""

    def __init__(self, plane: ControlPlane, log: Path) -> None:
        self._api: Api = plane.api
        self._port = free_ports(1, NODE_ADDRESS)[0]
        certificate, key = plane.authorities.cluster.server(_NAME, [NODE_ADDRESS]).write(RUN, _NAME)
        access = RUN / f"{_NAME}.kubeconfig"
        write_secret(access, plane.kubeconfig())
        command = [
            str(build.program(recipes.METRICS_SERVER, _NAME)),
            f"--kubeconfig={access}",
            f"--authentication-kubeconfig={access}",
            f"--authorization-kubeconfig={access}",
            f"--bind-address={NODE_ADDRESS}",
            f"--secure-port={self._port}",
            f"--tls-cert-file={certificate}",
            f"--tls-private-key-file={key}",
            f"--kubelet-certificate-authority={plane.layout.pki / 'ca.crt'}",
            "--kubelet-preferred-address-types=InternalIP",
            "--kubelet-use-node-status-port",
            # The least that it takes, and then the time for a request has to be less.
            "--metric-resolution=10s",
            "--kubelet-request-timeout=5s",
        ]
        self.program = Program(_NAME, command, log)

    async def start(self) -> None:
        """Start it and register it; it answers with figures about 30 s later."""
        self.program.start()
        services = f"/api/v1/namespaces/{_NAMESPACE}/services/{_NAME}"
        slices = f"/apis/discovery.k8s.io/v1/namespaces/{_NAMESPACE}/endpointslices/{_NAME}"
        await self._api.apply(services, self._service())
        await self._api.apply(slices, self._endpoints())
        name = "v1beta1.metrics.k8s.io"
        await self._api.apply(f"/apis/apiregistration.k8s.io/v1/apiservices/{name}", _api_service(name))

    async def has_figures(self) -> bool:
        """Whether the node's usage can be read through the API server."""
        self.program.require_running()
        return bool((await self._api.request("GET", f"{GROUP_VERSION}/nodes"))["items"])

    def _service(self) -> dict[str, Any]:
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": _NAME, "namespace": _NAMESPACE},
            "spec": {"ports": [{"name": "https", "port": 443, "targetPort": self._port}]},
        }

    def _endpoints(self) -> dict[str, Any]:
        return {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": _NAME,
                "namespace": _NAMESPACE,
                "labels": {"kubernetes.io/service-name": _NAME},
            },
            "addressType": "IPv4",
            "endpoints": [{"addresses": [NODE_ADDRESS], "conditions": {"ready": True}}],
            "ports": [{"name": "https", "port": self._port, "protocol": "TCP"}],
        }


def _api_service(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": name},
        "spec": {
            "group": "metrics.k8s.io",
            "version": "v1beta1",
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            # The certificate names the address, the API server would ask for the service's DNS name.
            "insecureSkipTLSVerify": True,
            "service": {"name": _NAME, "namespace": _NAMESPACE},
        },
    }
