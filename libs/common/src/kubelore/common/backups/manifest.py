"""The manifest of a backup: what is in it, in which chunks, and who had it made why."""

from __future__ import annotations

import msgspec

from kubelore.common.backups.faults import ManifestAltered

FORMAT = "kubelore-backup"
VERSION = 1


class Scope(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a backup was asked to hold. An empty list of namespaces or types means all; `labels` is a selector."""

    clusters: list[str]
    namespaces: list[str] = []
    types: list[str] = []
    labels: str = ""


class Shortfall(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that was asked for and is not in the backup, and why."""

    cluster: str
    type: str = ""
    namespace: str = ""
    error: str = ""


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What the writer is told of a backup, for its manifest. Times are ISO 8601 in UTC."""

    name: str
    created_at: str
    completed_at: str
    created_by: str
    reason: str
    scope: Scope
    shortfalls: list[Shortfall] = []


class ChunkEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One chunk: its file's size and SHA-256 (hex), the bytes it unpacks to, and the objects of each type in it.

    A chunk holds objects of one cluster; the last chunk holds none.
    """

    number: int
    size: int
    sha256: str
    plain_size: int
    cluster: str
    types: dict[str, int]

    @property
    def objects(self) -> int:
        """How many objects are in it."""
        return sum(self.types.values())


class Content(msgspec.Struct, kw_only=True):
    """How many objects of a type are in a namespace (empty: in none), and their bytes of JSON."""

    cluster: str
    type: str
    namespace: str
    objects: int = 0
    bytes: int = 0


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about a backup but the objects. `key_id` is the key that was active when it was written."""

    format: str
    version: int
    id: str
    name: str
    created_at: str
    completed_at: str
    created_by: str
    reason: str
    key_id: str
    scope: Scope
    shortfalls: list[Shortfall]
    contents: list[Content]
    chunks: list[ChunkEntry]

    @property
    def objects(self) -> int:
        """How many objects are in the backup."""
        return sum(content.objects for content in self.contents)

    @property
    def bytes(self) -> int:
        """Bytes of the objects' JSON."""
        return sum(content.bytes for content in self.contents)


def encode(manifest: Manifest) -> bytes:
    """The manifest as JSON."""
    return msgspec.json.encode(manifest)


def decode(raw: bytes) -> Manifest:
    """The manifest in JSON. Raises ManifestAltered when it holds none, or one that contradicts itself."""
    try:
        manifest = msgspec.json.decode(raw, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ManifestAltered("The manifest of the backup cannot be read.") from error
    in_order = [chunk.number for chunk in manifest.chunks] == list(range(len(manifest.chunks)))
    if manifest.format != FORMAT or not manifest.chunks or not in_order:
        raise ManifestAltered("The manifest of the backup contradicts itself.")
    return manifest
