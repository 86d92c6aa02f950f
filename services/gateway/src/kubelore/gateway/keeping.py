"""`/api/k8s/yaml`: values of Secrets and what is taken out of histories, as HTTP."""

from __future__ import annotations

import base64
import secrets
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from kubelore.common.bus import Bus
from kubelore.common.contracts import keeping
from kubelore.common.contracts.keeping import RedactVersion, RevealValues, reveal_context
from kubelore.common.crypto import Keyring
from kubelore.gateway.answering import json_answer
from kubelore.gateway.audit.requests import audited
from kubelore.gateway.clusters import ClusterName
from kubelore.gateway.problems import documented
from kubelore.gateway.versions import Number, ResourceId

Reason = Annotated[str, Field(min_length=1, max_length=1000, description="Why; it is kept.")]


class RevealBody(BaseModel):
    """Which values of a Secret are asked for, and why."""

    model_config = ConfigDict(extra="forbid")

    keys: list[Annotated[str, Field(max_length=253)]] = Field(
        [], max_length=1000, description="All when none is named."
    )
    reason: Reason


class RevealedSecret(BaseModel):
    """Values of one version of a Secret, in base64 as Kubernetes writes them."""

    id: str
    version: int
    data: dict[str, str]


class RuleModel(BaseModel):
    """Fields that no version of some types holds."""

    model_config = ConfigDict(extra="forbid")

    types: str = Field(max_length=317, description="A glob: deployments.apps, *.")
    paths: list[list[str]] = Field(max_length=200, description="Names to a field; the last may be a glob.")


class RetentionModel(BaseModel):
    """What is kept of each object; 0 is no bound."""

    model_config = ConfigDict(extra="forbid")

    days: int = Field(30, ge=0, le=100_000, description="All versions of so many days, then one a day.")
    max_days: int = Field(0, ge=0, le=100_000)
    max_versions: int = Field(0, ge=0, le=1_000_000)
    max_bytes: int = Field(0, ge=0, le=1 << 50)


Globs = Annotated[list[Annotated[str, Field(min_length=1, max_length=317)]], Field(max_length=200)]


class PolicyBody(BaseModel):
    """What is versioned of a cluster, and for how long; types and namespaces are globs."""

    model_config = ConfigDict(extra="forbid")

    include_types: Globs = ["*"]
    exclude_types: Globs = []
    include_namespaces: Globs = ["*"]
    exclude_namespaces: Globs = []
    exclude_labels: dict[str, str] = {}
    rules: list[RuleModel] = Field([], max_length=200, description="On top of those that hold everywhere.")
    retention: RetentionModel = RetentionModel(days=30, max_days=0, max_versions=0, max_bytes=0)


class Policy(PolicyBody):
    """A policy, and who set it; `number` stands in the versions made under it."""

    cluster: str
    number: int
    changed_by: str
    changed_at: float = Field(description="Seconds since 1970; 0 where nobody changed it.")


class PolicyList(BaseModel):
    """The policies of clusters that you administer; others have the defaults."""

    items: list[Policy]


class RedactBody(BaseModel):
    """Why a content is taken out of the history."""

    model_config = ConfigDict(extra="forbid")

    reason: Reason


class Redacted(BaseModel):
    """Which versions held that content, and hold it no more."""

    id: str
    versions: list[int]


_REFUSED: Any = documented(403, 404)


def keeping_routes(bus: Bus, keyring: Keyring) -> APIRouter:
    """The router over what yaml-vcs keeps, shows only to some, and lets go."""
    router = APIRouter(prefix="/api/k8s/yaml", tags=["versions"])
    router.include_router(_secret_routes(bus, keyring))
    router.include_router(_policy_routes(bus))
    return router


def _policy_routes(bus: Bus) -> APIRouter:
    router = APIRouter(prefix="/policies")

    @router.get(
        "", response_model=PolicyList, summary="What is versioned of which cluster", responses=documented()
    )
    async def policies() -> Response:
        return json_answer(await bus.request(keeping.POLICIES, keeping.ListVersionPolicies()))

    @router.get("/{cluster}", response_model=Policy, summary="The policy of a cluster", responses=_REFUSED)
    async def policy(cluster: ClusterName) -> Response:
        return json_answer(await bus.request(keeping.POLICY, keeping.VersionPolicyRef(cluster)))

    @router.put(
        "/{cluster}",
        response_model=Policy,
        dependencies=[audited("policies.set", path="cluster")],
        summary="Set what is versioned of a cluster, and for how long",
        responses=documented(403, 404, 409),
    )
    async def set_policy(cluster: ClusterName, body: PolicyBody) -> Response:
        said = msgspec.convert({**body.model_dump(), "cluster": cluster}, keeping.VersionPolicy)
        return json_answer(await bus.request(keeping.SET_POLICY, said))

    @router.delete(
        "/{cluster}",
        response_model=Policy,
        dependencies=[audited("policies.drop", path="cluster")],
        summary="Go back to what holds everywhere",
        responses=_REFUSED,
    )
    async def drop_policy(cluster: ClusterName) -> Response:
        return json_answer(await bus.request(keeping.DROP_POLICY, keeping.VersionPolicyRef(cluster)))

    return router


def _secret_routes(bus: Bus, keyring: Keyring) -> APIRouter:
    router = APIRouter(prefix="/versions/{id}/{version}")

    @router.post(
        "/reveal",
        response_model=RevealedSecret,
        dependencies=[audited("versions.reveal", path="id")],
        summary="Values of a Secret as they were; needs the right secrets",
        responses=documented(403, 404, 410),
    )
    async def reveal(id: ResourceId, version: Number, body: RevealBody) -> Response:
        nonce = secrets.token_hex(16)
        asked = RevealValues(id=id, version=version, nonce=nonce, keys=body.keys, reason=body.reason)
        told = await bus.request(keeping.REVEAL, asked)
        opened = keyring.open_box(told.sealed, context=reveal_context(nonce, id, version))
        values = msgspec.msgpack.decode(opened, type=dict[str, bytes])
        data = {key: base64.b64encode(value).decode() for key, value in values.items()}
        # Said here, it keeps the values from those of `Idempotency-Key`, too.
        answer = msgspec.json.encode({"id": id, "version": version, "data": data})
        headers = {"Cache-Control": "no-store"}
        return Response(answer, media_type="application/json", headers=headers)

    @router.post(
        "/redact",
        response_model=Redacted,
        dependencies=[audited("versions.redact", path="id")],
        summary="Take a content out of the history; its hash stays",
        responses=documented(403, 404, 409, 410),
    )
    async def redact(id: ResourceId, version: Number, body: RedactBody) -> Response:
        asked = RedactVersion(id=id, version=version, reason=body.reason)
        return json_answer(await bus.request(keeping.REDACT, asked))

    return router
