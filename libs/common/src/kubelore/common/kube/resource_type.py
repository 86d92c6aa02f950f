"""A resource type as a value: which group, version and plural, and how to address it on an API server.

Written as kubectl does: `pods`, `deployments.apps`, and `deployments.v1.apps`
where the version matters. Everything that enters a path is percent-encoded, so
that no name can leave its place in the URL.
"""

from __future__ import annotations

from urllib.parse import quote

import msgspec

from kubelore.common.errors import BadRequest


def encode_segment(text: str) -> str:
    """Percent-encode one path segment; raises BadRequest for what no object can be called.

    The rule is Kubernetes' own (apimachinery, IsValidPathSegmentName): not `.`
    nor `..`, and no `/` or `%`. Encoding would not help: an API server decodes
    `%2F` before it splits the path, so that a name `x/log` would be another
    resource.
    """
    if text in ("", ".", "..") or "/" in text or "%" in text:
        raise BadRequest(f"{text[:300]!r} cannot be the name of anything on an API server")
    try:
        return quote(text, safe="")
    except UnicodeEncodeError as error:
        raise BadRequest("a name is no text that UTF-8 can write") from error


class ResourceType(msgspec.Struct, frozen=True, kw_only=True):
    """One type that an API server serves, as discovery describes it.

    `storage_version_hash` is equal for two types that are the same objects
    seen through two APIs; it is empty where the server does not say.
    """

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool
    singular: str = ""
    verbs: tuple[str, ...] = ()
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    storage_version_hash: str = ""

    @property
    def name(self) -> str:
        """`pods`, `deployments.apps`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def versioned(self) -> str:
        """`pods.v1`, `deployments.v1.apps`."""
        return f"{self.plural}.{self.version}.{self.group}" if self.group else f"{self.plural}.{self.version}"

    @property
    def api_version(self) -> str:
        """What stands in a manifest's `apiVersion`: `v1`, `apps/v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def observable(self) -> bool:
        """Whether it can be held up to date: it must offer both list and watch."""
        return "list" in self.verbs and "watch" in self.verbs

    def path(
        self, namespace: str | None = None, name: str | None = None, subresource: str | None = None
    ) -> str:
        """The path on the API server, percent-encoded; raises BadRequest for what no path can say.

        `namespace` None or empty means every namespace (or a cluster-scoped
        type). A name in a namespaced type needs its namespace, except where
        the type is `namespaces` itself.
        """
        parts = [self.base_path]
        if namespace:
            if not self.namespaced:
                raise BadRequest(f"{self.name} are not in namespaces, but {namespace!r} was given")
            parts += ["namespaces", encode_segment(namespace)]
        elif name is not None and self.namespaced:
            raise BadRequest(f"{self.name} {name!r} needs its namespace")
        parts.append(encode_segment(self.plural))
        if name is not None:
            parts.append(encode_segment(name))
            if subresource:
                parts.append(encode_segment(subresource))
        elif subresource:
            raise BadRequest(f"the subresource {subresource!r} needs the name of an object")
        return "/".join(parts)

    @property
    def base_path(self) -> str:
        """`/api/v1` or `/apis/<group>/<version>`."""
        if not self.group:
            return f"/api/{encode_segment(self.version)}"
        return f"/apis/{encode_segment(self.group)}/{encode_segment(self.version)}"


PODS = ResourceType(
    group="", version="v1", plural="pods", kind="Pod", singular="pod", namespaced=True, short_names=("po",)
)
NAMESPACES = ResourceType(
    group="",
    version="v1",
    plural="namespaces",
    kind="Namespace",
    singular="namespace",
    namespaced=False,
    short_names=("ns",),
)
NODES = ResourceType(
    group="",
    version="v1",
    plural="nodes",
    kind="Node",
    singular="node",
    namespaced=False,
    short_names=("no",),
)
