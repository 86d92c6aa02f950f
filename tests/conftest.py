"""A running Kubelore for the tests that go through its doors: every server and service a process, as with `kubelore up`."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from pydantic import SecretStr

from kubelore.common.settings import CommonSettings
from kubelore.lab.waiting import wait_for
from kubelore.stack.embedded import Choices, EmbeddedStack
from kubelore.stack.kept import Kept
from kubelore.stack.layout import DataDirectory, ProcessState, RunningStack

# No registry is in reach of the lab's node.
os.environ.setdefault("KUBELORE_DEBUG_IMAGE", "kubelore.local/busybox:1")


MADE_BY_PEOPLE = (
    "/api/k8s/clusters/list",
    "/api/k8s/groups",
    "/api/tokens",
    "/api/k8s/containers/exec/policies",
    "/api/k8s/logs/policies",
    "/api/k8s/logs/alerts",
    "/api/k8s/yaml/backup/policies",
)


@dataclass(frozen=True)
class Somebody:
    """Whoever holds a token with grants of their own."""

    id: str
    """Of the token, by which it is revoked."""
    token: str
    http: httpx.AsyncClient


class Kubelore:
    """The API of a running stack, in the words of the tests."""

    def __init__(self, data: Path, url: str, token: str, urls: tuple[str, ...] = ()) -> None:
        self.data = data
        self.url = url
        self.urls = urls or (url,)
        """Where each gateway listens."""
        self.token = token
        headers = {"Authorization": f"Bearer {token}"}
        self.http = httpx.AsyncClient(base_url=url, headers=headers, timeout=30.0)

    async def close(self) -> None:
        await self.http.aclose()

    def bus_settings(self) -> CommonSettings:
        """How a test gets onto the bus of the stack."""
        directory = DataDirectory(self.data)
        kept = Kept.load(directory)
        return CommonSettings(
            nats_url=f"nats://127.0.0.1:{kept.ports['nats']}",
            nats_user="operator",
            nats_password=SecretStr(kept.password("operator")),
        )

    def process(self, name: str) -> ProcessState:
        """What the supervisor knows of a process now."""
        running = RunningStack.now(DataDirectory(self.data))
        assert running is not None
        return next(found for found in running.processes if found.name == name)

    def pid(self, process: str) -> int:
        """The process id that the supervisor knows now."""
        return self.process(process).pid

    async def add(self, name: str, kubeconfig: str, **more: Any) -> httpx.Response:
        body = {"name": name, "kubeconfig": kubeconfig, **more}
        return await self.http.post("/api/k8s/clusters/add", json=body)

    async def onboard(self, name: str, kubeconfig: str, **more: Any) -> None:
        """Add a cluster and wait until it is live, whichever cluster another test had under the name."""
        answer = await self.add(name, kubeconfig, **{"new_history": True, **more})
        assert answer.status_code == 201, answer.text
        await self.until_live(name)

    async def until_live(self, name: str, seconds: float = 60.0) -> None:
        async def live() -> bool:
            page = await self.list(clusters=name, limit=1)
            return [state["status"] for state in page["clusters"]] == ["live"]

        await wait_for(live, f"{name} to be live", seconds)

    async def list(self, **query: Any) -> dict[str, Any]:
        answer = await self.http.get("/api/k8s/unified/resources", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def ids(self, **query: Any) -> list[str]:
        return [item["id"] for item in (await self.list(**query))["items"]]

    async def remove(self, name: str) -> None:
        """Remove a cluster, and its group with the last cluster in it."""
        group = (await self.http.get(f"/api/k8s/clusters/{name}")).json().get("group")
        answer = await self.http.delete(f"/api/k8s/clusters/{name}")
        assert answer.status_code in (204, 404), answer.text
        if group:
            answer = await self.http.delete(f"/api/k8s/groups/{group}")
            assert answer.status_code in (204, 404, 409), answer.text

    @asynccontextmanager
    async def somebody(self, name: str, *, expires_in_s: int = 3600, **grant: Any) -> AsyncIterator[Somebody]:
        """Hand out a token with one grant, and take it back at the end."""
        body = {"name": name, "grants": [grant], "expires_in_s": expires_in_s}
        answer = await self.http.post("/api/tokens", json=body)
        assert answer.status_code == 201, answer.text
        made = answer.json()
        headers = {"Authorization": f"Bearer {made['token']}"}
        try:
            async with httpx.AsyncClient(base_url=self.url, headers=headers, timeout=60.0) as client:
                yield Somebody(made["id"], made["token"], client)
        finally:
            await self.http.delete(f"/api/tokens/{made['id']}")

    async def made_by_people(self) -> set[str]:
        """Of what people make and remove, all that is there."""
        found: set[str] = set()
        for path in MADE_BY_PEOPLE:
            answer = await self.http.get(path)
            assert answer.status_code == 200, answer.text
            found |= {f"{path} {item['name']}" for item in answer.json()["items"]}
        return found

    async def watch(
        self, last_event_id: str = "", **query: Any
    ) -> AsyncIterator[tuple[str, str, dict[str, Any]]]:
        """Events as (id, name, data), bookmarks left out, until the caller stops."""
        headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
        async with self.http.stream("GET", "/api/k8s/unified/watch", params=query, headers=headers) as answer:
            assert answer.status_code == 200, await answer.aread()
            event_id = name = ""
            async for line in answer.aiter_lines():
                key, _, value = line.partition(": ")
                if key == "id":
                    event_id = value
                elif key == "event":
                    name = value
                elif key == "data" and name != "bookmark":
                    yield event_id, name, json.loads(value)


SHARED = pytest.StashKey[Kubelore]()


async def take(events: AsyncIterator[Any], count: int) -> list[Any]:
    """The first `count` events."""
    taken: list[Any] = []
    async with aclosing(events) as stream:  # type: ignore[type-var]
        async for event in stream:
            taken.append(event)
            if len(taken) == count:
                break
    return taken


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def kubelore(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Kubelore]:
    """One Kubelore without clusters for the whole run. Whoever adds a cluster removes it; nobody kills its processes."""
    async with running_kubelore(tmp_path_factory.mktemp("kubelore")) as running:
        request.session.stash[SHARED] = running
        yield running
        del request.session.stash[SHARED]


@pytest_asyncio.fixture(loop_scope="session")
async def own_kubelore(tmp_path: Path) -> AsyncIterator[Kubelore]:
    """A Kubelore of a test's own, whose processes it may kill."""
    async with running_kubelore(tmp_path / "kubelore") as running:
        yield running


