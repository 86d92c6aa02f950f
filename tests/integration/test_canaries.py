"""Secrets that went through a whole stack, in every way that fails, and where they must not be found afterwards."""

from __future__ import annotations

import base64
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import bson
import pytest
import yaml
from aiohttp import web
from pymongo import MongoClient

from kubelore.common.bus import connect
from kubelore.kubesim.app import SimulatedFleet
from kubelore.kubesim.faults import Faults
from kubelore.lab.pki import CertificateAuthority
from kubelore.lab.waiting import wait_for
from kubelore.stack.kept import Kept
from kubelore.stack.layout import DataDirectory
from kubelore.stack.servers import MongoServer

CANARY = "canary-4Zk9tQwB7rXvLm2s"
"""In every secret of the tests, so that one search finds them all."""
NAMESPACE = "default"


def kubeconfig(text: str, **user: str) -> str:
    """A kubeconfig of a simulated cluster with other credentials."""
    config = yaml.safe_load(text)
    config["users"][0]["user"] = user
    return yaml.safe_dump(config)


@asynccontextmanager
async def repeating(folder: Path) -> AsyncIterator[str]:
    """A server that answers 400 and what it was sent; yields a kubeconfig for it."""

    async def repeat(request: web.Request) -> web.Response:
        return web.Response(status=400, text=f"you said {request.headers.get('Authorization')}")

    authority = CertificateAuthority("echo")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.server("echo", ["127.0.0.1"]).write(folder, "echo"))
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", repeat)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    cluster = {
        "server": f"https://127.0.0.1:{runner.addresses[0][1]}",
        "certificate-authority-data": base64.b64encode(authority.identity.certificate).decode(),
    }
    try:
        yield yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "x",
                "clusters": [{"name": "c", "cluster": cluster}],
                "users": [{"name": "u", "user": {"token": CANARY}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            }
        )
    finally:
        await runner.cleanup()


def bad_kubeconfigs(good: str, other: str) -> Iterator[tuple[str, str]]:
    """Kubeconfigs that hold the canary and cannot be used, and what is wrong with each."""
    config = yaml.safe_load(kubeconfig(good, token=CANARY))
    yield "refused-by-the-cluster", yaml.safe_dump(config)
    authority = yaml.safe_load(other)["clusters"][0]["cluster"]["certificate-authority-data"]
    foreign = config["clusters"][0]["cluster"] | {"certificate-authority-data": authority}
    yield "wrong-authority", yaml.safe_dump(config | {"clusters": [{"name": "sim-01", "cluster": foreign}]})
    nobody = config["clusters"][0]["cluster"] | {"server": "https://127.0.0.1:1"}
    yield "nobody-listens", yaml.safe_dump(config | {"clusters": [{"name": "sim-01", "cluster": nobody}]})
    yield "broken-yaml", kubeconfig(good, token=CANARY) + f"\n\t{CANARY}: [{CANARY}"
    yield (
        "twice",
        kubeconfig(good, token=CANARY).replace(f"token: {CANARY}", f"{{token: {CANARY}, token: {CANARY}}}"),
    )
    yield (
        "no-base64",
        kubeconfig(good, **{"client-certificate-data": f"%{CANARY}", "client-key-data": CANARY}),
    )
    yield "no-token", kubeconfig(good, token=f"{CANARY} with a blank\n")
    yield "password", kubeconfig(good, username="u", password=CANARY)
    yield "list", kubeconfig(good, token=CANARY).replace(f"token: {CANARY}", f"token: [{CANARY}]")


async def found_in_streams(kubelore: Any, needles: list[bytes]) -> list[str]:
    """The subjects of stored messages that hold one of them."""
    bus = await connect(kubelore.bus_settings(), name="witness")
    found: list[str] = []
    try:
        for name in (await bus.jetstream("STREAM.NAMES"))["streams"]:
            state = (await bus.jetstream(f"STREAM.INFO.{name}"))["state"]
            for sequence in range(state["first_seq"], state["last_seq"] + 1):
                raw = await bus.ask(f"$JS.API.STREAM.MSG.GET.{name}", b'{"seq":%d}' % sequence, deadline_s=5)
                message = yaml.safe_load(raw.data)
                if "message" in message:
                    data = base64.b64decode(message["message"].get("data", ""))
                    found += [message["message"]["subject"] for needle in needles if needle in data]
    finally:
        await bus.close()
    return found


def found_in_mongo(kubelore: Any, needles: list[bytes]) -> list[str]:
    """The collections with a document that holds one of them."""
    kept = Kept.load(DataDirectory(kubelore.data))
    server = MongoServer(kubelore.data / "mongo", port=kept.ports["mongo"], password=kept.passwords["mongo"])
    found: list[str] = []
    with closing(MongoClient(server.url)) as client:
        for database in client.list_databases():
            if database["name"] in ("admin", "config", "local"):
                continue
            for collection in client[database["name"]].list_collection_names():
                for document in client[database["name"]][collection].find():
                    raw = bson.encode(document)
                    found += [f"{collection}/{document['_id']}" for needle in needles if needle in raw]
    return found


