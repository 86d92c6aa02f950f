"""What the nodes of a cluster use right now, asked of metrics.k8s.io: nothing of it is kept."""

from __future__ import annotations

import msgspec

from kubelore.common.contracts.resources import Usage
from kubelore.common.errors import BadRequest, Forbidden, KubeloreError, NotFound
from kubelore.common.kube import KubeClient, ResourceType
from kubelore.common.kube.pod_resources import Amounts, add
from kubelore.common.kube.quantity import Quantity
from kubelore.resource_ops.capacity import amount

USAGE_S = 4.0
NODE_METRICS = ResourceType(
    group="metrics.k8s.io", version="v1beta1", plural="nodes", kind="NodeMetrics", namespaced=False
)


class _NodeMetrics(msgspec.Struct):
    usage: dict[str, str | int]
    timestamp: str = ""


async def read_usage(client: KubeClient) -> tuple[Usage | None, str | None]:
    """What all nodes use together, or None and why it is not to be had."""
    try:
        page = await client.list(NODE_METRICS, limit=0, timeout_s=USAGE_S)
        return _sum([msgspec.json.decode(raw, type=_NodeMetrics) for raw in page.items])
    except NotFound:
        return None, "the cluster does not serve metrics.k8s.io: metrics-server is not installed"
    except Forbidden:
        return None, "the credentials may not list nodes.metrics.k8s.io"
    except (msgspec.MsgspecError, BadRequest):
        return None, "what metrics.k8s.io answers cannot be read"
    except KubeloreError as error:
        return None, f"metrics.k8s.io does not answer: {error.detail}"


def _sum(nodes: list[_NodeMetrics]) -> tuple[Usage | None, str | None]:
    if not nodes:
        return None, "metrics.k8s.io has no figures of any node yet"
    total: Amounts = {}
    for node in nodes:
        total = add(total, {name: Quantity.parse(str(value)) for name, value in node.usage.items()})
    found = amount(total)
    return (
        Usage(
            cpu=found.cpu,
            memory=found.memory,
            cpu_cores=found.cpu_cores,
            memory_bytes=found.memory_bytes,
            nodes=len(nodes),
            measured_at=min(node.timestamp for node in nodes) or None,
        ),
        None,
    )
