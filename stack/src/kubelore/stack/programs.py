"""The Python processes of the stack, and the environment that each is given."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kubelore.common.contracts.permissions import OPERATOR, PROBE, SERVICES, permissions_of
from kubelore.stack.child import Command
from kubelore.stack.servers import Account

GATEWAY, RESOURCE_OPS = "gateway", "resource-ops"

BUS_USERS = (*SERVICES, PROBE, OPERATOR)
"""Everybody with a password of their own on the bus."""

KUBESIM = "kubesim"

_NOT_PASSED_ON = frozenset({"KUBELORE_ADMIN_TOKEN", "KUBELORE_REPLICA"})


@dataclass(frozen=True)
class PythonProgram:
    """`python -m <module>` of this environment, as the supervisor runs it."""

    name: str
    module: str
    probe_with: Callable[[], Awaitable[bool]]
    arguments: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    ready_within_s: float = 60.0

    async def prepare(self) -> None:
        """Nothing: all it reads is in its environment."""

    def command(self) -> Command:
        """With the interpreter that runs us."""
        argv = (sys.executable, "-m", self.module, *self.arguments)
        return Command(self.name, argv, env={**os.environ, **self.env}, grace_s=10.0)

    async def probe(self) -> bool:
        """Whether it is ready now."""
        return await self.probe_with()


class ServiceReplica:
    """One replica of a service, as the supervisor runs it.

    It has a new id on the bus at each start, so that nobody takes it for the
    process that held leases under its name before.
    """

    ready_within_s = 60.0

    def __init__(
        self, name: str, service: str, env: Mapping[str, str], is_there: Callable[[str], Awaitable[bool]]
    ) -> None:
        self.name = name
        self._service = service
        self._env = env
        self._is_there = is_there
        self._replica = ""

    async def prepare(self) -> None:
        """Nothing: all it reads is in its environment."""

    def command(self) -> Command:
        """With the interpreter that runs us, under an id of its own."""
        self._replica = f"{self.name}-{secrets.token_hex(4)}"
        argv = (sys.executable, "-m", f"kubelore.{self._service.replace('-', '_')}")
        env = {**os.environ, **self._env, "KUBELORE_REPLICA": self._replica}
        return Command(self.name, argv, env=env, grace_s=10.0)

    async def probe(self) -> bool:
        """Whether this very replica answers."""
        return await self._is_there(self._replica)


def names_of(service: str, replicas: int) -> tuple[str, ...]:
    """The processes of a service: of one replica its own name, of several numbered ones."""
    return (service,) if replicas == 1 else tuple(f"{service}-{number + 1}" for number in range(replicas))


def bus_account(passwords: dict[str, str]) -> Account:
    """The account of the services, each held to what the contracts say it needs."""
    limited = (*SERVICES, PROBE)
    return Account("KUBELORE", passwords, {user: permissions_of(user).as_configuration() for user in limited})


def prepare_bus(addresses: Addresses) -> Command:
    """Makes the streams, as the operator of the bus."""
    env = {
        **os.environ,
        **python_environment(),
        "KUBELORE_NATS_URL": addresses.nats_url,
        "KUBELORE_NATS_USER": OPERATOR,
        "KUBELORE_NATS_PASSWORD": addresses.passwords[OPERATOR],
    }
    return Command("prepare-bus", (sys.executable, "-m", "kubelore.common.bus.prepare"), env=env)


@dataclass(frozen=True)
class Addresses:
    """Where the servers are and how to get in."""

    nats_url: str
    mongo_url: str = field(repr=False)
    blob_url: str
    keyring: Path
    passwords: Mapping[str, str] = field(repr=False)


def service_environment(service: str, addresses: Addresses) -> dict[str, str]:
    """What a service is told, over the environment that the stack itself was started with.

    Clusters on this machine and in private networks are what somebody tries
    first, so their addresses are accepted unless the environment says otherwise.
    Blobs lie beside the rest unless it names a store for them.
    """
    private = os.environ.get("KUBELORE_ALLOW_PRIVATE_ADDRESSES", "true")
    return {
        **python_environment(),
        "KUBELORE_NATS_URL": addresses.nats_url,
        "KUBELORE_NATS_USER": service,
        "KUBELORE_NATS_PASSWORD": addresses.passwords[service],
        "KUBELORE_MONGO_URL": addresses.mongo_url,
        "KUBELORE_BLOB_URL": os.environ.get("KUBELORE_BLOB_URL") or addresses.blob_url,
        "KUBELORE_KEYRING_DIR": str(addresses.keyring),
        "KUBELORE_ALLOW_PRIVATE_ADDRESSES": private,
    }


def python_environment() -> dict[str, str]:
    """For every Python process: unbuffered output, few malloc arenas, nothing meant for us alone."""
    return {
        "PYTHONUNBUFFERED": "1",
        "MALLOC_ARENA_MAX": "2",
        **{name: "" for name in _NOT_PASSED_ON if name in os.environ},
    }


def gateway_environment(port: int, token_file: Path) -> dict[str, str]:
    """What the gateway is told besides: where to listen, and where the administrator's token is."""
    return {
        "KUBELORE_GATEWAY_HOST": "127.0.0.1",
        "KUBELORE_GATEWAY_PORT": str(port),
        "KUBELORE_ADMIN_TOKEN_FILE": str(token_file),
    }
