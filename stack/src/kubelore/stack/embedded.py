"""Kubelore on one machine without containers: servers, services and demo, each a supervised process.

A start takes over ports, passwords and data of the start before. What does not
depend on each other starts at the same time: both servers first, then all
services and the simulated clusters.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from kubelore.common.contracts.permissions import PROBE, SERVICES
from kubelore.common.crypto import Keyring
from kubelore.common.errors import Invalid, KubeloreError, Unavailable
from kubelore.stack import demo
from kubelore.stack.child import Identity, run_once
from kubelore.stack.kept import Kept, admin_token
from kubelore.stack.layout import DataDirectory, DirectoryLock, RunningStack
from kubelore.stack.leftovers import end_leftovers
from kubelore.stack.output import RotatedLog
from kubelore.stack.programs import (
    BUS_USERS,
    GATEWAY,
    KUBESIM,
    Addresses,
    PythonProgram,
    ServiceReplica,
    bus_account,
    gateway_environment,
    names_of,
    prepare_bus,
    python_environment,
    service_environment,
)
from kubelore.stack.readiness import bus_ready, http_ready
from kubelore.stack.servers import MongoServer, NatsServer
from kubelore.stack.supervisor import Program, Supervisor

HOST = "127.0.0.1"
FIRST_ROWS_S = 10.0
PREPARE_S = 60.0
MOST_REPLICAS = 9
KEYRINGS = ("clusters", "versions", "logs", "gateway")
"""Purposes with a keyring of their own."""


def _silent(_: str) -> None:
    pass


@dataclass(frozen=True)
class Choices:
    """What `kubelore up` was asked for. Without `port` the one of last time is taken, or a free one.

    `replicas` says how many of a service run, one where it does not. Several
    gateways listen on ports in a row.
    """

    data: Path
    port: int | None = None
    with_demo: bool = True
    replicas: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises `Invalid` for a service that is not known, and for a number that makes no sense."""
        for service, count in self.replicas.items():
            if service not in SERVICES or not 1 <= count <= MOST_REPLICAS:
                raise Invalid(
                    f"{count} replicas of {service!r} cannot be run",
                    remedy=f"1 to {MOST_REPLICAS} of {', '.join(SERVICES)}.",
                )

    def count(self, service: str) -> int:
        """How many replicas of a service run."""
        return self.replicas.get(service, 1)


