"""Which resource types a simulated cluster serves: a table of the built-in ones, and CRDs at run time."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from .status import Json

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")

# group/version, plural, kind, scope, short names, subresources, verbs where they are not all
_BUILTIN = """
v1 namespaces Namespace cluster ns status,finalize
v1 pods Pod ns po status,log,exec,ephemeralcontainers,eviction
v1 services Service ns svc status
v1 configmaps ConfigMap ns cm -
v1 secrets Secret ns - -
v1 serviceaccounts ServiceAccount ns sa -
v1 nodes Node cluster no status
v1 events Event ns ev -
v1 endpoints Endpoints ns ep -
v1 persistentvolumes PersistentVolume cluster pv status
v1 persistentvolumeclaims PersistentVolumeClaim ns pvc status
v1 resourcequotas ResourceQuota ns quota status
v1 limitranges LimitRange ns limits -
v1 replicationcontrollers ReplicationController ns rc status,scale
v1 podtemplates PodTemplate ns - -
apps/v1 deployments Deployment ns deploy status,scale
apps/v1 replicasets ReplicaSet ns rs status,scale
apps/v1 statefulsets StatefulSet ns sts status,scale
apps/v1 daemonsets DaemonSet ns ds status
apps/v1 controllerrevisions ControllerRevision ns - -
batch/v1 jobs Job ns - status
batch/v1 cronjobs CronJob ns cj status
autoscaling/v2 horizontalpodautoscalers HorizontalPodAutoscaler ns hpa status
networking.k8s.io/v1 ingresses Ingress ns ing status
networking.k8s.io/v1 networkpolicies NetworkPolicy ns netpol -
networking.k8s.io/v1 ingressclasses IngressClass cluster - -
policy/v1 poddisruptionbudgets PodDisruptionBudget ns pdb status
rbac.authorization.k8s.io/v1 roles Role ns - -
rbac.authorization.k8s.io/v1 rolebindings RoleBinding ns - -
rbac.authorization.k8s.io/v1 clusterroles ClusterRole cluster - -
rbac.authorization.k8s.io/v1 clusterrolebindings ClusterRoleBinding cluster - -
storage.k8s.io/v1 storageclasses StorageClass cluster sc -
coordination.k8s.io/v1 leases Lease ns - -
discovery.k8s.io/v1 endpointslices EndpointSlice ns - -
scheduling.k8s.io/v1 priorityclasses PriorityClass cluster pc -
apiextensions.k8s.io/v1 customresourcedefinitions CustomResourceDefinition cluster crd,crds status
apiregistration.k8s.io/v1 apiservices APIService cluster - status
authorization.k8s.io/v1 selfsubjectaccessreviews SelfSubjectAccessReview cluster - - create
authorization.k8s.io/v1 selfsubjectrulesreviews SelfSubjectRulesReview cluster - - create
authentication.k8s.io/v1 selfsubjectreviews SelfSubjectReview cluster - - create
metrics.k8s.io/v1beta1 nodes NodeMetrics cluster - - get,list
metrics.k8s.io/v1beta1 pods PodMetrics ns - - get,list
"""

_IN_ALL = {
    *("pods", "services", "deployments", "replicasets", "statefulsets", "daemonsets", "jobs", "cronjobs"),
    *("horizontalpodautoscalers", "replicationcontrollers"),
}
_GENERATIONS = {"apps", "batch", "networking.k8s.io", "policy", "apiextensions.k8s.io", "scheduling.k8s.io"}


@dataclass(frozen=True, slots=True)
class ResourceType:
    """One served version of a type. `key` names its storage, which all its versions share."""

    group: str
    version: str
    plural: str
    kind: str
    singular: str
    namespaced: bool
    short_names: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ALL_VERBS
    categories: tuple[str, ...] = ()
    list_kind: str = ""
    storage_version: str = ""
    custom: Json | None = None  # the version's entry in its CRD: schema, printer columns, scale paths

    @property
    def key(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def stored_api_version(self) -> str:
        return f"{self.group}/{self.storage_version}" if self.storage_version else self.api_version

    @property
    def storage_hash(self) -> str:
        """Equal for the versions of one type, as a real server's `storageVersionHash` is."""
        digest = hashlib.sha256(f"{self.stored_api_version}/{self.kind}".encode()).digest()
        return base64.b64encode(digest[:8]).decode()

    @property
    def has_generation(self) -> bool:
        """Whether the API server counts `metadata.generation` for objects of this type."""
        return self.custom is not None or self.group in _GENERATIONS or self.kind == "Pod"

    @property
    def header(self) -> bytes:
        """What every stored object of this type starts with: built-in types say their kind first, as a real server."""
        if self.custom is None:
            return f'{{"kind":"{self.kind}","apiVersion":"{self.stored_api_version}",'.encode()
        return f'{{"apiVersion":"{self.stored_api_version}","kind":"{self.kind}",'.encode()

    @property
    def stored(self) -> bool:
        """False for reviews and metrics, which are answered without a store."""
        return "delete" in self.verbs


