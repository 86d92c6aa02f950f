"""Changing clusters that are onboarded: what is said of them, and their credentials."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec

from kubelore.cluster_registry.announcements import Announcements
from kubelore.cluster_registry.first_contact import Introduction, meet
from kubelore.cluster_registry.groups import Groups
from kubelore.cluster_registry.lifetimes import expiry_of, iso_utc, lifetime
from kubelore.cluster_registry.renewal import check_renewal
from kubelore.cluster_registry.repository import CONNECTED, ClusterRepository
from kubelore.cluster_registry.vault import Vault
from kubelore.common.callers import current_caller
from kubelore.common.contracts.clusters import ClusterConnection, RotateKubeconfig, UpdateCluster
from kubelore.common.contracts.identity import check_cluster_name, check_namespaces
from kubelore.common.errors import AlreadyExists, Conflict
from kubelore.common.kube import AddressPolicy, ClusterAccess, read_kubeconfig

_SELECTED_BY = frozenset({"group", "tags"})


class Upkeep:
    """Each change writes the fields it is about and no others, so that none undoes another."""

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

    async def update(self, request: UpdateCluster) -> ClusterConnection:
        """Change what is said of a cluster. Raises NotFound, Forbidden, BadRequest.

        Other namespaces are another view of the cluster: observers start anew.
        """
        current_caller().check_whole_cluster(check_cluster_name(request.id), "change", "admin")
        before = await self._repository.get(request.id)
        changes = _said(request)
        if changes.keys() & _SELECTED_BY:
            # What others send to `group:x` reaches every cluster in it.
            current_caller().check_admin("change the groups and tags of clusters")
        if "group" in changes:
            changes["group"] = await self._groups.join(changes["group"])
        if not changes:
            return before
        changes["updated_at"] = iso_utc(time.time())
        reconnect = "namespaces" in changes and changes["namespaces"] != before.namespaces
        cluster = await self._repository.amend(request.id, changes, reconnect=reconnect)
        await self._announcements.tell(
            cluster, "updated", detail=", ".join(sorted(changes.keys() - {"updated_at"}))
        )
        return cluster

    async def rotate(self, request: RotateKubeconfig) -> ClusterConnection:
        """Give a cluster other credentials, after trying them.

        Raises what adding raises, and Conflict when they lead to another cluster,
        or when nobody can tell.
        """
        current_caller().check_whole_cluster(check_cluster_name(request.id), "change", "admin")
        cluster = await self._repository.get(request.id)
        text = self._vault.kubeconfig(request.sealed.kubeconfig, request.id)
        access = await asyncio.to_thread(read_kubeconfig, text, request.sealed.context, self._policy)
        found = await meet(access, self._policy)
        _check_same(cluster, access, found)
        await self._check_only(cluster, found.uid)
        if request.renew_token:
            await check_renewal(access, self._policy)
        rotated = await self._repository.exchange(
            cluster,
            _connected_by(access, found, cluster, renew=request.renew_token),
            self._vault.seal(cluster.id, access),
            lifetime(access),
        )
        await self._announcements.tell(rotated, "updated", detail="kubeconfig")
        return rotated

    async def _check_only(self, cluster: ClusterConnection, uid: str) -> None:
        """Credentials that see more than those before may show that the cluster is onboarded already."""
        holder = await self._repository.holder_of(uid) if uid and not cluster.kube_system_uid else None
        if holder is not None:
            raise AlreadyExists(
                f"this very cluster is onboarded already, as {holder!r}",
                remedy="Use that one, and remove this one.",
                existing=holder,
            )


def _said(request: UpdateCluster) -> dict[str, Any]:
    """The fields that a request changes, as they are stored."""
    changes = {
        name: value
        for name in request.__struct_fields__
        if name != "id" and (value := getattr(request, name)) is not msgspec.UNSET
    }
    if "display_name" in changes:
        changes["display_name"] = changes["display_name"] or request.id
    if "tags" in changes:
        changes["tags"] = sorted(set(changes["tags"]))
    if "namespaces" in changes:
        changes["namespaces"] = check_namespaces(changes["namespaces"])
    return changes


def _connected_by(
    access: ClusterAccess, found: Introduction, cluster: ClusterConnection, *, renew: bool
) -> dict[str, Any]:
    return {
        **CONNECTED,
        "context": access.context,
        "server": access.server,
        "version": found.version,
        "kube_system_uid": found.uid or cluster.kube_system_uid,
        "credentials_expire_at": expiry_of(access),
        "renews_token": renew,
        "updated_at": iso_utc(time.time()),
    }


def _check_same(cluster: ClusterConnection, access: ClusterAccess, found: Introduction) -> None:
    """Raise Conflict unless the credentials lead to the cluster that has the name.

    By the uid of kube-system; where either side may not read that, by the address.
    """
    if found.uid and cluster.kube_system_uid:
        if found.uid != cluster.kube_system_uid:
            raise Conflict(
                f"this kubeconfig leads to another cluster than {cluster.id!r}",
                remedy="Add it under a name of its own; or remove this one first, to give its name away.",
            )
    elif access.server != cluster.server:
        raise Conflict(
            f"nobody can tell whether {access.server} is still {cluster.id!r}: the credentials may not read "
            "the namespace kube-system, and the address is another",
            remedy="Let their user get the namespace kube-system, or remove the cluster and add it again.",
        )
