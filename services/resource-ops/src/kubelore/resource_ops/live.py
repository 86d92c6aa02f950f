"""Objects as the API server has them at this moment, read by any replica."""

from __future__ import annotations

import asyncio

import msgspec

from kubelore.common.callers import current_caller
from kubelore.common.contracts.identity import ResourceId
from kubelore.common.contracts.live import MAX_LIVE, LiveObject, LiveObjects, ReadLive
from kubelore.common.crypto import Keyring
from kubelore.common.errors import BadRequest, NotFound, TooLarge, UpstreamError
from kubelore.common.kube import ResourceType
from kubelore.common.kube.object_names import check_namespace_name, check_object_name
from kubelore.common.kube.secrets import strip_secret
from kubelore.common.reach import LEAST_REDISCOVER_S, Reach, Reached

MAX_BYTES = 16 * 1024 * 1024
"""Of one answer: what 100 objects of any usual size are far below."""
_AT_ONCE = 8
_SECRETS = "secrets"


class _Metadata(msgspec.Struct, rename="camel"):
    uid: str = ""
    resource_version: str = ""


class _Head(msgspec.Struct):
    metadata: _Metadata


_head = msgspec.json.Decoder(_Head).decode


class Live:
    """Reads objects over the connections that writes use."""

    def __init__(self, reach: Reach, keyring: Keyring) -> None:
        self._reach = reach
        self._keyring = keyring

    async def read(self, request: ReadLive) -> LiveObjects:
        """What the API server has of each id.

        Raises NotFound for a cluster that is not there, BadRequest for ids of another
        cluster or more than 100, TooLarge for more than 16 MB.
        """
        caller = current_caller()
        caller.check_cluster(request.cluster)
        if len(request.ids) > MAX_LIVE:
            raise BadRequest(f"{len(request.ids)} objects are more than the {MAX_LIVE} that are read at once")
        ids = [ResourceId.parse(text) for text in request.ids]
        if any(one.cluster != request.cluster for one in ids):
            raise BadRequest(f"an object is not of {request.cluster}")
        room = asyncio.Semaphore(_AT_ONCE)
        size = 0

        async def read(one: ResourceId, reached: Reached) -> LiveObject:
            nonlocal size
            if not caller.may_read(one.cluster, one.type, one.namespace, one.name):
                return LiveObject(id=str(one))
            async with room:
                found = await self._read(one, reached)
            size += len(found.object)
            if size > MAX_BYTES:
                raise TooLarge("the objects are larger than one answer", remedy="Ask for fewer.")
            return found

        async with self._reach.using(request.cluster) as reached:
            return LiveObjects(await asyncio.gather(*(read(one, reached) for one in ids)))

    async def _read(self, one: ResourceId, reached: Reached) -> LiveObject:
        found = await _served(one.type, reached)
        if found is None:
            return LiveObject(id=str(one))
        check_object_name(found, one.name)
        if one.namespace:
            check_namespace_name(one.namespace)
        if found.namespaced != bool(one.namespace):
            return LiveObject(id=str(one))
        try:
            raw = await reached.client.get(found, one.namespace or None, one.name)
        except NotFound:
            return LiveObject(id=str(one))
        try:
            metadata = _head(raw).metadata
        except msgspec.MsgspecError:
            # Not chained: the decoder's message may quote what it could not decode.
            raise UpstreamError("the API server answered with no object that can be read") from None
        hmacs: dict[str, bytes] | None = None
        if one.type == _SECRETS:
            stripped = strip_secret(raw, cluster=one.cluster, hmac=self._keyring.hmac)
            raw, hmacs = stripped.object, stripped.hmacs
        return LiveObject(
            id=str(one), uid=metadata.uid, rv=metadata.resource_version, object=raw, hmacs=hmacs
        )


async def _served(name: str, reached: Reached) -> ResourceType | None:
    """A type by its canonical name, looked for again in what the cluster serves now when it was not known."""
    found = (await reached.types()).get(name)
    return found or (await reached.types(newer_than_s=LEAST_REDISCOVER_S)).get(name)
