"""Keyring files: made once, read only when private, rotated while others use them."""

from __future__ import annotations

import base64
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from kubelore.common.crypto import Keyring, KeyringError, Recipient
from kubelore.common.crypto.files import locked
from kubelore.common.errors import AlreadyExists, Conflict, IntegrityError, NotFound

HERE = "cluster:prod-eu"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys" / "clusters.json"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_keyring_is_private_and_its_public_half_is_not(path: Path) -> None:
    keyring = Keyring.create(path, "clusters")
    assert mode(path) == 0o600
    assert mode(path.parent) == 0o700
    public = path.with_suffix(".pub")
    assert mode(public) == 0o644
    assert base64.b64decode(public.read_bytes()) == keyring.recipient().public_key


def test_the_public_half_is_read_from_the_file_beside_the_keyring(path: Path) -> None:
    keyring = Keyring.create(path, "clusters")
    public = path.with_suffix(".pub")
    assert keyring.open_box(Recipient.load(public).seal(b"x", context=HERE), context=HERE) == b"x"
    for damage in (b"", b"AAAA", b"!!"):
        public.write_bytes(damage)
        with pytest.raises(KeyringError, match="no public key"):
            Recipient.load(public)


def test_creating_never_overwrites(path: Path) -> None:
    Keyring.create(path, "clusters")
    before = path.read_bytes()
    with pytest.raises(AlreadyExists):
        Keyring.create(path, "clusters")
    assert path.read_bytes() == before


def test_of_many_that_create_at_once_one_wins_and_all_have_the_same_keys(path: Path) -> None:
    made: list[Keyring] = []
    threads = [
        threading.Thread(target=lambda: made.append(Keyring.load_or_create(path, "clusters")))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {keyring.active_key_id for keyring in made} == {Keyring.load(path).active_key_id}
    assert len(made) == 8


def test_a_loaded_keyring_opens_what_the_first_sealed(path: Path) -> None:
    sealed = Keyring.create(path, "clusters").seal(b"x", context=HERE)
    assert Keyring.load(path).open(sealed, context=HERE) == b"x"


def test_a_missing_keyring_says_what_to_do(path: Path) -> None:
    with pytest.raises(KeyringError, match="no keyring file") as caught:
        Keyring.load(path)
    assert "export" in str(caught.value.remedy)


@pytest.mark.parametrize("too_open", [0o640, 0o604, 0o660, 0o602, 0o777])
def test_a_keyring_that_others_may_read_or_change_is_refused(path: Path, too_open: int) -> None:
    Keyring.create(path, "clusters")
    path.chmod(too_open)
    with pytest.raises(KeyringError, match=f"{too_open:04o}") as caught:
        Keyring.load(path)
    assert "chmod 600" in str(caught.value.remedy)


def test_a_folder_or_a_pipe_is_no_keyring(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for other in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(KeyringError, match="not a regular file"):
            Keyring.load(other)


def _damage(path: Path, change: dict[str, object]) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": "something"}, "not a keyring"),
        ({"version": 2}, "version 2"),
        ({"purpose": "../etc"}, "purpose"),
        ({"keys": []}, "exactly one active key"),
        ({"hmac_secret": "AAAA"}, "wrong length"),
        ({"extra": 1}, "damaged, or not a keyring"),
        ({"keys": "AAAA"}, "damaged, or not a keyring"),
    ],
)
def test_a_damaged_keyring_is_refused(path: Path, change: dict[str, object], said: str) -> None:
    Keyring.create(path, "clusters")
    _damage(path, change)
    with pytest.raises(KeyringError, match=said):
        Keyring.load(path)


def test_a_key_with_a_flipped_bit_is_found_at_load(path: Path) -> None:
    Keyring.create(path, "clusters")
    keys = json.loads(path.read_text())["keys"]
    secret = bytearray(base64.b64decode(keys[0]["secret"]))
    secret[5] ^= 1
    keys[0]["secret"] = base64.b64encode(bytes(secret)).decode()
    _damage(path, {"keys": keys})
    with pytest.raises(KeyringError, match="is damaged"):
        Keyring.load(path)


@pytest.mark.parametrize("length", [0, 1, 100])
def test_a_cut_keyring_is_refused(path: Path, length: int) -> None:
    Keyring.create(path, "clusters")
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(KeyringError):
        Keyring.load(path)


