"""The typed description of one request/reply endpoint on the bus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

Req = TypeVar("Req")
Resp = TypeVar("Resp")

Scope = Literal["service", "cluster", "replica"]
"""Who answers: any replica of the service (queue group), the one that holds a
cluster, or one replica named by its id."""


@dataclass(frozen=True, slots=True)
class Endpoint(Generic[Req, Resp]):
    """One endpoint: its service, its name, the structures that go in and out, and its deadline.

    Subjects: `kubelore.v1.<service>.<name>` for `service` scope, and
    `kubelore.v1.<service>.<target>.<name>` for `cluster` and `replica` scope,
    where the target is the cluster's or the replica's id.

    `on_behalf` endpoints need a caller (`kubelore.common.callers`) and decide by
    what was granted to it; the others are between services. `callers` are the
    services that may ask: what each may publish on the bus follows from it.
    """

    service: str
    name: str
    request: type[Req]
    response: type[Resp]
    scope: Scope = "service"
    deadline_s: float = 5.0
    on_behalf: bool = True
    callers: tuple[str, ...] = ("gateway",)

    def subject(self, target: str | None = None) -> str:
        """The subject to send to; `target` is needed by every scope but `service`."""
        if self.scope == "service":
            return f"kubelore.v1.{self.service}.{self.name}"
        if target is None:
            raise ValueError(f"{self.service}.{self.name} needs a target")
        return f"kubelore.v1.{self.service}.{target}.{self.name}"
