"""The process of the gateway: settings in, service runs, signals out."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from kubelore.common import bus as buses
from kubelore.common import process
from kubelore.common.bus import Service
from kubelore.common.callers import CallerSigner, CallerVerifier
from kubelore.common.crypto import Keyring
from kubelore.common.store import BlobStore, open_database
from kubelore.common.telemetry import get_logger
from kubelore.gateway.audit.heads import HeadStore
from kubelore.gateway.audit.keeper import Keeper, Retention, keep_under_lease
from kubelore.gateway.audit.log import AuditLog
from kubelore.gateway.audit.publisher import AuditPublisher
from kubelore.gateway.audit.verification import Auditor
from kubelore.gateway.continuation import Continuation
from kubelore.gateway.house import House
from kubelore.gateway.protocol import BoundedHttp
from kubelore.gateway.repository import AuditRepository
from kubelore.gateway.roster import Roster
from kubelore.gateway.service import build_app
from kubelore.gateway.settings import GatewaySettings
from kubelore.gateway.store import Store
from kubelore.gateway.vouching import Vouching, vouching_service
from kubelore.gateway.websockets import options as websocket_options

log = get_logger(__name__)

DRAIN_S = 5


async def main(settings: GatewaySettings, stopping: asyncio.Event) -> None:
    """Serve until `stopping` is set, then let requests end within five seconds."""
    keyring = Keyring.load(settings.keyring_dir / "gateway.json")
    database = await open_database(settings)
    store = Store(settings, database, keyring)
    signer = CallerSigner(keyring.signer())
    bus = await buses.connect(settings, name="gateway", signer=signer)
    vouching = vouching_service(
        bus, Vouching(store.credentials, CallerVerifier(keyring.signer().verifier), signer)
    )
    try:
        await buses.until_prepared(bus)
        await store.prepare()
        repository = AuditRepository(database)
        await repository.prepare()
        heads = HeadStore(BlobStore.open(settings.blob_url), keyring.signer())
        publisher = AuditPublisher(bus)
        leases = buses.Leases(bus)
        house = House(
            settings=settings,
            bus=bus,
            roster=Roster(bus, leases),
            feed=buses.Feed(bus),
            continuation=Continuation(keyring.sealer("continue")),
            store=store,
            audit_log=AuditLog(repository, heads, writer=bus.replica, told=publisher.tell),
            audit_entries=repository,
            auditor=Auditor(repository, heads),
            keyring=keyring,
        )
        retention = Retention(settings.audit_keep_days, settings.audit_keep_entries)
        keeper = Keeper(repository, heads, retention, replica=bus.replica)
        background = (publisher.run(), keep_under_lease(leases, keeper))
        await _serve(house, vouching, background, stopping)
    finally:
        await bus.close()
        await database.close()


async def _serve(
    house: House, vouching: Service, background: Iterable[Coroutine[Any, Any, None]], stopping: asyncio.Event
) -> None:
    """Answer until `stopping` is set or a part has failed; what requests do at the end still goes into the audit."""
    server = _Server(_configuration(house))
    await vouching.start()
    serving = asyncio.create_task(server.serve())
    auditing = asyncio.create_task(house.audit_log.run())
    running = (
        house.roster.run(),
        house.store.watch(),
        house.bus.until_closed(),
        *background,
        _ends_with(serving),
        _ends_with(auditing),
    )
    parts = [asyncio.create_task(one) for one in running]
    # What is there by now stays; a full collection that walks it would stop every answer for 50 ms.
    gc.collect()
    gc.freeze()
    log.info("gateway listens", host=house.settings.gateway_host, port=house.settings.gateway_port)
    try:
        await process.until_stopped_or_failed(stopping, parts)
    finally:
        server.should_exit = True
        await asyncio.wait([serving], timeout=DRAIN_S + 2)
        await vouching.stop()
        # The last requests need it to the end.
        auditing.cancel()
        await asyncio.wait([auditing])
        await house.audit_log.close()


def _configuration(house: House) -> uvicorn.Config:
    return uvicorn.Config(
        build_app(house),
        host=house.settings.gateway_host,
        port=house.settings.gateway_port,
        http=BoundedHttp,
        proxy_headers=False,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=DRAIN_S,
        limit_concurrency=2000,
        **websocket_options(),
    )


async def _ends_with(task: asyncio.Task[None]) -> None:
    """Shielded, so that stopping the background does not cut off requests that are being answered."""
    await asyncio.shield(task)


class _Server(uvicorn.Server):
    """Uvicorn without signal handlers of its own: the process has one place for those."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


if __name__ == "__main__":
    process.run("gateway", GatewaySettings(), main)
