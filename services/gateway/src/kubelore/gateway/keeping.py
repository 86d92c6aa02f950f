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
from kubelore.gateway.audit.requests import audited
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


class RedactBody(BaseModel):
    """Why a content is taken out of the history."""

    model_config = ConfigDict(extra="forbid")

    reason: Reason


class Redacted(BaseModel):
    """Which versions held that content, and hold it no more."""

    id: str
    versions: list[int]


def keeping_routes(bus: Bus, keyring: Keyring) -> APIRouter:
    """The router over what yaml-vcs keeps, shows only to some, and lets go."""
    router = APIRouter(prefix="/api/k8s/yaml", tags=["versions"])
    router.include_router(_secret_routes(bus, keyring))
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
        return _json(await bus.request(keeping.REDACT, asked))

    return router


def _json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")
