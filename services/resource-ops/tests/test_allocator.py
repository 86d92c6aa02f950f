"""What large blocks cost once they are freed, in a process of its own."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_FREED = """
import sys
from pathlib import Path
from kubelore.resource_ops.allocator import give_back, map_large_blocks

def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

if sys.argv[1] == "told":
    map_large_blocks()
before, blocks, pins = resident(), [], []
for _ in range(400):
    blocks.append(b"x" * 100_000)
    pins.append(b"y" * 600)  # stands between two blocks of the heap, so that it cannot shrink
del blocks
if sys.argv[1] == "given back":
    give_back()
print(resident() - before)
"""


def kept(how: str) -> int:
    """Bytes that stay resident of 40 MB of freed blocks."""
    done = subprocess.run([sys.executable, "-c", _FREED, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is told anything")
def test_freed_blocks_go_back_to_the_system() -> None:
    assert kept("untold") > 30_000_000
    assert kept("told") < 5_000_000
    assert kept("given back") < 5_000_000
