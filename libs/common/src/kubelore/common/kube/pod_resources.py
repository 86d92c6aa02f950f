"""What a pod asks of its node, and what it may use at most, as the scheduler and the kubelet count it.

The rule is that of Kubernetes 1.34 (component-helpers `resource.PodRequests` and
`PodLimits`): containers run together, so their sum counts; init containers run
one after the other, so the largest counts; a restartable init container (a
sidecar) stays, so it counts with everything that starts after it. What the pod
itself declares (pod-level resources) replaces its containers' sum; the runtime's
overhead comes on top.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from kubelore.common.errors import BadRequest, Invalid
from kubelore.common.kube.quantity import Quantity

Amounts = dict[str, Quantity]
"""By resource: `cpu`, `memory`, `nvidia.com/gpu`."""

Kind = Literal["requests", "limits"]

TERMINAL = frozenset({"Succeeded", "Failed"})
"""Phases in which a pod holds nothing of its node any more."""


class Resources(msgspec.Struct, gc=False):
    """The `resources` of a container or a pod, as the API writes them."""

    requests: dict[str, str | int] | None = None
    limits: dict[str, str | int] | None = None


class Container(msgspec.Struct, gc=False, rename="camel"):
    """What counts of one container."""

    resources: Resources | None = None
    restart_policy: str = ""


class PodSpec(msgspec.Struct, gc=False, rename="camel"):
    """What counts of a pod's spec."""

    containers: list[Container] | None = None
    init_containers: list[Container] | None = None
    overhead: dict[str, str | int] | None = None
    resources: Resources | None = None
    node_name: str = ""


class _Status(msgspec.Struct, gc=False):
    phase: str = ""


class Pod(msgspec.Struct, gc=False):
    """What counts of a pod; decode one with `read_pod`."""

    spec: PodSpec = msgspec.field(default_factory=PodSpec)
    status: _Status = msgspec.field(default_factory=_Status)

    @property
    def holds(self) -> bool:
        """Whether the pod still holds what it asks for."""
        return self.status.phase not in TERMINAL


_decoder = msgspec.json.Decoder(Pod)


def read_pod(raw: bytes) -> Pod:
    """Decode what counts of a pod; raises Invalid."""
    try:
        return _decoder.decode(raw)
    except msgspec.MsgspecError as error:
        raise Invalid("no pod: its containers cannot be read") from error


def pod_resources(spec: PodSpec, kind: Kind) -> Amounts:
    """What a pod requests, or is limited to. Raises Invalid for what is no quantity."""
    total = _largest_moment(spec, kind)
    if spec.resources is not None:
        total |= _amounts(getattr(spec.resources, kind))
    for name, quantity in _amounts(spec.overhead).items():
        # A pod without a limit has none with its overhead either.
        if kind == "requests" or total.get(name):
            total[name] = total.get(name, Quantity()) + quantity
    return total


def add(left: Amounts, right: Amounts) -> Amounts:
    """The sums, by resource."""
    return left | {name: left.get(name, Quantity()) + quantity for name, quantity in right.items()}


def _largest_moment(spec: PodSpec, kind: Kind) -> Amounts:
    running: Amounts = {}
    for container in spec.containers or ():
        running = add(running, _of(container, kind))
    sidecars: Amounts = {}
    peak: Amounts = {}
    for container in spec.init_containers or ():
        own = _of(container, kind)
        if container.restart_policy == "Always":
            running, sidecars = add(running, own), add(sidecars, own)
            own = sidecars
        else:
            own = add(own, sidecars)
        peak = _larger(peak, own)
    return _larger(running, peak)


def _larger(left: Amounts, right: Amounts) -> Amounts:
    return left | {name: max(left.get(name, quantity), quantity) for name, quantity in right.items()}


def _of(container: Container, kind: Kind) -> Amounts:
    return _amounts(getattr(container.resources, kind)) if container.resources is not None else {}


def _amounts(written: dict[str, str | int] | None) -> Amounts:
    try:
        return {name: Quantity.parse(str(value)) for name, value in (written or {}).items()}
    except BadRequest as error:
        raise Invalid(error.detail) from error
