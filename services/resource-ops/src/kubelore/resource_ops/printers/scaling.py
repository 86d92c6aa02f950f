"""A HorizontalPodAutoscaler's targets: current over wanted, for each metric."""

from __future__ import annotations

from collections.abc import Sequence

from kubelore.resource_ops.printers.formats import Cells, Object, age, items, name_of, part

_SOURCES = {
    "External": "external",
    "Pods": "pods",
    "Object": "object",
    "Resource": "resource",
    "ContainerResource": "containerResource",
}


def autoscaler_cells(of: Object, now: float) -> Cells:
    """Name, reference, targets, minimum, maximum and current pods, age."""
    spec, status = part(of, "spec"), part(of, "status")
    reference = part(spec, "scaleTargetRef")
    minimum = spec.get("minReplicas")
    return [
        name_of(of),
        f"{reference.get('kind', '')}/{reference.get('name', '')}",
        _targets(items(spec, "metrics"), items(status, "currentMetrics")),
        "<unset>" if minimum is None else str(minimum),
        spec.get("maxReplicas", 0),
        status.get("currentReplicas", 0),
        age(of, now),
    ]


def _targets(metrics: Sequence[Object], current: Sequence[Object]) -> str:
    if not metrics:
        return "<none>"
    texts = [
        _target(metric, current[place] if place < len(current) else {})
        for place, metric in enumerate(metrics)
    ]
    line = ", ".join(texts[:2])
    return f"{line} + {len(texts) - 2} more..." if len(texts) > 2 else line


def _target(metric: Object, current: Object) -> str:
    kind = metric.get("type", "")
    source = _SOURCES.get(kind)
    if source is None:
        return "<unknown type>"
    wanted = part(metric, source, "target")
    now = part(current, source, "current")
    if kind in ("Resource", "ContainerResource"):
        name = part(metric, source).get("name", "")
        return f"{name}: {_utilization(wanted, now)}"
    if wanted.get("averageValue") is not None:
        suffix = "" if kind == "Pods" else " (avg)"
        return f"{now.get('averageValue') or '<unknown>'}/{wanted['averageValue']}{suffix}"
    return f"{now.get('value') or '<unknown>'}/{wanted.get('value', '0')}"


def _utilization(wanted: Object, now: Object) -> str:
    if wanted.get("averageValue") is not None:
        return f"{now.get('averageValue') or '<unknown>'}/{wanted['averageValue']}"
    used, target = now.get("averageUtilization"), wanted.get("averageUtilization")
    current = "<unknown>" if used is None else f"{used}%"
    return f"{current}/{'<auto>' if target is None else f'{target}%'}"
