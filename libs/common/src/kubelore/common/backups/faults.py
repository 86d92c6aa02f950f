"""What can be wrong with a backup, each by a name of its own: whoever meets one knows what to look for."""

from __future__ import annotations

from kubelore.common.errors import IntegrityError


class BackupFault(IntegrityError):
    """A backup that must not be believed. Nothing of it is to be restored."""

    reason = "BackupFault"


class NotABackup(BackupFault):
    """Bytes that are no part of a backup at all."""

    reason = "NotABackup"


class FormatUnknown(BackupFault):
    """A version of the format that this program does not know."""

    reason = "BackupFormatUnknown"


class BackupIncomplete(BackupFault):
    """There is no manifest: the backup was never finished, or its manifest was taken away."""

    reason = "BackupIncomplete"


class KeyUnknown(BackupFault):
    """The keyring has none of the keys that the backup's data key is wrapped with, or has removed them."""

    reason = "BackupKeyUnknown"


class KeyRefused(BackupFault):
    """The wrapped data key does not verify: altered, of another backup, or another keyring's."""

    reason = "BackupKeyRefused"


class ManifestAltered(BackupFault):
    """The manifest does not verify."""

    reason = "BackupManifestAltered"


class ManifestForeign(BackupFault):
    """The manifest is another backup's."""

    reason = "BackupManifestForeign"


class ChunkMissing(BackupFault):
    """A chunk that the manifest names is not there."""

    reason = "BackupChunkMissing"


class ChunkUnexpected(BackupFault):
    """There is a chunk that the manifest does not name."""

    reason = "BackupChunkUnexpected"


class ChunkMisplaced(BackupFault):
    """A chunk of this backup lies where another belongs: swapped, doubled, or the end put elsewhere."""

    reason = "BackupChunkMisplaced"


class ChunkForeign(BackupFault):
    """A chunk is another backup's."""

    reason = "BackupChunkForeign"


class ChunkAltered(BackupFault):
    """A chunk does not verify: altered or cut off."""

    reason = "BackupChunkAltered"


class RecordDamaged(BackupFault):
    """What was sealed is no proper list of objects, or not what the manifest says: the writer's fault."""

    reason = "BackupRecordDamaged"


class ArchiveDamaged(BackupFault):
    """An archive that ends too soon, names something twice, or holds what no backup holds."""

    reason = "BackupArchiveDamaged"
