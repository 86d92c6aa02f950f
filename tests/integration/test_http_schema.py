"""The running API against its own description: schemathesis finds no server error and no undescribed answer."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path

import pytest_asyncio

from kubelore.kubesim.app import SimulatedFleet

SECONDS = 40
NAME = "described"
# Not every 5xx is a fault: a cluster or an observer may be away, and the description says so.
# 431: what is too long for a parameter is soon too long for the head of a request.
CONFIG = """
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 501, 503, 504]
[checks.negative_data_rejection]
expected-statuses = [400, 401, 404, 405, 409, 413, 422, 431]
"""
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "ignored_auth",
)
ENDLESS = "/(watch|stream|ws)$"


@pytest_asyncio.fixture(loop_scope="session")
async def described(own_kubelore):
    """A stack with one cluster, whose objects the API may be asked for.

    Its own: of the policies, schedules and tokens that are made here some hold everywhere, for every test after.
    """
    async with SimulatedFleet(clusters=1, pods=5) as fleet:
        await own_kubelore.onboard(NAME, fleet[0].kubeconfig)
        yield own_kubelore


async def test_no_request_that_the_description_allows_or_forbids_breaks_the_api(
    described, tmp_path: Path
) -> None:
    config = tmp_path / "schemathesis.toml"
    config.write_text(CONFIG)
    schemathesis = shutil.which("schemathesis", path=os.fspath(Path(sys.executable).parent))
    assert schemathesis is not None
    running = await asyncio.create_subprocess_exec(
        schemathesis,
        f"--config-file={config}",
        "run",
        f"{described.url}/openapi.json",
        f"--header=Authorization: Bearer {described.token}",
        f"--checks={','.join(CHECKS)}",
        f"--exclude-path-regex={ENDLESS}",
        f"--max-time={SECONDS}",
        "--request-timeout=10",
        "--seed=1",
        "--no-color",
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(SECONDS * 4):
            said, _ = await running.communicate()
    finally:
        if running.returncode is None:
            running.kill()
            await running.wait()
    assert running.returncode == 0, said.decode().replace(described.token, "TOKEN")
