"""What a process costs in memory."""

from __future__ import annotations

from pathlib import Path

import psutil


def memory_bytes(pid: int) -> int | None:
    """Proportional set size: its own pages, and its share of the shared ones.

    The resident set where the kernel does not say; None when there is no such process.
    """
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return psutil.Process(pid).memory_info().rss
    except psutil.Error:
        return None
