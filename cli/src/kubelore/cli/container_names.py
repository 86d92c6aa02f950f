"""How a container is named on the command line: by its id, or as kubectl does, by a pod and options."""

from __future__ import annotations

from typing import Annotated

import typer

from kubelore.cli.completing import complete_clusters
from kubelore.cli.connection import Api
from kubelore.common.contracts.containers import ContainerId
from kubelore.common.errors import BadRequest

ContainerName = Annotated[
    str, typer.Option("--container", "-c", help="Container; the pod's default when not given.")
]
OneCluster = Annotated[
    str,
    typer.Option(
        "--cluster", help="Cluster; not needed where there is one.", autocompletion=complete_clusters
    ),
]
OneNamespace = Annotated[str, typer.Option("--namespace", "-n", help="Namespace.")]


def container_id(api: Api, word: str, cluster: str, namespace: str, container: str) -> ContainerId:
    """The container that `word` means: `cluster:namespace:pod[:container]`, `namespace/pod`, `pod/NAME` or a pod.

    Raises BadRequest for what is none, and where several clusters could be meant.
    """
    if ":" in word:
        found = ContainerId.parse(word)
        return ContainerId(found.cluster, found.namespace, found.pod, container or found.container)
    place, slash, name = word.partition("/")
    if not slash:
        place, name = namespace, word
    elif place in ("pod", "pods", "po"):
        place = namespace
    return ContainerId(cluster or only_cluster(api), place or "default", name, container).checked()


def only_cluster(api: Api) -> str:
    """The cluster that is meant when none is named. Raises BadRequest unless there is exactly one."""
    names = [one["name"] for one in api.get("/api/k8s/clusters/list", limit=20)["items"]]
    if len(names) != 1:
        shown = ", ".join(names) if names else "there is none"
        raise BadRequest("which cluster is meant?", remedy=f"Say it with --cluster ({shown}).")
    return names[0]
