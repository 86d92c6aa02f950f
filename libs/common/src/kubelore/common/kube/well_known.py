"""Types that every cluster has, and the identity of a cluster that is read from one of them."""

from __future__ import annotations

from kubelore.common.errors import Forbidden
from kubelore.common.kube.client import KubeClient
from kubelore.common.kube.meta import decode_meta
from kubelore.common.kube.resource_type import NAMESPACES, NODES, PODS

__all__ = ["NAMESPACES", "NODES", "PODS", "cluster_uid"]


async def cluster_uid(client: KubeClient) -> str:
    """The uid of the kube-system namespace, which outlives every address and credential of a cluster.

    Empty when the credentials may not read it. Raises what `KubeClient.get` raises otherwise.
    """
    try:
        return decode_meta(await client.get(NAMESPACES, None, "kube-system")).uid
    except Forbidden:
        return ""