class EmbeddedStack:
    """One stack on one data directory.

    `say` tells a person what happens, `terminal` gets the output of every
    process. `start` raises `Conflict` when a stack runs on the directory, and
    other typed errors when it cannot start; whatever was started by then is
    stopped by `stop`, which `async with` calls.
    """

    def __init__(
        self, choices: Choices, *, say: Callable[[str], None] = _silent, terminal: BinaryIO | None = None
    ) -> None:
        self.directory = DataDirectory(choices.data.expanduser().absolute())
        self.first_start = False
        self.urls: tuple[str, ...] = ()
        self.token = ""
        self._choices = choices
        self._say = say
        self._lock = DirectoryLock(self.directory)
        self._said: RunningStack | None = None
        self._kept = Kept()
        self._supervisor = Supervisor(self.directory.logs, say=say, changed=self._tell, terminal=terminal)

    @property
    def url(self) -> str:
        """Where the first gateway listens; empty before the start."""
        return self.urls[0] if self.urls else ""

    async def start(self) -> None:
        """Start everything and wait until it is ready."""
        await asyncio.to_thread(self._take_directory)
        identity = Identity.of(os.getpid()) or Identity(os.getpid(), 0.0)
        self._said = RunningStack(
            identity.pid, identity.started_at, self.url, "starting", time.time(), urls=self.urls
        )
        self._tell()
        nats, mongo = await self._start_servers()
        await self._start_services(nats, mongo)
        if self._choices.with_demo:
            await self._onboard_demo()
        await self._await_first_rows()
        self._kept.was_ready = True
        await asyncio.to_thread(self._kept.save, self.directory)
        self._enter("ready")

    async def stop(self) -> None:
        """Stop the services, then the servers, and let go of the directory."""
        if self._said is not None:
            self._enter("stopping")
            await self._supervisor.stop()
            self._forget()

    async def kill(self) -> None:
        """End every process at once; data is safe, as after a power cut."""
        await self._supervisor.kill()
        self._forget()

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _take_directory(self) -> None:
        try:
            self.directory.make()
        except OSError as error:
            raise Unavailable(
                f"{self.directory.root} cannot be used: {error.strerror}", remedy="Name another with --data."
            ) from error
        self._lock.acquire()
        try:
            # Before ports are chosen: what is left over still holds the old ones.
            last = RunningStack.last(self.directory)
            if last is not None and (ended := end_leftovers(last)):
                self._say(f"ended what a killed stack left running: {', '.join(ended)}")
            self._kept = Kept.load(self.directory)
            self.first_start = not self._kept.was_ready
            self.token = admin_token(self.directory.admin_token)
            open_keyrings(self.directory.keyring, self._kept)
            gateways = self._choices.count(GATEWAY)
            port = self._kept.port(GATEWAY, self._choices.port, count=gateways)
            self.urls = tuple(f"http://{HOST}:{port + number}" for number in range(gateways))
            self._kept.save(self.directory)
        except BaseException:
            self._lock.release()
            raise

    async def _start_servers(self) -> tuple[NatsServer, MongoServer]:
        kept, root = self._kept, self.directory.root
        passwords = {user: kept.password(user) for user in BUS_USERS}
        nats = NatsServer(root / "nats", port=kept.port("nats"), accounts=(bus_account(passwords),))
        mongo = MongoServer(root / "mongo", port=kept.port("mongo"), password=kept.password("mongo"))
        await asyncio.to_thread(kept.save, self.directory)
        await self._supervisor.start(nats, mongo)
        return nats, mongo

    async def _kubesim(self) -> PythonProgram:
        port = self._kept.port(KUBESIM, count=demo.CLUSTERS)
        await asyncio.to_thread(self._kept.save, self.directory)
        return PythonProgram(
            KUBESIM,
            "kubelore.kubesim",
            demo.listening(port),
            demo.arguments(self.directory.demo, port),
            python_environment(),
        )

    async def _start_services(self, nats: NatsServer, mongo: MongoServer) -> None:
        blobs, keyring = self.directory.blobs.as_uri(), self.directory.keyring
        addresses = Addresses(nats.url, mongo.url, blobs, keyring, nats.accounts[0].users)
        programs: list[Program] = [await self._kubesim()] if self._choices.with_demo else []
        for service in SERVICES:
            names = names_of(service, self._choices.count(service))
            programs += [
                self._replica(service, name, number, nats, addresses) for number, name in enumerate(names)
            ]
        try:
            # At the same time: the services wait for what they need.
            async with asyncio.TaskGroup() as starts:
                starts.create_task(self._prepare_bus(addresses))
                starts.create_task(self._supervisor.start(*programs))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from errors

    def _replica(
        self, service: str, name: str, number: int, nats: NatsServer, addresses: Addresses
    ) -> ServiceReplica:
        env = service_environment(service, addresses)
        if service != GATEWAY:
            return ServiceReplica(name, service, env, bus_ready(nats, PROBE, service))
        port = self._kept.ports[GATEWAY] + number
        env |= gateway_environment(port, self.directory.admin_token)
        return ServiceReplica(name, service, env, http_ready(port, "/readyz"))

    async def _prepare_bus(self, addresses: Addresses) -> None:
        log = RotatedLog(self.directory.logs / "prepare-bus.log")
        log.begin()
        try:
            if await run_once(prepare_bus(addresses), log.write, PREPARE_S):
                raise Unavailable(f"the streams could not be made\n{log.tail()}")
        finally:
            log.close()

    async def _onboard_demo(self) -> None:
        gateway = demo.Gateway(HOST, self._kept.ports[GATEWAY], self.token)
        try:
            self._kept.demo = await demo.onboard(gateway, self.directory.demo, self._kept.demo)
        except KubeloreError as error:
            # Everything else works, so the stack stays up.
            self._say(f"the demo clusters could not be added: {error.detail}")

    async def _await_first_rows(self) -> None:
        """Let the observers take up their clusters, so that the first command after `ready` has rows to show.

        A cluster that cannot be reached keeps nobody waiting, and neither does
        a large one for longer than its share of patience.
        """
        gateway = demo.Gateway(HOST, self._kept.ports[GATEWAY], self.token)
        with suppress(KubeloreError, TimeoutError):
            async with asyncio.timeout(FIRST_ROWS_S):
                while await asyncio.to_thread(demo.still_taking_up, gateway):  # noqa: ASYNC110 - no event to wait for
                    await asyncio.sleep(0.1)

    def _enter(self, phase: str) -> None:
        if self._said is not None:
            self._said = replace(self._said, phase=phase, since=time.time())
            self._tell()

    def _tell(self) -> None:
        if self._said is not None:
            self._said = replace(self._said, processes=self._supervisor.processes())
            self._said.save(self.directory)

    def _forget(self) -> None:
        self._said = None
        self.directory.running.unlink(missing_ok=True)
        self._lock.release()


def open_keyrings(folder: Path, kept: Kept) -> None:
    """Make the keyrings of purposes that are new, and see that every older one is still there.

    A lost keyring is never made anew in silence: what it sealed could not be
    read, and would look damaged. Raises KeyringError with the remedy.
    """
    for purpose in KEYRINGS:
        path = folder / f"{purpose}.json"
        if purpose in kept.purposes:
            Keyring.load(path).publish()
        else:
            Keyring.load_or_create(path, purpose).publish()
            kept.purposes.append(purpose)
