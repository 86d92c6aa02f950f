"""One request to a simulated cluster, taken apart once and handed to whoever answers it."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import yaml
from aiohttp import web

from .cluster import ClusterState
from .resources import ResourceType
from .status import Json, bad_request, not_found, too_large, unsupported_media_type
from .store import Entry
from .views import View, negotiate

MAX_BODY = 3 * 1024 * 1024  # bytes, the real server's limit for a request


class _PlainLoader(yaml.CSafeLoader):
    """YAML as Kubernetes reads it: a timestamp stays a string."""


_PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


@dataclass(frozen=True, slots=True)
class Call:
    cluster: ClusterState
    request: web.BaseRequest
    user: str
    type: ResourceType
    namespace: str
    name: str
    subresource: str

    @property
    def content_type(self) -> str:
        return self.request.headers.get("Content-Type", "application/json").partition(";")[0].strip()

    @property
    def dry_run(self) -> bool:
        return self.request.query.get("dryRun", "") == "All"

    @property
    def manager(self) -> str:
        """The field manager: named, or the first word of the user agent as on the real server."""
        agent = self.request.headers.get("User-Agent", "unknown").partition("/")[0]
        return self.request.query.get("fieldManager") or agent[:128]

    @property
    def view(self) -> View:
        return negotiate(self.request.headers.get("Accept", ""), self.request.query.get("includeObject", ""))

    def found(self) -> Entry:
        """The object that the path names; ApiError 404 when there is none."""
        entry = self.cluster.store.find(self.type, self.namespace, self.name)
        if entry is None:
            raise not_found(self.type.group, self.type.plural, self.name)
        return entry

    async def document(self) -> Json:
        """The body as one object; ApiError 400 or 415 when it isn't one."""
        document = await self.json()
        if not isinstance(document, dict):
            raise bad_request("the body must be one object")
        return document

    async def json(self) -> object:
        try:
            raw = await self.request.read()
        except web.HTTPRequestEntityTooLarge as error:
            raise too_large(MAX_BODY) from error
        content_type = self.content_type
        if content_type.endswith("json"):
            loaders = (msgspec.json.decode,)
        elif content_type.endswith("yaml"):
            loaders = (msgspec.json.decode, _load_yaml)
        else:
            raise unsupported_media_type(content_type)
        for loader in loaders:
            try:
                return loader(raw) if raw else {}
            except (msgspec.DecodeError, yaml.YAMLError, UnicodeDecodeError):
                continue
        raise bad_request(f"couldn't get version/kind; the body is not {content_type}")


def _load_yaml(raw: bytes) -> object:
    return yaml.load(raw, Loader=_PlainLoader)  # noqa: S506 - _PlainLoader is a CSafeLoader
