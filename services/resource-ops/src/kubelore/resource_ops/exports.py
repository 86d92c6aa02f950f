"""Pages of a type as the API server holds it, for backups: bytes as they are, Secrets without their values.

A page is split into its objects without decoding more than what names each.
"""

from __future__ import annotations

import asyncio

from kubelore.common.authz import Caller
from kubelore.common.callers import current_caller
from kubelore.common.contracts.exports import MAX_LIMIT, MAX_PAGE_BYTES, Export, Exported, ExportPage
from kubelore.common.contracts.identity import ResourceId, check_cluster_name
from kubelore.common.crypto import Keyring, Recipient
from kubelore.common.errors import BadRequest, Gone, TooLarge
from kubelore.common.kube import ListPage, ResourceType, decode_meta
from kubelore.common.kube.object_names import check_namespace_name
from kubelore.common.kube.secrets import strip_secret
from kubelore.common.kube.type_names import one_type
from kubelore.common.reach import Reach, Reached
from kubelore.resource_ops.replacing import SECRETS


class Exports:
    """Answers EXPORT. Values of Secrets are hashed with the keyring, and sealed to `versions`."""

    def __init__(self, reach: Reach, keyring: Keyring, versions: Recipient) -> None:
        self._reach = reach
        self._keyring = keyring
        self._versions = versions

    async def page(self, request: Export) -> ExportPage:
        """One page, of it what the caller may read.

        Raises Gone when the API server has forgotten what `continue_token` points
        to, NotFound for a cluster that is not the caller's, Forbidden for values of
        Secrets without the right to them, and what the API server refuses.
        """
        _check(request)
        caller = current_caller()
        caller.check_cluster(request.cluster)
        async with self._reach.using(request.cluster) as reached:
            found = await reached.find(lambda types: one_type(request.type, types))
            sealed = request.secrets and found.name == SECRETS
            if sealed:
                caller.check_right("secrets", request.cluster, request.namespace)
            if request.namespace and not found.namespaced:
                raise BadRequest(f"{found.name} are in no namespace")
            listed = await _listed(reached, found, request)
        # Sealing 2,000 Secrets takes longer than other requests should wait.
        items = await asyncio.to_thread(self._readable, listed, found, request.cluster, caller, sealed)
        return ExportPage(
            items=items,
            next=listed.continue_,
            rv=listed.rv,
            api_version=found.api_version,
            kind=found.kind,
        )

    def _readable(
        self, listed: ListPage, found: ResourceType, cluster: str, caller: Caller, sealed: bool
    ) -> list[Exported]:
        whole = caller.namespaces(cluster).everything
        items: list[Exported] = []
        for raw in listed.items:
            meta = decode_meta(raw)
            if whole or caller.may_read(cluster, found.name, meta.namespace, meta.name):
                identity = ResourceId(cluster, found.name, meta.namespace, meta.name)
                made = Exported(str(identity), meta.uid, meta.resource_version, raw)
                items.append(self._stripped(made, cluster, sealed) if found.name == SECRETS else made)
        return items

    def _stripped(self, made: Exported, cluster: str, sealed: bool) -> Exported:
        seal = self._versions.seal if sealed else None
        secret = strip_secret(made.object, cluster=cluster, hmac=self._keyring.hmac, seal=seal)
        return Exported(made.id, made.uid, made.rv, secret.object, secret.sealed, secret.hmacs)


def _check(request: Export) -> None:
    check_cluster_name(request.cluster)
    if request.namespace:
        check_namespace_name(request.namespace)
    if not 1 <= request.limit <= MAX_LIMIT:
        raise BadRequest(f"a page has between 1 and {MAX_LIMIT} objects, not {request.limit}")


async def _listed(reached: Reached, found: ResourceType, request: Export) -> ListPage:
    """A page within its bytes: half as many objects as long as they are too large together."""
    limit = request.limit
    while True:
        try:
            return await reached.client.list(
                found,
                namespace=request.namespace or None,
                labels=request.labels,
                limit=limit,
                continue_=request.continue_token,
                max_bytes=MAX_PAGE_BYTES,
            )
        except TooLarge:
            if limit == 1:
                raise
            limit //= 2
        except Gone as error:
            raise Gone(
                f"the API server no longer has the state of {found.name} that this page is of",
                remedy="Begin the type again, from its first page.",
            ) from error
