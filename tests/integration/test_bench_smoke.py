"""`make bench` still runs and measures: its small size, in a process of its own as the Makefile starts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LONGEST_S = 150


def bench(*arguments: str) -> str:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench", "--quick", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "200"},
    )
    try:
        said, complained = process.communicate(timeout=LONGEST_S)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.communicate()
    assert process.returncode == 0, complained
    return said


def test_a_small_run_measures_pages_and_gets_beside_kubectl(tmp_path: Path) -> None:
    document = tmp_path / "benchmarks.md"
    document.write_text("Before.\n<!-- begin: python -m tests.bench -->\nold\n<!-- end -->\nAfter.\n")

    bench("--only", "page", "--only", "get", "--write", str(document))

    text = document.read_text()
    rows = {line.split("|")[1].strip(): line.split("|") for line in text.splitlines() if line.count("|") == 9}
    for work in ("page of 100 whole pods by name", "page of 100 pods, metadata", "one pod by id"):
        reached, instead, ratio = (rows[work][column].strip() for column in (3, 5, 7))
        assert reached.endswith("s"), rows[work]
        assert instead, rows[work]
        assert float(ratio.removesuffix("x").replace(",", "")) > 0, rows[work]
    assert text.startswith("Before.\n")
    assert text.endswith("After.\n")
    assert "old" not in text


@pytest.mark.lab
@pytest.mark.timeout(300)
def test_a_small_run_backs_up_verifies_and_restores_beside_kubectl(minio: object, tmp_path: Path) -> None:
    document = tmp_path / "benchmarks.md"

    bench("--only", "backup", "--write", str(document))

    lines = [line.split("|") for line in document.read_text().splitlines() if line.count("|") >= 9]
    figures = {cells[1].split()[0]: cells[3].strip() for cells in lines}
    for work in ("encrypted", "verification", "restore"):
        assert float(figures[work].partition("/s")[0].replace(",", "")) > 0, figures
    assert "MB at most" in figures["PSS"]
