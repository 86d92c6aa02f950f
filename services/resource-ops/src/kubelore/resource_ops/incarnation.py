"""Whether a cluster is still the one that the checkpoint knows, or was restored or replaced.

Two signs: another uid of kube-system, and a list whose resourceVersion lies
below what was already published (an etcd that was restored or made anew). Only
core types are compared by version, since an extension API server may count in
its own way.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from kubelore.common.bus import Checkpoint
from kubelore.common.errors import Conflict, Forbidden, NotFound
from kubelore.common.kube import KubeClient
from kubelore.common.kube.well_known import NAMESPACES, cluster_uid
from kubelore.common.telemetry import get_logger

log = get_logger(__name__)


class ClusterReplaced(Conflict):
    """The API server no longer serves the history that is being observed; begin again as a new incarnation."""

    reason = "ClusterReplaced"


class Sight(msgspec.Struct, frozen=True):
    """What a cluster says of itself; `uid` is empty and `newest` 0 where the credentials do not show it."""

    uid: str
    newest: int


async def look(client: KubeClient) -> Sight:
    """The cluster as it is now. Raises KubeloreError when it does not say."""
    try:
        uid = await cluster_uid(client)
    except NotFound:
        uid = ""
    try:
        newest = _number((await client.list(NAMESPACES, limit=1)).rv)
    except Forbidden:
        newest = 0
    return Sight(uid, newest)


def furthest(positions: Mapping[str, str]) -> int:
    """The highest resourceVersion published of a core type."""
    return max((_number(rv) for name, rv in positions.items() if "." not in name), default=0)


def is_another(sight: Sight, uid: str, reached: int) -> bool:
    """Whether this is not the cluster of this uid whose core types have been published up to `reached`."""
    return bool(uid and sight.uid and sight.uid != uid) or 0 < sight.newest < reached


async def settle(client: KubeClient, checkpoint: Checkpoint) -> None:
    """Make the checkpoint that of the cluster which answers, in a new incarnation when it is another one."""
    sight = await look(client)
    if is_another(sight, checkpoint.uid, furthest(checkpoint.positions)):
        log.warning("cluster restored or replaced", cluster=checkpoint.cluster, uid=sight.uid)
        checkpoint.incarnation += 1
        checkpoint.positions.clear()
    elif sight.uid in ("", checkpoint.uid):
        return
    checkpoint.uid = sight.uid or checkpoint.uid
    await checkpoint.save()


async def check(client: KubeClient, cluster: str, uid: str, positions: Mapping[str, str]) -> None:
    """Raise ClusterReplaced when the cluster that answers is another than the one observed so far."""
    reached = furthest(positions)
    if is_another(await look(client), uid, reached):
        raise ClusterReplaced(f"{cluster} was restored or replaced while it was observed")


def _number(rv: str) -> int:
    return int(rv) if rv.isdecimal() and len(rv) < 20 else 0
