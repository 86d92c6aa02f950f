"""What a restore knows of Kubernetes, as data: in which order, what is left out, what of an object cannot go along.

Each rule has a name, which stands in the results, and says why. Types are globs
over canonical names (`deployments.apps`). A path is the names of fields: `*` is
every element of a list or member of a map, `[name=kube-*]` the elements of a list
whose member matches, and any other name may be a glob.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

Path: TypeAlias = tuple[str, ...]

CRDS = "customresourcedefinitions.apiextensions.k8s.io"
NAMESPACES = "namespaces"
SECRETS = "secrets"

ORDER: tuple[tuple[str, ...], ...] = (
    (CRDS,),
    (NAMESPACES,),
    (
        "*classes.*",
        "csidrivers.storage.k8s.io",
        "csistoragecapacities.storage.k8s.io",
        "flowschemas.flowcontrol.apiserver.k8s.io",
        "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io",
        "servicecidrs.networking.k8s.io",
    ),
    ("serviceaccounts",),
    (SECRETS,),
    ("configmaps",),
    ("persistentvolumes",),
    ("persistentvolumeclaims",),
    ("roles.rbac.authorization.k8s.io", "clusterroles.rbac.authorization.k8s.io"),
    ("rolebindings.rbac.authorization.k8s.io", "clusterrolebindings.rbac.authorization.k8s.io"),
    ("services",),
    (
        "endpoints",
        "endpointslices.discovery.k8s.io",
        "networkpolicies.networking.k8s.io",
        "poddisruptionbudgets.policy",
    ),
    (
        "deployments.apps",
        "statefulsets.apps",
        "daemonsets.apps",
        "replicasets.apps",
        "replicationcontrollers",
        "controllerrevisions.apps",
        "podtemplates",
        "jobs.batch",
        "cronjobs.batch",
    ),
    ("pods",),
    ("ingresses.networking.k8s.io", "horizontalpodautoscalers.autoscaling"),
    ("*",),
    ("resourcequotas", "limitranges"),
    (
        "*webhookconfigurations.admissionregistration.k8s.io",
        "*admissionpolicies.admissionregistration.k8s.io",
        "*admissionpolicybindings.admissionregistration.k8s.io",
        "apiservices.apiregistration.k8s.io",
    ),
)
"""Types in the order in which they are made; an entry begins when the one before is done, the first that matches counts.

