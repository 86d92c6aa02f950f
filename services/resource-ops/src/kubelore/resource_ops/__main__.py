"""The process of resource-ops: settings in, service runs, signals out."""

from __future__ import annotations

import asyncio

import msgspec

from kubelore.common import bus as buses
from kubelore.common import process
from kubelore.common.bus import Bus, Lease
from kubelore.common.contracts.clusters import Credentials
from kubelore.common.contracts.resources import SERVICE
from kubelore.common.crypto import Keyring, Recipient
from kubelore.common.errors import IntegrityError
from kubelore.common.kube import AddressPolicy, ClusterAccess
from kubelore.common.settings import CommonSettings
from kubelore.common.store import BlobStore
from kubelore.resource_ops.answers import Answers
from kubelore.resource_ops.fleet import Fleet, Pace
from kubelore.resource_ops.observer import ClusterObserver, Sealing
from kubelore.resource_ops.read_model import ClusterModel
from kubelore.resource_ops.service import endpoints


def build_fleet(settings: CommonSettings, bus: Bus, blobs: BlobStore, pace: Pace | None = None) -> Fleet:
    """A fleet whose observers open credentials with the clusters keyring, and seal to the versions key."""
    keyring = Keyring.load(settings.keyring_dir / "clusters.json")
    versions = Recipient.load(settings.keyring_dir / "versions.pub")
    policy = AddressPolicy.from_settings(settings)
    sealing = Sealing(keyring, versions, blobs.put)

    def make_observer(credentials: Credentials, lease: Lease, model: ClusterModel) -> ClusterObserver:
        plain = keyring.open(credentials.sealed, context=f"cluster:{credentials.id}")
        try:
            access = msgspec.msgpack.decode(plain, type=ClusterAccess)
        except msgspec.MsgspecError:
            # Not chained: the decoder's message may quote what it could not decode.
            raise IntegrityError(f"the credentials of {credentials.id} are of no known form") from None
        return ClusterObserver(
            access,
            policy,
            bus=bus,
            lease=lease,
            model=model,
            sealing=sealing,
            namespaces=credentials.namespaces,
        )

    return Fleet(bus, buses.Leases(bus), make_observer, pace)


async def main(settings: CommonSettings, stopping: asyncio.Event) -> None:
    """Observe and answer until `stopping` is set."""
    bus = await buses.connect(settings, name=SERVICE)
    try:
        await buses.until_prepared(bus)
        blobs = BlobStore.open(settings.blob_url)
        fleet = build_fleet(settings, bus, blobs)
        service = endpoints(bus, Answers(fleet))
        await service.start()
        background = [asyncio.create_task(fleet.run()), asyncio.create_task(bus.until_closed())]
        await process.until_stopped_or_failed(stopping, background)
        await service.stop()
    finally:
        await bus.close()


if __name__ == "__main__":
    process.run(SERVICE, CommonSettings(), main)
