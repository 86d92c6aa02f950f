"""From the API server's bytes to what may leave the observer: Secrets stripped, objects compressed."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import msgspec
import zstandard

from kubelore.common.contracts.changes import Change, Gap, Kind, Synced, Was
from kubelore.common.contracts.identity import ResourceId
from kubelore.common.crypto import Keyring, Recipient
from kubelore.common.kube import ResourceType
from kubelore.common.kube.facts import Facts, Metadata, read
from kubelore.common.kube.secrets import strip_secret
from kubelore.common.store import blob_key

LEVEL = 1
"""A quarter less time than level 3 for 2 % more bytes (pods of 4.5 KB)."""
INLINE_LIMIT = 512 * 1024
"""Compressed bytes above which an object travels as a sealed blob (the change contract)."""


class Manifest(msgspec.Struct, frozen=True, gc=False):
    """One object as it may be kept and published; `hmacs` and `sealed` belong to Secrets only.

    `facts` is what was decoded of `raw`, once for everybody.
    """

    raw: bytes
    facts: Facts
    hmacs: dict[str, bytes] | None = None
    sealed: bytes = b""

    @property
    def meta(self) -> Metadata:
        """The parts of its metadata that are indexed."""
        return self.facts.meta


class RecordMaker:
    """Makes the records of one cluster.

    `put_blob(key, bytes)` stores what is too large to travel inline; it is
    sealed to the versions key before.
    """

    def __init__(
        self,
        cluster: str,
        incarnation: int,
        keyring: Keyring,
        versions: Recipient,
        put_blob: Callable[[str, bytes], Awaitable[None]],
    ) -> None:
        self.cluster = cluster
        self.incarnation = incarnation
        self._keyring = keyring
        self._versions = versions
        self._put_blob = put_blob
        self._compressor = zstandard.ZstdCompressor(level=LEVEL)

    def admit(self, resource_type: ResourceType, raw: bytes) -> Manifest:
        """Strip a Secret before anything else sees it, and decode what is indexed.

        Raises Invalid, and UpstreamError for a Secret, when the bytes are no object.
        """
        if resource_type.name != "secrets":
            return Manifest(raw, read(resource_type.name, raw))
        stripped = strip_secret(raw, cluster=self.cluster, hmac=self._keyring.hmac, seal=self._versions.seal)
        facts = read(resource_type.name, stripped.object)
        return Manifest(stripped.object, facts, stripped.hmacs, stripped.sealed)

    async def change(
        self,
        resource_type: ResourceType,
        manifest: Manifest,
        kind: Kind,
        *,
        old_rv: str = "",
        was: Was | None = None,
    ) -> Change:
        """The record of one object at one resourceVersion."""
        meta = manifest.meta
        frame = bytes(self._compressor.compress(manifest.raw))
        blob = ""
        if len(frame) > INLINE_LIMIT:
            # With the incarnation, since a restored cluster counts through the same versions again.
            key = (self.cluster, str(self.incarnation), meta.uid or meta.name, meta.resource_version)
            blob = blob_key("changes", *key)
            await self._put_blob(blob, self._versions.seal(frame, context=blob))
            frame = b""
        return Change(
            cluster=self.cluster,
            incarnation=self.incarnation,
            type=resource_type.name,
            uid=meta.uid,
            id=str(ResourceId(self.cluster, resource_type.name, meta.namespace, meta.name)),
            kind=kind,
            rv=meta.resource_version,
            at=time.time(),
            old_rv=old_rv,
            object=frame,
            blob=blob,
            was=was,
            hmacs=manifest.hmacs,
            sealed=manifest.sealed,
        )

    def gap(self, type_name: str, after_rv: str, namespace: str = "") -> Gap:
        """What happened to a type (in one namespace, when it is named) after `after_rv` is not known."""
        return Gap(
            cluster=self.cluster,
            incarnation=self.incarnation,
            type=type_name,
            after_rv=after_rv,
            at=time.time(),
            namespace=namespace,
        )

    def synced(self, type_name: str, rv: str, count: int, namespace: str = "") -> Synced:
        """Every object of a type (in one namespace, when it is named) has been published as of `rv`."""
        return Synced(
            cluster=self.cluster,
            incarnation=self.incarnation,
            type=type_name,
            rv=rv,
            count=count,
            at=time.time(),
            namespace=namespace,
        )
