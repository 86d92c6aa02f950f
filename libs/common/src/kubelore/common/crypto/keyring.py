"""The keyring of one purpose: the keys that data at rest is sealed with.

A keyring is a JSON file that only its owner can read (docs/keyring.md). Each
object is encrypted under a data key of its own, and the data key is wrapped by
the keyring's active key, so a rotation re-wraps 32 bytes per object instead of
encrypting everything again. Losing a keyring loses everything sealed with it:
`export` gives the bytes to keep elsewhere, and `restore` puts them back.

Python cannot wipe memory, so keys stay in the process that loaded them.
"""

from __future__ import annotations

import hashlib
import hmac as hmac_module
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from kubelore.common.crypto import content as contents
from kubelore.common.crypto import envelope, recipient
from kubelore.common.crypto.content import Content
from kubelore.common.crypto.context import bound
from kubelore.common.crypto.files import KeyringError, fingerprint, locked, read_private, write_atomically
from kubelore.common.crypto.recipient import Recipient
from kubelore.common.crypto.sealer import Sealer
from kubelore.common.crypto.signing import Signer
from kubelore.common.errors import AlreadyExists, IntegrityError


class KeyInfo(NamedTuple):
    """What may be shown of a key; the times are ISO 8601 in UTC, empty when it has not come to that."""

    id: str
    state: str
    created_at: str
    retired_at: str
    removed_at: str


