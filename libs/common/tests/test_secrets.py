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
from kubelore.common.kube.secrets import (
    COPIES,
    LAST_APPLIED,
    StrippedSecret,
    secret_context,
    strip_list,
    strip_secret,
)


def hmac(data: bytes, *, context: str) -> bytes:
    return hashlib.sha256(context.encode() + b"\0" + data).digest()


def seal(plaintext: bytes, *, context: str) -> bytes:
    """Readable for the tests, but for nobody who searches for the values."""
    return base64.b85encode(context.encode() + b"\0" + bytes(byte ^ 0xFF for byte in plaintext))


def opened(sealed: bytes) -> tuple[str, dict[str, bytes]]:
    context, _, body = base64.b85decode(sealed).partition(b"\0")
    return context.decode(), msgspec.msgpack.decode(
        bytes(byte ^ 0xFF for byte in body), type=dict[str, bytes]
    )


def secret(
    data: dict[str, bytes], *, annotations: dict[str, str] | None = None, **more: Any
) -> dict[str, Any]:
    encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
    metadata = {"name": "db", "uid": "u-1", "resourceVersion": "7", "annotations": annotations or {}}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata,
        "type": "Opaque",
        "data": encoded,
        **more,
    }


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
    raw = json.dumps(secret({}, annotations={LAST_APPLIED: "aHVudGVyMg=="})).replace(
        "kubectl.", "\\u006bubectl."
    )
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


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("kubernetes.io/", "kubernetes.io\\/"),
        (
            '"annotations":',
            '"annotations": {"kubectl.kubernetes.io/last-applied-configuration": "aHVudGVyMg=="}, "annotations":',
        ),
        ('"metadata":', '"metadata": {"annotations": {"x": "aHVudGVyMg=="}}, "metadata":'),
        ('"data":', '"data": {"password": "aHVudGVyMg=="}, "data":'),
        ('"data":', '"d\\u0061ta":'),
        ('"type":', '"Data": {"password": "aHVudGVyMg=="}, "type":'),
    ],
)
def test_odd_json_does_not_hide_a_value(before: str, after: str) -> None:
    raw = json.dumps(secret({"password": b"hunter2"}, annotations={LAST_APPLIED: "aHVudGVyMg=="}))
    assert before in raw
    stripped = strip_secret(raw.replace(before, after, 1).encode(), cluster="prod", hmac=hmac, seal=seal)
    assert b"aHVudGVyMg" not in stripped.object


@pytest.mark.parametrize("name", sorted(COPIES))
def test_the_copies_of_other_tools_are_taken_out(name: str) -> None:
    kept = json.loads(strip(secret({}, annotations={name: "H4sIAAAAAAAA", "team": "shop"})).object)
    assert kept["metadata"]["annotations"] == {"team": "shop"}


def test_a_value_that_is_a_common_word_takes_no_annotation_along() -> None:
    kept = json.loads(strip(secret({"env": b"production"}, annotations={"env": "production-eu"})).object)
    assert kept["metadata"]["annotations"] == {"env": "production-eu"}


def test_a_secret_made_to_be_slow_loses_its_annotations_instead() -> None:
    values = {f"k{number}": number.to_bytes(16, "big") for number in range(15_000)}
    kept = json.loads(strip(secret(values, annotations={"a": "b" * 200_000})).object)
    assert kept["metadata"]["annotations"] == {}


def test_null_and_wrapped_values_are_read_as_go_reads_them() -> None:
    found = secret({})
    found["data"] = {"empty": None, "wrapped": "aHVu\r\ndGVyMg==\n", "odd": "not base64!"}
    assert opened(strip(found).sealed)[1] == {"empty": b"", "wrapped": b"hunter2", "odd": b"not base64!"}


def test_parts_that_stay_keep_their_bytes() -> None:
    raw = b'{"kind":"Secret","metadata":{"uid":"u","managedFields":[{"f:data":{"f:a":{}}, "x": 1.50}]},"data":{"a":"eA=="}}'
    assert (
        b'[{"f:data":{"f:a":{}}, "x": 1.50}]' in strip_secret(raw, cluster="c", hmac=hmac, seal=seal).object
    )


def test_secrets_in_a_list_are_stripped_and_the_rest_stays() -> None:
    config_map = {"kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"a": "kept"}}
    nameless = secret({"b": b"hunter3"})
    del nameless["kind"]
    items = [secret({"a": b"hunter2"}), config_map, nameless]
    stripped = strip_list(
        json.dumps({"kind": "List", "metadata": {"resourceVersion": "9"}, "items": items}).encode(),
        cluster="prod",
        hmac=hmac,
        seal=seal,
    )
    found = json.loads(stripped.object)
    assert found["metadata"] == {"resourceVersion": "9"}
    assert found["items"][1] == config_map
    assert ["data" in item for item in found["items"]] == [False, True, False]
    assert [opened(each.sealed)[1] for each in stripped.secrets] == [{"a": b"hunter2"}, {"b": b"hunter3"}]


def test_the_rows_of_a_table_lose_their_copies() -> None:
    partial = {"kind": "PartialObjectMetadata", "metadata": {"annotations": {LAST_APPLIED: "aHVudGVyMg=="}}}
    table = {"kind": "Table", "columnDefinitions": [], "rows": [{"cells": ["db", 1], "object": partial}]}
    stripped = strip_list(json.dumps(table).encode(), cluster="prod", hmac=hmac, seal=seal)
    assert b"aHVudGVyMg" not in stripped.object
    assert json.loads(stripped.object)["rows"][0]["cells"] == ["db", 1]


@pytest.mark.parametrize(
    "raw", [b"[]", b'{"items": 5}', b'{"items": ["hunter2"]}', b'{"items": [{"kind": 1}]}']
)
def test_what_is_no_list_is_refused_without_quoting_it(raw: bytes) -> None:
    with pytest.raises(UpstreamError) as refusal:
        strip_list(raw, cluster="prod", hmac=hmac, seal=seal)
    assert "hunter2" not in repr(refusal.value)


VALUES = st.dictionaries(
    st.text("abcdefgh.-_", min_size=1, max_size=12), st.binary(min_size=12, max_size=60), max_size=5
)


@given(VALUES, VALUES, st.booleans())
def test_no_value_survives_in_the_object(
    data: dict[str, bytes], texts: dict[str, bytes], copied: bool
) -> None:
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


@given(
    VALUES,
    st.sampled_from(["base64", "plain", "json", "manifest"]),
    st.text("abc.-/", min_size=1, max_size=9),
)
def test_no_value_survives_in_an_annotation_of_any_name(data: dict[str, bytes], form: str, name: str) -> None:
    values = {key: value.hex().encode() for key, value in data.items()}
    encoded = {key: base64.b64encode(value).decode() for key, value in values.items()}
    copy = {
        "base64": " ".join(encoded.values()),
        "plain": " ".join(value.decode() for value in values.values()),
        "json": json.dumps({key: value.decode() for key, value in values.items()}),
        "manifest": json.dumps({"data": encoded}, indent=1),
    }[form]
    stripped = strip(secret(values, annotations={name: copy, "team": "shop"}, status={"seen": copy}))
    for key, value in values.items():
        assert value not in stripped.object
        assert encoded[key].encode() not in stripped.object
    assert json.loads(stripped.object)["metadata"]["annotations"]["team"] == "shop"
