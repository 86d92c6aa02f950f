"""Onboarding, testing and removing clusters: the domain of cluster-registry."""

from __future__ import annotations

import asyncio
import time

import msgspec

from kubelore.cluster_registry.announcements import Announcements
from kubelore.cluster_registry.first_contact import Introduction, meet
from kubelore.cluster_registry.groups import Groups
from kubelore.cluster_registry.lifetimes import expiry_of, iso_utc, lifetime
from kubelore.cluster_registry.renewal import check_renewal
from kubelore.cluster_registry.repository import ClusterRepository
from kubelore.cluster_registry.vault import Vault
from kubelore.common.authz import Caller
from kubelore.common.callers import current_caller
from kubelore.common.contracts.clusters import (
    AddCluster,
    ClusterConnection,
    ClusterPage,
    ClusterRef,
    ConnectionTest,
    Credentials,
    Empty,
    Inspection,
    InspectKubeconfig,
    ListClusters,
    ListRoster,
    PublicKey,
    Removed,
)
from kubelore.common.contracts.identity import check_cluster_name, check_namespaces
from kubelore.common.errors import AlreadyExists, Conflict
from kubelore.common.kube import (
    AddressPolicy,
    ClusterAccess,
    KubeClient,
    inspect_kubeconfig,
    read_kubeconfig,
)
from kubelore.common.telemetry import outgoing


class Registry:
    """What the bus endpoints call; every method is one use of the registry."""

    def __init__(
        self,
        repository: ClusterRepository,
        vault: Vault,
        policy: AddressPolicy,
        announcements: Announcements,
        groups: Groups,
    ) -> None:
        self._repository = repository
        self._vault = vault
        self._policy = policy
        self._announcements = announcements
        self._groups = groups

    async def recipient(self, _: Empty) -> PublicKey:
        """The key to seal kubeconfigs to."""
        return PublicKey(self._vault.public_key())

    async def inspect(self, request: InspectKubeconfig) -> Inspection:
        """Every context of a kubeconfig, and what would be refused; nothing is stored."""
        text = self._vault.kubeconfig(request.sealed.kubeconfig, "inspect")
        return await asyncio.to_thread(inspect_kubeconfig, text, self._policy)

    async def add(self, request: AddCluster) -> ClusterConnection:
        """Onboard a cluster that can be reached now.

        Raises KubeconfigRefused, AlreadyExists (the name, or the very cluster
        under another name), Conflict (a former name with another identity),
        Unavailable and DeadlineExceeded when the cluster cannot be reached, and
        UpstreamError when it is none.
        """
        current_caller().check_admin("add clusters")
        name = check_cluster_name(request.name)
        namespaces = check_namespaces(request.namespaces)
        if await self._repository.exists(name):
            raise _name_taken(name)
        text = self._vault.kubeconfig(request.sealed.kubeconfig, name)
        # A large kubeconfig takes a second to read; the other requests need not wait for it.
        access = await asyncio.to_thread(read_kubeconfig, text, request.sealed.context, self._policy)
        introduction = await meet(access, self._policy)
        generation = await self._next_generation(request, introduction.uid)
        if request.renew_token:
            await check_renewal(access, self._policy)
        cluster = _introduced(request, access, introduction, generation)
        cluster.namespaces = namespaces
        cluster.group = await self._groups.join(cluster.group)
        await self._insert(cluster, access, exclusive=not request.allow_duplicate)
        await self._announcements.tell(cluster, "added")
        return cluster

    async def get(self, request: ClusterRef) -> ClusterConnection:
        """One cluster; raises NotFound."""
        caller = current_caller()
        caller.check_cluster(check_cluster_name(request.id))
        return _shown_to(caller, await self._repository.get(request.id))

    async def list(self, request: ListClusters) -> ClusterPage:
        """One page of the clusters that the caller sees, by name."""
        caller = current_caller()
        if caller.unrestricted:
            return await self._repository.page(request)
        visible = [name for name in await self._repository.names() if caller.sees(name)]
        page = await self._repository.page(request, among=visible)
        page.items = [_shown_to(caller, item) for item in page.items]
        return page

    async def roster(self, request: ListRoster) -> ClusterPage:
        """One page of all clusters by name, for the services."""
        return await self._repository.page(ListClusters(after=request.after))

    async def remove(self, request: ClusterRef) -> Removed:
        """Forget a cluster's credentials and stop observing it; its history stays.

        Raises NotFound, and Conflict when its credentials or namespaces change at that moment.

        The name is remembered before the cluster goes: dying in between leaves
        the cluster, and removing it again heals.
        """
        current_caller().check_whole_cluster(check_cluster_name(request.id), "remove", "admin")
        cluster = await self._repository.get(request.id)
        await self._repository.remember_former(cluster, iso_utc(time.time()))
        # Only as it was remembered: what got new credentials meanwhile has a generation that must not come again.
        await self._repository.delete(cluster)
        await self._announcements.tell(cluster, "removed")
        return Removed(cluster.id)

    async def test(self, request: ClusterRef) -> ConnectionTest:
        """Try the connection now, step by step; raises NotFound and Forbidden.

        It tells what Kubelore's credentials may do in every namespace, so it is for those who read them all.
        One that succeeds ends an outage at once: it is written, and told to whoever waits.
        """
        current_caller().check_whole_cluster(check_cluster_name(request.id), "test the connection of")
        cluster, sealed = await self._repository.credentials(request.id)
        access = self._vault.open(cluster.id, sealed)
        async with KubeClient(access, self._policy, headers=outgoing) as client:
            outcome = await client.test(cluster.name, cluster.namespaces)
        if outcome.ok and await self._repository.recovered(cluster):
            await self._announcements.tell(cluster, "connected", detail="a connection test succeeded")
        return outcome

    async def credentials(self, request: ClusterRef) -> Credentials:
        """The sealed credentials, for the services that hold the clusters keyring."""
        cluster, sealed = await self._repository.credentials(check_cluster_name(request.id))
        return Credentials(
            id=cluster.id,
            generation=cluster.generation,
            kube_system_uid=cluster.kube_system_uid,
            sealed=sealed,
            namespaces=cluster.namespaces,
        )

    async def _next_generation(self, request: AddCluster, uid: str) -> int:
        """A name's generations rise across removals too, so that nobody takes a new cluster for the old one."""
        former = await self._repository.former(request.name)
        if former is None:
            return 1
        if former.uid != uid and not request.new_history:
            raise Conflict(
                f"{request.name!r} was the name of another cluster, whose history is kept",
                remedy="Choose another name, or send new_history: true (--new-history) to archive the old history.",
            )
        return former.generation + 1

    async def _insert(self, cluster: ClusterConnection, access: ClusterAccess, *, exclusive: bool) -> None:
        uid = cluster.kube_system_uid
        exclusive = exclusive and bool(uid)
        # The index alone would let in a cluster that is onboarded only as an allowed duplicate.
        if exclusive and (holder := await self._repository.holder_of(uid)):
            raise _onboarded_as(holder)
        sealed = self._vault.seal(cluster.name, access)
        try:
            await self._repository.insert(cluster, sealed, lifetime(access), exclusive=exclusive)
        except AlreadyExists as error:
            if await self._repository.exists(cluster.name):
                raise _name_taken(cluster.name) from error
            raise _onboarded_as(await self._repository.holder_of(uid) or "") from error