def _builtin() -> Iterator[ResourceType]:
    for line in _BUILTIN.split("\n"):
        if not line:
            continue
        api_version, plural, kind, scope, short, subresources, *verbs = line.split()
        group, _, version = api_version.rpartition("/")
        yield ResourceType(
            group=group,
            version=version,
            plural=plural,
            kind=kind,
            singular=kind.lower(),
            namespaced=scope == "ns",
            short_names=tuple(short.split(",")) if short != "-" else (),
            subresources=tuple(subresources.split(",")) if subresources != "-" else (),
            verbs=tuple(verbs[0].split(",")) if verbs else ALL_VERBS,
            categories=("all",) if plural in _IN_ALL and group != "metrics.k8s.io" else (),
            list_kind=f"{kind}List",
        )


BUILTIN_TYPES = tuple(_builtin())


class ResourceTypes:
    """The types of one cluster, in discovery order."""

    def __init__(self) -> None:
        self._types: dict[tuple[str, str, str], ResourceType] = {}
        for resource_type in BUILTIN_TYPES:
            self._add(resource_type)

    def _add(self, resource_type: ResourceType) -> None:
        self._types[resource_type.group, resource_type.version, resource_type.plural] = resource_type

    def get(self, group: str, version: str, plural: str) -> ResourceType | None:
        return self._types.get((group, version, plural))

    def named(self, key: str) -> ResourceType:
        """The first served version of `pods` or `deployments.apps`; KeyError when there is none."""
        for resource_type in self._types.values():
            if resource_type.key == key:
                return resource_type
        raise KeyError(key)

    def all(self) -> list[ResourceType]:
        return list(self._types.values())

    def groups(self) -> dict[str, list[str]]:
        """Group -> its versions, the preferred first; the core group is ""."""
        groups: dict[str, list[str]] = {}
        for group, version, _ in self._types:
            versions = groups.setdefault(group, [])
            if version not in versions:
                versions.append(version)
        return groups

    def add_definition(self, crd: Json) -> None:
        """Serves every served version of a CustomResourceDefinition (again, when it was served before)."""
        self.remove_definition(crd)
        for resource_type in custom_types(crd):
            self._add(resource_type)

    def remove_definition(self, crd: Json) -> None:
        group, plural = crd["spec"]["group"], crd["spec"]["names"]["plural"]
        for key in [key for key in self._types if key[0] == group and key[2] == plural]:
            del self._types[key]


def _version_rank(version: Json) -> tuple[bool, str]:
    # Stable before beta and alpha; v2 before v1: enough of the real rule for believable preferences.
    name = version["name"]
    stable = "alpha" not in name and "beta" not in name
    return stable, name


def custom_types(crd: Json) -> list[ResourceType]:
    spec: dict[str, Any] = crd["spec"]
    names = spec["names"]
    storage = next((version["name"] for version in spec["versions"] if version.get("storage")), "")
    base = ResourceType(
        group=spec["group"],
        version="",
        plural=names["plural"],
        kind=names["kind"],
        singular=names.get("singular", names["kind"].lower()),
        namespaced=spec.get("scope") == "Namespaced",
        short_names=tuple(names.get("shortNames", ())),
        categories=tuple(names.get("categories", ())),
        list_kind=names.get("listKind", f"{names['kind']}List"),
        storage_version=storage,
    )
    return [
        replace(
            base,
            version=version["name"],
            subresources=tuple(version.get("subresources", {})),
            custom=version,
        )
        for version in sorted(spec["versions"], key=_version_rank, reverse=True)
        if version.get("served")
    ]
