"""A service account for Kubelore, made with the user's own kubectl.

EKS, GKE and AKS kubeconfigs run a program to log in, which a server must not.
On the user's machine it may: so kubectl makes a service account there, binds
the chosen role to it, and takes a token for it, which Kubelore can then renew
by itself. kubectl is started with a list of arguments, never through a shell,
and the token goes through pipes only.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from kubelore.common.errors import Unavailable, UpstreamError

KUBECTL_S = 120.0
"""Longest wait for one kubectl: a plugin may ask the user to log in."""

ACCOUNT = "kubelore"
TOKEN_LIFE = "8760h"  # noqa: S105 - a duration
RENEWAL_ROLE = "kubelore-renews-its-token"
CLUSTER_READER = "kubelore-cluster-reader"
_RBAC = "rbac.authorization.k8s.io"


class Role(StrEnum):
    """The roles to choose from: Kubernetes' own user-facing ones."""

    VIEW = "view"
    EDIT = "edit"
    ADMIN = "cluster-admin"


@dataclass(frozen=True)
class Account:
    """The service account to make: where, with which role, and in which namespaces (all when empty)."""

    role: Role = Role.VIEW
    namespace: str = "kubelore-system"
    namespaces: tuple[str, ...] = ()


class Kubectl:
    """The user's kubectl, for one context of one kubeconfig, with the user's own environment."""

    def __init__(self, context: str, kubeconfig: Path | None = None) -> None:
        program = shutil.which("kubectl")
        if program is None:
            raise Unavailable(
                "kubectl is not on the PATH",
                remedy="Install it, or make a service account by hand and add the cluster with its token.",
            )
        self._argv = [program, f"--context={context}"]
        if kubeconfig is not None:
            self._argv.append(f"--kubeconfig={kubeconfig}")

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        """Run it; what it printed. Raises UpstreamError with its words, or Unavailable when it hangs."""
        try:
            done = subprocess.run(
                [*self._argv, *arguments],
                input=stdin,
                stdin=subprocess.DEVNULL if stdin is None else None,
                capture_output=True,
                text=True,
                timeout=KUBECTL_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise Unavailable(f"kubectl {arguments[0]} took longer than {KUBECTL_S:g} s") from error
        if done.returncode != 0:
            words = done.stderr.strip()[-1000:] or f"exit code {done.returncode}"
            raise UpstreamError(
                f"kubectl {arguments[0]} failed: {words}",
                remedy="Your own user must be allowed to make service accounts and bind the role.",
            )
        return done.stdout


def create(kubectl: Kubectl, account: Account) -> str:
    """Make the account, or bring it up to date; a kubeconfig with a fresh token of it."""
    wanted = {"apiVersion": "v1", "kind": "List", "items": list(manifests(account))}
    kubectl("apply", "-f", "-", stdin=json.dumps(wanted))
    if not account.namespaces:
        # What an earlier run granted beyond the role that is chosen now must not stay.
        others = [f"{ACCOUNT}-{role}" for role in Role if role != account.role]
        kubectl("delete", "clusterrolebinding", *others, "--ignore-not-found")
    token = kubectl(
        "create", "token", ACCOUNT, f"--namespace={account.namespace}", f"--duration={TOKEN_LIFE}"
    )
    cluster = _cluster_section(kubectl("config", "view", "--raw", "--flatten", "--minify", "-o", "json"))
    return _kubeconfig(cluster, token.strip())


def manifests(account: Account) -> Iterator[dict[str, Any]]:
    """The objects that make the account: in an order that works for the first time."""
    metadata = {"name": ACCOUNT, "namespace": account.namespace}
    yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": account.namespace}}
    yield {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}
    rule = {
        "apiGroups": [""],
        "resources": ["serviceaccounts/token"],
        "resourceNames": [ACCOUNT],
        "verbs": ["create"],
    }
    renewal = {"name": RENEWAL_ROLE, "namespace": account.namespace}
    yield {"apiVersion": f"{_RBAC}/v1", "kind": "Role", "metadata": renewal, "rules": [rule]}
    yield _binding("RoleBinding", renewal, "Role", RENEWAL_ROLE, account)
    bound = f"{ACCOUNT}-{account.role}"
    for namespace in account.namespaces:
        where = {"name": bound, "namespace": namespace}
        yield _binding("RoleBinding", where, "ClusterRole", account.role, account)
    if account.namespaces:
        return
    yield _binding("ClusterRoleBinding", {"name": bound}, "ClusterRole", account.role, account)
    if account.role != Role.ADMIN:
        yield from _cluster_reader(account)


def _cluster_reader(account: Account) -> Iterator[dict[str, Any]]:
    """What `view` and `edit` leave out of a cluster's own objects, read only: nodes, volumes, definitions, usage."""
    read = ["get", "list", "watch"]
    resources = (
        ("", ["nodes", "persistentvolumes", "namespaces"]),
        ("apiextensions.k8s.io", ["customresourcedefinitions"]),
        ("apiregistration.k8s.io", ["apiservices"]),
        ("storage.k8s.io", ["storageclasses", "volumeattachments", "csinodes", "csidrivers"]),
        ("scheduling.k8s.io", ["priorityclasses"]),
        ("networking.k8s.io", ["ingressclasses"]),
        ("metrics.k8s.io", ["nodes", "pods"]),
    )
    rules = [{"apiGroups": [group], "resources": names, "verbs": read} for group, names in resources]
    metadata = {"name": CLUSTER_READER}
    yield {"apiVersion": f"{_RBAC}/v1", "kind": "ClusterRole", "metadata": metadata, "rules": rules}
    yield _binding("ClusterRoleBinding", metadata, "ClusterRole", CLUSTER_READER, account)


def _binding(
    kind: str, metadata: dict[str, str], role_kind: str, role: str, account: Account
) -> dict[str, Any]:
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": kind,
        "metadata": metadata,
        "roleRef": {"apiGroup": _RBAC, "kind": role_kind, "name": str(role)},
        "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": account.namespace}],
    }


def _cluster_section(view: str) -> dict[str, Any]:
    """The cluster of a minified kubeconfig; raises UpstreamError when there is none."""
    try:
        clusters: Sequence[Any] = json.loads(view)["clusters"]
        return dict(clusters[0]["cluster"])
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise UpstreamError("kubectl config view shows no cluster for this context") from error


def _kubeconfig(cluster: dict[str, Any], token: str) -> str:
    from kubelore.common.kube.documents import dump

    return dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "cluster", "cluster": cluster}],
            "users": [{"name": ACCOUNT, "user": {"token": token}}],
            "contexts": [{"name": ACCOUNT, "context": {"cluster": "cluster", "user": ACCOUNT}}],
            "current-context": ACCOUNT,
        }
    )
