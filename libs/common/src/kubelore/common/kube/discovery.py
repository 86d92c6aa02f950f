"""Which types a cluster serves, in one request where it can, and without being stopped by a broken extension.

Aggregated discovery (apidiscovery.k8s.io v2 or v2beta1) is asked first; older
servers answer the same request with the classic lists, which are then followed
group by group. A group whose extension server does not answer is named in
`broken`, and the rest stands.

Types are the same objects when they are of one group and plural (several
versions), or when two groups share a storageVersionHash (`events` and
`events.events.k8s.io`). Of each only the preferred one is kept. Aggregated
discovery leaves the hash out, so for the few types that several groups have
under one plural and kind, the classic list is read as well.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence

import msgspec

from kubelore.common.errors import KubeloreError, UpstreamError
from kubelore.common.kube.resource_type import ResourceType, encode_segment
from kubelore.common.kube.transport import Transport

DISCOVERY_TIMEOUT_S = 15.0
CONCURRENT_GROUPS = 8
_ACCEPT = ",".join(
    [
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
        "application/json",
    ]
)


class Discovery(msgspec.Struct, frozen=True):
    """What a cluster serves: each type once, under its preferred version, core first.

    `broken` maps `group/version` to why its types are unknown.
    """

    types: list[ResourceType]
    broken: dict[str, str]

    def by_name(self) -> dict[str, ResourceType]:
        """The types by their kubectl name."""
        return {each.name: each for each in self.types}


class _Kind(msgspec.Struct):
    kind: str = ""


class _Subresource(msgspec.Struct):
    subresource: str


class _AggregatedResource(msgspec.Struct, rename="camel"):
    resource: str
    scope: str = "Namespaced"
    response_kind: _Kind | None = None
    singular_resource: str = ""
    verbs: tuple[str, ...] = ()
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: list[_Subresource] | None = None


class _AggregatedVersion(msgspec.Struct):
    version: str
    resources: list[_AggregatedResource] | None = None
    freshness: str = "Current"


class _Named(msgspec.Struct):
    name: str = ""


class _AggregatedGroup(msgspec.Struct):
    metadata: _Named
    versions: list[_AggregatedVersion] | None = None


class _GroupVersion(msgspec.Struct, rename="camel"):
    group_version: str
    version: str


class _Group(msgspec.Struct, rename="camel"):
    name: str
    versions: list[_GroupVersion]
    preferred_version: _GroupVersion | None = None


class _Root(msgspec.Struct):
    """Whatever `/api` and `/apis` answer: an APIGroupDiscoveryList, APIVersions or an APIGroupList."""

    kind: str = ""
    items: list[_AggregatedGroup] | None = None
    groups: list[_Group] | None = None
    versions: list[str] | None = None


class _Resource(msgspec.Struct, rename="camel"):
    name: str
    kind: str
    namespaced: bool
    singular_name: str = ""
    verbs: tuple[str, ...] = ()
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    storage_version_hash: str = ""


class _ResourceList(msgspec.Struct):
    resources: list[_Resource] | None = None


_decode_root = msgspec.json.Decoder(_Root).decode
_decode_resources = msgspec.json.Decoder(_ResourceList).decode


async def discover(transport: Transport) -> Discovery:
    """Ask a cluster for its types; raises when `/api` itself does not answer."""
    found: list[ResourceType] = []
    broken: dict[str, str] = {}
    for path in ("/api", "/apis"):
        root = await _root(transport, path)
        if root.items is not None:
            _read_aggregated(root.items, found, broken)
        else:
            await _read_classic(transport, _classic_versions(root), found, broken)
    preferred = _first_per_name(found)
    return Discovery(types=await _without_twins(transport, preferred), broken=broken)


async def _root(transport: Transport, path: str) -> _Root:
    reply = await transport.request("GET", path, accept=_ACCEPT, timeout_s=DISCOVERY_TIMEOUT_S)
    try:
        return _decode_root(reply.body)
    except msgspec.MsgspecError as error:
        raise UpstreamError(f"the answer of {path} is no discovery document") from error


def _read_aggregated(
    groups: Iterable[_AggregatedGroup], found: list[ResourceType], broken: dict[str, str]
) -> None:
    for group in groups:
        for version in group.versions or ():
            if version.freshness != "Current":
                name = f"{group.metadata.name}/{version.version}".lstrip("/")
                broken[name] = "its extension API server does not answer"
            resources = version.resources or ()
            found += [_aggregated_type(group.metadata.name, version.version, each) for each in resources]


def _aggregated_type(group: str, version: str, resource: _AggregatedResource) -> ResourceType:
    return ResourceType(
        group=group,
        version=version,
        plural=resource.resource,
        kind=resource.response_kind.kind if resource.response_kind else "",
        namespaced=resource.scope == "Namespaced",
        singular=resource.singular_resource,
        verbs=resource.verbs,
        short_names=resource.short_names,
        categories=resource.categories,
        subresources=tuple(each.subresource for each in resource.subresources or ()),
    )


def _classic_versions(root: _Root) -> list[tuple[str, str]]:
    """Every (group, version), the preferred version of each group first."""
    versions = [("", version) for version in root.versions or ()]
    for group in root.groups or ():
        first = group.preferred_version.version if group.preferred_version else ""
        ordered = sorted(group.versions, key=lambda each: each.version != first)
        versions += [(group.name, each.version) for each in ordered]
    return versions


async def _read_classic(
    transport: Transport,
    versions: Sequence[tuple[str, str]],
    found: list[ResourceType],
    broken: dict[str, str],
) -> None:
    room = asyncio.Semaphore(CONCURRENT_GROUPS)

    async def read(group: str, version: str) -> list[ResourceType] | KubeloreError:
        async with room:
            try:
                return await _classic_types(transport, group, version)
            except KubeloreError as error:
                return error

    async with asyncio.TaskGroup() as tasks:
        reads = [(pair, tasks.create_task(read(*pair))) for pair in versions]
    for (group, version), task in reads:
        outcome = task.result()
        if isinstance(outcome, KubeloreError):
            broken[f"{group}/{version}".lstrip("/")] = outcome.detail
        else:
            found += outcome


async def _classic_types(transport: Transport, group: str, version: str) -> list[ResourceType]:
    head = f"/apis/{encode_segment(group)}" if group else "/api"
    reply = await transport.request("GET", f"{head}/{encode_segment(version)}", timeout_s=DISCOVERY_TIMEOUT_S)
    try:
        resources = _decode_resources(reply.body).resources or []
    except msgspec.MsgspecError as error:
        raise UpstreamError("its answer is no list of resources") from error
    subresources: dict[str, list[str]] = defaultdict(list)
    for each in resources:
        plural, slash, subresource = each.name.partition("/")
        if slash:
            subresources[plural].append(subresource)
    return [
        ResourceType(
            group=group,
            version=version,
            plural=each.name,
            kind=each.kind,
            namespaced=each.namespaced,
            singular=each.singular_name,
            verbs=each.verbs,
            short_names=each.short_names,
            categories=each.categories,
            subresources=tuple(subresources[each.name]),
            storage_version_hash=each.storage_version_hash,
        )
        for each in resources
        if "/" not in each.name
    ]


def _first_per_name(types: Iterable[ResourceType]) -> list[ResourceType]:
    """Each group's plural once: in the first version that has it, which is the preferred one if it does."""
    kept: dict[str, ResourceType] = {}
    for each in types:
        kept.setdefault(each.name, each)
    return list(kept.values())


async def _without_twins(transport: Transport, types: list[ResourceType]) -> list[ResourceType]:
    """Leave out a type whose storageVersionHash an earlier type of another group has as well."""
    suspects: dict[tuple[str, str], list[ResourceType]] = defaultdict(list)
    for each in types:
        suspects[each.plural, each.kind].append(each)
    doubled = [each for group in suspects.values() if len(group) > 1 for each in group]
    unknown = {(each.group, each.version) for each in doubled if not each.storage_version_hash}
    classic: list[ResourceType] = []
    await _read_classic(transport, sorted(unknown), classic, {})
    hashes = {each.versioned: each.storage_version_hash for each in classic}
    seen: set[str] = set()
    kept: list[ResourceType] = []
    for each in types:
        known = hashes.get(each.versioned) or each.storage_version_hash
        typed = msgspec.structs.replace(each, storage_version_hash=known) if known else each
        if not known or known not in seen:
            kept.append(typed)
        seen.add(known)
    return kept