@pytest.fixture(scope="session")
def start_kubelore() -> type[running_kubelore]:
    """For a stack with demo clusters, or with several replicas of a service."""
    return running_kubelore


@pytest_asyncio.fixture(scope="module", loop_scope="session", autouse=True)
async def _left_as_found(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """Holds every file to leave the shared Kubelore as it found it: which file runs next is chance."""
    found = await _made_by_people(request.session)
    yield
    left = await _made_by_people(request.session) - found
    assert not left, f"left in the Kubelore that others share: {left}"


async def _made_by_people(session: pytest.Session) -> set[str]:
    shared = session.stash.get(SHARED, None)
    return set() if shared is None else await shared.made_by_people()


class running_kubelore:  # noqa: N801 - used as a function
    """Starts a stack on a data directory, and stops it; `resource_ops=2` runs two of a service."""

    def __init__(self, data: Path, *, with_demo: bool = False, **replicas: int) -> None:
        named = {service.replace("_", "-"): count for service, count in replicas.items()}
        self._stack = EmbeddedStack(Choices(data=data, with_demo=with_demo, replicas=named))
        self._data = data

    async def __aenter__(self) -> Kubelore:
        await self._stack.__aenter__()
        self._client = Kubelore(self._data, self._stack.url, self._stack.token, self._stack.urls)
        return self._client

    async def __aexit__(self, *exception: Any) -> None:
        await self._client.close()
        await self._stack.stop()


BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


class CommandLine:
    """Runs `kubelore` with a URL and a token in the environment, as on an operator's own machine."""

    def __init__(self, url: str, token: str) -> None:
        self._environment = {**os.environ, "KUBELORE_URL": url, "KUBELORE_TOKEN": token, "NO_COLOR": "1"}

    async def start(
        self,
        *arguments: str,
        program: str = "kubelore",
        stdin: int = asyncio.subprocess.DEVNULL,
        tty: int | None = None,
        environment: dict[str, str] | None = None,
    ) -> asyncio.subprocess.Process:
        """A command that runs on; whoever starts it ends it. `tty` is the terminal it runs on."""
        pipe = asyncio.subprocess.PIPE
        streams = (stdin, pipe, pipe) if tty is None else (tty, tty, tty)
        return await asyncio.create_subprocess_exec(
            BIN / program,
            *arguments,
            stdin=streams[0],
            stdout=streams[1],
            stderr=streams[2],
            env=self._environment | (environment or {}),
        )

    async def __call__(
        self,
        *arguments: str,
        program: str = "kubelore",
        stdin: str = "",
        environment: dict[str, str] | None = None,
    ) -> Outcome:
        """A command, to its end."""
        given = asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL
        process = await self.start(*arguments, program=program, stdin=given, environment=environment)
        async with asyncio.timeout(60):
            out, err = await process.communicate(stdin.encode() or None)
        return Outcome(process.returncode or 0, out.decode(), err.decode())


@pytest.fixture(scope="session")
def command_line() -> type[CommandLine]:
    """`command_line(url, token)` is somebody at a terminal."""
    return CommandLine
