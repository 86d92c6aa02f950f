"""The process of container-ops: settings in, service runs, signals out."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial

from kubelore.common import bus as buses
from kubelore.common import process
from kubelore.common.bus import Bus, Leases
from kubelore.common.contracts.containers import SERVICE
from kubelore.common.crypto import Keyring
from kubelore.common.kube import AddressPolicy
from kubelore.common.reach import Reach
from kubelore.common.store import BlobStore, Database, open_database
from kubelore.container_ops.container_logs import ContainerLogs
from kubelore.container_ops.debugging import debug_container
from kubelore.container_ops.exec_policy import ExecPolicies
from kubelore.container_ops.exec_policy_repository import ExecPolicyRepository
from kubelore.container_ops.execution import Execution
from kubelore.container_ops.files import Files, FileWork
from kubelore.container_ops.finding import Finding
from kubelore.container_ops.house import House
from kubelore.container_ops.live_search import LiveSearch
from kubelore.container_ops.log_keeping import LogKeeping
from kubelore.container_ops.log_search import LogSearch
from kubelore.container_ops.log_streams import LogStreams
from kubelore.container_ops.many_pages import ManyPages
from kubelore.container_ops.operation_repository import OperationRepository
from kubelore.container_ops.operations import Journal
from kubelore.container_ops.orphans import Orphans
from kubelore.container_ops.past_operations import PastOperations
from kubelore.container_ops.pod_watch import PodWatch
from kubelore.container_ops.pods import Pods
from kubelore.container_ops.segment_merging import SegmentMerging
from kubelore.container_ops.segment_store import SegmentStore
from kubelore.container_ops.service import (
    endpoints,
    serve_execution,
    serve_files,
    serve_history,
    serve_log_search,
)
from kubelore.container_ops.settings import ContainerOpsSettings
from kubelore.container_ops.terminals import Terminals, serve_terminals
from kubelore.container_ops.toolbox import Toolboxes
from kubelore.container_ops.transfers import Transfers


def build_house(
    settings: ContainerOpsSettings, bus: Bus, database: Database, operations: OperationRepository
) -> House:
    """What the parts are built from; nothing runs yet."""
    clusters = Keyring.load(settings.keyring_dir / "clusters.json")
    keyring = Keyring.load(settings.keyring_dir / "logs.json")
    kept = timedelta(days=settings.operations_kept_days)
    return House(
        settings=settings,
        bus=bus,
        leases=Leases(bus),
        reach=Reach.open(bus, clusters, AddressPolicy.from_settings(settings)),
        database=database,
        blobs=BlobStore.open(settings.blob_url),
        keyring=keyring,
        journal=Journal(operations, keyring, bus.replica, kept),
        exec_policies=ExecPolicies(ExecPolicyRepository(database)),
        toolboxes=Toolboxes(partial(debug_container, image=settings.debug_image)),
    )


async def main(settings: ContainerOpsSettings, stopping: asyncio.Event) -> None:
    """Answer until `stopping` is set."""
    database = await open_database(settings)
    bus = await buses.connect(settings, name=SERVICE)
    try:
        await buses.until_prepared(bus)
        operations = OperationRepository(database)
        await operations.prepare()
        house = build_house(settings, bus, database, operations)
        service = endpoints(bus, Pods(house.reach))
        past = PastOperations(operations, house.journal)
        serve_history(service, past, house.exec_policies)
        terminals = Terminals(house, past)
        serve_terminals(service, terminals)
        work = FileWork(
            house.reach, house.toolboxes, house.exec_policies, house.journal, settings.debug_image
        )
        serve_files(service, Files(work))
        execution = Execution(house)
        serve_execution(service, execution, Finding(house.reach))
        watch = PodWatch(house.reach)
        streams = LogStreams(house, watch)
        streams.serve(service)
        ManyPages(house, watch).serve(service)
        container_logs = ContainerLogs(house)
        container_logs.serve(service)
        transfers = Transfers(house, work)
        transfers.serve(service)
        store = SegmentStore(database, house.blobs, house.keyring)
        await store.prepare()
        keeping = LogKeeping(house, store, watch)
        await keeping.prepare()
        keeping.serve(service)
        serve_log_search(service, LogSearch(store, LiveSearch(house.reach, watch, store)))
        await service.start()
        running = (
            house.reach.run(),
            house.journal.run(),
            Orphans(operations, house.journal, house.reach, house.toolboxes).run(),
            terminals.recordings.run(),
            *keeping.loops(),
            SegmentMerging(store).run(house.leases),
            bus.until_closed(),
        )
        await process.until_stopped_or_failed(stopping, [asyncio.create_task(one) for one in running])
        await streams.close()
        await container_logs.close()
        await service.stop()
        await transfers.close()
        await execution.stop()
        await terminals.close()
    finally:
        await bus.close()
        await database.close()


if __name__ == "__main__":
    process.run(SERVICE, ContainerOpsSettings(), main, fast=False)