def test_a_keyring_for_something_else_is_refused(path: Path) -> None:
    Keyring.create(path, "logs")
    with pytest.raises(KeyringError, match="'logs', not for 'clusters'"):
        Keyring.load_or_create(path, "clusters")


@pytest.mark.parametrize("purpose", ["", "../x", "A", "a" * 33, "a b"])
def test_a_purpose_is_a_name(path: Path, purpose: str) -> None:
    with pytest.raises(ValueError, match="purpose"):
        Keyring.create(path, purpose)


def test_rotation_seals_with_a_new_key_and_still_opens_the_old(path: Path) -> None:
    keyring = Keyring.create(path, "clusters")
    first = keyring.active_key_id
    old = keyring.seal(b"old", context=HERE)
    second = keyring.rotate()
    new = keyring.seal(b"new", context=HERE)
    assert first != second == keyring.active_key_id
    assert [(key.id, key.state) for key in keyring.keys] == [(first, "retired"), (second, "active")]
    again = Keyring.load(path)
    assert (again.open(old, context=HERE), again.open(new, context=HERE)) == (b"old", b"new")
    assert mode(path) == 0o600


def test_rewrap_moves_to_the_new_key_and_leaves_the_ciphertext(path: Path) -> None:
    keyring = Keyring.create(path, "clusters")
    old = keyring.seal(b"a kubeconfig", context=HERE)
    retired = keyring.active_key_id
    keyring.rotate()
    new = keyring.rewrap(old, context=HERE)
    assert new[84:] == old[84:]
    assert new[:84] != old[:84]
    keyring.remove(retired)
    assert keyring.open(new, context=HERE) == b"a kubeconfig"
    with pytest.raises(IntegrityError, match=f"Key {retired} was removed"):
        keyring.open(old, context=HERE)


def test_rewrap_of_something_misplaced_is_refused(path: Path) -> None:
    keyring = Keyring.create(path, "clusters")
    with pytest.raises(IntegrityError):
        keyring.rewrap(keyring.seal(b"x", context=HERE), context="cluster:other")


def test_rewrap_does_not_hide_damage_in_the_content(path: Path) -> None:
    keyring = Keyring.create(path, "clusters")
    damaged = bytearray(keyring.seal(b"x", context=HERE))
    damaged[-1] ^= 1
    keyring.rotate()
    with pytest.raises(IntegrityError):
        keyring.open(keyring.rewrap(bytes(damaged), context=HERE), context=HERE)


def test_the_active_key_is_never_removed(path: Path) -> None:
    keyring = Keyring.create(path, "clusters")
    with pytest.raises(Conflict, match="active"):
        keyring.remove(keyring.active_key_id)
    with pytest.raises(NotFound):
        keyring.remove("00" * 8)


def test_a_removed_key_leaves_no_secret_in_the_file(path: Path) -> None:
    keyring = Keyring.create(path, "clusters")
    secret = json.loads(path.read_text())["keys"][0]["secret"]
    retired = keyring.active_key_id
    keyring.rotate()
    keyring.remove(retired)
    assert secret not in path.read_text()
    assert retired in path.read_text()


def test_a_running_service_opens_what_was_sealed_after_a_rotation_elsewhere(path: Path) -> None:
    running = Keyring.create(path, "clusters")
    elsewhere = Keyring.load(path)
    elsewhere.rotate()
    sealed = elsewhere.seal(b"x", context=HERE)
    token = elsewhere.sealer("continue").seal(b"y", HERE)
    assert running.open(sealed, context=HERE) == b"x"
    assert running.sealer("continue").open(token, HERE) == b"y"


def test_a_running_service_seals_with_the_key_of_a_rotation_elsewhere(path: Path) -> None:
    running = Keyring.create(path, "clusters")
    new = Keyring.load(path).rotate()
    running.seal(b"x", context=HERE)
    assert running.active_key_id == new


def test_a_running_service_goes_on_when_the_file_is_gone(path: Path) -> None:
    keyring = Keyring.create(path, "clusters")
    path.unlink()
    assert keyring.open(keyring.seal(b"x", context=HERE), context=HERE) == b"x"


