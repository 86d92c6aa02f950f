"""What a cluster says of itself when it is met for the first time.

Its API server may be anybody's: what it says is bounded and checked here, and
its errors become those of whoever asked to add it. Credentials that it refuses
are a fault of the kubeconfig, never of the caller's own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from kubelore.cluster_registry.provider import detect_provider, detect_region
from kubelore.common.contracts.clusters import Provider
from kubelore.common.errors import (
    DeadlineExceeded,
    Forbidden,
    KubeconfigRefused,
    KubeloreError,
    NotFound,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
    UpstreamError,
)
from kubelore.common.kube import AddressPolicy, ClusterAccess, KubeClient
from kubelore.common.kube.well_known import NODES, cluster_uid
from kubelore.common.telemetry import outgoing

_SAMPLED_NODES = 20
_MAX_WORD = 100
"""Characters of a version, uid or region; longer ones are nothing that Kubernetes says."""


class Introduction(msgspec.Struct, frozen=True):
    """A cluster's own account. `uid` is empty when the credentials do not show kube-system."""

    version: str
    uid: str
    provider: Provider
    region: str


class _NodeSpec(msgspec.Struct):
    provider_id: str = msgspec.field(name="providerID", default="")


class _NodeMeta(msgspec.Struct):
    labels: dict[str, str] = {}


class _Node(msgspec.Struct):
    metadata: _NodeMeta
    spec: _NodeSpec = msgspec.field(default_factory=_NodeSpec)


async def meet(access: ClusterAccess, policy: AddressPolicy) -> Introduction:
    """Ask a cluster who it is.

    Raises KubeconfigRefused when it does not accept the credentials (`unauthenticated`,
    `forbidden`), Unavailable or DeadlineExceeded when it cannot be reached, and
    UpstreamError when what answers is no API server.
    """
    async with _told_of(access.server), KubeClient(access, policy, headers=outgoing) as client:
        version = (await client.version()).get("gitVersion")
        uid = await cluster_uid(client)
        nodes = await _sample_nodes(client)
    return Introduction(
        version=_word(version),
        uid=_word(uid),
        provider=detect_provider(access.server, nodes),
        region=detect_region(nodes)[:_MAX_WORD],
    )


@asynccontextmanager
async def _told_of(server: str) -> AsyncIterator[None]:
    try:
        yield
    except KubeconfigRefused:
        raise
    except (Unavailable, DeadlineExceeded, TooManyRequests) as error:
        raise type(error)(
            f"{server} cannot be reached: {error.detail}",
            remedy=error.remedy or "Check the address and the network between Kubelore and the cluster.",
        ) from error
    except (Unauthenticated, Forbidden) as error:
        raise KubeconfigRefused(
            f"{server} does not let these credentials in: {error.detail}",
            code="unauthenticated" if isinstance(error, Unauthenticated) else "forbidden",
            remedy="Renew the credentials, or bind a role to their user, and send the kubeconfig again.",
        ) from error
    except KubeloreError as error:
        raise UpstreamError(
            f"{server} does not answer as an API server does: {error.detail}",
            remedy="Check that the address in the kubeconfig is an API server's.",
        ) from error


def _word(said: object) -> str:
    if not isinstance(said, str) or len(said) > _MAX_WORD:
        raise UpstreamError("its version or identity is none that Kubernetes knows")
    return said


async def _sample_nodes(client: KubeClient) -> list[tuple[str, dict[str, str]]]:
    """(provider id, labels) of a few nodes; none where they may not be seen or do not exist."""
    try:
        page = await client.list(NODES, limit=_SAMPLED_NODES, timeout_s=client.transport.timeout_s)
    except (Forbidden, NotFound):
        return []
    try:
        nodes = [msgspec.json.decode(raw, type=_Node) for raw in page.items]
    except msgspec.MsgspecError as error:
        raise UpstreamError("its nodes are none that Kubernetes knows") from error
    return [(node.spec.provider_id, node.metadata.labels) for node in nodes]
