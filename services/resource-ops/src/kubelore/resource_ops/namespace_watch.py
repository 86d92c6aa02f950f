"""What of a cluster is observed when its credentials reach no further than some namespaces.

Each type has one list and one watch per namespace. Cluster-scoped types are
left out, and named as left out; the namespaces themselves are read by name,
which a role within each of them may allow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal, Protocol

from kubelore.common.contracts.resources import TypeState
from kubelore.common.errors import Forbidden, KubeloreError, NotFound
from kubelore.common.kube import KubeClient, ResourceType
from kubelore.common.kube.well_known import NAMESPACES
from kubelore.resource_ops.contact import Contact
from kubelore.resource_ops.read_model import ClusterModel

READ_S = 60.0
RETRY_S = 5.0

Status = Literal["syncing", "live", "stale", "skipped", "error"]


class Watched(Protocol):
    """How one type, or one namespace of it, stands."""

    type: ResourceType
    status: Status
    detail: str
    listed: bool

    def state(self) -> TypeState: ...


class LeftOut:
    """A type that is served and not observed; `detail` says why."""

    def __init__(self, resource_type: ResourceType, detail: str) -> None:
        self.type = resource_type
        self.status: Status = "skipped"
        self.detail = detail
        self.listed = False

    def state(self) -> TypeState:
        """How it stands, for the observer's report."""
        return TypeState(type=self.type.name, status=self.status, count=0, detail=self.detail)


class NamespacesByName:
    """Holds the Namespace objects of the namespaces that are observed, read again every minute; nothing is published."""

    def __init__(
        self, names: Sequence[str], client: KubeClient, contact: Contact, model: ClusterModel
    ) -> None:
        self.type = NAMESPACES
        self.status: Status = "syncing"
        self.detail = ""
        self.listed = False
        self._names = names
        self._client = client
        self._contact = contact
        self._model = model

    def state(self) -> TypeState:
        """How they stand, for the observer's report."""
        count = self._model.count(self.type.name)
        return TypeState(type=self.type.name, status=self.status, count=count, detail=self.detail)

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            await self._contact.reachable.wait()
            try:
                await self._read()
            except KubeloreError as error:
                self.status, self.detail = ("stale" if self.listed else "error"), error.detail
                await asyncio.sleep(RETRY_S)
            else:
                await asyncio.sleep(READ_S)

    async def _read(self) -> None:
        found: list[bytes] = []
        refused: list[str] = []
        for name in self._names:
            try:
                found.append(await self._client.get(self.type, None, name))
            except (Forbidden, NotFound):
                refused.append(name)
        self._model.replace(self.type, found, "")
        self.listed = True
        self.status = "live" if found else "skipped"
        self.detail = "read by name, once a minute"
        if refused:
            self.detail += f"; may not be read, or are not there: {', '.join(refused)}"


def together(parts: Sequence[Watched]) -> TypeState:
    """One state of a type out of those of its namespaces: the worst; a namespace that may not be read is only named."""
    states = [part.state() for part in parts]
    if len(states) == 1:
        return states[0]
    read = [state for state in states if state.status != "skipped"]
    worst = min(read or states, key=lambda state: _SEVERITY.get(state.status, len(_SEVERITY)))
    details = [worst.detail, *(state.detail for state in states if state.status == "skipped")]
    return TypeState(
        type=worst.type,
        status=worst.status,
        count=sum(state.count for state in states),
        rv=max((state.rv for state in states), key=lambda rv: (len(rv), rv)),
        detail="; ".join(dict.fromkeys(filter(None, details)))[:1000],
    )


_SEVERITY = {"error": 0, "stale": 1, "syncing": 2}
