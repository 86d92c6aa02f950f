"""Which objects with a history a caller may read, found behind one another."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from kubelore.common.authz import Caller
from kubelore.yaml_vcs.repository import MAX_CHUNK, Resource, VersionRepository


async def readable(
    repository: VersionRepository,
    caller: Caller,
    cluster: str,
    *,
    namespace: str | None = None,
    type_name: str = "",
    after: bytes | None = None,
) -> AsyncGenerator[tuple[bytes, Resource]]:
    """Those behind a key, with their keys, to the end.

    What is not the caller's is passed over and ends no page, or the number of
    pages would tell how much of it there is.
    """
    while True:
        found = await repository.resources(cluster, namespace=namespace, type_name=type_name, after=after)
        for key, one in found:
            after = key
            if caller.may_read(one.cluster, one.type, one.namespace, one.name):
                yield key, one
        if len(found) < MAX_CHUNK:
            return
