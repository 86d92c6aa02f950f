"""XAES-256-GCM (C2SP): AES-256-GCM with a 24-byte nonce, for keys that encrypt many messages.

AES-GCM with random 12-byte nonces must stop before 2^32 messages under one key
(NIST SP 800-38D, 8.3). Here the first half of a 24-byte nonce derives a key by
the KDF of NIST SP 800-108r1 with CMAC, and the second half is the nonce under
it, so that random nonces are safe for 2^80 messages and nobody has to count.
Specification: https://c2sp.org/XAES-256-GCM
"""

from __future__ import annotations

import os
from functools import lru_cache

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.cmac import CMAC

NONCE_BYTES = 24
TAG_BYTES = 16


def encrypt(key: bytes, plaintext: bytes, aad: bytes) -> bytes:
    """A fresh nonce, then the ciphertext with its tag."""
    nonce = os.urandom(NONCE_BYTES)
    return nonce + encrypt_with_nonce(key, nonce, plaintext, aad)


def encrypt_with_nonce(key: bytes, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
    """The ciphertext with its tag. The nonce must never repeat under `key`."""
    return AESGCM(_derive(key, nonce)).encrypt(nonce[12:], plaintext, aad)


def decrypt(key: bytes, sealed: bytes, aad: bytes) -> bytes:
    """The plaintext of what `encrypt` gave. Raises cryptography's InvalidTag."""
    nonce, ciphertext = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
    return AESGCM(_derive(key, nonce)).decrypt(nonce[12:], ciphertext, aad)


def _derive(key: bytes, nonce: bytes) -> bytes:
    return _block(key, 1, nonce) + _block(key, 2, nonce)


def _block(key: bytes, counter: int, nonce: bytes) -> bytes:
    mac = _keyed(key).copy()
    mac.update(bytes((0, counter)) + b"X\x00" + nonce[:12])
    return mac.finalize()


@lru_cache(maxsize=16)
def _keyed(key: bytes) -> CMAC:
    """To be copied: a copy costs a twentieth of setting it up. These keys lie in memory as long as the process."""
    return CMAC(AES256(key))
