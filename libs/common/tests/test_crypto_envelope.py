"""Sealed envelopes, boxes and values: what opens them, and that nothing else does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelore.common.crypto import Keyring, Recipient, xaes
from kubelore.common.errors import IntegrityError, Invalid, TooLarge

HERE = "cluster:prod-eu"
THERE = "cluster:prod-us"

plaintexts = st.binary(max_size=300)
contexts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


class Way(NamedTuple):
    """One way to seal and open bytes under a context."""

    seal: Callable[[bytes, str], bytes]
    open: Callable[[bytes, str], bytes]


@pytest.fixture(scope="module")
def keyring(tmp_path_factory: pytest.TempPathFactory) -> Keyring:
    return Keyring.create(tmp_path_factory.mktemp("keyring") / "clusters.json", "clusters")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Keyring:
    return Keyring.create(tmp_path_factory.mktemp("stranger") / "clusters.json", "clusters")


def ways_of(keyring: Keyring) -> dict[str, Way]:
    sealer = keyring.sealer("continue")
    recipient = keyring.recipient()
    return {
        "envelope": Way(
            lambda data, where: keyring.seal(data, context=where),
            lambda data, where: keyring.open(data, context=where),
        ),
        "box": Way(
            lambda data, where: recipient.seal(data, context=where),
            lambda data, where: keyring.open_box(data, context=where),
        ),
        "value": Way(sealer.seal, sealer.open),
    }


every_way = pytest.mark.parametrize("way", ["envelope", "box", "value"])


@every_way
@given(plaintext=plaintexts, context=contexts)
def test_what_was_sealed_opens_under_the_same_context(
    keyring: Keyring, way: str, plaintext: bytes, context: str
) -> None:
    seal, open_ = ways_of(keyring)[way]
    assert open_(seal(plaintext, context), context) == plaintext


@every_way
@given(plaintext=plaintexts, one=contexts, other=contexts)
def test_another_context_opens_nothing(
    keyring: Keyring, way: str, plaintext: bytes, one: str, other: str
) -> None:
    seal, open_ = ways_of(keyring)[way]
    sealed = seal(plaintext, one)
    if one != other:
        with pytest.raises(IntegrityError):
            open_(sealed, other)


@every_way
@pytest.mark.parametrize("length", [0, 1, 33])
def test_any_flipped_bit_is_found(keyring: Keyring, way: str, length: int) -> None:
    seal, open_ = ways_of(keyring)[way]
    sealed = seal(b"s" * length, HERE)
    for bit in range(len(sealed) * 8):
        damaged = bytearray(sealed)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(IntegrityError):
            open_(bytes(damaged), HERE)


@every_way
def test_any_truncation_and_any_addition_is_found(keyring: Keyring, way: str) -> None:
    seal, open_ = ways_of(keyring)[way]
    sealed = seal(b"a kubeconfig", HERE)
    for length in range(len(sealed)):
        with pytest.raises(IntegrityError):
            open_(sealed[:length], HERE)
    with pytest.raises(IntegrityError):
        open_(sealed + b"\0", HERE)


@every_way
@given(noise=st.binary(max_size=200))
def test_noise_never_opens(keyring: Keyring, way: str, noise: bytes) -> None:
    _, open_ = ways_of(keyring)[way]
    magic = {"envelope": b"KLE\x01", "box": b"KLB\x01", "value": b"KLS\x01"}[way]
    for candidate in (noise, magic + noise, magic + bytes.fromhex(keyring.active_key_id) + noise):
        with pytest.raises(IntegrityError):
            open_(candidate, HERE)


@every_way
def test_another_keyring_opens_nothing(keyring: Keyring, stranger: Keyring, way: str) -> None:
    sealed = ways_of(keyring)[way].seal(b"a kubeconfig", HERE)
    with pytest.raises(IntegrityError):
        ways_of(stranger)[way].open(sealed, HERE)


@every_way
def test_sealing_twice_gives_different_bytes(keyring: Keyring, way: str) -> None:
    seal, _ = ways_of(keyring)[way]
    assert len({seal(b"same", HERE) for _ in range(50)}) == 50


@every_way
def test_a_version_of_the_future_is_refused(keyring: Keyring, way: str) -> None:
    seal, open_ = ways_of(keyring)[way]
    newer = bytearray(seal(b"x", HERE))
    newer[3] = 9
    with pytest.raises(IntegrityError, match="version"):
        open_(bytes(newer), HERE)


@given(first=plaintexts, second=plaintexts)
def test_parts_of_two_envelopes_do_not_mix(keyring: Keyring, first: bytes, second: bytes) -> None:
    one, two = keyring.seal(first, context=HERE), keyring.seal(second, context=HERE)
    for cut in (36, 84, 96):
        with pytest.raises(IntegrityError):
            keyring.open(one[:cut] + two[cut:], context=HERE)


def test_parts_in_another_order_do_not_open(keyring: Keyring) -> None:
    sealed = keyring.seal(b"x" * 72, context=HERE)
    header, wrap, content = sealed[:12], sealed[12:84], sealed[84:]
    for order in ((header, content, wrap), (wrap, header, content), (content, wrap, header)):
        with pytest.raises(IntegrityError):
            keyring.open(b"".join(order), context=HERE)


def test_one_kind_of_ciphertext_does_not_open_as_another(keyring: Keyring) -> None:
    ways = ways_of(keyring)
    for kind, way in ways.items():
        sealed = way.seal(b"x" * 64, HERE)
        for other in ways.keys() - {kind}:
            with pytest.raises(IntegrityError):
                ways[other].open(sealed, HERE)


def test_an_unknown_key_is_named(keyring: Keyring, stranger: Keyring) -> None:
    with pytest.raises(IntegrityError, match=stranger.active_key_id) as caught:
        keyring.open(stranger.seal(b"x", context=HERE), context=HERE)
    assert caught.value.extra == {"key_id": stranger.active_key_id}


def test_an_unknown_version_is_named(keyring: Keyring) -> None:
    with pytest.raises(IntegrityError, match="version 7"):
        keyring.open(b"KLE\x07" + bytes(200), context=HERE)


def test_a_box_for_somebody_else_names_both(keyring: Keyring, stranger: Keyring) -> None:
    with pytest.raises(
        IntegrityError, match=r"sealed to recipient [0-9a-f]{16}; this keyring is [0-9a-f]{16}"
    ):
        keyring.open_box(stranger.recipient().seal(b"x", context=HERE), context=HERE)


def test_a_recipient_travels_as_its_public_key(keyring: Keyring) -> None:
    elsewhere = Recipient(keyring.recipient().public_key)
    assert elsewhere == keyring.recipient()
    assert keyring.open_box(elsewhere.seal(b"kubeconfig", context=HERE), context=HERE) == b"kubeconfig"


@pytest.mark.parametrize("public_key", [b"", bytes(31), bytes(33)])
def test_a_public_key_of_the_wrong_length_is_refused(public_key: bytes) -> None:
    with pytest.raises(Invalid, match="32 bytes"):
        Recipient(public_key)


def test_a_public_key_of_low_order_is_refused() -> None:
    with pytest.raises(Invalid):
        Recipient(bytes(32)).seal(b"x", context=HERE)


def test_scopes_of_sealers_are_apart(keyring: Keyring) -> None:
    token = keyring.sealer("continue").seal(b"x", HERE)
    with pytest.raises(IntegrityError):
        keyring.sealer("session").open(token, HERE)


def test_a_context_over_its_limit_is_refused(keyring: Keyring) -> None:
    longest = "c" * 65535
    for seal, open_ in ways_of(keyring).values():
        assert open_(seal(b"x", longest), longest) == b"x"
        with pytest.raises(ValueError, match="65535"):
            seal(b"x", longest + "c")


def test_a_plaintext_over_the_limit_is_refused(keyring: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubelore.common.crypto.envelope.MAX_PLAINTEXT_BYTES", 10)
    with pytest.raises(TooLarge):
        keyring.seal(b"x" * 11, context=HERE)


def test_what_an_error_says_holds_no_plaintext_and_no_key(tmp_path: Path) -> None:
    keyring = Keyring.create(tmp_path / "k.json", "clusters")
    sealed = bytearray(keyring.seal(b"hunter2", context=HERE))
    sealed[-1] ^= 1
    with pytest.raises(IntegrityError) as caught:
        keyring.open(bytes(sealed), context=HERE)
    said = repr((caught.value.args, caught.value.extra, caught.value.remedy, caught.value.__cause__))
    assert "hunter2" not in said


# The two vectors of https://c2sp.org/XAES-256-GCM
@pytest.mark.parametrize(
    ("key", "aad", "expected"),
    [
        (b"\x01" * 32, b"", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"),
        (b"\x03" * 32, b"c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"),
    ],
)
def test_xaes_gives_the_vectors_of_its_specification(key: bytes, aad: bytes, expected: str) -> None:
    sealed = xaes.encrypt_with_nonce(key, b"ABCDEFGHIJKLMNOPQRSTUVWX", b"XAES-256-GCM", aad)
    assert sealed.hex() == expected
