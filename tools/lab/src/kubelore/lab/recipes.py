"""Which programs the lab is made of, and in which versions.

Everything is built from Go modules, for the module proxy is the one source that every machine with Go has.
A recipe's key names its folder in the cache: raise `revision` when the way of building changes.
"""

from dataclasses import dataclass

KUBERNETES_VERSION = "v1.34.4"
# Kubernetes publishes its staging modules as v0.<minor>.<patch>; its own go.mod says v0.0.0 and a folder.
STAGING_VERSION = "v0.34.4"
ETCD_VERSION = "v3.6.16"


@dataclass(frozen=True)
class Recipe:
    """One Go module and the commands of it that the lab runs.

    `packages` maps a program's name to its import path; `minutes` is what the build takes on two cores and
    is only told to the person who waits; `ldflags` are the version variables that the project's own release
    scripts set (without them Kubernetes says that it is v0.0.0-master, and clients behave differently).
    `source` names a folder of this package with the program's Go files, for a program of the lab's own.
    """

    name: str
    module: str
    version: str
    packages: dict[str, str]
    minutes: int
    ldflags: tuple[str, ...] = ()
    staging_version: str | None = None
    source: str | None = None
    revision: int = 1

    @property
    def key(self) -> str:
        return f"{self.name}-{self.version}-r{self.revision}"


def _kubernetes_ldflags() -> tuple[str, ...]:
    major, minor, _ = KUBERNETES_VERSION.removeprefix("v").split(".")
    values = {
        "gitVersion": KUBERNETES_VERSION,
        "gitMajor": major,
        "gitMinor": minor,
        "gitTreeState": "clean",
    }
    return tuple(
        f"-X {package}.{key}={value}"
        for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
        for key, value in values.items()
    )


KUBERNETES = Recipe(
    name="kubernetes",
    module="k8s.io/kubernetes",
    version=KUBERNETES_VERSION,
    packages={
        name: f"k8s.io/kubernetes/cmd/{name}"
        for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet")
    },
    minutes=10,
    ldflags=_kubernetes_ldflags(),
    staging_version=STAGING_VERSION,
)
ETCD = Recipe(
    name="etcd",
    module="go.etcd.io/etcd/server/v3",
    version=ETCD_VERSION,
    packages={"etcd": "go.etcd.io/etcd/server/v3"},
    minutes=1,
)
METRICS_SERVER = Recipe(
    name="metrics-server",
    module="sigs.k8s.io/metrics-server",
    version="v0.9.0",
    packages={"metrics-server": "sigs.k8s.io/metrics-server/cmd/metrics-server"},
    minutes=2,
)
MINIO = Recipe(
    name="minio",
    module="github.com/minio/minio",
    version="v0.0.0-20260212201848-7aac2a2c5b7c",
    packages={"minio": "github.com/minio/minio"},
    minutes=4,
)

STERN = Recipe(
    name="stern",
    module="github.com/stern/stern",
    version="v1.33.1",
    packages={"stern": "github.com/stern/stern"},
    minutes=3,
)

# The lab's own: its source lies in this package, and it requires nothing.
IDLE = Recipe(
    name="idle",
    module="kubelore.lab/idle",
    version="v1",
    packages={"idle": "."},
    minutes=1,
    source="idle",
)

CONTROL_PLANE = (ETCD, KUBERNETES)
NODE = (*CONTROL_PLANE, METRICS_SERVER, IDLE)
ALL = (*NODE, MINIO, STERN)