def _introduced(
    request: AddCluster, access: ClusterAccess, introduction: Introduction, generation: int
) -> ClusterConnection:
    now = iso_utc(time.time())
    return ClusterConnection(
        id=request.name,
        name=request.name,
        display_name=request.display_name or request.name,
        context=access.context,
        server=access.server,
        provider=request.provider or introduction.provider,
        region=request.region or introduction.region,
        version=introduction.version,
        status="connected",
        health_status="healthy",
        created_by=current_caller().subject,
        created_at=now,
        updated_at=now,
        tags=sorted(set(request.tags)),
        group=request.group,
        description=request.description,
        credentials_expire_at=expiry_of(access),
        renews_token=request.renew_token,
        kube_system_uid=introduction.uid,
        generation=generation,
    )


def _shown_to(caller: Caller, cluster: ClusterConnection) -> ClusterConnection:
    """A cluster without what is not for the caller: figures of the whole of it, names of namespaces, and
    what its API server said."""
    granted = caller.namespaces(cluster.id)
    if granted.everything:
        return cluster
    return msgspec.structs.replace(
        cluster,
        status_detail=caller.told(cluster.id, cluster.status_detail),
        resource_count=None,
        namespaces=[name for name in cluster.namespaces if granted.matches(name)],
    )


def _name_taken(name: str) -> AlreadyExists:
    return AlreadyExists(
        f"a cluster named {name!r} exists already",
        remedy="Choose another name, or remove the other cluster first.",
    )


def _onboarded_as(holder: str) -> AlreadyExists:
    return AlreadyExists(
        f"this very cluster is onboarded already, as {holder!r}",
        remedy="Use that one, or send allow_duplicate: true (--allow-duplicate).",
        existing=holder,
    )
