"""What is signed about a history after it was made: contents taken out, versions pruned. Pure."""

from __future__ import annotations

import msgspec

from kubelore.common.crypto import Verifier
from kubelore.common.errors import IntegrityError
from kubelore.yaml_vcs.history import MAIN, Checkpoint, Entry, Redaction


class Statements:
    """Verifies what was signed about one branch of one history."""

    def __init__(self, verifier: Verifier, key: bytes, branch: int = MAIN) -> None:
        self._verifier = verifier
        self._key = key
        self._branch = branch

    def redaction(self, entry: Entry) -> bool:
        """Whether the content of a version was taken out by who may."""
        said = entry.redaction
        if said is None:
            return False
        return self._signed(
            redaction_bytes(self._key, self._branch, entry, said), said.signature, "redaction"
        )

    def checkpoint(self, entry: Entry, commit: bytes) -> bool:
        """Whether the versions before an entry were pruned, back to the one with that commit."""
        said = entry.checkpoint
        if said is None:
            return False
        body = checkpoint_bytes(self._key, self._branch, entry.number, commit, said)
        return self._signed(body, said.signature, "checkpoint")

    def _signed(self, body: bytes, signature: bytes, context: str) -> bool:
        try:
            self._verifier.verify(body, signature, context=context)
        except IntegrityError:
            return False
        return True


def redaction_bytes(key: bytes, branch: int, entry: Entry, said: Redaction) -> bytes:
    """What a redaction's signature covers: which content of which version it took out, who, when and why."""
    return msgspec.msgpack.encode(
        [key, branch, entry.number, entry.commit, entry.hash, said.by, said.at, said.reason]
    )


def checkpoint_bytes(key: bytes, branch: int, number: int, commit: bytes, said: Checkpoint) -> bytes:
    """What a checkpoint's signature covers: between which commits of which history versions were pruned."""
    return msgspec.msgpack.encode([key, branch, number, commit, said.before, said.parent, said.at])
