"""Onboarding, testing and removing clusters: the domain of cluster-registry."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import msgspec

from kubelore.cluster_registry.provider import detect_provider, detect_region
from kubelore.cluster_registry.repository import ClusterRepository
from kubelore.common.bus import Bus
from kubelore.common.contracts.clusters import (
    AddCluster,
    ClusterConnection,
    ClusterEvent,
    ClusterPage,
    ClusterRef,
    ConnectionTest,
    Credentials,
    Empty,
    Inspection,
    InspectKubeconfig,
    ListClusters,
    PublicKey,
    Removed,
    cluster_event_subject,
)
from kubelore.common.contracts.identity import check_cluster_name
from kubelore.common.crypto import Keyring
from kubelore.common.errors import AlreadyExists, Conflict, Forbidden, IntegrityError, Invalid, Unavailable
from kubelore.common.kube import (
    AddressPolicy,
    ClusterAccess,
    KubeClient,
    inspect_kubeconfig,
    read_kubeconfig,
)
from kubelore.common.kube.well_known import NODES, cluster_uid
from kubelore.common.telemetry import outgoing

_SAMPLED_NODES = 20


class _NodeSpec(msgspec.Struct):
    provider_id: str = msgspec.field(name="providerID", default="")


class _NodeMeta(msgspec.Struct):
    labels: dict[str, str] = {}


class _Node(msgspec.Struct):
    metadata: _NodeMeta
    spec: _NodeSpec = msgspec.field(default_factory=_NodeSpec)


class Registry:
    """What the bus endpoints call; every method is one use of the registry."""

    def __init__(
        self, repository: ClusterRepository, keyring: Keyring, policy: AddressPolicy, bus: Bus
    ) -> None:
        self._repository = repository
        self._keyring = keyring
        self._policy = policy
        self._bus = bus

    async def recipient(self, _: Empty) -> PublicKey:
        """The key to seal kubeconfigs to."""
        return PublicKey(self._keyring.recipient().public_key)

    async def inspect(self, request: InspectKubeconfig) -> Inspection:
        """Every context of a kubeconfig, and what would be refused; nothing is stored."""
        return inspect_kubeconfig(self._opened(request.sealed.kubeconfig, "inspect"), self._policy)

    async def add(self, request: AddCluster) -> ClusterConnection:
        """Onboard a cluster that can be reached now.

        Raises KubeconfigRefused, AlreadyExists (the name, or the very cluster
        under another name), Conflict (a former name with another identity),
        and Unavailable or Unauthenticated when the cluster does not let us in.
        """
        name = check_cluster_name(request.name)
        text = self._opened(request.sealed.kubeconfig, name)
        access = read_kubeconfig(text, request.sealed.context, self._policy)
        cluster = await self._meet(request, access)
        await self._check_former(request, cluster)
        await self._claim(request, cluster)
        sealed = self._keyring.seal(msgspec.msgpack.encode(access), context=f"cluster:{name}")
        try:
            await self._repository.insert(cluster, sealed)
        except AlreadyExists as error:
            if (await self._repository.get(name)).kube_system_uid != cluster.kube_system_uid:
                await self._repository.release_identity(cluster.kube_system_uid, name)
            raise AlreadyExists(
                f"a cluster named {name!r} exists already",
                remedy="Choose another name, or remove the other cluster first.",
            ) from error
        await self._announce(cluster, "added", request.actor)
        return cluster

    async def get(self, request: ClusterRef) -> ClusterConnection:
        """One cluster; raises NotFound."""
        return await self._repository.get(check_cluster_name(request.id))

    async def list(self, request: ListClusters) -> ClusterPage:
        """One page of clusters by name."""
        return await self._repository.page(request)

    async def remove(self, request: ClusterRef) -> Removed:
        """Forget a cluster's credentials and stop observing it; its history stays. Raises NotFound."""
        cluster = await self._repository.get(check_cluster_name(request.id))
        await self._repository.remember_former(cluster, iso_utc(time.time()))
        await self._repository.delete(cluster.name)
        if cluster.kube_system_uid:
            await self._repository.release_identity(cluster.kube_system_uid, cluster.name)
        await self._announce(cluster, "removed", request.actor)
        return Removed(cluster.id)

    async def test(self, request: ClusterRef) -> ConnectionTest:
        """Try the connection now, step by step; raises NotFound."""
        cluster, sealed = await self._repository.credentials(check_cluster_name(request.id))
        async with KubeClient(self.access(cluster, sealed), self._policy, headers=outgoing) as client:
            return await client.test(cluster.name)

    async def credentials(self, request: ClusterRef) -> Credentials:
        """The sealed credentials, for the services that hold the clusters keyring."""
        cluster, sealed = await self._repository.credentials(check_cluster_name(request.id))
        return Credentials(
            id=cluster.id,
            generation=cluster.generation,
            kube_system_uid=cluster.kube_system_uid,
            sealed=sealed,
        )

    def access(self, cluster: ClusterConnection, sealed: bytes) -> ClusterAccess:
        """Open sealed credentials in memory."""
        plain = self._keyring.open(sealed, context=f"cluster:{cluster.id}")
        return msgspec.msgpack.decode(plain, type=ClusterAccess)

    def _opened(self, box: bytes, purpose: str) -> str:
        try:
            return self._keyring.open_box(box, context=f"kubeconfig:{purpose}").decode()
        except IntegrityError as error:
            raise Invalid(
                "the kubeconfig was not sealed to this registry", remedy="Send it again."
            ) from error
        except UnicodeDecodeError as error:
            raise Invalid("the kubeconfig is not UTF-8 text") from error

    async def _meet(self, request: AddCluster, access: ClusterAccess) -> ClusterConnection:
        async with KubeClient(access, self._policy, headers=outgoing) as client:
            try:
                version = await client.version()
                uid = await cluster_uid(client)
                nodes = await _sample_nodes(client)
            except Unavailable as error:
                raise Unavailable(
                    f"{access.server} cannot be reached: {error.detail}",
                    remedy=error.remedy
                    or "Check the address and the network between Kubelore and the cluster.",
                ) from error
        now = iso_utc(time.time())
        return ClusterConnection(
            id=request.name,
            name=request.name,
            display_name=request.display_name or request.name,
            context=access.context,
            server=access.server,
            provider=request.provider or detect_provider(access.server, nodes),
            region=request.region or detect_region(nodes),
            version=str(version.get("gitVersion", "")),
            status="connected",
            health_status="healthy",
            created_by=request.actor,
            created_at=now,
            updated_at=now,
            tags=sorted(set(request.tags)),
            group=request.group,
            description=request.description,
            kube_system_uid=uid,
        )

    async def _check_former(self, request: AddCluster, cluster: ClusterConnection) -> None:
        former = await self._repository.former_uid(cluster.name)
        if former is None or former == cluster.kube_system_uid:
            return
        if not request.new_history:
            raise Conflict(
                f"{cluster.name!r} was the name of another cluster, whose history is kept",
                remedy="Choose another name, or send new_history: true to archive the old history.",
            )
        await self._repository.forget_former(cluster.name)

    async def _claim(self, request: AddCluster, cluster: ClusterConnection) -> None:
        if not cluster.kube_system_uid or request.allow_duplicate:
            return
        holder = await self._repository.claim_identity(cluster.kube_system_uid, cluster.name)
        if holder != cluster.name:
            raise AlreadyExists(
                f"this very cluster is onboarded already, as {holder!r}",
                remedy="Use that one, or send allow_duplicate: true.",
                existing=holder,
            )

    async def _announce(self, cluster: ClusterConnection, happened: str, actor: str) -> None:
        event = msgspec.convert(
            {
                "cluster": cluster.id,
                "happened": happened,
                "at": time.time(),
                "actor": actor,
                "generation": cluster.generation,
            },
            ClusterEvent,
        )
        await self._bus.publish_event(cluster_event_subject(event), event)


async def _sample_nodes(client: KubeClient) -> list[tuple[str, dict[str, str]]]:
    try:
        page = await client.list(NODES, limit=_SAMPLED_NODES)
    except Forbidden:
        return []
    nodes = [msgspec.json.decode(raw, type=_Node) for raw in page.items]
    return [(node.spec.provider_id, node.metadata.labels) for node in nodes]


def iso_utc(at: float) -> str:
    """Seconds since the epoch as ISO 8601 in UTC with milliseconds."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
