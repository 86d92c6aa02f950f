"""Backups as bytes: written and read over whatever keeps named files, a blob store, a folder or an archive.

docs/backup-format.md describes the bytes. Nothing here knows of MongoDB, of the
bus, or of who may see a backup; chunks are compressed and sealed in threads.
"""

from kubelore.common.backups.archive import ArchiveFolder, archive, archive_size
from kubelore.common.backups.faults import (
    ArchiveDamaged,
    BackupFault,
    BackupIncomplete,
    ChunkAltered,
    ChunkForeign,
    ChunkMisplaced,
    ChunkMissing,
    ChunkUnexpected,
    FormatUnknown,
    KeyRefused,
    KeyUnknown,
    ManifestAltered,
    ManifestForeign,
    NotABackup,
    RecordDamaged,
)
from kubelore.common.backups.folder import Folder, LocalFolder, Sink
from kubelore.common.backups.keys import rewrapped
from kubelore.common.backups.manifest import About, ChunkEntry, Content, Manifest, Scope, Shortfall
from kubelore.common.backups.reader import BackupReader, Verified
from kubelore.common.backups.records import Record
from kubelore.common.backups.secrets import with_values
from kubelore.common.backups.writer import BackupWriter, Packer

__all__ = [
    "About",
    "ArchiveDamaged",
    "ArchiveFolder",
    "BackupFault",
    "BackupIncomplete",
    "BackupReader",
    "BackupWriter",
    "ChunkAltered",
    "ChunkEntry",
    "ChunkForeign",
    "ChunkMisplaced",
    "ChunkMissing",
    "ChunkUnexpected",
    "Content",
    "Folder",
    "FormatUnknown",
    "KeyRefused",
    "KeyUnknown",
    "LocalFolder",
    "Manifest",
    "ManifestAltered",
    "ManifestForeign",
    "NotABackup",
    "Packer",
    "Record",
    "RecordDamaged",
    "Scope",
    "Shortfall",
    "Sink",
    "Verified",
    "archive",
    "archive_size",
    "rewrapped",
    "with_values",
]
