"""The same objects in several clusters: which are the same, which differ and where, which are missing.

In two phases, as lists are read: every replica that observes a chosen cluster
answers names with a digest for each of its clusters, in order; they are merged
name by name, and only objects whose digests differ are fetched and compared.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec

from kubelore.common.authz import Caller
from kubelore.common.bus import Bus
from kubelore.common.contracts import resources
from kubelore.common.contracts.identity import ResourceId
from kubelore.common.contracts.resources import (
    ClusterState,
    DigestPage,
    Digests,
    FetchMeant,
    ListDigests,
)
from kubelore.common.errors import BadRequest, KubeloreError, TooLarge, Unavailable
from kubelore.common.kube.differences import ABSENT, Path, differences, render, value_at
from kubelore.common.kube.noise import parse_paths
from kubelore.common.telemetry import get_logger
from kubelore.gateway.fanout import SILENT, UNOWNED, FanOut, lost_state, without_unknown
from kubelore.gateway.roster import Roster

log = get_logger(__name__)

LEAST_CLUSTERS, MOST_CLUSTERS = 2, 500
SCAN_S = 5.0
"""How long one page looks for what it wants; `continue` goes on from there."""
MAX_FETCHED = 1000
"""Objects fetched for one page, at most one name's more; a page that needs more ends early."""
FETCHED_AT_ONCE = 100
MAX_CHANGES = 100
MAX_VALUE_BYTES = 4096

Status = Literal["same", "different", "missing", "unknown"]
Presence = Literal["present", "absent", "unknown"]
Name = tuple[str, str, str]

_TOLD = frozenset({"live", "stale", "throttled"})
"""States in which what has no row is not there; in the others it may only not have arrived."""


class CompareRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What to compare: `types` and `namespaces` as in lists, `ignore` paths besides the usual noise."""

    caller: Caller
    clusters: list[str]
    types: list[str]
    namespaces: list[str]
    labels: str
    name: str
    ignore: str
    status: str
    limit: int
    after: Name | None


class Change(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One place where the objects differ; clusters whose object does not have it are not in `values`.

    With `truncated`, values too long to show are the beginning of their JSON.
    """

    path: str
    values: dict[str, Any]
    truncated: bool = False


