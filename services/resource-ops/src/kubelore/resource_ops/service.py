"""The bus endpoints of resource-ops: one line to the domain each."""

from __future__ import annotations

from kubelore.common.bus import Bus, Service
from kubelore.common.contracts import exports, live, resources, validation, writes
from kubelore.resource_ops.answers import Answers
from kubelore.resource_ops.exports import Exports
from kubelore.resource_ops.live import Live
from kubelore.resource_ops.many import ManyWriter
from kubelore.resource_ops.validating import Validating
from kubelore.resource_ops.whole_clusters import WholeClusters
from kubelore.resource_ops.writer import Writer

VERSION = "0.1.0"


def endpoints(
    bus: Bus, answers: Answers, whole: WholeClusters, writer: Writer, many: ManyWriter, exported: Exports
) -> Service:
    """The ADR-32 service: what is read is asked of the replica that holds it, what is written of any."""
    service = Service(bus, resources.SERVICE, VERSION)
    service.serve(resources.QUERY, answers.query)
    service.serve(resources.FETCH, answers.fetch)
    service.serve(resources.GET, answers.get)
    service.serve(resources.TYPES, answers.types)
    service.serve(resources.COUNT, answers.count)
    service.serve(resources.DIGESTS, answers.digests, max_concurrent=4)
    service.serve(resources.MEANT, answers.meant, max_concurrent=4)
    service.serve(resources.RESOLVE, answers.resolve)
    service.serve(resources.OBSERVERS, answers.observers)
    service.serve(resources.DICTIONARIES, answers.dictionaries)
    service.serve(resources.PRESENT, answers.present)
    for write in writes.BY_ACTION.values():
        service.serve(write, writer.carry_out)
    service.serve(writes.OPERATIONS, writer.operations)
    service.serve(writes.REPLACE_MANY, many.replace_many, max_concurrent=8)
    service.serve(exports.EXPORT, exported.page, max_concurrent=8, max_waiting=32)
    service.serve(resources.SYNC, whole.sync)
    service.serve(resources.METRICS, whole.metrics)
    return service


def serve_live(service: Service, reading: Live) -> None:
    """What the API servers have at this moment."""
    service.serve(live.LIVE, reading.read, max_concurrent=16)


def serve_validating(service: Service, validating: Validating) -> None:
    """Whether a cluster would take an object."""
    service.serve(validation.VALIDATE, validating.validate, max_concurrent=8)
