"""What goes in and out where commands are run in containers."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from kubelore.common.contracts.container_history import OperationKind, OperationStatus
from kubelore.common.contracts.containers import ContainerCondition, ContainerKind
from kubelore.common.contracts.exec_policies import Effect
from kubelore.common.contracts.execution import (
    MAX_OUTPUT_BYTES,
    MAX_TARGETS,
    MAX_TIMEOUT_S,
    MAX_WORDS,
    StartExec,
)
from kubelore.common.errors import BadRequest
from kubelore.gateway.schemas import Namespace
from kubelore.gateway.write_schemas import Reason, Selector

Word = Annotated[str, StringConstraints(max_length=128 * 1024, pattern=r"^[^\x00]*$")]
TargetId = Annotated[str, StringConstraints(min_length=1, max_length=512)]
PolicyGlob = Annotated[str, StringConstraints(min_length=1, max_length=253)]
Encoding = Literal["utf-8", "base64"]


class ExecOptions(BaseModel):
    """A command, and how it is run."""

    model_config = ConfigDict(extra="forbid")

    command: list[Word] = Field(
        min_length=1,
        max_length=MAX_WORDS,
        description="Its words go to the container as they are; no shell reads them.",
        examples=[["cat", "/etc/os-release"]],
    )
    stdin: str = Field("", description="What it reads; it always reads to an end.")
    stdin_encoding: Encoding = Field("utf-8", description="base64 where stdin holds bytes that are no text.")
    timeout_s: float = Field(60.0, gt=0, le=MAX_TIMEOUT_S, description="After so long it is stopped.")
    tty: bool = Field(
        False, description="Run it at a terminal, which mixes stderr into stdout; without stdin."
    )
    output_bytes: int = Field(
        1024 * 1024, ge=1, le=MAX_OUTPUT_BYTES, description="Of stdout and of stderr; the rest is dropped."
    )
    reason: Reason = Field("", description="Why; a policy may ask for it.")
    debug: bool = Field(
        False, description="Run it in an ephemeral debug container beside this one, made when there is none."
    )

    def asked(self, id: str) -> tuple[StartExec, bytes]:
        """As it goes over the bus for one container, and its input. Raises BadRequest."""
        stdin = self._stdin()
        plain = self.model_dump(include={"command", "timeout_s", "tty", "output_bytes", "reason", "debug"})
        return StartExec(id=id, stdin=bool(stdin), **plain), stdin

    def _stdin(self) -> bytes:
        if self.stdin_encoding == "utf-8":
            return self.stdin.encode(errors="surrogatepass")
        try:
            return base64.b64decode(self.stdin, validate=True)
        except (binascii.Error, ValueError) as error:
            raise BadRequest("stdin is no base64") from error


class ExecBody(ExecOptions):
    """A command for one container."""


class ContainerSelection(BaseModel):
    """Running containers of the pods that are meant in some clusters."""

    model_config = ConfigDict(extra="forbid")

    clusters: list[Selector] = Field(
        [], max_length=100, description="Names, group:x and tag:y; all that the caller sees when empty."
    )
    namespaces: list[Namespace] = Field([], max_length=50, description="All when empty.")
    labels: str = Field("", max_length=4000, description="A label selector.")
    workload: str = Field(
        "", max_length=320, description="In the one namespace named.", examples=["deployments.apps/web"]
    )
    container: str = Field("", max_length=63, description="Each pod's default when empty.")


class ManyExecBody(ExecOptions):
    """A command for many containers: by their ids, or by a selection."""

    containers: list[TargetId] = Field([], max_length=MAX_TARGETS, description="Container ids.")
    selection: ContainerSelection | None = None
    parallel: int = Field(10, ge=1, le=32, description="At most so many at once.")
    output_bytes: int = Field(64 * 1024, ge=1, le=1024 * 1024, description="Of each container's output.")


class ExecReport(BaseModel):
    """How a command ended, and what it said."""

    stdout: str
    stderr: str
    encoding: Encoding = Field(description="Of both; base64 where one of them is no text.")
    exit_code: int | None = Field(description="null where it was stopped for its time.")
    duration_ms: int
    truncated: bool = Field(description="Whether output over the limit was dropped.")
    timed_out: bool
    stopped: bool = Field(description="Of a timed-out command: whether it was seen to end.")
    operation_id: str
    container: str = Field(description="The id of the container that it ran in.")


class ExecFault(BaseModel):
    """Why a command was not run, or how it broke off."""

    status: int = Field(description="As an HTTP status.")
    reason: str
    detail: str
    remedy: str


class ContainerExecResult(BaseModel):
    """What became of the command in one container: exactly one of a report and an error."""

    container: str
    report: ExecReport | None
    error: ExecFault | None


class ManyExecReport(BaseModel):
    """A command in many containers."""

    results: list[ContainerExecResult]
    succeeded: int = Field(description="Containers in which it ended with 0.")
    failed: int


class DebugBody(BaseModel):
    """Ask for a debug container."""

    model_config = ConfigDict(extra="forbid")

    reason: Reason = ""


class DebugReport(BaseModel):
    """A debug container that runs."""

    id: str = Field(description="Its container id.")
    target: str = Field(description="The container that it is for.")
    root: str = Field(description="Where in it the files of that container are.")


class ContainerDocument(BaseModel):
    """One container as its node last said."""

    id: str
    name: str
    kind: ContainerKind
    image: str
    condition: ContainerCondition = "waiting"
    reason: str = ""
    ready: bool = False
    restarts: int = 0
    started_at: str = ""
    finished_at: str = ""
    exit_code: int | None = None
    previous: bool = Field(False, description="Whether the log of a former run may be read.")


class PodDocument(BaseModel):
    """The containers of a pod, in the order of its spec."""

    cluster: str
    namespace: str
    pod: str
    uid: str
    phase: str
    node: str
    default: str = Field(description="The container that is meant when none is named.")
    containers: list[ContainerDocument]


class ContainerOperationDocument(BaseModel):
    """One thing that was done in a container."""

    id: str
    operation_type: OperationKind
    cluster_id: str
    namespace: str
    pod_name: str
    container_name: str
    command: list[str]
    result: dict[str, Any]
    status: OperationStatus
    executed_by: str
    executed_at: datetime
    finished_at: datetime | None
    session_id: str
    request_id: str = Field(description="The Operation-Id of the request, which the audit log names too.")
    reason: str


class ContainerOperationList(BaseModel):
    """One page of operations, newest first. It may hold fewer than asked for and yet have a next one."""

    items: list[ContainerOperationDocument]
    continue_: str | None = Field(None, alias="continue")


class ExecPolicyBody(BaseModel):
    """What an exec policy is about, and what it does. All lists are globs."""

    model_config = ConfigDict(extra="forbid")

    effect: Effect = Field(description="deny refuses; reason refuses what comes without a reason.")
    clusters: list[PolicyGlob] = Field(["*"], min_length=1, max_length=100)
    namespaces: list[PolicyGlob] = Field(["*"], min_length=1, max_length=100)
    subjects: list[PolicyGlob] = Field(["*"], min_length=1, max_length=100, description="Whom it is about.")
    exempt: list[PolicyGlob] = Field([], max_length=100, description="Whom it is not about.")
    commands: list[PolicyGlob] = Field(
        [],
        max_length=100,
        description="Held against the command line and the program's name; every command, terminal and "
        "file operation when empty. A guard rail: who may open a shell can get around it.",
    )
    message: str = Field("", max_length=500, description="What whoever is refused is told.")


class NewExecPolicy(ExecPolicyBody):
    """An exec policy to be made."""

    name: str = Field(max_length=63, description="Lower-case letters, digits and '-'.")


class ExecPolicyDocument(BaseModel):
    """An exec policy."""

    name: str
    rule: ExecPolicyBody
    updated_by: str
    updated_at: datetime


class ExecPolicyDocuments(BaseModel):
    """The exec policies that the caller may change."""

    items: list[ExecPolicyDocument]


class ExecPolicyDeletion(BaseModel):
    """An exec policy that is gone."""

    name: str