class Compared(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One name: in which clusters it is, and where its objects differ."""

    type: str
    namespace: str
    name: str
    status: Status
    clusters: dict[str, Presence]
    changes: list[Change]
    more_changes: int = 0


class Comparison(msgspec.Struct, kw_only=True):
    """One page. `summary` counts every name that was looked at for it; `last` is where the next begins."""

    items: list[Compared]
    summary: dict[Status, int]
    clusters: list[ClusterState]
    last: Name | None


class Comparer:
    """Compares over a bus."""

    def __init__(self, bus: Bus, roster: Roster, fan_out: FanOut) -> None:
        self._bus = bus
        self._roster = roster
        self._fan_out = fan_out

    async def compare(self, asked: CompareRequest) -> Comparison:
        """One page. Raises BadRequest for what cannot be compared, and TooLarge when the answer would be."""
        if not LEAST_CLUSTERS <= len(asked.clusters) <= MOST_CLUSTERS:
            raise BadRequest(
                f"{len(asked.clusters)} clusters cannot be compared",
                remedy=f"Choose {LEAST_CLUSTERS} to {MOST_CLUSTERS} of them with clusters=.",
            )
        parse_paths(asked.ignore)
        owned, orphans = self._roster.by_owner(asked.clusters)
        if not owned:
            raise Unavailable(UNOWNED, remedy="Try again in a few seconds.", retry_after_s=5)
        lanes = [_Lane(self._bus, self._fan_out, owner, names, asked) for owner, names in owned.items()]
        scan = _Scan(asked, self._roster, lanes, [lost_state(name, UNOWNED) for name in orphans])
        await scan.run()
        await self._explain(asked, scan)
        return scan.page()

    async def _explain(self, asked: CompareRequest, scan: _Scan) -> None:
        """Fetch what differs, one object for each digest, and say where."""
        wanted: dict[str, list[str]] = {}
        owners = {name: lane.owner for lane in scan.lanes for name in lane.clusters}
        for found in scan.found:
            for clusters in found.variants.values():
                if len(found.variants) > 1:
                    wanted.setdefault(owners[clusters[0]], []).append(found.id_in(clusters[0]))
        answers = await asyncio.gather(
            *(self._fetch(owner, ids, asked.ignore) for owner, ids in wanted.items())
        )
        objects = {id: raw for answer in answers for id, raw in answer.items()}  # noqa: A001
        for found in scan.found:
            if len(found.variants) > 1:
                _compare(found, objects)
                await asyncio.sleep(0)

    async def _fetch(self, owner: str, ids: list[str], ignore: str) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for start in range(0, len(ids), FETCHED_AT_ONCE):
            some = ids[start : start + FETCHED_AT_ONCE]
            answer = await self._bus.request(
                resources.MEANT, FetchMeant(ids=some, ignore=ignore), target=owner
            )
            found.update(zip(some, answer.objects, strict=True))
        return found


class _Lane:
    """The names of one replica's clusters, page by page."""

    def __init__(
        self, bus: Bus, fan_out: FanOut, owner: str, clusters: list[str], asked: CompareRequest
    ) -> None:
        self.owner = owner
        self.clusters = clusters
        self.rows: deque[Digests] = deque()
        self.states: dict[str, ClusterState] = {}
        self.done = False
        self.unknown: dict[str, BadRequest] = {}
        self.silent = False
        self._bus = bus
        self._fan_out = fan_out
        self._types: list[str] = asked.types
        self._asked = asked
        self._after = asked.after

    async def fill(self) -> None:
        """Ask for the next page, unless names are there or there are none any more."""
        if self.rows or self.done:
            return
        try:
            page = await self._ask()
        except (BadRequest, TooLarge):
            raise
        except KubeloreError as error:
            log.warning("replica not heard", replica=self.owner, reason=error.reason, detail=error.detail)
            self.done = self.silent = True
            self.states = {name: lost_state(name, SILENT) for name in self.clusters}
            return
        if not self.states:
            self.states = {state.name: state for state in page.clusters}
            self._types = page.types or self._types
        self.rows.extend(page.rows)
        self._after, self.done = page.next, page.next is None

    async def _ask(self) -> DigestPage:
        asked = self._asked

        async def ask(known: list[str]) -> DigestPage:
            request = ListDigests(
                clusters=self.clusters,
                types=known,
                namespaces=asked.namespaces,
                labels=asked.labels,
                name=asked.name,
                after=self._after,
            )
            return await self._bus.request(resources.DIGESTS, request, target=self.owner)

        page, unknown = await without_unknown(self._types, ask)
        self.unknown = self.unknown or unknown
        if page is not None:
            return page
        # None of the types is served there: the clusters are there all the same, without any object.
        until = asyncio.get_running_loop().time() + resources.OBSERVERS.deadline_s
        states = (await self._fan_out.states(self.owner, self.clusters, until)).clusters
        return DigestPage(rows=[], clusters=states, types=[])


class _Found:
    """One name on the page, and what came of comparing it."""

    def __init__(self, name: Name, clusters: dict[str, Presence], digests: dict[str, bytes]) -> None:
        self.name = name
        self.clusters = clusters
        self.variants: dict[bytes, list[str]] = {}
        for cluster, digest in digests.items():
            self.variants.setdefault(digest, []).append(cluster)
        self.changes: list[Change] = []
        self.more_changes = 0
        self.status: Status = self._status(len(self.variants) > 1)

    def _status(self, different: bool) -> Status:
        told = [presence for presence in self.clusters.values() if presence != "unknown"]
        if "absent" in told and "present" in self.clusters.values():
            return "missing"
        if different:
            return "different"
        return "same" if len(told) >= LEAST_CLUSTERS else "unknown"

    def settle(self, changes: list[Change]) -> None:
        """Say what differs; objects that differ in nothing that counts are the same."""
        self.changes, self.more_changes = changes[:MAX_CHANGES], max(0, len(changes) - MAX_CHANGES)
        self.status = self._status(bool(changes))

    def id_in(self, cluster: str) -> str:
        """The resource id of the object in one of the clusters."""
        return str(ResourceId(cluster, *self.name))

    def shown(self) -> Compared:
        """As it goes out."""
        return Compared(
            type=self.name[0],
            namespace=self.name[1],
            name=self.name[2],
            status=self.status,
            clusters=self.clusters,
            changes=self.changes,
            more_changes=self.more_changes,
        )


class _Scan:
    """Merges lanes name by name until the page is full."""

    def __init__(
        self, asked: CompareRequest, roster: Roster, lanes: Sequence[_Lane], orphans: list[ClusterState]
    ) -> None:
        self.lanes = lanes
        self.found: list[_Found] = []
        """What is shown, if its status is the one that is wanted, and whatever must be looked into."""
        self._asked = asked
        self._roster = roster
        self._orphans = orphans
        self._states: dict[str, ClusterState] = {}
        self._same = 0
        self._last: Name | None = None

    async def run(self) -> None:
        """Read and merge; the page is full when it has enough names, or took long enough."""
        until = asyncio.get_running_loop().time() + SCAN_S
        candidates = fetching = 0
        while self._more():
            await asyncio.gather(*(lane.fill() for lane in self.lanes))
            self._learn()
            while self._mergeable():
                found = self._next()
                self._last = found.name
                differs = len(found.variants) > 1
                if found.status == "same" and self._asked.status not in ("", "same"):
                    self._same += 1
                    continue
                self.found.append(found)
                candidates += differs or self._asked.status in ("", found.status)
                fetching += len(found.variants) if differs else 0
                if candidates >= self._asked.limit or fetching >= MAX_FETCHED:
                    break
            else:
                if asyncio.get_running_loop().time() < until:
                    continue
            break
        if not self._more():
            self._last = None

    def page(self) -> Comparison:
        """What was found, once the differences are known."""
        summary: dict[Status, int] = {"same": self._same, "different": 0, "missing": 0, "unknown": 0}
        for found in self.found:
            summary[found.status] += 1
        states = sorted([*self._orphans, *self._states.values()], key=lambda state: state.name)
        wanted = self._asked.status
        shown = [found.shown() for found in self.found if wanted in ("", found.status)]
        return Comparison(items=shown, summary=summary, clusters=states, last=self._last)

    def _learn(self) -> None:
        for lane in self.lanes:
            self._states.update(lane.states)
        if self._orphans or any(lane.silent for lane in self.lanes):
            return
        for name in self._asked.types:
            if all(name in lane.unknown for lane in self.lanes):
                raise self.lanes[0].unknown[name]

    def _mergeable(self) -> bool:
        """Whether the next name is known: every replica that has more has said what comes next."""
        return any(lane.rows for lane in self.lanes) and all(lane.rows or lane.done for lane in self.lanes)

    def _more(self) -> bool:
        return any(lane.rows or not lane.done for lane in self.lanes)

    def _next(self) -> _Found:
        name = min(_name(lane.rows[0]) for lane in self.lanes if lane.rows)
        digests: dict[str, bytes] = {}
        for lane in self.lanes:
            if lane.rows and _name(lane.rows[0]) == name:
                row = lane.rows.popleft()
                digests.update((lane.clusters[one.cluster], one.digest) for one in row.held)
        clusters: dict[str, Presence] = {
            cluster: self._presence(cluster, name, digests) for cluster in self._asked.clusters
        }
        return _Found(name, clusters, {cluster: digest for cluster, digest in digests.items() if digest})

    def _presence(self, cluster: str, name: Name, digests: dict[str, bytes]) -> Presence:
        if cluster in digests:
            return "present" if digests[cluster] else "unknown"
        state = self._states.get(cluster)
        told = state is not None and state.status in _TOLD and self._roster.observes(cluster, name[1])
        return "absent" if told and self._asked.caller.may_read(cluster, *name) else "unknown"


def _name(row: Digests) -> Name:
    return (row.type, row.namespace, row.name)


def _compare(found: _Found, objects: dict[str, bytes]) -> None:
    """Where the variants differ: each against the first, and every place shown for all of them."""
    variants: list[tuple[list[str], Any]] = []
    for clusters in found.variants.values():
        raw = objects.get(found.id_in(clusters[0]), b"")
        if raw:
            variants.append((clusters, msgspec.json.decode(raw)))
    if len(variants) < LEAST_CLUSTERS:
        # Gone meanwhile: what the digests told stands, without saying where.
        return
    first = variants[0][1]
    paths = dict.fromkeys(change.path for _, other in variants[1:] for change in differences(first, other))
    changes = [
        _change(path, variants, found.name[0] == "secrets") for path in sorted(_outermost(paths), key=render)
    ]
    found.settle(changes)


def _outermost(paths: Iterable[Path]) -> list[Path]:
    """Without places inside of others: where one variant lacks a map, others may differ in its fields."""
    kept = set(paths)
    return [path for path in kept if not any(path[:end] in kept for end in range(len(path)))]


def _change(path: Path, variants: Sequence[tuple[list[str], Any]], secret: bool) -> Change:
    change = Change(path=render(path), values={})
    hidden: dict[Any, str] = {}
    for clusters, variant in variants:
        value = value_at(variant, path)
        if value is ABSENT:
            continue
        if secret and path[0] == "data":
            # Stands for the value: equal ones have the same number, and nothing else is told.
            value = hidden.setdefault(value, f"value {len(hidden) + 1}")
        text = msgspec.json.encode(value)
        if len(text) > MAX_VALUE_BYTES:
            value, change.truncated = text[:MAX_VALUE_BYTES].decode(errors="ignore"), True
        change.values.update(dict.fromkeys(clusters, value))
    return change
