"""`/api/k8s/containers/exec/policies`: who may run what where, beyond holding the right `exec`."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Path, Response

from kubelore.common.bus import Bus
from kubelore.common.contracts import exec_policies
from kubelore.common.contracts.exec_policies import ExecPolicyRef, ExecRule, ListExecPolicies, PutExecPolicy
from kubelore.gateway.answering import json_answer
from kubelore.gateway.audit.requests import audited
from kubelore.gateway.execution_schemas import (
    ExecPolicyBody,
    ExecPolicyDeletion,
    ExecPolicyDocument,
    ExecPolicyDocuments,
    NewExecPolicy,
)
from kubelore.gateway.problems import documented

PREFIX = "/api/k8s/containers/exec/policies"
PolicyName = Annotated[str, Path(description="The policy's name.", min_length=1, max_length=63)]


def exec_policy_routes(bus: Bus) -> APIRouter:
    """The router over the policies that container-ops keeps."""
    router = APIRouter(prefix=PREFIX, tags=["containers"])
    _reading(router, bus)
    _writing(router, bus)
    return router


def _reading(router: APIRouter, bus: Bus) -> None:
    @router.get("", response_model=ExecPolicyDocuments, summary="Exec policies", responses=documented())
    async def list_exec_policies() -> Response:
        return json_answer(await bus.request(exec_policies.LIST_EXEC_POLICIES, ListExecPolicies()))

    @router.get(
        "/{policy}", response_model=ExecPolicyDocument, summary="One exec policy", responses=documented(404)
    )
    async def get_exec_policy(policy: PolicyName) -> Response:
        return json_answer(await bus.request(exec_policies.GET_EXEC_POLICY, ExecPolicyRef(policy)))


def _writing(router: APIRouter, bus: Bus) -> None:
    @router.post(
        "",
        status_code=201,
        response_model=ExecPolicyDocument,
        dependencies=[audited("exec-policies.create", body="name", of="exec-policies")],
        summary="Make an exec policy",
        responses=documented(409, 422),
    )
    async def create_exec_policy(body: NewExecPolicy) -> Response:
        asked = PutExecPolicy(name=body.name, rule=_rule(body), create=True)
        return json_answer(await bus.request(exec_policies.PUT_EXEC_POLICY, asked), 201)

    @router.put(
        "/{policy}",
        response_model=ExecPolicyDocument,
        dependencies=[audited("exec-policies.update", path="policy", of="exec-policies")],
        summary="Change an exec policy, whole",
        responses=documented(404, 422),
    )
    async def update_exec_policy(policy: PolicyName, body: ExecPolicyBody) -> Response:
        asked = PutExecPolicy(name=policy, rule=_rule(body))
        return json_answer(await bus.request(exec_policies.PUT_EXEC_POLICY, asked))

    @router.delete(
        "/{policy}",
        response_model=ExecPolicyDeletion,
        dependencies=[audited("exec-policies.delete", path="policy", of="exec-policies")],
        summary="Delete an exec policy",
        responses=documented(404),
    )
    async def delete_exec_policy(policy: PolicyName) -> Response:
        return json_answer(await bus.request(exec_policies.DELETE_EXEC_POLICY, ExecPolicyRef(policy)))


def _rule(body: ExecPolicyBody) -> ExecRule:
    return msgspec.convert(body.model_dump(exclude={"name"}), ExecRule)