`*` is whatever is served by CRDs. Quotas come late, since those of a new
namespace refuse what stood beside them while their use is not yet counted;
what judges other writes comes last, since what it needs to answer must be there.
"""


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """Objects that are not restored. All that is given must match: globs over namespace and name, values at paths.

    `present` are paths at which anything stands, `absent` ones at which nothing does.
    """

    rule: str
    why: str
    types: tuple[str, ...] = ("*",)
    namespaces: tuple[str, ...] = ("*",)
    names: tuple[str, ...] = ("*",)
    equal: tuple[tuple[Path, Any], ...] = ()
    present: tuple[Path, ...] = ()
    absent: tuple[Path, ...] = ()


_SYSTEM = ("default", "kube-system", "kube-public", "kube-node-lease")
_LABELS = ("metadata", "labels")
_ANNOTATIONS = ("metadata", "annotations")

LEFT_OUT: tuple[LeftOut, ...] = (
    LeftOut(
        rule="being-deleted",
        why="it was being deleted when the backup was made",
        present=(("metadata", "deletionTimestamp"),),
    ),
    LeftOut(
        rule="made-by-the-cluster",
        why="every cluster makes this namespace itself",
        types=(NAMESPACES,),
        names=_SYSTEM,
    ),
    LeftOut(
        rule="state-of-the-cluster",
        why="it describes the cluster that was backed up, not what somebody asked for",
        types=(
            "nodes",
            "events",
            "events.events.k8s.io",
            "leases.coordination.k8s.io",
            "leasecandidates.coordination.k8s.io",
            "componentstatuses",
            "csinodes.storage.k8s.io",
            "volumeattachments.storage.k8s.io",
            "ipaddresses.networking.k8s.io",
            "certificatesigningrequests.certificates.k8s.io",
            "storageversions.internal.apiserver.k8s.io",
            "*.metrics.k8s.io",
        ),
    ),
    LeftOut(
        rule="default-service-account",
        why="every namespace gets its ServiceAccount `default` from the cluster",
        types=("serviceaccounts",),
        names=("default",),
    ),
    LeftOut(
        rule="ca-of-the-cluster",
        why="every namespace gets the certificate authority of its own cluster",
        types=("configmaps",),
        names=("kube-root-ca.crt", "openshift-service-ca.crt"),
    ),
    LeftOut(
        rule="authentication-of-the-cluster",
        why="the API server writes its own certificate authorities and state here",
        types=("configmaps",),
        namespaces=("kube-system",),
        names=("extension-apiserver-authentication", "kube-apiserver-legacy-service-account-token-tracking"),
    ),
    LeftOut(
        rule="service-account-token",
        why="a token of another cluster's ServiceAccount is good for nothing; the cluster makes a new one",
        types=(SECRETS,),
        equal=((("type",), "kubernetes.io/service-account-token"),),
    ),
    LeftOut(
        rule="api-server-service",
        why="the API server makes its own Service and keeps its addresses",
        types=("services", "endpoints", "endpointslices.discovery.k8s.io"),
        namespaces=("default",),
        names=("kubernetes",),
    ),
    LeftOut(
        rule="bootstrap-rbac",
        why="the API server makes and updates its default roles and bindings itself",
        types=("*.rbac.authorization.k8s.io",),
        equal=(((*_LABELS, "kubernetes.io/bootstrapping"), "rbac-defaults"),),
    ),
    LeftOut(
        rule="bootstrap-flow-control",
        why="the API server makes and updates its default flow control itself",
        types=("*.flowcontrol.apiserver.k8s.io",),
        equal=(((*_ANNOTATIONS, "apf.kubernetes.io/autoupdate-spec"), "true"),),
    ),
    LeftOut(
        rule="system-priority",
        why="the API server makes these itself",
        types=("priorityclasses.scheduling.k8s.io",),
        names=("system-*",),
    ),
    LeftOut(
        rule="service-cidr",
        why="the API server makes the one of its own network",
        types=("servicecidrs.networking.k8s.io",),
        names=("kubernetes",),
    ),
    LeftOut(
        rule="built-in-api",
        why="the API server registers what it serves itself",
        types=("apiservices.apiregistration.k8s.io",),
        absent=(("spec", "service"),),
    ),
    LeftOut(
        rule="mirror-pod",
        why="it shows a static pod of a node, which the kubelet makes",
        types=("pods",),
        present=((*_ANNOTATIONS, "kubernetes.io/config.mirror"),),
    ),
    LeftOut(
        rule="service-endpoints",
        why="the control plane fills it from the Service's pods",
        types=("endpointslices.discovery.k8s.io",),
        present=((*_LABELS, "endpointslice.kubernetes.io/managed-by"),),
    ),
    LeftOut(
        rule="service-endpoints",
        why="the control plane fills it from the Service's pods",
        types=("endpoints",),
        present=((*_ANNOTATIONS, "endpoints.kubernetes.io/last-change-trigger-time"),),
    ),
    LeftOut(
        rule="provisioned-volume",
        why="a provisioner made it for a claim, and makes a new one; a backup holds no volume's data",
        types=("persistentvolumes",),
        present=((*_ANNOTATIONS, "pv.kubernetes.io/provisioned-by"),),
    ),
    LeftOut(
        rule="finished-job",
        why="it had ended; made again it would run again",
        types=("jobs.batch",),
        present=(("status", "completionTime"),),
    ),
    *(
        LeftOut(
            rule="finished-pod",
            why="it had ended; made again it would run again",
            types=("pods",),
            equal=((("status", "phase"), phase),),
        )
        for phase in ("Succeeded", "Failed")
    ),
)


class Cut(msgspec.Struct, frozen=True, kw_only=True):
    """Fields that are not taken along; a value in `keep` stays. `told` rules stand in the results."""

    rule: str
    why: str
    paths: tuple[Path, ...]
    types: tuple[str, ...] = ("*",)
    keep: tuple[Any, ...] = ()
    when: tuple[Path, ...] = ()
    """Only where something stands at each of these."""
    unless: tuple[tuple[Path, Any], ...] = ()
    told: bool = True


_TEMPLATE_LABELS = ("spec", "template", "metadata", "labels")

CUTS: tuple[Cut, ...] = (
    Cut(
        rule="server-fields",
        why="the API server writes these itself",
        paths=(
            ("metadata", "uid"),
            ("metadata", "resourceVersion"),
            ("metadata", "generation"),
            ("metadata", "creationTimestamp"),
            ("metadata", "deletionTimestamp"),
            ("metadata", "deletionGracePeriodSeconds"),
            ("metadata", "selfLink"),
            ("metadata", "managedFields"),
            ("status",),
        ),
        told=False,
    ),
    Cut(
        rule="generated-name",
        why="the name is known already",
        paths=(("metadata", "generateName"),),
        told=False,
    ),
    Cut(
        rule="cluster-ip",
        why="addresses come from the network of the cluster that it is restored into",
        types=("services",),
        paths=(("spec", "clusterIP"), ("spec", "clusterIPs")),
        keep=("", "None", ["None"]),
    ),
    Cut(
        rule="node-port",
        why="ports of nodes are given out by the cluster, and may be taken",
        types=("services",),
        paths=(("spec", "ports", "*", "nodePort"), ("spec", "healthCheckNodePort")),
        keep=(0,),
    ),
    Cut(
        rule="pod-placement",
        why="the scheduler chooses a node of this cluster, and admission the priority",
        types=("pods",),
        paths=(
            ("spec", "nodeName"),
            ("spec", "priority"),
            ("spec", "preemptionPolicy"),
            ("spec", "ephemeralContainers"),
        ),
    ),
    Cut(
        rule="injected-token",
        why="the ServiceAccount's token is put into the pod by the cluster",
        types=("pods",),
        paths=(
            ("spec", "volumes", "[name=kube-api-access-*]"),
            ("spec", "containers", "*", "volumeMounts", "[name=kube-api-access-*]"),
            ("spec", "initContainers", "*", "volumeMounts", "[name=kube-api-access-*]"),
        ),
    ),
    Cut(
        rule="provisioned-claim",
        why="its volume was provisioned for it, and is provisioned anew, empty",
        types=("persistentvolumeclaims",),
        when=((*_ANNOTATIONS, "volume.kubernetes.io/storage-provisioner"),),
        paths=(("spec", "volumeName"),),
    ),
    Cut(
        rule="binding",
        why="claims and volumes are bound anew",
        types=("persistentvolumeclaims", "persistentvolumes"),
        paths=(
            (*_ANNOTATIONS, "pv.kubernetes.io/bind-completed"),
            (*_ANNOTATIONS, "pv.kubernetes.io/bound-by-controller"),
            (*_ANNOTATIONS, "volume.kubernetes.io/storage-provisioner"),
            (*_ANNOTATIONS, "volume.beta.kubernetes.io/storage-provisioner"),
            (*_ANNOTATIONS, "volume.kubernetes.io/selected-node"),
            ("spec", "claimRef", "uid"),
            ("spec", "claimRef", "resourceVersion"),
        ),
    ),
    Cut(
        rule="generated-secrets",
        why="they name tokens of another cluster",
        types=("serviceaccounts",),
        paths=(("secrets",),),
    ),
    Cut(
        rule="job-selector",
        why="a Job's selector holds the uid that it had",
        types=("jobs.batch",),
        unless=((("spec", "manualSelector"), True),),
        paths=(
            ("spec", "selector"),
            (*_LABELS, "controller-uid"),
            (*_LABELS, "batch.kubernetes.io/controller-uid"),
            (*_TEMPLATE_LABELS, "controller-uid"),
            (*_TEMPLATE_LABELS, "batch.kubernetes.io/controller-uid"),
        ),
    ),
    Cut(
        rule="rollout-revision",
        why="the controller counts its revisions anew",
        types=("deployments.apps", "replicasets.apps"),
        paths=((*_ANNOTATIONS, "deployment.kubernetes.io/*"),),
        told=False,
    ),
    Cut(
        rule="daemonset-generation",
        why="the controller counts its revisions anew",
        types=("daemonsets.apps",),
        paths=((*_ANNOTATIONS, "deprecated.daemonset.template.generation"),),
        told=False,
    ),
)

CONTROLLED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("replicasets.apps", ("Deployment",)),
    ("controllerrevisions.apps", ("StatefulSet", "DaemonSet")),
    ("jobs.batch", ("CronJob",)),
    ("pods", ("ReplicaSet", "StatefulSet", "DaemonSet", "Job", "ReplicationController", "Node")),
    ("endpointslices.discovery.k8s.io", ("Service", "Endpoints")),
)
"""What Kubernetes' own controllers make from an owner, by type and the owner's kind.