class Keyring:
    """An open keyring. Made by `create`, `load`, `load_or_create` or `restore`, never directly."""

    def __init__(self, path: Path, content: Content, seen: tuple[int, int, int] | None) -> None:
        self._path = path
        self._content = content
        self._seen = seen
        self._derive()

    def __repr__(self) -> str:
        return f"Keyring({self.purpose!r}, active={self._content.active.id}, keys={len(self._content.keys)})"

    @classmethod
    def create(cls, path: Path, purpose: str) -> Keyring:
        """Make a new keyring, never over an existing one. Raises AlreadyExists, KeyringError."""
        return cls._write_new(path, contents.fresh(purpose, _now()))

    @classmethod
    def restore(cls, path: Path, exported: bytes) -> Keyring:
        """Put back what `export` gave, never over an existing keyring. Raises AlreadyExists, KeyringError."""
        return cls._write_new(path, contents.decode(exported, "to restore"))

    @classmethod
    def load(cls, path: Path) -> Keyring:
        """Read a keyring. Raises KeyringError, with a remedy, when it is missing, too open or damaged."""
        seen = fingerprint(path)
        return cls(path, contents.decode(read_private(path), str(path)), seen)

    @classmethod
    def load_or_create(cls, path: Path, purpose: str) -> Keyring:
        """Read the keyring of `purpose`, making it first when there is none.

        For a first start only: where a keyring was and is lost, this makes one
        that opens nothing of what was sealed before. Raises KeyringError.
        """
        try:
            keyring = cls.load(path) if path.exists() else cls.create(path, purpose)
        except AlreadyExists:
            keyring = cls.load(path)
        if keyring.purpose != purpose:
            raise KeyringError(
                f"{path} is the keyring for {keyring.purpose!r}, not for {purpose!r}.",
                remedy="Give every purpose a keyring file of its own.",
            )
        return keyring

    @classmethod
    def _write_new(cls, path: Path, content: Content) -> Keyring:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise KeyringError(
                f"The keyring folder {path.parent} cannot be made: {error.strerror}."
            ) from error
        with locked(path):
            if path.exists():
                raise AlreadyExists(f"There is a keyring at {path} already.", remedy="Rotate it instead.")
            write_atomically(path, contents.encode(content))
            keyring = cls.load(path)
            keyring.publish()
        return keyring

    def publish(self) -> None:
        """Write the public halves beside the keyring, where others may read them. Raises KeyringError."""
        halves = {".pub": self.recipient().public_key, ".verify": self.signer().verifier.public_key}
        for suffix, public_key in halves.items():
            path, wanted = self._path.with_suffix(suffix), contents.encode_public(public_key)
            if not path.exists() or path.read_bytes() != wanted:
                write_atomically(path, wanted, mode=0o644)

    @property
    def purpose(self) -> str:
        """What it is for: clusters, versions, logs or gateway."""
        return self._content.purpose

    @property
    def active_key_id(self) -> str:
        """The id of the key that seals, as the file has it now. Raises KeyringError."""
        self._reload_if_replaced()
        return self._content.active.id

    @property
    def keys(self) -> tuple[KeyInfo, ...]:
        """Every key, oldest first, without its secret, as the file has them now. Raises KeyringError."""
        self._reload_if_replaced()
        return tuple(
            KeyInfo(key.id, key.state, key.created_at, key.retired_at, key.removed_at)
            for key in self._content.keys
        )

    def seal(self, plaintext: bytes, *, context: str) -> bytes:
        """Seal one object to the place that `context` names. Raises TooLarge over 1 GiB."""
        key_id, secret = self._active()
        return envelope.seal(plaintext, key_id=key_id, key=secret, purpose=self.purpose, context=context)

    def open(self, sealed: bytes, *, context: str) -> bytes:
        """The plaintext of what `seal` gave for the same context. Raises IntegrityError."""
        return envelope.open_sealed(sealed, self._secret, purpose=self.purpose, context=context)

    def rewrap(self, sealed: bytes, *, context: str) -> bytes:
        """The same ciphertext under the active key. Raises IntegrityError when the wrap does not verify.

        The content itself is not read: damage in it stays, and is found by `open`.
        """
        key_id, secret = self._active()
        return envelope.rewrap(
            sealed, self._secret, key_id=key_id, key=secret, purpose=self.purpose, context=context
        )

    def hmac(self, data: bytes, *, context: str) -> bytes:
        """32 bytes, equal for equal data in the same context, telling nothing else; rotations leave them."""
        return hmac_module.digest(self._hmac_key, bound(b"", context) + data, hashlib.sha256)

    def sealer(self, scope: str) -> Sealer:
        """A sealer for many small values of one use, such as `continue`."""
        return Sealer(self.purpose, scope, self._active, self._secret)

    def signer(self) -> Signer:
        """The pair that signs for this purpose; rotations leave it, so that old signatures stay verifiable."""
        return Signer(self._signing_secret)

    def recipient(self) -> Recipient:
        """The public half, which anybody may seal to."""
        return Recipient(self._pair.public_key().public_bytes_raw())

    def open_box(self, box: bytes, *, context: str) -> bytes:
        """The plaintext of a box sealed to `recipient` under the same context. Raises IntegrityError."""
        return recipient.open_box(box, self._pair, context=context)

    def rotate(self) -> str:
        """Make a new active key; the one before still opens. The new key's id. Raises KeyringError."""
        with locked(self._path):
            self._adopt(contents.rotated(self._read(), _now()))
        return self.active_key_id

    def remove(self, key_id: str) -> None:
        """Forget a retired key for good: what it sealed and was not rewrapped is lost.

        Raises NotFound, Conflict for the active key, KeyringError.
        """
        with locked(self._path):
            self._adopt(contents.without(self._read(), key_id, _now()))

    def export(self) -> bytes:
        """The whole keyring, secrets included, to keep apart from the data it opens. Raises KeyringError."""
        self._reload_if_replaced()
        return contents.encode(self._content)

    def _adopt(self, content: Content) -> None:
        write_atomically(self._path, contents.encode(content))
        self._content, self._seen = content, fingerprint(self._path)

    def _read(self) -> Content:
        found = contents.decode(read_private(self._path), str(self._path))
        if found.purpose != self.purpose or found.hmac_secret != self._content.hmac_secret:
            raise KeyringError(
                f"{self._path} was replaced by another keyring while this program ran.",
                remedy="Put the keyring back, or start the program again.",
            )
        return found

    def _reload_if_replaced(self) -> None:
        """Notice a rotation by another process. A file that is gone changes nothing: the keys are known."""
        seen = fingerprint(self._path)
        if seen is not None and seen != self._seen:
            self._content, self._seen = self._read(), seen

    def _derive(self) -> None:
        info = bound(b"kubelore hmac v1", self.purpose)
        self._hmac_key = HKDF(SHA256(), 32, salt=None, info=info).derive(self._content.hmac_secret)
        info = bound(b"kubelore signing v1", self.purpose)
        self._signing_secret = HKDF(SHA256(), 32, salt=None, info=info).derive(self._content.hmac_secret)
        self._pair = X25519PrivateKey.from_private_bytes(self._content.recipient.private_key)

    def _active(self) -> tuple[str, bytes]:
        self._reload_if_replaced()
        key = self._content.active
        return key.id, key.secret

    def _secret(self, key_id: str) -> bytes:
        found = self._content.find(key_id)
        if found is None:
            self._reload_if_replaced()
            found = self._content.find(key_id)
        if found is None:
            raise IntegrityError(
                f"Key {key_id} is not in the keyring {self.purpose!r}.",
                remedy="Bring back the keyring that holds it, if this is not the one it was sealed with.",
                key_id=key_id,
            )
        if found.state == "removed":
            raise IntegrityError(
                f"Key {key_id} was removed from the keyring {self.purpose!r} at {found.removed_at}.",
                remedy="Bring back a keyring from before then, rewrap, and remove the key again.",
                key_id=key_id,
            )
        return found.secret


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
