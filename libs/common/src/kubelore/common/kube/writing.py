"""The writing verbs: create, apply, replace, patch, delete. Each is sent once; dry run is offered everywhere.

A write whose connection breaks raises with `outcome: unknown` in `extra`, since
nobody can say whether the API server carried it out.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from kubelore.common.kube.listing import single
from kubelore.common.kube.resource_type import ResourceType
from kubelore.common.kube.transport import Transport

FIELD_MANAGER = "kubelore"
WRITE_TIMEOUT_S = 30.0
APPLY_PATCH = "application/apply-patch+yaml"
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"

Propagation = Literal["Orphan", "Background", "Foreground"]


class Writing:
    """What a client changes in one cluster; see KubeClient."""

    transport: Transport

    async def create(
        self,
        resource_type: ResourceType,
        namespace: str | None,
        manifest: bytes,
        *,
        dry_run: bool = False,
        field_manager: str = FIELD_MANAGER,
        name: str | None = None,
        subresource: str | None = None,
        strict: bool = False,
    ) -> bytes:
        """The object as created; with `name`, its subresource (`eviction`). Raises AlreadyExists, Invalid.

        With `strict` unknown and doubled fields are BadRequest.
        """
        path = resource_type.path(namespace, name, subresource)
        query = _query(dry_run, field_manager, strict=strict)
        return await self._write("POST", path, manifest, "application/json", query)

    async def replace(
        self,
        resource_type: ResourceType,
        namespace: str | None,
        name: str,
        manifest: bytes,
        *,
        dry_run: bool = False,
        field_manager: str = FIELD_MANAGER,
        subresource: str | None = None,
        strict: bool = False,
    ) -> bytes:
        """The object as replaced; raises Conflict when the manifest's resourceVersion is not the newest.

        With `strict` unknown and doubled fields are BadRequest.
        """
        path = resource_type.path(namespace, name, subresource)
        query = _query(dry_run, field_manager, strict=strict)
        return await self._write("PUT", path, manifest, "application/json", query)

    async def apply(
        self,
        resource_type: ResourceType,
        namespace: str | None,
        name: str,
        manifest: bytes,
        *,
        field_manager: str = FIELD_MANAGER,
        force: bool = False,
        dry_run: bool = False,
        subresource: str | None = None,
    ) -> bytes:
        """Server-side apply; without `force`, Conflict names in `causes` the fields that others own."""
        path = resource_type.path(namespace, name, subresource)
        query = _query(dry_run, field_manager) | {"force": force}
        return await self._write("PATCH", path, manifest, APPLY_PATCH, query)

    async def patch(
        self,
        resource_type: ResourceType,
        namespace: str | None,
        name: str,
        body: bytes,
        content_type: str = MERGE_PATCH,
        *,
        dry_run: bool = False,
        field_manager: str = FIELD_MANAGER,
        subresource: str | None = None,
    ) -> bytes:
        """The object as patched by a merge, JSON or strategic patch (see the constants of this module)."""
        path = resource_type.path(namespace, name, subresource)
        return await self._write("PATCH", path, body, content_type, _query(dry_run, field_manager))

    async def delete(
        self,
        resource_type: ResourceType,
        namespace: str | None,
        name: str,
        *,
        uid: str | None = None,
        rv: str | None = None,
        propagation: Propagation | None = None,
        grace_period_s: int | None = None,
        dry_run: bool = False,
    ) -> bytes:
        """Delete one object: the object as it ends, or a Status.

        With `uid` or `rv` only that very object, in that very state; Conflict
        otherwise. Raises NotFound.
        """
        options: dict[str, Any] = {"kind": "DeleteOptions", "apiVersion": "v1"}
        preconditions = {key: value for key, value in (("uid", uid), ("resourceVersion", rv)) if value}
        if preconditions:
            options["preconditions"] = preconditions
        if propagation:
            options["propagationPolicy"] = propagation
        if grace_period_s is not None:
            options["gracePeriodSeconds"] = grace_period_s
        if dry_run:
            options["dryRun"] = ["All"]
        body = msgspec.json.encode(options)
        return await self._write("DELETE", resource_type.path(namespace, name), body, "application/json", {})

    async def _write(
        self, method: str, path: str, body: bytes, content_type: str, query: dict[str, str | int | bool]
    ) -> bytes:
        reply = await self.transport.request(
            method,
            path,
            query=query,
            body=body,
            content_type=content_type,
            timeout_s=max(WRITE_TIMEOUT_S, self.transport.timeout_s),
        )
        return single(reply.body)


def _query(dry_run: bool, field_manager: str, *, strict: bool = False) -> dict[str, str | int | bool]:
    query: dict[str, str | int | bool] = {"fieldManager": field_manager}
    if strict:
        query["fieldValidation"] = "Strict"
    if dry_run:
        query["dryRun"] = "All"
    return query
