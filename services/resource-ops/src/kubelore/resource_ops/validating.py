"""Whether a cluster would take an object: by the schema that it publishes, then by a dry run with strict fields.

The schema names every unknown field with the one that was probably meant, also
where the API server only says that it is unknown; the dry run knows what no
schema says: defaults, immutable fields, admission. Any replica answers.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from typing import Any
from urllib.parse import parse_qs

import msgspec

from kubelore.common.callers import current_caller
from kubelore.common.contracts.identity import ResourceId
from kubelore.common.contracts.validation import MAX_FAULTS, Fault, Validate, Validation
from kubelore.common.contracts.writes import MAX_MANIFEST
from kubelore.common.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    Invalid,
    KubeloreError,
    NotFound,
    Unsupported,
)
from kubelore.common.kube import ResourceType
from kubelore.common.kube.documents import load_documents
from kubelore.common.kube.object_names import check_namespace_name, check_object_name
from kubelore.common.reach import Reach, Reached
from kubelore.resource_ops.object_schemas import ObjectSchema
from kubelore.resource_ops.write_plans import SECRETS, target_of, type_of_manifest

MAX_SCHEMAS = 64
"""Compiled at a time, over all clusters: some 300 KB each."""
MAX_DOCUMENT = 32 * 1024 * 1024
SCHEMA_TIMEOUT_S = 10.0
_STRICT = re.compile(r'(unknown|duplicate) field "([^"]{1,500})"')

Object = dict[str, Any]


class Validating:
    """The endpoint, and the schemas it has compiled."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._schemas: OrderedDict[tuple[str, str, str], ObjectSchema] = OrderedDict()

    async def validate(self, request: Validate) -> Validation:
        """What is wrong with a manifest. Raises NotFound, Forbidden, and what `load_documents` does."""
        wanted = ResourceId.parse(request.id)
        current_caller().check_write(wanted.cluster, wanted.type, wanted.namespace)
        if wanted.type == SECRETS:
            raise Unsupported("Secrets are not validated here", remedy="Apply it with --dry-run.")
        documents = await asyncio.to_thread(load_documents, request.manifest, max_bytes=MAX_MANIFEST)
        if len(documents) != 1:
            raise BadRequest(f"a manifest holds one object, not {len(documents)}")
        (manifest,) = documents
        async with self._reach.using(wanted.cluster) as reached:
            found = type_of_manifest(target_of(manifest), (await reached.types()).values())
            if found.name != wanted.type:
                raise Invalid(f"the manifest is no {wanted.type}", field="kind")
            check_object_name(found, wanted.name)
            if found.namespaced != bool(wanted.namespace):
                raise BadRequest(f"{wanted} names no object")
            if wanted.namespace:
                check_namespace_name(wanted.namespace)
            by_schema, unchecked = await self._by_schema(reached, wanted.cluster, found, manifest)
            by_server, refused = await self._by_dry_run(reached, wanted, found, manifest)
        known = {one.path for one in by_schema}
        faults = [*by_schema, *(one for one in by_server if not one.path or one.path not in known)]
        return Validation(faults=faults[:MAX_FAULTS], unchecked=[*unchecked, *refused])

    async def _by_schema(
        self, reached: Reached, cluster: str, found: ResourceType, manifest: Object
    ) -> tuple[list[Fault], list[str]]:
        try:
            schema = await self._schema(reached, cluster, found)
        except KubeloreError as error:
            return [], [f"schema: {error.detail}"]
        return await asyncio.to_thread(schema.faults, manifest), []

    async def _schema(self, reached: Reached, cluster: str, found: ResourceType) -> ObjectSchema:
        """The schema of a type as the cluster publishes it now; its URL changes with its content."""
        place = f"apis/{found.api_version}" if found.group else f"api/{found.version}"
        request = reached.client.transport.request
        root = await request("GET", "/openapi/v3", timeout_s=SCHEMA_TIMEOUT_S, max_bytes=MAX_DOCUMENT)
        paths = _json(root.body).get("paths") or {}
        url = (paths.get(place) or {}).get("serverRelativeURL")
        if not isinstance(url, str):
            raise NotFound(f"the cluster publishes no schema of {found.api_version}")
        path, _, query = url.partition("?")
        key = (cluster, url, found.kind)
        if key in self._schemas:
            self._schemas.move_to_end(key)
            return self._schemas[key]
        parameters = {name: values[0] for name, values in parse_qs(query).items()}
        if not path.startswith("/openapi/v3/"):
            raise NotFound(f"the cluster's schema of {found.api_version} lies elsewhere")
        answer = await request(
            "GET", path, query=parameters, timeout_s=SCHEMA_TIMEOUT_S, max_bytes=MAX_DOCUMENT
        )
        compiled = await asyncio.to_thread(_compile, answer.body, found)
        self._schemas[key] = compiled
        while len(self._schemas) > MAX_SCHEMAS:
            self._schemas.popitem(last=False)
        return compiled

    async def _by_dry_run(
        self, reached: Reached, wanted: ResourceId, found: ResourceType, manifest: Object
    ) -> tuple[list[Fault], list[str]]:
        """What the API server says when it is told not to store it."""
        client, namespace = reached.client, wanted.namespace or None
        try:
            try:
                live = (
                    _json(await client.get(found, namespace, wanted.name, metadata=True)).get("metadata")
                    or {}
                )
            except NotFound:
                body = msgspec.json.encode(_placed(manifest, {}))
                await client.create(found, namespace, body, dry_run=True, strict=True)
                return [], []
            body = msgspec.json.encode(_placed(manifest, live))
            await client.replace(found, namespace, wanted.name, body, dry_run=True, strict=True)
        except (Invalid, BadRequest) as error:
            return server_faults(error), []
        except Conflict as error:
            return [], [f"dry run: the object changed meanwhile ({error.detail[:200]})"]
        except (Forbidden, KubeloreError) as error:
            return [], [f"dry run: {error.detail[:300]}"]
        return [], []


def server_faults(error: KubeloreError) -> list[Fault]:
    """What an API server's refusal names: its causes, or the fields that strict decoding does not know."""
    strict = [
        Fault(path=path, message=f'{what} field "{path}"', source="server")
        for what, path in _STRICT.findall(error.detail)
    ]
    if strict:
        return strict
    causes = error.extra.get("causes") or []
    told = [
        Fault(path=str(cause.get("field", "")), message=str(cause.get("message", ""))[:500], source="server")
        for cause in causes
        if isinstance(cause, dict)
    ]
    return told or [Fault(path="", message=error.detail[:500], source="server")]


def _placed(manifest: Object, live: Object) -> Object:
    """The manifest as what is there now, so that it is not refused for being of another moment."""
    metadata = {name: value for name, value in manifest["metadata"].items() if name != "managedFields"}
    for name in ("uid", "resourceVersion"):
        metadata.pop(name, None)
        if live.get(name):
            metadata[name] = live[name]
    return {**manifest, "metadata": metadata}


def _compile(body: bytes, found: ResourceType) -> ObjectSchema:
    return ObjectSchema(_json(body), found.group, found.version, found.kind)


def _json(body: bytes) -> Object:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise NotFound("the API server's answer is no JSON object") from error
