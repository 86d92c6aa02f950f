"""What a schedule needs of backups: begun under an id of its own, and looked at on nobody's behalf."""

from __future__ import annotations

from kubelore.common.authz import Caller
from kubelore.common.contracts.backups import Backup, CreateBackup
from kubelore.common.errors import NotFound
from kubelore.common.mandates import Mandate
from kubelore.yaml_vcs.backup_repository import BackupRepository
from kubelore.yaml_vcs.backups import Backups, shown


class ScheduledBackups:
    """See `policy_runs.Making`."""

    def __init__(self, backups: Backups, repository: BackupRepository) -> None:
        self._backups = backups
        self._repository = repository

    async def begin(self, asked: CreateBackup, caller: Caller, mandate: Mandate, backup_id: str) -> Backup:
        """Begin a backup under an id. Raises AlreadyExists when it has begun before."""
        return await self._backups.begin(asked, caller, mandate, backup_id)

    async def find(self, backup_id: str) -> Backup | None:
        """A backup; None when it never was, or was deleted."""
        try:
            return shown(await self._repository.get(backup_id))
        except NotFound:
            return None

    async def remove(self, backup_id: str) -> None:
        """Delete a backup. Raises NotFound, Conflict while it is being made."""
        await self._backups.remove(await self._repository.get(backup_id))
