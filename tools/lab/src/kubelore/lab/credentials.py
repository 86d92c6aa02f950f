"""The keys and certificates of one control plane, in its pki folder, with the names kubeadm gives them."""

from dataclasses import dataclass

from kubelore.lab import kubeconfig
from kubelore.lab.components import Layout
from kubelore.lab.pki import CertificateAuthority, Identity, new_signing_key, write_secret

_SERVER_NAMES = (
    "127.0.0.1",
    "::1",
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    # The first address of the service range.
    "10.96.0.1",
)


@dataclass(frozen=True)
class Authorities:
    """Who signs what: clients and servers of the cluster, etcd's own circle."""

    cluster: CertificateAuthority
    etcd: CertificateAuthority

    @property
    def cluster_certificate(self) -> bytes:
        return self.cluster.identity.certificate


def write_credentials(layout: Layout, name: str) -> Authorities:
    """Make all keys of a control plane and write them, with the kubeconfigs of its own programs."""
    pki = layout.pki
    pki.mkdir(mode=0o700, exist_ok=True)
    cluster = CertificateAuthority(f"{name}-ca")
    etcd = CertificateAuthority(f"{name}-etcd-ca")
    front_proxy = CertificateAuthority(f"{name}-front-proxy-ca")
    identities: dict[str, Identity] = {
        "ca": cluster.identity,
        "apiserver": cluster.server("kube-apiserver", _SERVER_NAMES),
        "admin": cluster.client("kubelore-lab", ("system:masters",)),
        "kubelet-client": cluster.client("kube-apiserver-kubelet-client", ("system:masters",)),
        "etcd-ca": etcd.identity,
        "etcd": etcd.server("etcd", ("127.0.0.1", "localhost")),
        "etcd-client": etcd.client("kube-apiserver-etcd-client"),
        "front-proxy-ca": front_proxy.identity,
        "front-proxy-client": front_proxy.client("front-proxy-client"),
    }
    for file_name, identity in identities.items():
        identity.write(pki, file_name)
    private, public = new_signing_key()
    write_secret(pki / "service-account.key", private)
    (pki / "service-account.pub").write_bytes(public)
    authorities = Authorities(cluster, etcd)
    for component in ("controller-manager", "scheduler"):
        user = f"system:kube-{component}"
        text = kubeconfig.with_certificate(
            name, layout.server, authorities.cluster_certificate, user, cluster.client(user)
        )
        write_secret(layout.folder / f"{component}.kubeconfig", text)
    return authorities
