"""The client of one cluster: the verbs of the Kubernetes API over raw JSON bytes.

Objects are never decoded here; lists are split, watch events typed. Errors are
Kubelore's (`kubelore.common.errors`) with the Status' reason and causes. Every
call has a deadline, and nothing but reads is ever sent twice.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Self

import msgspec

from kubelore.common.contracts.clusters import ConnectionTest
from kubelore.common.errors import Forbidden, NotFound, Unsupported, UpstreamError
from kubelore.common.kube.access import ClusterAccess
from kubelore.common.kube.addresses import AddressPolicy
from kubelore.common.kube.connection_test import test_connection
from kubelore.common.kube.containers import Containers
from kubelore.common.kube.discovery import Discovery, discover
from kubelore.common.kube.reading import Reading
from kubelore.common.kube.resource_type import ResourceType
from kubelore.common.kube.transport import ExtraHeaders, Transport
from kubelore.common.kube.writing import Writing

SMALL = 64 * 1024
"""Bytes that an answer without objects may have."""


class KubeClient(Reading, Writing, Containers):
    """One cluster's API; use as an async context manager, or `close` it.

    `headers` is called before each request for headers to add, such as
    `traceparent`. Raises KubeconfigRefused at once when the policy does not
    allow the access' addresses.
    """

    def __init__(
        self,
        access: ClusterAccess,
        policy: AddressPolicy,
        *,
        timeout_s: float = 10.0,
        headers: ExtraHeaders | None = None,
    ) -> None:
        self.transport = Transport(access, policy, timeout_s=timeout_s, headers=headers)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection; streams that are being read end with Unavailable."""
        await self.transport.close()

    async def version(self) -> dict[str, Any]:
        """The server's `/version` document: `gitVersion` and more."""
        reply = await self.transport.request("GET", "/version", max_bytes=SMALL)
        try:
            return msgspec.json.decode(reply.body, type=dict[str, Any])
        except msgspec.MsgspecError as error:
            raise UpstreamError("the server's /version is no JSON: is it an API server?") from error

    async def ready(self, timeout_s: float = 3.0) -> float:
        """Seconds that one small answer took; raises when the API server is not ready within `timeout_s`.

        Where `/readyz` is not served or not allowed, `/version` is asked.
        """
        started = time.monotonic()
        try:
            await self.transport.request("GET", "/readyz", timeout_s=timeout_s, accept="*/*", max_bytes=SMALL)
        except (Forbidden, NotFound, Unsupported):
            left = max(0.1, timeout_s - (time.monotonic() - started))
            started = time.monotonic()
            await self.transport.request("GET", "/version", timeout_s=left, max_bytes=SMALL)
        return time.monotonic() - started

    async def discovery(self) -> Discovery:
        """Every type, each once under its preferred version, and the groups that do not answer."""
        return await discover(self.transport)

    async def discover(self) -> list[ResourceType]:
        """The types of `discovery`, where broken groups are of no interest."""
        return (await self.discovery()).types

    async def test(self, cluster: str = "", namespaces: Sequence[str] = ()) -> ConnectionTest:
        """Test the connection step by step; never raises for what is wrong with the cluster."""
        return await test_connection(self.transport, cluster, namespaces)
