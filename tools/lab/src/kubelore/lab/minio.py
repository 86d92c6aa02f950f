"""A real MinIO server with one bucket, for what must also hold on somebody else's object store."""

import secrets
from pathlib import Path

import aiohttp

from kubelore.lab import build, recipes
from kubelore.lab.ports import free_ports
from kubelore.lab.process import Program
from kubelore.lab.waiting import wait_for

_READY_SECONDS = 30
_STOP_SECONDS = 5


class Minio:
    """One MinIO server on the loopback: `async with Minio(folder) as store`.

    `endpoint`, `access_key`, `secret_key` and `bucket` are what an S3 client wants; the region is us-east-1.
    """

    region = "us-east-1"

    def __init__(self, folder: Path, bucket: str = "kubelore") -> None:
        build.ensure([recipes.MINIO])
        self.bucket = bucket
        self.access_key = "lab" + secrets.token_hex(6)
        self.secret_key = secrets.token_hex(20)
        port, console = free_ports(2)
        self.endpoint = f"http://127.0.0.1:{port}"
        self._data = folder / "minio"
        self._data.mkdir(parents=True)
        command = [
            str(build.program(recipes.MINIO, "minio")),
            "server",
            "--quiet",
            f"--address=127.0.0.1:{port}",
            f"--console-address=127.0.0.1:{console}",
            str(self._data),
        ]
        environment = {
            "MINIO_ROOT_USER": self.access_key,
            "MINIO_ROOT_PASSWORD": self.secret_key,
            "MINIO_BROWSER": "off",
            "MINIO_UPDATE": "off",
            "MINIO_CI_CD": "on",
            "HOME": str(folder),
        }
        self._program = Program("minio", command, folder / "minio.log", environment)

    async def __aenter__(self) -> "Minio":
        await self.start()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start it and wait until it takes writes; raises LabError when it does not."""
        self._program.start()
        try:
            await wait_for(
                self._healthy, "MinIO to be ready", _READY_SECONDS, ignoring=(aiohttp.ClientError, OSError)
            )
        except BaseException:
            await self.stop()
            raise
        # On a single drive a bucket is a folder; this saves a client that signs requests.
        (self._data / self.bucket).mkdir(exist_ok=True)

    async def stop(self) -> None:
        """End it; what was written stays in the folder, and `start` serves it again."""
        await self._program.stop(_STOP_SECONDS)

    async def kill(self) -> None:
        """`kill -9`."""
        await self._program.kill()

    async def _healthy(self) -> bool:
        self._program.require_running()
        timeout = aiohttp.ClientTimeout(total=5)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"{self.endpoint}/minio/health/cluster") as response,
        ):
            return response.status == 200
