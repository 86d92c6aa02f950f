"""A second reader, written from docs/keyring.md alone: what is on disk is what the page says."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.cmac import CMAC
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from kubelore.common.crypto import Keyring

CONTEXT = "cluster:prod-eu"


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    keyring = Keyring.create(tmp_path / "clusters.json", "clusters")
    keyring.rotate()
    return keyring


@pytest.fixture
def held(keyring: Keyring, tmp_path: Path) -> dict[str, bytes]:
    """The secrets of the file: by key id, and `recipient` and `hmac`."""
    file = json.loads((tmp_path / "clusters.json").read_text())
    assert (file["format"], file["version"], file["purpose"]) == ("kubelore-keyring", 1, "clusters")
    assert [key["state"] for key in file["keys"]] == ["retired", "active"]
    secrets = {key["id"]: base64.b64decode(key["secret"]) for key in file["keys"]}
    for key_id, secret in secrets.items():
        assert hmac.digest(secret, b"kubelore key id v1", "sha256")[:8].hex() == key_id
    return {
        **secrets,
        "recipient": base64.b64decode(file["recipient"]["private_key"]),
        "hmac": base64.b64decode(file["hmac_secret"]),
    }


def bound(label: bytes, *parts: bytes) -> bytes:
    return label + b"".join(len(part).to_bytes(2, "big") + part for part in parts)


def xaes_open(key: bytes, sealed: bytes, aad: bytes) -> bytes:
    derived = b""
    for counter in (b"\x00\x01", b"\x00\x02"):
        mac = CMAC(AES256(key))
        mac.update(counter + b"\x58\x00" + sealed[:12])
        derived += mac.finalize()
    return AESGCM(derived).decrypt(sealed[12:24], sealed[24:], aad)


def test_an_envelope_is_as_the_page_says(keyring: Keyring, held: dict[str, bytes]) -> None:
    sealed = keyring.seal(b"a kubeconfig", context=CONTEXT)
    assert sealed[:4] == b"KLE\x01"
    assert len(sealed) == len(b"a kubeconfig") + 112
    wrapping = held[sealed[4:12].hex()]
    place = (b"clusters", CONTEXT.encode())
    data_key = xaes_open(wrapping, sealed[12:84], bound(b"kubelore envelope key v1", sealed[:12], *place))
    content = AESGCM(data_key).decrypt(
        sealed[84:96], sealed[96:], bound(b"kubelore envelope content v1", *place)
    )
    assert content == b"a kubeconfig"


def test_a_sealed_value_is_as_the_page_says(keyring: Keyring, held: dict[str, bytes]) -> None:
    sealed = keyring.sealer("continue").seal(b"position", CONTEXT)
    assert sealed[:4] == b"KLS\x01"
    assert len(sealed) == len(b"position") + 52
    info = bound(b"kubelore sealer v1", b"clusters", b"continue")
    key = HKDF(SHA256(), 32, salt=None, info=info).derive(held[sealed[4:12].hex()])
    aad = bound(b"kubelore sealed value v1", sealed[:12], CONTEXT.encode())
    assert xaes_open(key, sealed[12:], aad) == b"position"


def test_a_keyed_hash_is_as_the_page_says(keyring: Keyring, held: dict[str, bytes]) -> None:
    key = HKDF(SHA256(), 32, salt=None, info=bound(b"kubelore hmac v1", b"clusters")).derive(held["hmac"])
    expected = hmac.digest(key, bound(b"", CONTEXT.encode()) + b"value", "sha256")
    assert keyring.hmac(b"value", context=CONTEXT) == expected


def test_a_box_is_as_the_page_says(keyring: Keyring, held: dict[str, bytes]) -> None:
    box = keyring.recipient().seal(b"a kubeconfig", context=CONTEXT)
    public = keyring.recipient().public_key
    assert box[:12] == b"KLB\x01" + hashlib.sha256(public).digest()[:8]
    assert len(box) == len(b"a kubeconfig") + 60
    info = bound(b"kubelore box v1", box[:12], CONTEXT.encode())
    assert hpke_open(held["recipient"], public, box[12:44], box[44:], info) == b"a kubeconfig"


def hpke_open(private: bytes, public: bytes, enc: bytes, ciphertext: bytes, info: bytes) -> bytes:
    """RFC 9180, 4.1 and 5.1: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM, base mode."""
    kem, suite = b"KEM\x00\x20", b"HPKE\x00\x20\x00\x01\x00\x02"

    def extract(suite_id: bytes, salt: bytes, label: bytes, material: bytes) -> bytes:
        return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite_id + label + material, "sha256")

    def expand(suite_id: bytes, key: bytes, label: bytes, about: bytes, length: int) -> bytes:
        labelled = length.to_bytes(2, "big") + b"HPKE-v1" + suite_id + label + about
        return hmac.digest(key, labelled + b"\x01", "sha256")[:length]

    shared = X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(enc))
    secret = expand(kem, extract(kem, b"", b"eae_prk", shared), b"shared_secret", enc + public, 32)
    schedule = b"\x00" + extract(suite, b"", b"psk_id_hash", b"") + extract(suite, b"", b"info_hash", info)
    chosen = extract(suite, secret, b"secret", b"")
    key = expand(suite, chosen, b"key", schedule, 32)
    nonce = expand(suite, chosen, b"base_nonce", schedule, 12)
    return AESGCM(key).decrypt(nonce, ciphertext, None)
