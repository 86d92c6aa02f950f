"""Backups of the blob store that nothing is known of in MongoDB, made known again from their manifests.

A backup is what it says of itself under this installation's keys. What MongoDB
has, however it stands, is left as it is; so a rescan may come again at any time.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime
from time import monotonic

from kubelore.common.backups import BackupFault, BackupReader, Content, Manifest, ManifestAltered, names
from kubelore.common.bus import Bus
from kubelore.common.callers import current_caller
from kubelore.common.contracts.backups import ClusterProgress, Missing
from kubelore.common.contracts.rescans import ROUND, Refused, Rescan, Rescanned
from kubelore.common.crypto import Keyring
from kubelore.common.errors import AlreadyExists, BadRequest, NotFound, TooLarge
from kubelore.common.store import BlobStore
from kubelore.yaml_vcs.backup_blobs import ROOT, BackupBlobs
from kubelore.yaml_vcs.backup_repository import BackupRepository, Job, now

ROUND_S = 20.0
"""When a round ends early: manifests of large backups take seconds to read."""


class Rescans:
    """Answers RESCAN."""

    def __init__(self, repository: BackupRepository, blobs: BlobStore, keyring: Keyring, bus: Bus) -> None:
        self._repository = repository
        self._blobs = blobs
        self._keyring = keyring
        self._bus = bus

    async def rescan(self, asked: Rescan) -> Rescanned:
        """One round. Raises Forbidden for who does not administer everything, Unavailable."""
        current_caller().check_admin("look for backups in the blob store")
        there = [one for one in await self._blobs.folders(ROOT) if one > asked.after]
        ids = there[:ROUND]
        # Asked before anything is read: a deleted backup is known until its manifest is gone.
        known = await self._repository.known(ids)
        told, until, last = Rescanned(found=[], known=0, refused=[]), monotonic() + ROUND_S, ""
        for last in ids:
            if last in known:
                told.known += 1
            else:
                await self._find(last, told)
            if monotonic() > until:
                break
        told.next = last if last and last != there[-1] else ""
        return told

    async def _find(self, backup_id: str, told: Rescanned) -> None:
        try:
            blobs = BackupBlobs(self._blobs, backup_id)
            manifest = (await BackupReader.open(blobs, self._keyring, backup_id)).manifest
            wraps = [names.key_id(name) for name in await blobs.sizes() if names.is_key(name)]
            await self._repository.add(job_of(manifest, wraps, self._bus.replica))
        except AlreadyExists:
            told.known += 1
        except (BackupFault, BadRequest, NotFound, TooLarge) as error:
            told.refused.append(Refused(id=backup_id, reason=error.reason, error=error.detail))
        else:
            told.found.append(backup_id)


def job_of(manifest: Manifest, wraps: list[str], replica: str) -> Job:
    """A completed backup as its manifest tells of it; `wraps` are the ids of the keys that wrap its data key.

    No manifest says for how long a backup was to be kept, nor by which policy it
    was made: it stays until somebody deletes it. Raises ManifestAltered for one
    whose times are none.
    """
    return Job(
        id=manifest.id,
        name=manifest.name,
        status="completed",
        clusters=manifest.scope.clusters,
        namespaces=manifest.scope.namespaces,
        types=manifest.scope.types,
        labels=manifest.scope.labels,
        created_by=manifest.created_by,
        reason=manifest.reason,
        created_at=_moment(manifest.created_at),
        completed_at=_moment(manifest.completed_at),
        retention_days=0,
        replica=replica,
        beat=now(),
        progress=_progress(manifest),
        missing=[
            Missing(cluster=one.cluster, type=one.type, namespace=one.namespace, error=one.error)
            for one in manifest.shortfalls
        ],
        objects=manifest.objects,
        bytes=manifest.bytes,
        size=sum(chunk.size for chunk in manifest.chunks),
        keys=",".join(sorted(wraps)),
    )


def _progress(manifest: Manifest) -> list[ClusterProgress]:
    contents: dict[str, list[Content]] = defaultdict(list)
    for content in manifest.contents:
        contents[content.cluster].append(content)
    unread = {one.cluster for one in manifest.shortfalls if not one.type}
    made: list[ClusterProgress] = []
    for cluster in manifest.scope.clusters:
        held = contents[cluster]
        types = len({content.type for content in held})
        made.append(
            ClusterProgress(
                cluster=cluster,
                status="failed" if cluster in unread and not held else "completed",
                objects=sum(content.objects for content in held),
                bytes=sum(content.bytes for content in held),
                types=types,
                types_done=types,
            )
        )
    return made


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ManifestAltered("The manifest of the backup has times that are none.")
    return moment