def found_in_files(folder: Path, needles: list[bytes]) -> list[str]:
    """The files that hold one of them: logs, NATS' and MongoDB's own, blobs."""
    return [
        str(path.relative_to(folder))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and any(needle in path.read_bytes() for needle in needles)
    ]


@pytest.mark.timeout(180)
async def test_no_secret_that_went_through_is_in_an_answer_a_log_a_stream_or_the_database(
    own_kubelore, tmp_path: Path
) -> None:
    kubelore, answers = own_kubelore, list[str]()

    async def ask(method: str, path: str, **more: Any) -> Any:
        answer = await kubelore.http.request(method, path, **more)
        answers.append(f"{method} {path} {answer.status_code} {answer.text}")
        return answer

    async with SimulatedFleet(clusters=2, pods=3) as fleet, repeating(tmp_path) as echo:
        good, other = fleet[0].kubeconfig, fleet[1].kubeconfig
        real = yaml.safe_load(good)["users"][0]["user"]["token"]
        bad = [*bad_kubeconfigs(good, other), ("repeated", echo)]
        for name, text in bad:
            added = await ask("POST", "/api/k8s/clusters/add", json={"name": name, "kubeconfig": text})
            assert added.status_code >= 400, answers[-1]
            await ask("POST", "/api/k8s/clusters/inspect", json={"kubeconfig": text})
            await ask("POST", "/api/k8s/clusters/add", json={"name": name, "kubeconfig": [text]})
        await kubelore.onboard("sim", good)
        for _, text in bad:
            await ask("PUT", "/api/k8s/clusters/sim/kubeconfig", json={"kubeconfig": text})
            assert answers[-1].split()[2][0] in "45", answers[-1]

        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "canary", "namespace": NAMESPACE},
            "stringData": {"plain": CANARY},
            "data": {"encoded": base64.b64encode(CANARY.encode()).decode()},
        }
        for manifest in (
            secret,
            secret | {"data": {"encoded": f"%{CANARY}"}},
            secret | {"data": {"encoded": [CANARY]}},
            secret | {"stringData": {f"bad key {CANARY[:3]}": CANARY}},
        ):
            operation = {"action": "apply", "cluster": "sim", "manifest": manifest}
            for dry_run in (True, False):
                await ask(
                    "POST", "/api/k8s/unified/batch", json={"operations": [operation], "dry_run": dry_run}
                )
        path = f"/api/k8s/unified/resources/sim:secrets:{NAMESPACE}:canary"
        for body in (
            {"data": {"encoded": CANARY}},
            {"data": CANARY},
            {"stringData": {"plain": CANARY + "2"}},
        ):
            headers = {"Content-Type": "application/merge-patch+json"}
            await ask("PATCH", path, json=body, headers=headers)
        assert "canary" in (await kubelore.http.get(path)).text
        await ask("GET", path)
        await ask("GET", path, params={"output": "yaml"})
        await ask("GET", "/api/k8s/unified/resources", params={"type": "secrets"})
        await ask("GET", "/api/k8s/unified/resources", params={"search": CANARY})

        made = await kubelore.http.post(
            "/api/tokens",
            json={"name": "somebody", "grants": [{"role": "viewer"}], "expires_in_s": 600},
            headers={"Idempotency-Key": "one"},
        )
        token = made.json()["token"]
        await ask("GET", "/api/k8s/clusters/list", headers={"Authorization": f"Bearer {token}x"})
        await ask("GET", "/api/k8s/clusters/list", headers={"Authorization": f"Bearer {CANARY}"})
        await ask("GET", "/api/k8s/clusters/list", headers={"Cookie": f"kubelore_session={CANARY}"})

        await fleet[0].inject(Faults(refuse=True))

        async def down() -> bool:
            found = (await kubelore.http.get("/api/k8s/clusters/sim")).json()
            return found["status"] != "connected"

        await wait_for(down, "the cluster to be down", 40)
        await ask("POST", "/api/k8s/clusters/sim/test")
        await ask("GET", "/api/k8s/clusters/sim")
        await ask("GET", "/api/audit", params={"limit": 1000})
        await ask("DELETE", "/api/k8s/clusters/sim")
        await ask("DELETE", f"/api/tokens/{made.json()['id']}")

    plain = [CANARY, real, token.rpartition("_")[2]]
    needles = [
        form
        for text in (one.encode() for one in plain)
        for form in (text, base64.b64encode(text), text.hex().encode())
    ]
    # A search says what was searched for to nobody but who asked.
    told = [one for one in answers if any(needle.decode() in one for needle in needles)]
    assert told == []
    assert found_in_mongo(kubelore, needles) == []
    assert await found_in_streams(kubelore, needles) == []
    assert found_in_files(kubelore.data, needles) == []
