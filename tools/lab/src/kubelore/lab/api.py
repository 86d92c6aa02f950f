"""The few requests that the lab itself makes: to the API server and to etcd's JSON gateway.

Deliberately not `kubelore.common.kube`: the lab is what that package is tested against.
"""

import ssl
from pathlib import Path
from typing import Any

import aiohttp

from kubelore.lab.errors import LabError

_SECONDS = 15
_BODY_SHOWN = 500


class ApiError(LabError):
    """The server answered with a status that the lab did not expect."""

    def __init__(self, method: str, path: str, status: int, body: str) -> None:
        self.status = status
        super().__init__(f"{method} {path} answered {status}: {body[:_BODY_SHOWN]}")


class Api:
    """HTTPS with a client certificate; a connection per request, for servers come and go under it."""

    def __init__(self, server: str, authority: bytes, certificate: Path, key: Path) -> None:
        self._server = server
        self._ssl = ssl.create_default_context(cadata=authority.decode())
        self._ssl.load_cert_chain(certificate, key)

    async def request(
        self, method: str, path: str, body: Any = None, content_type: str = "application/json"
    ) -> Any:
        """The decoded JSON of the answer, or its text where it is none.

        Raises ApiError for a status of 400 or more, OSError (aiohttp's) when the server is not there.
        """
        timeout = aiohttp.ClientTimeout(total=_SECONDS)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.request(
                method,
                self._server + path,
                json=body,
                headers={"Content-Type": content_type},
                ssl=self._ssl,
            ) as response,
        ):
            if response.status >= 400:
                raise ApiError(method, path, response.status, await response.text())
            if response.content_type == "application/json":
                return await response.json()
            return await response.text()

    async def apply(self, path: str, document: dict[str, Any]) -> Any:
        """Server-side apply: create the object or bring it to what the document says."""
        query = "?fieldManager=kubelore-lab&force=true"
        return await self.request("PATCH", path + query, document, "application/apply-patch+yaml")
