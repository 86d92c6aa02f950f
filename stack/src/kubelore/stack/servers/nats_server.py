"""nats-server with JetStream: durable at every acknowledgement, and nobody in without a password."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import shutil
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kubelore.common.errors import Unavailable
from kubelore.stack.child import Command
from kubelore.stack.private_files import write_private
from kubelore.stack.servers.base import HOST, Server

MAX_PAYLOAD = 8 * 1024 * 1024
"""Bytes of one message. A batch of changes is at most 256 KB, a frame 64 KB; the rest is room."""

_MAX_MEMORY_STORE = 128 * 1024 * 1024
_SYSTEM = "SYS"


@dataclass(frozen=True)
class Account:
    """A world of subjects and streams of its own, with a password for each user.

    `permissions` says what a user may publish and subscribe, in NATS' own form;
    who is not in it may do everything.
    """

    name: str
    users: dict[str, str]
    permissions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class NatsServer(Server):
    """One server with file storage under `directory`.

    `accounts` defaults to one account, `KUBELORE`, with one user and a fresh
    password; `user` and `password` are the first user of the first account.
    `max_file_store` bounds, in bytes, what all streams together may reserve.
    """

    name = "nats"

    def __init__(
        self,
        directory: Path,
        *,
        port: int | None = None,
        accounts: tuple[Account, ...] | None = None,
        max_file_store: int = 16 * 1024**3,
    ) -> None:
        super().__init__(directory, port=port)
        self.accounts = accounts or (Account("KUBELORE", {"kubelore": secrets.token_urlsafe(24)}),)
        self._max_file_store = max_file_store
        self._system_password = secrets.token_urlsafe(24)

    @property
    def url(self) -> str:
        """Where it listens, without credentials."""
        return f"nats://{HOST}:{self.port}"

    @property
    def user(self) -> str:
        """The first user of the first account."""
        return next(iter(self.accounts[0].users))

    @property
    def password(self) -> str:
        """Password of `user`."""
        return self.accounts[0].users[self.user]

    async def prepare(self) -> None:
        """Write the configuration (0600: it holds the passwords)."""
        await super().prepare()
        write_private(self._config_path, json.dumps(self._configuration(), indent=2))

    def command(self) -> Command:
        """nats-server of this environment, else of PATH."""
        return Command(self.name, (nats_server_binary(), "--config", str(self._config_path)))

    async def probe(self) -> bool:
        """It greets with INFO once streams are recovered and clients may come."""
        try:
            async with asyncio.timeout(1.0):
                reader, writer = await asyncio.open_connection(HOST, self.port)
                greeting = await reader.readline()
        except (OSError, TimeoutError, ValueError):
            return False
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return greeting.startswith(b"INFO ") and b'"jetstream":true' in greeting

    @property
    def _config_path(self) -> Path:
        return self.directory / "nats.conf"

    def _configuration(self) -> dict[str, Any]:
        # The configuration language is a superset of JSON.
        accounts: dict[str, Any] = {
            account.name: {"jetstream": "enabled", "users": _users(account.users, account.permissions)}
            for account in self.accounts
        }
        accounts[_SYSTEM] = {"users": _users({"system": self._system_password})}
        return {
            "server_name": "kubelore-embedded",
            "host": HOST,
            "port": self.port,
            "max_payload": MAX_PAYLOAD,
            "max_pending": 64 * 1024 * 1024,
            "max_connections": 4096,
            "max_control_line": 4096,
            "write_deadline": "10s",
            "jetstream": {
                "store_dir": str(self.directory / "store"),
                "max_memory_store": _MAX_MEMORY_STORE,
                "max_file_store": self._max_file_store,
                "sync_interval": "always",
            },
            "system_account": _SYSTEM,
            "accounts": accounts,
        }


def _users(
    passwords: dict[str, str], permissions: Mapping[str, Mapping[str, Any]] | None = None
) -> list[dict[str, Any]]:
    return [
        {
            "user": name,
            "password": password,
            **({"permissions": permissions[name]} if permissions and name in permissions else {}),
        }
        for name, password in passwords.items()
    ]


def nats_server_binary() -> str:
    """Path of nats-server. Raises `Unavailable` when there is none."""
    packaged = Path(sysconfig.get_path("scripts")) / "nats-server"
    found = str(packaged) if packaged.exists() else shutil.which("nats-server")
    if not found:
        raise Unavailable("nats-server is not installed", remedy="Run `make up`, which installs it.")
    return found
