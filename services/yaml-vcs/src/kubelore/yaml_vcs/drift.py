"""What departed from its tag: asked for, and told as an alert where a tag wants one.

Drift is measured against the newest version of main, which is what is live as of
the last second. The alert comes once when the first version departs, and once
more when the object is as it was tagged again; which of both was told last
stands with the tag. It is told before it is noted, under an id of its own: whoever
dies in between tells it again, under the same id.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

import msgspec

from kubelore.common.bus import Bus
from kubelore.common.callers import current_caller
from kubelore.common.contracts.alerts import VERSION_DRIFT, CloudEvent, DriftData, alert_subject, source_of
from kubelore.common.contracts.branches import MAX_DRIFTS, Drift, DriftPage, FindDrift
from kubelore.common.contracts.identity import check_cluster_name
from kubelore.common.contracts.versions import SERVICE
from kubelore.common.errors import BadRequest, KubeloreError, NotFound
from kubelore.common.telemetry import get_logger
from kubelore.yaml_vcs import rendering
from kubelore.yaml_vcs.histories import Histories
from kubelore.yaml_vcs.history import GONE, Entry
from kubelore.yaml_vcs.rendering import iso
from kubelore.yaml_vcs.repository import Resource, VersionRepository, resource_key
from kubelore.yaml_vcs.tag_repository import KeptTag

log = get_logger(__name__)

LOOK_S = 1.0
SWEEP_S = 60.0
"""What was recorded while nobody looked, as at a start, is found by a look at every tag that alerts."""
MAX_HEARD = 100_000
MAX_FIELDS = 50
_POSITION = 32


class Drifting:
    """The question after drift."""

    def __init__(self, repository: VersionRepository, histories: Histories) -> None:
        self._repository = repository
        self._histories = histories

    async def find(self, request: FindDrift) -> DriftPage:
        """A page of objects that are not as they were tagged, of those that the caller may read."""
        caller = current_caller()
        caller.check_cluster(check_cluster_name(request.cluster))
        if not 1 <= request.limit <= MAX_DRIFTS:
            raise BadRequest(f"limit {request.limit} is not between 1 and {MAX_DRIFTS}")
        after = _position(request.after)
        items: list[Drift] = []
        compared = 0
        while True:
            page = await self._repository.tags.with_name(
                request.cluster, request.tag, namespace=request.namespace, after=after, limit=MAX_DRIFTS
            )
            for position, tag in page:
                if len(items) >= request.limit:
                    return DriftPage(items, compared, next=after.hex() if after else "")
                after = position
                resource = Resource.of(tag.id)
                if not caller.may_read(resource.cluster, resource.type, resource.namespace, resource.name):
                    continue
                compared += 1
                drift = await self._drift(resource, tag)
                if drift is not None:
                    items.append(drift)
            if len(page) < MAX_DRIFTS:
                return DriftPage(items, compared)

    async def _drift(self, resource: Resource, tag: KeptTag) -> Drift | None:
        tagged, newest = await both(self._repository, tag)
        if tagged is None or newest is None or newest.hash == tagged.hash:
            return None
        (shown,) = await self._histories.shown(resource, [newest])
        gone = newest.kind in GONE
        before = await self._histories.content(tagged, tag.id, tag.branch)
        after = await self._histories.content(newest, tag.id)
        return Drift(
            id=tag.id,
            tag=tag.name,
            tagged_version=tag.number,
            version=shown,
            gone=gone,
            changes=[] if gone else rendering.changes(before, after),
        )


async def both(repository: VersionRepository, tag: KeptTag) -> tuple[Entry | None, Entry | None]:
    """The version that is tagged and the newest of main; None for one that is not there."""
    key = resource_key(tag.id)
    try:
        tagged = await repository.get(key, tag.branch, tag.number)
    except NotFound:
        return None, None
    return tagged, await repository.last(key)


class DriftAlerts:
    """Tells of drift from tags that want it told, as versions are recorded here; `clock` tells seconds."""

    def __init__(
        self,
        bus: Bus,
        repository: VersionRepository,
        histories: Histories,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._bus = bus
        self._repository = repository
        self._histories = histories
        self._clock = clock
        self._heard: set[bytes] = set()

    def hear(self, keys: Iterable[bytes]) -> None:
        """Objects have new versions. Of more than 100,000 that nobody has looked at the rest waits for the sweep."""
        if len(self._heard) < MAX_HEARD:
            self._heard.update(keys)

    async def run(self) -> None:
        """Look at what was heard of every second, and at every tag that alerts once a minute, until cancelled."""
        swept = float("-inf")
        while True:
            now = asyncio.get_running_loop().time()
            heard, self._heard = self._heard, set()
            try:
                if heard or now - swept >= SWEEP_S:
                    await self.look(None if now - swept >= SWEEP_S else heard)
                    swept = now if now - swept >= SWEEP_S else swept
            except KubeloreError as error:
                self._heard |= heard
                log.warning("drift not looked at", reason=error.reason, detail=error.detail)
            await asyncio.sleep(LOOK_S)

    async def look(self, keys: set[bytes] | None) -> None:
        """Compare the tags that alert, of these objects or of all, and tell what changed about them."""
        after: bytes | None = None
        while page := await self._repository.tags.alerting(after):
            for position, tag in page:
                after = position
                if keys is None or resource_key(tag.id) in keys:
                    await self._compare(tag)

    async def _compare(self, tag: KeptTag) -> None:
        tagged, newest = await both(self._repository, tag)
        if tagged is None or newest is None:
            return
        drifted = newest.hash != tagged.hash
        if drifted == bool(tag.drifted):
            return
        alert = await self._alert(tag, tagged, newest, drifted=drifted)
        await self._bus.publish_alert(alert_subject(alert), alert)
        await self._repository.tags.note_drift(resource_key(tag.id), tag, newest.number if drifted else 0)

    async def _alert(self, tag: KeptTag, tagged: Entry, newest: Entry, *, drifted: bool) -> CloudEvent:
        fields: list[str] = []
        if drifted and newest.kind not in GONE:
            before = await self._histories.content(tagged, tag.id, tag.branch)
            after = await self._histories.content(newest, tag.id)
            fields = [one.path for one in rendering.changes(before, after)]
        state = "drifted" if drifted else "cleared"
        if not drifted:
            message = f"{tag.id} is as {tag.name} has it again"
        elif newest.kind in GONE:
            message = f"{tag.id}, tagged {tag.name}, is gone"
        else:
            message = f"{tag.id} departed from {tag.name} with version {newest.number}"
        data = DriftData(
            resource_id=tag.id,
            tag=tag.name,
            tagged_version=tag.number,
            version=newest.number,
            state=state,
            fields=fields[:MAX_FIELDS],
            message=message,
            remedy=f"kubelore diff {tag.id} --from {tag.number}" if drifted else "",
        )
        return CloudEvent(
            id=f"{tag.id}@{tag.name}/{tag.number}/{newest.number}/{state}",
            source=source_of(SERVICE),
            type=VERSION_DRIFT,
            subject=tag.cluster,
            time=iso(int(self._clock() * 1000)),
            data=msgspec.to_builtins(data),
            severity="warning" if drifted else "info",
        )


def _position(text: str) -> bytes | None:
    if text and (len(text) != _POSITION or any(one not in "0123456789abcdef" for one in text)):
        raise BadRequest("`after` is no position among drifts")
    return bytes.fromhex(text) if text else None