def test_a_foreign_keyring_put_in_place_is_not_taken_over(path: Path, tmp_path: Path) -> None:
    keyring = Keyring.create(path, "clusters")
    other = tmp_path / "other.json"
    Keyring.create(other, "clusters")
    other.replace(path)
    with pytest.raises(KeyringError, match="replaced by another"):
        keyring.seal(b"x", context=HERE)


def test_rotations_at_once_lose_no_key(path: Path) -> None:
    Keyring.create(path, "clusters")
    rings = [Keyring.load(path) for _ in range(6)]
    threads = [threading.Thread(target=ring.rotate) for ring in rings]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    keys = Keyring.load(path).keys
    assert len({key.id for key in keys}) == 7
    assert [key.state for key in keys].count("active") == 1


def test_a_rotation_waits_only_so_long_for_another(path: Path) -> None:
    Keyring.create(path, "clusters")
    with locked(path), pytest.raises(KeyringError, match="being changed"), locked(path, timeout_s=0.05):
        pass


ROTATE_FOREVER = """
import sys
from pathlib import Path
from kubelore.common.crypto import Keyring
keyring = Keyring.load(Path(sys.argv[1]))
print("ready", flush=True)
while True:
    retired = keyring.active_key_id
    keyring.rotate()
    keyring.remove(retired)
"""


def test_a_rotation_killed_at_any_moment_leaves_a_whole_keyring(path: Path) -> None:
    Keyring.create(path, "clusters")
    for delay_s in (0.0, 0.003, 0.011, 0.027, 0.05):
        child = subprocess.Popen(
            [sys.executable, "-c", ROTATE_FOREVER, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(delay_s)
        child.send_signal(signal.SIGKILL)
        child.wait(10)
        keyring = Keyring.load(path)
        assert keyring.open(keyring.seal(b"x", context=HERE), context=HERE) == b"x"
    Keyring.load(path).rotate()
    assert sorted(entry.name for entry in path.parent.iterdir()) == [
        "clusters.json",
        "clusters.json.lock",
        "clusters.pub",
        "clusters.verify",
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_rotation_by_root_leaves_the_file_with_its_owner(path: Path) -> None:
    keyring = Keyring.create(path, "clusters")
    os.chown(path, 4242, 4242)
    keyring.rotate()
    assert (path.stat().st_uid, path.stat().st_gid) == (4242, 4242)


def test_an_exported_keyring_restores_elsewhere(path: Path, tmp_path: Path) -> None:
    keyring = Keyring.create(path, "clusters")
    sealed = keyring.seal(b"x", context=HERE)
    box = keyring.recipient().seal(b"y", context=HERE)
    back = Keyring.restore(tmp_path / "back" / "clusters.json", keyring.export())
    assert back.open(sealed, context=HERE) == b"x"
    assert back.open_box(box, context=HERE) == b"y"
    assert back.hmac(b"v", context=HERE) == keyring.hmac(b"v", context=HERE)
    with pytest.raises(AlreadyExists):
        Keyring.restore(path, keyring.export())


def test_a_hash_is_stable_over_rotations_and_bound_to_context_and_keyring(path: Path, tmp_path: Path) -> None:
    keyring = Keyring.create(path, "clusters")
    before = keyring.hmac(b"password", context=HERE)
    keyring.rotate()
    assert len(before) == 32
    assert Keyring.load(path).hmac(b"password", context=HERE) == before
    assert keyring.hmac(b"passwore", context=HERE) != before
    assert keyring.hmac(b"password", context="elsewhere") != before
    assert keyring.hmac(b"bpassword", context="a") != keyring.hmac(b"password", context="ab")
    assert Keyring.create(tmp_path / "o.json", "clusters").hmac(b"password", context=HERE) != before


def test_no_repr_shows_a_key(path: Path) -> None:
    keyring = Keyring.create(path, "clusters")
    held = json.loads(path.read_text())
    secrets = [held["keys"][0]["secret"], held["recipient"]["private_key"], held["hmac_secret"]]
    shown = repr((keyring, keyring.recipient(), keyring.sealer("s"), keyring.keys, vars(keyring)["_content"]))
    for secret in secrets:
        assert secret not in shown
        assert repr(base64.b64decode(secret))[2:-1] not in shown
