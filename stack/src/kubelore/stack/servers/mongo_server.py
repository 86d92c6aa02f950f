"""MongoDB, with a password from the first moment it can be reached over the network.

A real mongod where there is one (PATH first, then the packaged one), else
SecantusDB, which speaks the same protocol. Data made by one cannot be read by
the other, so the directory remembers which one made it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote_plus

from kubelore.common.errors import Conflict, Unavailable
from kubelore.stack.child import Child, Command, until_ready
from kubelore.stack.output import RotatedLog
from kubelore.stack.private_files import write_private
from kubelore.stack.servers.base import HOST, Server, accepts_connections
from kubelore.stack.servers.mongo_engine import SECANTUS_CONFIG, Engine, choose_engine


@dataclass(frozen=True)
class _Provisioned:
    """What the directory remembers: who made the data, and a hash of the password it knows."""

    engine: str
    password_sha256: str


class MongoServer(Server):
    """One server with its data under `directory`; journaled, its cache bounded.

    `password` is made when not given. A directory that knows another password
    gets the new one, which needs no old one: whoever may write the files owns
    the data. Raises `Conflict` at the start when another engine made the data.
    """

    name = "mongo"

    def __init__(
        self,
        directory: Path,
        *,
        port: int | None = None,
        user: str = "kubelore",
        password: str | None = None,
        engine: Engine | None = None,
        cache_mb: int = 256,
    ) -> None:
        super().__init__(directory, port=port)
        self.user = user
        self.password = password or secrets.token_urlsafe(24)
        self.engine = engine or choose_engine()
        self._cache_mb = cache_mb

    @property
    def url(self) -> str:
        """Connection string with user and password: a secret."""
        return (
            f"mongodb://{quote_plus(self.user)}:{quote_plus(self.password)}@{HOST}:{self.port}"
            "/?authSource=admin&directConnection=true"
        )

    async def prepare(self) -> None:
        """Make the user before the server first listens with authorization."""
        await super().prepare()
        self._data.mkdir(exist_ok=True, mode=0o700)
        (self.directory / SECANTUS_CONFIG).touch(mode=0o600)
        known = self._provisioned()
        if known is not None and known.engine != self.engine.kind:
            raise Conflict(
                f"{self.directory} holds data of {known.engine}, but only {self.engine.kind} is found here",
                remedy=f"Put {known.engine} on PATH, or start with an empty --data directory.",
            )
        wanted = _Provisioned(self.engine.kind, hashlib.sha256(self.password.encode()).hexdigest())
        if known != wanted:
            await self._provision()
            write_private(self._marker, json.dumps(wanted.__dict__))

    def command(self) -> Command:
        """The chosen engine with authorization, on the loopback address."""
        argv = self.engine.argv(self._data, self.port, cache_mb=self._cache_mb)
        return Command(self.name, argv, grace_s=self.engine.grace_s)

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    @property
    def _marker(self) -> Path:
        return self.directory / "provisioned.json"

    def _provisioned(self) -> _Provisioned | None:
        try:
            return _Provisioned(**json.loads(self._marker.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    async def _provision(self) -> None:
        async with self._without_authorization() as address:
            await _set_password(address, self.user, self.password)

    @asynccontextmanager
    async def _without_authorization(self) -> AsyncIterator[str]:
        # mongod then listens on a socket file in a directory of mode 0700 and on no port at all.
        with tempfile.TemporaryDirectory(prefix="kubelore-") as private:
            socket = Path(private) / "mongo.sock" if self.engine.has_unix_sockets else None
            argv = self.engine.open_argv(self._data, self.port, socket, cache_mb=self._cache_mb)
            log = RotatedLog(self.directory / "setup.log")
            child = await Child.start(
                Command(f"{self.name} setup", argv, grace_s=self.engine.grace_s), log.write
            )
            try:
                await until_ready(child, lambda: _listens(socket, self.port), self.ready_within_s)
                yield quote_plus(str(socket)) if socket else f"{HOST}:{self.port}"
            except Unavailable as error:
                raise Unavailable(f"{error.detail}:\n{log.tail()}") from error
            finally:
                await child.stop()
                log.close()


async def _listens(socket: Path | None, port: int) -> bool:
    return await asyncio.to_thread(socket.exists) if socket else await accepts_connections(port)


async def _set_password(address: str, user: str, password: str) -> None:
    # Imported here: the supervisor needs it once in the life of a data directory.
    from pymongo import AsyncMongoClient
    from pymongo.errors import OperationFailure

    async with (
        AsyncMongoClient(
            f"mongodb://{address}/?directConnection=true", serverSelectionTimeoutMS=10_000
        ) as client,
        asyncio.timeout(20),
    ):
        roles = [{"role": "root", "db": "admin"}]
        try:
            await client.admin.command("createUser", user, pwd=password, roles=roles)
        except OperationFailure as error:
            if error.code != 51003:  # the user exists
                raise
            await client.admin.command("updateUser", user, pwd=password, roles=roles)
