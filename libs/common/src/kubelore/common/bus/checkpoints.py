"""How far each type of a cluster has been published: one value per cluster in the bucket CHECKPOINTS.

Loading claims the value for the lease it is loaded under: a holder that was
replaced can no longer save over its successor's positions.
"""

from __future__ import annotations

from typing import Self

import msgspec

from kubelore.common.bus.bucket import Bucket
from kubelore.common.bus.connection import Bus
from kubelore.common.bus.leases import Lease, LeaseLost
from kubelore.common.contracts.identity import check_cluster_name
from kubelore.common.errors import Conflict

_ATTEMPTS = 3


class _Stored(msgspec.Struct):
    incarnation: int = 1
    uid: str = ""
    positions: dict[str, str] = {}
    epoch: int = 0


class Checkpoint:
    """One cluster's positions, held by one replica.

    `positions` maps a type to the last resourceVersion behind which JetStream
    has acknowledged everything; `uid` is that of kube-system, `incarnation` as in
    the change contract (1 for a cluster never seen). Change them, then `save`.
    """

    def __init__(self, bucket: Bucket, cluster: str, epoch: int, revision: int, stored: _Stored) -> None:
        self.cluster = cluster
        self.incarnation = stored.incarnation
        self.uid = stored.uid
        self.positions = stored.positions
        self._bucket = bucket
        self._epoch = epoch
        self._revision = revision

    @classmethod
    async def load(cls, bus: Bus, cluster: str, lease: Lease) -> Self:
        """Read the positions and claim them for this lease, after `ChangePublisher.fence`.

        Raises LeaseLost when a later holder has claimed them.
        """
        bucket = Bucket(bus, "CHECKPOINTS")
        check_cluster_name(cluster)
        while True:
            entry = await bucket.get(cluster)
            stored = _Stored() if entry.value is None else msgspec.msgpack.decode(entry.value, type=_Stored)
            if stored.epoch > lease.epoch:
                raise LeaseLost(f"{cluster}: a later holder has claimed the checkpoint")
            checkpoint = cls(bucket, cluster, lease.epoch, entry.revision, stored)
            try:
                await checkpoint._write()
            except Conflict:
                continue
            return checkpoint

    async def save(self) -> None:
        """Write them as they are now. Raises LeaseLost when a later holder has claimed them."""
        for _ in range(_ATTEMPTS):
            try:
                await self._write()
            except Conflict as conflict:
                await self._adopt_own_write(conflict)
            else:
                return
        raise LeaseLost(f"{self.cluster}: the checkpoint is written by somebody else as well")

    async def _write(self) -> None:
        stored = _Stored(self.incarnation, self.uid, dict(self.positions), self._epoch)
        data = msgspec.msgpack.encode(stored)
        self._revision = await self._bucket.put(self.cluster, data, expected=self._revision)

    async def _adopt_own_write(self, conflict: Conflict) -> None:
        """A write of ours may have been stored although its answer got lost; anybody else's means the end."""
        entry = await self._bucket.get(self.cluster)
        stored = _Stored() if entry.value is None else msgspec.msgpack.decode(entry.value, type=_Stored)
        if entry.revision == self._revision or stored.epoch != self._epoch:
            raise LeaseLost(f"{self.cluster}: a later holder has claimed the checkpoint") from conflict
        self._revision = entry.revision
