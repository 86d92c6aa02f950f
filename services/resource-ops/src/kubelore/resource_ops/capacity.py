"""What a cluster has and what its pods ask for, counted over the read model. Pure, but that it lets others run."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping

import msgspec

from kubelore.common.contracts.resources import Amount, NodeCount, PodCount
from kubelore.common.errors import BadRequest, Invalid
from kubelore.common.kube.pod_resources import TERMINAL, Amounts, add, pod_resources, read_pod
from kubelore.common.kube.quantity import Quantity
from kubelore.resource_ops.read_model import ClusterModel
from kubelore.resource_ops.rows import Row

BREATH = 50
"""Objects that are read before others of this process get their turn."""

_ZERO = Quantity()


class _Condition(msgspec.Struct, gc=False):
    type: str = ""
    status: str = ""


class _NodeStatus(msgspec.Struct, gc=False):
    capacity: dict[str, str | int] = {}
    allocatable: dict[str, str | int] = {}
    conditions: list[_Condition] = []


class _NodeSpec(msgspec.Struct, gc=False):
    unschedulable: bool = False


class _Node(msgspec.Struct, gc=False):
    spec: _NodeSpec = msgspec.field(default_factory=_NodeSpec)
    status: _NodeStatus = msgspec.field(default_factory=_NodeStatus)


class Nodes(msgspec.Struct, kw_only=True):
    """What the nodes of a cluster have together."""

    count: NodeCount
    capacity: Amount
    allocatable: Amount


class Pods(msgspec.Struct, kw_only=True):
    """What the pods of a cluster ask for together."""

    count: PodCount
    requests: Amount
    limits: Amount


_node = msgspec.json.Decoder(_Node).decode


async def count_nodes(model: ClusterModel) -> Nodes:
    """Sums over the nodes that are held; raises Invalid when one cannot be read."""
    ready = schedulable = 0
    capacity: Amounts = {}
    allocatable: Amounts = {}

    def take(row: Row) -> None:
        nonlocal ready, schedulable, capacity, allocatable
        node = _node(row.whole())
        ready += any(each.type == "Ready" and each.status == "True" for each in node.status.conditions)
        schedulable += not node.spec.unschedulable
        capacity = add(capacity, _parsed(node.status.capacity))
        allocatable = add(allocatable, _parsed(node.status.allocatable))

    total = await _each(model, "nodes", take)
    return Nodes(
        count=NodeCount(total=total, ready=ready, schedulable=schedulable),
        capacity=amount(capacity),
        allocatable=amount(allocatable),
    )


async def count_pods(model: ClusterModel) -> Pods:
    """Sums over the pods that are held; raises Invalid when one cannot be read.

    Pods that have ended count in the phases, and hold nothing.
    """
    phases: Counter[str] = Counter()
    requests: Amounts = {}
    limits: Amounts = {}

    def take(row: Row) -> None:
        nonlocal requests, limits
        phases[row.phase or "Unknown"] += 1
        if row.phase in TERMINAL:
            return
        spec = read_pod(row.whole()).spec
        requests = add(requests, pod_resources(spec, "requests"))
        limits = add(limits, pod_resources(spec, "limits"))

    total = await _each(model, "pods", take)
    count = PodCount(total=total, by_phase=dict(sorted(phases.items())))
    return Pods(count=count, requests=amount(requests), limits=amount(limits))


def amount(of: Amounts) -> Amount:
    """CPU and memory of some amounts, as Kubernetes writes them and as numbers."""
    cpu, memory = of.get("cpu", _ZERO), of.get("memory", _ZERO)
    return Amount(
        cpu=str(cpu),
        memory=str(memory),
        cpu_cores=float(cpu.value),
        memory_bytes=int(memory.value),
        pods=int(of["pods"].value) if "pods" in of else None,
    )


async def _each(model: ClusterModel, type_name: str, take: Callable[[Row], None]) -> int:
    """Read every row of a type that is held whole; how many there are."""
    table = model.tables.get(type_name)
    rows = list(table or ())
    if table is not None and (table.metadata_only or len(table.partial)):
        raise Invalid(f"{type_name} are over the memory budget, and held as metadata only")
    for number, row in enumerate(rows, 1):
        try:
            take(row)
        except (msgspec.MsgspecError, Invalid) as error:
            raise Invalid(f"{row.id} cannot be read") from error
        if number % BREATH == 0:
            await asyncio.sleep(0)
    return len(rows)


def _parsed(written: Mapping[str, str | int]) -> Amounts:
    try:
        return {name: Quantity.parse(str(value)) for name, value in written.items()}
    except BadRequest as error:
        raise Invalid(error.detail) from error