What an operator's resource owns is not here: a Secret with a generated password
would be another one if the operator made it again (decision 0093).
"""
MADE_BY_CONTROLLER = "made-by-controller"
OWNER_MISSING = "owner-missing"

KEPT_AS_IS: tuple[str, ...] = ("persistentvolumeclaims", "persistentvolumes", "pods", "jobs.batch")
"""What `update` leaves alone where it exists: hardly a field of it can change, and none that matters."""

NAMESPACE_REFERENCES: tuple[tuple[tuple[str, ...], tuple[Path, ...]], ...] = (
    (
        ("rolebindings.rbac.authorization.k8s.io", "clusterrolebindings.rbac.authorization.k8s.io"),
        (("subjects", "*", "namespace"),),
    ),
    (
        ("*webhookconfigurations.admissionregistration.k8s.io",),
        (
            ("webhooks", "*", "clientConfig", "service", "namespace"),
            ("webhooks", "*", "namespaceSelector", "matchLabels", "kubernetes.io/metadata.name"),
            (
                "webhooks",
                "*",
                "namespaceSelector",
                "matchExpressions",
                "[key=kubernetes.io/metadata.name]",
                "values",
                "*",
            ),
        ),
    ),
    (
        ("*admissionpolicybindings.admissionregistration.k8s.io",),
        (
            ("spec", "paramRef", "namespace"),
            ("spec", "matchResources", "namespaceSelector", "matchLabels", "kubernetes.io/metadata.name"),
        ),
    ),
    ((CRDS,), (("spec", "conversion", "webhook", "clientConfig", "service", "namespace"),)),
    (("apiservices.apiregistration.k8s.io",), (("spec", "service", "namespace"),)),
    (
        ("persistentvolumes",),
        (
            ("spec", "claimRef", "namespace"),
            ("spec", "csi", "*SecretRef", "namespace"),
            ("spec", "*", "secretRef", "namespace"),
        ),
    ),
    (("persistentvolumeclaims",), (("spec", "dataSourceRef", "namespace"),)),
    (
        ("networkpolicies.networking.k8s.io",),
        tuple(
            ("spec", *rule, "*", "namespaceSelector", *named)
            for rule in (("ingress", "*", "from"), ("egress", "*", "to"))
            for named in (
                ("matchLabels", "kubernetes.io/metadata.name"),
                ("matchExpressions", "[key=kubernetes.io/metadata.name]", "values", "*"),
            )
        ),
    ),
    (
        (
            "pods",
            "deployments.apps",
            "statefulsets.apps",
            "daemonsets.apps",
            "replicasets.apps",
            "jobs.batch",
        ),
        tuple(
            (*template, "affinity", affinity, *term, "namespaces", "*")
            for template in (("spec",), ("spec", "template", "spec"))
            for affinity in ("podAffinity", "podAntiAffinity")
            for term in (
                ("requiredDuringSchedulingIgnoredDuringExecution", "*"),
                ("preferredDuringSchedulingIgnoredDuringExecution", "*", "podAffinityTerm"),
            )
        ),
    ),
    (
        ("*.gateway.networking.k8s.io",),
        (
            ("spec", "parentRefs", "*", "namespace"),
            ("spec", "rules", "*", "backendRefs", "*", "namespace"),
            ("spec", "from", "*", "namespace"),
        ),
    ),
)
"""Where types of Kubernetes name a namespace other than by lying in it. What else a custom resource names is not known."""

SUBJECTS: tuple[tuple[tuple[str, ...], Path], ...] = (
    (
        ("rolebindings.rbac.authorization.k8s.io", "clusterrolebindings.rbac.authorization.k8s.io"),
        ("subjects", "*", "name"),
    ),
)
"""Where `system:serviceaccount:<namespace>:<name>` and `system:serviceaccounts:<namespace>` may stand."""

NAMESPACE_LABEL: Path = (*_LABELS, "kubernetes.io/metadata.name")
"""On a Namespace itself, its own name."""

REASONS: dict[str, str] = {
    **{rule.rule: rule.why for rule in LEFT_OUT},
    **{rule.rule: rule.why for rule in CUTS},
    MADE_BY_CONTROLLER: "its controller, which is restored, makes it",
    OWNER_MISSING: "an owner that it named is not there; the reference was dropped",
    "secrets-right": "the values of Secrets need the right `secrets` on what was backed up",
    "same-place": "another object of the backup is restored to the same place",
    "kept-as-is": "it is there, and what of it differs cannot be changed",
    "namespace-to-come": "its namespace does not exist yet, so the API server was not asked",
    "type-to-come": "its CRD does not exist yet, so the API server was not asked",
    "cancelled": "the restore was cancelled before",
    "stopped": "the restore ended before",
}
"""Why, for every rule that stands in a result."""
