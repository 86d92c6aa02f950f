"""A newcomer at a terminal, on two real clusters: what was changed, rolled back, lost, and brought back elsewhere.

The tests stand in the order of the day: a change by kubectl is found and rolled
back, a namespace is deleted and comes back from the night's backup in the other
cluster, and its history goes along as a git repository.
"""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from kubelore.lab.waiting import wait_for

pytestmark = pytest.mark.lab

HOME, AWAY = "machine-home", "machine-away"
SHOP = "corner-shop"
VALUE = "tr0ubadour"
MANIFESTS = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: prices, namespace: corner-shop}
data: {bread: "3", milk: "1"}
---
apiVersion: v1
kind: Service
metadata: {name: till, namespace: corner-shop}
spec: {selector: {app: till}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: till, namespace: corner-shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: till}}
  template:
    metadata: {labels: {app: till}}
    spec: {containers: [{name: till, image: "example.invalid/till:1"}]}
"""


@dataclass
class Day:
    """The clusters as kubectl sees them, and a terminal with `kubelore`."""

    home: Any
    away: Any
    terminal: Any

    async def done(self, *arguments: str) -> str:
        """What a command printed; it must succeed."""
        said = await self.terminal(*arguments)
        assert said.code == 0, f"{arguments}: {said.err}\n{said.out}"
        return said.out

    async def history(self, what: str) -> list[dict[str, Any]]:
        said = await self.terminal("history", what, "-c", HOME, "-n", SHOP, "-o", "json")
        return json.loads(said.out)["items"] if said.code == 0 else []


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def day(kubelore, command_line, lab_pair) -> AsyncIterator[Day]:
    home, away = lab_pair.first.kubectl(), lab_pair.second.kubectl()
    await home("create", "namespace", SHOP)
    await home("create", "secret", "generic", "safe", "-n", SHOP, f"--from-literal=code={VALUE}")
    await home("apply", "-f", "-", stdin=MANIFESTS)
    await kubelore.onboard(HOME, lab_pair.first.kubeconfig())
    await kubelore.onboard(AWAY, lab_pair.second.kubeconfig())
    yield Day(home, away, command_line(kubelore.url, kubelore.token))
    for kubectl in (home, away):
        await kubectl("delete", "namespace", SHOP, "--wait=false", "--ignore-not-found")
    for name in (HOME, AWAY):
        await kubelore.remove(name)


async def test_who_changed_what_with_kubectl_is_found_and_rolled_back(day: Day) -> None:
    async def recorded(number: int) -> bool:
        return len(await day.history("configmaps/prices")) == number

    await wait_for(lambda: recorded(1), "the first version", 30)
    await day.home("patch", "configmap", "prices", "-n", SHOP, "-p", '{"data":{"bread":"30"}}')
    await wait_for(lambda: recorded(2), "the change", 15)
    newest = (await day.history("configmaps/prices"))[0]
    assert (newest["happened"], newest["created_by"]) == ("updated", "kubectl-patch")
    shown = await day.done("diff", "configmap/prices", "-c", HOME, "-n", SHOP)
    assert '-  bread: "3"\n+  bread: "30"' in shown
    await day.done(
        *("rollback", "configmap/prices", "--to", "1", "-c", HOME, "-n", SHOP),
        *("--yes", "--reason", "bread is no luxury"),
    )
    assert await _value(day.home, "configmap/prices", "{.data.bread}") == "3"
    await wait_for(lambda: recorded(3), "the rollback", 15)

    async def told() -> bool:
        last = (await day.history("configmaps/prices"))[0]
        return (last["created_by"], last["change_log"]) == ("admin", "bread is no luxury")

    await wait_for(told, "who rolled it back, and why", 15)


async def test_a_deleted_namespace_comes_back_in_the_other_cluster_from_the_nights_backup(day: Day) -> None:
    await day.done(
        *("backup", "policy", "create", "nightly", "-c", HOME, "-n", SHOP),
        *("--schedule", "15 2 * * *", "--time-zone", "Europe/Berlin"),
    )
    await day.done("backup", "policy", "run", "nightly")

    async def finished() -> bool:
        return any(one["status"] == "completed" for one in await _backups(day))

    await wait_for(finished, "the night's backup", 60)
    await day.home("delete", "namespace", SHOP)
    backup = (await _backups(day))[0]["id"]
    await day.done("backup", "policy", "delete", "nightly")
    await day.done("backup", "verify", backup)
    await day.done("backup", "restore", backup, "-c", AWAY, "--reason", "the shop moves")
    assert await _value(day.away, "configmap/prices", "{.data.bread}") == "3"
    encoded = await _value(day.away, "secret/safe", "{.data.code}")
    assert base64.b64decode(encoded).decode() == VALUE
    assert await _value(day.away, "deployment/till", "{.spec.replicas}") == "2"
    assert await _value(day.away, "service/till", "{.spec.ports[0].port}") == "80"


async def test_the_history_of_what_was_lost_is_cloned_with_git(day: Day, tmp_path: Path) -> None:
    async def gone() -> bool:
        found = await day.history("configmaps/prices")
        return bool(found) and found[0]["happened"] == "deleted"

    await wait_for(gone, "the deletion", 30)
    await day.done("export", "--git", str(tmp_path / "shop"), "-c", HOME, "-n", SHOP)
    _git("clone", "--quiet", str(tmp_path / "shop"), str(tmp_path / "clone"))
    log = _git("-C", str(tmp_path / "clone"), "log", "-p", "--", f"{SHOP}/configmaps/prices.yaml")
    assert "bread is no luxury" in log
    assert '+  bread: "30"' in log
    assert VALUE not in _git("-C", str(tmp_path / "clone"), "log", "-p")


async def test_the_proof_of_a_history_says_what_it_proved_and_proves_nothing_of_a_wrong_name(
    day: Day,
) -> None:
    assert (await day.done("versions", "verify", "-c", HOME, "-n", SHOP)).startswith("Whole: ")
    said = await day.terminal("versions", "verify", "-c", HOME, "-n", "corner-shopp")
    assert (said.code, said.out) == (1, "")
    assert "Nothing was verified" in said.err


async def _backups(day: Day) -> list[dict[str, Any]]:
    found = json.loads(await day.done("backup", "list", "-o", "json"))
    return [one for one in found["items"] if one["namespaces"] == [SHOP]]


async def _value(kubectl: Any, what: str, path: str) -> str:
    return await kubectl("get", what, "-n", SHOP, "-o", f"jsonpath={path}")


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout
