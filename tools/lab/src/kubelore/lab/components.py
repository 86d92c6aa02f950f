"""The command lines of a control plane's four programs.

The flags are what a real cluster needs and no more: RBAC and node authorization, service account tokens, the
aggregation layer. The API server doesn't compact etcd by itself (`--etcd-compaction-interval=0`), so that a
test says when history ends.
"""

from dataclasses import dataclass
from pathlib import Path

SERVICE_ACCOUNT_ISSUER = "https://kubernetes.default.svc.cluster.local"
SERVICE_RANGE = "10.96.0.0/16"


@dataclass(frozen=True)
class Layout:
    """Where a control plane keeps its files and listens."""

    folder: Path
    etcd_port: int
    etcd_peer_port: int
    api_port: int

    @property
    def pki(self) -> Path:
        return self.folder / "pki"

    @property
    def etcd(self) -> str:
        return f"https://127.0.0.1:{self.etcd_port}"

    @property
    def server(self) -> str:
        return f"https://127.0.0.1:{self.api_port}"

    def log(self, component: str) -> Path:
        return self.folder / f"{component}.log"


def etcd_flags(layout: Layout) -> list[str]:
    """A single etcd that skips fsync: a killed process loses nothing, only a power cut would."""
    peer = f"http://127.0.0.1:{layout.etcd_peer_port}"
    pki = layout.pki
    return [
        "--name=lab",
        f"--data-dir={layout.folder / 'etcd'}",
        f"--listen-client-urls={layout.etcd}",
        f"--advertise-client-urls={layout.etcd}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=lab={peer}",
        f"--cert-file={pki / 'etcd.crt'}",
        f"--key-file={pki / 'etcd.key'}",
        "--client-cert-auth",
        f"--trusted-ca-file={pki / 'etcd-ca.crt'}",
        "--unsafe-no-fsync",
        "--log-level=warn",
        "--heartbeat-interval=500",
        "--election-timeout=2500",
    ]


def apiserver_flags(layout: Layout) -> list[str]:
    """The API server, on the loopback only."""
    pki = layout.pki
    return [
        f"--etcd-servers={layout.etcd}",
        f"--etcd-cafile={pki / 'etcd-ca.crt'}",
        f"--etcd-certfile={pki / 'etcd-client.crt'}",
        f"--etcd-keyfile={pki / 'etcd-client.key'}",
        "--etcd-compaction-interval=0",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        # It would publish the loopback address as an endpoint, which Kubernetes itself refuses.
        "--endpoint-reconciler-type=none",
        f"--secure-port={layout.api_port}",
        f"--tls-cert-file={pki / 'apiserver.crt'}",
        f"--tls-private-key-file={pki / 'apiserver.key'}",
        f"--client-ca-file={pki / 'ca.crt'}",
        f"--service-account-issuer={SERVICE_ACCOUNT_ISSUER}",
        f"--service-account-key-file={pki / 'service-account.pub'}",
        f"--service-account-signing-key-file={pki / 'service-account.key'}",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        "--profiling=false",
        *_aggregation_flags(pki),
        *_kubelet_flags(pki),
    ]


def _aggregation_flags(pki: Path) -> list[str]:
    """Without kube-proxy a service's address leads nowhere: route to its endpoints."""
    return [
        f"--requestheader-client-ca-file={pki / 'front-proxy-ca.crt'}",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        f"--proxy-client-cert-file={pki / 'front-proxy-client.crt'}",
        f"--proxy-client-key-file={pki / 'front-proxy-client.key'}",
        "--enable-aggregator-routing=true",
    ]


def _kubelet_flags(pki: Path) -> list[str]:
    return [
        f"--kubelet-certificate-authority={pki / 'ca.crt'}",
        f"--kubelet-client-certificate={pki / 'kubelet-client.crt'}",
        f"--kubelet-client-key={pki / 'kubelet-client.key'}",
        "--kubelet-preferred-address-types=InternalIP",
    ]


def controller_manager_flags(layout: Layout) -> list[str]:
    """All controllers, without a port of their own and without a leader election to wait for."""
    pki, kubeconfig = layout.pki, layout.folder / "controller-manager.kubeconfig"
    return [
        f"--kubeconfig={kubeconfig}",
        "--secure-port=0",
        "--leader-elect=false",
        "--use-service-account-credentials=true",
        f"--root-ca-file={pki / 'ca.crt'}",
        f"--service-account-private-key-file={pki / 'service-account.key'}",
        f"--cluster-signing-cert-file={pki / 'ca.crt'}",
        f"--cluster-signing-key-file={pki / 'ca.key'}",
    ]


def scheduler_flags(layout: Layout) -> list[str]:
    """The scheduler, without a port of its own and without a leader election to wait for."""
    return [
        f"--kubeconfig={layout.folder / 'scheduler.kubeconfig'}",
        "--secure-port=0",
        "--leader-elect=false",
    ]
