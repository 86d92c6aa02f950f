"""Policies of exec: who may do what in which containers, beyond holding the right `exec`."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, TypeAlias

import msgspec

from kubelore.common.contracts.containers import SERVICE
from kubelore.common.contracts.endpoint import Endpoint

Effect: TypeAlias = Literal["deny", "reason"]
"""`deny` refuses; `reason` refuses what comes without a reason."""


class ExecRule(msgspec.Struct, kw_only=True, frozen=True):
    """What a policy is about, and what it does. Everything but `effect` is a list of globs.

    It is about a command when cluster, namespace, subject and command each match
    one of their globs, and the subject none of `exempt`. A glob in `commands`
    is held against the whole command line and against its program's name; empty
    means every command, terminals and file operations too. File operations are
    called `files:<what>`, as in `files:delete`.
    """

    effect: Effect
    clusters: tuple[str, ...] = ("*",)
    namespaces: tuple[str, ...] = ("*",)
    subjects: tuple[str, ...] = ("*",)
    exempt: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    message: str = ""
    """What whoever is refused is told."""


class ExecPolicy(msgspec.Struct, kw_only=True, frozen=True):
    """A rule with a name, and who made it."""

    name: str
    rule: ExecRule
    updated_by: str
    updated_at: datetime


class ListExecPolicies(msgspec.Struct, frozen=True):
    """All of them that are about clusters which the caller sees."""


class ExecPolicyList(msgspec.Struct):
    """Policies by name; at most 200 exist."""

    items: list[ExecPolicy]


class ExecPolicyRef(msgspec.Struct, frozen=True):
    """One policy by its name."""

    name: str


class PutExecPolicy(msgspec.Struct, kw_only=True):
    """Make a policy, or change it whole; with `create` AlreadyExists where there is one."""

    name: str
    rule: ExecRule
    create: bool = False


class DeletedExecPolicy(msgspec.Struct):
    """It is gone."""

    name: str


LIST_EXEC_POLICIES = Endpoint(SERVICE, "list-exec-policies", ListExecPolicies, ExecPolicyList)
GET_EXEC_POLICY = Endpoint(SERVICE, "get-exec-policy", ExecPolicyRef, ExecPolicy)
PUT_EXEC_POLICY = Endpoint(SERVICE, "put-exec-policy", PutExecPolicy, ExecPolicy)
DELETE_EXEC_POLICY = Endpoint(SERVICE, "delete-exec-policy", ExecPolicyRef, DeletedExecPolicy)

ENDPOINTS = (LIST_EXEC_POLICIES, GET_EXEC_POLICY, PUT_EXEC_POLICY, DELETE_EXEC_POLICY)
