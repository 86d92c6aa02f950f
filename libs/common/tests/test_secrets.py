"""Nothing of a Secret's values leaves the observer readable."""

import base64
import hashlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelore.common.errors import UpstreamError
from kubelore.common.kube.secrets import LAST_APPLIED, StrippedSecret, secret_context, strip_secret


def hmac(data: bytes, *, context: str) -> bytes:
    return hashlib.sha256(context.encode() + b"\0" + data).digest()


def seal(plaintext: bytes, *, context: str) -> bytes:
    """Readable for the tests, but for nobody who searches for the values."""
    return base64.b85encode(context.encode() + b"\0" + bytes(byte ^ 0xFF for byte in plaintext))


def opened(sealed: bytes) -> tuple[str, dict[str, bytes]]:
    context, _, body = base64.b85decode(sealed).partition(b"\0")
    return context.decode(), msgspec.msgpack.decode(bytes(byte ^ 0xFF for byte in body), type=dict[str, bytes])


def secret(data: dict[str, bytes], *, annotations: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
    metadata = {"name": "db", "uid": "u-1", "resourceVersion": "7", "annotations": annotations or {}}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": encoded, **more}


def strip(found: dict[str, Any], cluster: str = "prod") -> StrippedSecret:
    return strip_secret(json.dumps(found).encode(), cluster=cluster, hmac=hmac, seal=seal)


def test_everything_but_the_values_stays_as_it_was() -> None:
    found = secret({"password": b"hunter2"}, annotations={"team": "shop"}, immutable=True)
    kept = json.loads(strip(found).object)
    del found["data"]
    assert kept == found


def test_the_copy_that_kubectl_keeps_is_taken_out_too() -> None:
    copy = json.dumps({"data": {"password": "aHVudGVyMg=="}})
    kept = json.loads(strip(secret({}, annotations={LAST_APPLIED: copy, "team": "shop"})).object)
    assert kept["metadata"]["annotations"] == {"team": "shop"}


def test_an_escaped_name_of_the_copy_does_not_hide_it() -> None:
    raw = json.dumps(secret({}, annotations={LAST_APPLIED: "aHVudGVyMg=="})).replace("kubectl.", "\\u006bubectl.")
    stripped = strip_secret(raw.encode(), cluster="prod", hmac=hmac, seal=seal)
    assert b"aHVudGVyMg" not in stripped.object


def test_the_values_are_sealed_to_this_very_version() -> None:
    context, values = opened(strip(secret({"password": b"hunter2", "blob": b"\xff\x00"})).sealed)
    assert context == secret_context("prod", "u-1", "7")
    assert values == {"password": b"hunter2", "blob": b"\xff\x00"}


def test_equal_values_under_one_key_compare_equal_everywhere() -> None:
    here = strip(secret({"password": b"hunter2"}), cluster="a").hmacs
    there = strip(secret({"password": b"hunter2", "more": b"x"}), cluster="b").hmacs
    changed = strip(secret({"password": b"hunter3"})).hmacs
    assert here["password"] == there["password"] != changed["password"]


def test_equal_values_under_two_keys_do_not_show_that_they_are_equal() -> None:
    hmacs = strip(secret({"a": b"same", "b": b"same"})).hmacs
    assert hmacs["a"] != hmacs["b"]


def test_string_data_is_stripped_and_wins_over_data() -> None:
    stripped = strip(secret({"password": b"old"}, stringData={"password": "new"}))
    assert b"new" not in stripped.object
    assert opened(stripped.sealed)[1] == {"password": b"new"}


def test_a_secret_without_values_has_nothing_sealed() -> None:
    stripped = strip({"kind": "Secret", "metadata": {"name": "empty"}, "data": None})
    assert (stripped.hmacs, stripped.sealed) == ({}, b"")


@pytest.mark.parametrize("raw", [b"", b"[]", b"nothing", b'{"data": {"password": 1}}', b'{"data": "hunter2"'])
def test_what_is_no_secret_is_refused_without_quoting_it(raw: bytes) -> None:
    with pytest.raises(UpstreamError) as refusal:
        strip_secret(raw, cluster="prod", hmac=hmac, seal=seal)
    assert "hunter2" not in repr(refusal.value)
    assert refusal.value.__cause__ is None


VALUES = st.dictionaries(
    st.text("abcdefgh.-_", min_size=1, max_size=12), st.binary(min_size=12, max_size=60), max_size=5
)


@given(VALUES, VALUES, st.booleans())
def test_no_value_survives_in_the_object(data: dict[str, bytes], texts: dict[str, bytes], copied: bool) -> None:
    string_data = {key: value.hex() for key, value in texts.items()}
    found = secret(data, stringData=string_data)
    if copied:
        found["metadata"]["annotations"][LAST_APPLIED] = json.dumps({**found, "metadata": {}})
    stripped = strip(found)
    for value in data.values():
        assert base64.b64encode(value) not in stripped.object
    for text in string_data.values():
        assert text.encode() not in stripped.object
    assert set(stripped.hmacs) == set(data) | set(texts)
    again = strip_secret(stripped.object, cluster="prod", hmac=hmac, seal=seal)
    assert (json.loads(again.object), again.hmacs) == (json.loads(stripped.object), {})
