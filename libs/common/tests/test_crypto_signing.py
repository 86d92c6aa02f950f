"""Signatures: what verifies, and what does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelore.common.crypto import Keyring, KeyringError, Signer, Verifier
from kubelore.common.errors import IntegrityError

SIGNER = Signer(bytes(range(32)))


@given(st.binary(max_size=200), st.text(max_size=50))
def test_what_was_signed_verifies_with_the_public_half_alone(message: bytes, context: str) -> None:
    signature = SIGNER.sign(message, context=context)
    Verifier(SIGNER.verifier.public_key).verify(message, signature, context=context)


@given(st.binary(min_size=1, max_size=100), st.integers(min_value=0), st.integers(1, 255))
def test_a_changed_byte_is_found(message: bytes, place: int, flip: int) -> None:
    signature = SIGNER.sign(message, context="here")
    altered = bytearray(message)
    altered[place % len(message)] ^= flip
    with pytest.raises(IntegrityError):
        SIGNER.verifier.verify(bytes(altered), signature, context="here")


def test_a_signature_for_one_use_proves_nothing_in_another() -> None:
    with pytest.raises(IntegrityError):
        SIGNER.verifier.verify(b"x", SIGNER.sign(b"x", context="audit"), context="versions")


def test_anothers_signature_does_not_verify() -> None:
    with pytest.raises(IntegrityError):
        SIGNER.verifier.verify(b"x", Signer(bytes(32)).sign(b"x", context="a"), context="a")


def test_old_signatures_verify_after_a_rotation_and_a_restore(tmp_path: Path) -> None:
    keyring = Keyring.create(tmp_path / "gateway.json", "gateway")
    signature = keyring.signer().sign(b"x", context="a")
    keyring.rotate()
    restored = Keyring.restore(tmp_path / "elsewhere" / "gateway.json", keyring.export())
    restored.signer().verifier.verify(b"x", signature, context="a")


def test_the_public_half_is_read_from_the_file_beside_the_keyring(tmp_path: Path) -> None:
    keyring = Keyring.create(tmp_path / "gateway.json", "gateway")
    found = Verifier.load(tmp_path / "gateway.verify")
    assert found.public_key == keyring.signer().verifier.public_key
    (tmp_path / "gateway.verify").write_text("nonsense!")
    with pytest.raises(KeyringError):
        Verifier.load(tmp_path / "gateway.verify")
    keyring.publish()
    assert Verifier.load(tmp_path / "gateway.verify").public_key == found.public_key
