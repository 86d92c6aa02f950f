"""The simulated clusters of the demo, onboarded as anybody would: through the gateway's API."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kubelore.common.errors import KubeloreError, Unavailable, error_from_parts
from kubelore.stack.servers.base import accepts_connections

CLUSTERS = 2
"""Simulated clusters, on so many ports in a row."""

_ADD_WITHIN_S = 30.0
_DESCRIPTION = "A simulated cluster of the demo; `kubelore up --no-demo` starts without it."


@dataclass(frozen=True)
class Gateway:
    """The gateway's API, as far as the demo needs it."""

    host: str
    port: int
    token: str = field(repr=False)

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """One call; blocks. Raises the error that the problem document tells, or `Unavailable`."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=_ADD_WITHIN_S)
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        try:
            connection.request(method, f"/api/k8s{path}", json.dumps(body) if body else None, headers)
            answer = connection.getresponse()
            content = answer.read(8 * 1024 * 1024)
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"the gateway does not answer: {error}") from error
        finally:
            connection.close()
        parsed = json.loads(content) if content else {}
        if answer.status >= 400:
            detail = str(parsed.get("detail", f"{method} {path} answered {answer.status}"))
            raise error_from_parts(parsed.get("reason", ""), answer.status, detail, parsed.get("remedy"))
        return parsed


def still_taking_up(gateway: Gateway) -> bool:
    """Whether some cluster has no observer yet, or is being listed for the first time; blocks."""
    answer = gateway.call("GET", "/unified/resources?type=namespaces&limit=1&view=metadata")
    return any(
        state["status"] == "syncing" or "no observer" in (state["error"] or "")
        for state in answer["clusters"]
    )


def arguments(folder: Path, first_port: int) -> tuple[str, ...]:
    """What kubesim is started with: its clusters keep ports and credentials over restarts."""
    return ("--demo", "--port-base", str(first_port), "--data", str(folder))


def listening(first_port: int) -> Callable[[], Awaitable[bool]]:
    """A probe: true once every simulated cluster takes connections."""

    async def probe() -> bool:
        ports = range(first_port, first_port + CLUSTERS)
        return all(await asyncio.gather(*(accepts_connections(port) for port in ports)))

    return probe


async def onboard(gateway: Gateway, folder: Path, onboarded: dict[str, str]) -> dict[str, str]:
    """Add every cluster that has a kubeconfig in the folder; returns what is onboarded now.

    `onboarded` is what an earlier start added: name to hash of its kubeconfig. A
    cluster with the same one is left alone (also when somebody removed it since);
    one whose credentials were made anew is removed and added again.
    """
    wanted = await asyncio.to_thread(_kubeconfigs, folder)
    added = await asyncio.gather(
        *(
            asyncio.to_thread(_add, gateway, name, text, replace=name in onboarded)
            for name, text in wanted.items()
            if onboarded.get(name) != _digest(text)
        )
    )
    return {**onboarded, **dict(added)}


def _add(gateway: Gateway, name: str, kubeconfig: str, *, replace: bool) -> tuple[str, str]:
    if replace:
        try:
            gateway.call("DELETE", f"/clusters/{name}")
        except KubeloreError as error:
            if error.status != 404:
                raise
    body = {
        "name": name,
        "kubeconfig": kubeconfig,
        "group": "demo",
        "tags": ["demo"],
        "description": _DESCRIPTION,
        "new_history": replace,
    }
    try:
        gateway.call("POST", "/clusters/add", body)
    except KubeloreError as error:
        if error.reason != "AlreadyExists":
            raise
    return name, _digest(kubeconfig)


def _kubeconfigs(folder: Path) -> dict[str, str]:
    return {path.stem: path.read_text() for path in sorted(folder.glob("*.kubeconfig"))}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
