"""What collecting stands on killed or away, one after the other: of every container each line is stored, and once."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import httpx
import pytest
import pytest_asyncio

from kubelore.kubesim.app import SimulatedFleet
from kubelore.lab.minio import Minio
from kubelore.lab.waiting import wait_for

pytestmark = [pytest.mark.lab, pytest.mark.timeout(240)]

CLUSTER = "collected"
NAMESPACE = "team-01"
LOGS = "/api/k8s/logs"
LEAST = 1000
TROUBLE = (httpx.HTTPError, AssertionError)


class Kept:
    """The lines that are stored of the containers of a namespace."""

    def __init__(self, kubelore: Any) -> None:
        self.kubelore = kubelore

    async def lines(self) -> dict[str, list[float]]:
        """The moment of every stored line, by container and run."""
        found: dict[str, list[float]] = defaultdict(list)
        query = {"clusters": CLUSTER, "live": "false", "direction": "forward", "limit": 1000}
        token = ""
        while True:
            asked = {**query, **({"continue": token} if token else {})}
            answer = await self.kubelore.http.get(f"{LOGS}/search", params=asked)
            assert answer.status_code == 200, answer.text
            page = answer.json()
            assert page["gaps"] == []
            for line in page["items"]:
                at = datetime.fromisoformat(line["timestamp"][:26] + "+00:00").timestamp()
                found[f"{line['pod']}/{line['restart']}"].append(at)
            token = page["continue"]
            if not token:
                return found

    async def until_later(self, moment: float) -> None:
        """Until of every container lines are stored that it wrote after a moment."""

        async def later() -> bool:
            return all(times[-1] > moment for times in (await self.lines()).values())

        await wait_for(later, "what was written since to be stored", 90, ignoring=TROUBLE)

    async def assert_whole(self) -> None:
        """A simulated container writes a line in every period: a line twice or none would be another step."""
        for name, times in (await self.lines()).items():
            steps = {round(two - one, 1) for one, two in itertools.pairwise(times)}
            assert len(steps) == 1, (name, steps)
            assert len(times) > LEAST


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def store(minio: Minio, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Minio]:
    """A blob store that may be killed; `minio` says where there can be one at all."""
    async with Minio(tmp_path_factory.mktemp("store")) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def kept(store: Minio, tmp_path_factory: pytest.TempPathFactory, start_kubelore) -> AsyncIterator[Kept]:
    """A policy that collects from a simulated cluster, and keeps what it has in the blob store."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("KUBELORE_LOGS_STORED_EVERY_S", "1")
        environment.setenv("KUBELORE_BLOB_URL", f"s3://{store.bucket}")
        environment.setenv("AWS_ENDPOINT_URL", store.endpoint)
        environment.setenv("AWS_REGION", store.region)
        environment.setenv("AWS_ACCESS_KEY_ID", store.access_key)
        environment.setenv("AWS_SECRET_ACCESS_KEY", store.secret_key)
        starting = start_kubelore(tmp_path_factory.mktemp("collecting") / "kubelore")
        async with SimulatedFleet(clusters=1, pods=12) as fleet, starting as kubelore:
            await kubelore.onboard(CLUSTER, fleet[0].kubeconfig)
            policy = {"name": "all", "scope": {"clusters": [CLUSTER], "namespaces": [NAMESPACE]}}
            made = await kubelore.http.post(f"{LOGS}/policies", json=policy)
            assert made.status_code == 201, made.text
            found = Kept(kubelore)
            await wait_for(found.lines, "lines to be stored", 60)
            yield found


@pytest.mark.parametrize("process", ["container-ops", "nats", "mongo"])
async def test_a_process_that_is_killed_costs_and_repeats_no_line(kept: Kept, process: str) -> None:
    await kept.until_later(time.time())
    os.kill(kept.kubelore.pid(process), signal.SIGKILL)
    await kept.until_later(time.time())
    await kept.assert_whole()


async def test_a_blob_store_that_goes_away_is_waited_for(kept: Kept, store: Minio) -> None:
    await kept.until_later(time.time())
    await store.kill()
    gone = time.time()
    log = kept.kubelore.data / "logs" / "container-ops.log"

    async def refused() -> bool:
        return "logs not stored yet" in log.read_text()

    await wait_for(refused, "a batch that cannot be stored", 60)
    await store.start()
    await kept.until_later(max(gone, time.time()))
    await kept.assert_whole()
