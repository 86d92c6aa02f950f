"""What is signed about a history beside its chain: who made versions, contents taken out, versions pruned. Pure."""

from __future__ import annotations

import msgspec

from kubelore.common.crypto import Verifier
from kubelore.common.errors import IntegrityError
from kubelore.yaml_vcs.branch_repository import Draft
from kubelore.yaml_vcs.history import MAIN, Checkpoint, Entry, Redaction
from kubelore.yaml_vcs.repository import Attribution


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

    def attribution(self, said: Attribution) -> bool:
        """Whether somebody heard that this actor wrote this."""
        return self._signed(attribution_bytes(said), said.signature, "attribution")

    def draft(self, place: bytes, said: Draft) -> bool:
        """Whether this was recorded at a place (id and commit of a version), by whom and why."""
        return self._signed(draft_bytes(place, said), said.signature, "draft")

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


def attribution_bytes(said: Attribution) -> bytes:
    """What an attribution's signature covers."""
    return msgspec.msgpack.encode(
        [
            said.cluster,
            said.uid,
            said.rv,
            said.actor,
            said.reason,
            said.change_log,
            said.operation_id,
            said.probable,
        ]
    )


def draft_bytes(place: bytes, draft: Draft) -> bytes:
    """What the signature of a recorded version covers: where it stands, its text, who wrote it and why."""
    return msgspec.msgpack.encode([place, draft.text, draft.by, draft.change_log, draft.operation_id])
