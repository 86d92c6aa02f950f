"""YAML and JSON mean here what they mean to kubectl, and what would hurt a server is refused.

The table in data/ was made with sigs.k8s.io/yaml.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelore.common.errors import BadRequest, Invalid, KubeloreError, TooLarge
from kubelore.common.kube.documents import MAX_BYTES, dump, load_documents

TABLE = json.loads((Path(__file__).parent / "data" / "yaml_documents.json").read_text())
# Where this reader is stricter than kubectl on purpose: each has a test of its own below.
STRICTER = {
    "a: 1\na: 2\n": "duplicate-key",
    "a: {b: 1, b: 2}\n": "duplicate-key",
    "1: a\n'1': b\n": "duplicate-key",
    "k: !!binary aGk=\n": "tag",
    "k: !foo a\n": "tag",
    "k: !!timestamp 2024-01-01\n": "tag",
    "[a, b]\n": "not-an-object",
    "a\n": "not-an-object",
}


def code_of(text: str | bytes, **limits: int) -> str:
    with pytest.raises(KubeloreError) as refused:
        load_documents(text, **limits)
    assert refused.value.remedy
    return refused.value.extra["code"]


@pytest.mark.parametrize("case", TABLE["loads"], ids=lambda case: repr(case["yaml"]))
def test_yaml_means_what_it_means_to_kubectl(case: dict[str, Any]) -> None:
    text = case["yaml"]
    if text in STRICTER:
        assert code_of(text) == STRICTER[text]
    elif "error" in case:
        assert code_of(text)
    else:
        value = json.loads(case["json"])
        documents = load_documents(text)
        assert documents == ([] if value is None else [value])
        # 1 == 1.0 == True in Python, and not in a manifest.
        if "e20" not in text:
            assert json.dumps(documents, sort_keys=True) == json.dumps(
                [value] if value else [], sort_keys=True
            )


@pytest.mark.parametrize("case", TABLE["dumps"], ids=lambda case: repr(case["json"][:60]))
def test_yaml_is_printed_as_kubectl_prints_it(case: dict[str, Any]) -> None:
    assert dump(json.loads(case["json"])) == case["yaml"]


def test_documents_are_separated_and_empty_ones_left_out() -> None:
    text = "# a comment\n---\na: 1\n---\n---\n# nothing\n---\nb: 2\n...\n"
    assert load_documents(text) == [{"a": 1}, {"b": 2}]


def test_json_values_may_follow_one_another() -> None:
    assert load_documents('{"a": 1}\n{"a": [2.0, 1e2, 0.5]} ') == [{"a": 1}, {"a": [2, 100, 0.5]}]


def test_what_only_begins_like_json_is_yaml() -> None:
    assert load_documents("{a: 1, b: [x, 'y']}\n---\nc: 2") == [{"a": 1, "b": ["x", "y"]}, {"c": 2}]


def test_a_byte_order_mark_is_skipped() -> None:
    assert load_documents(b'\xef\xbb\xbf{"a": 1}') == load_documents("\ufeffa: 1") == [{"a": 1}]


def test_repeated_parts_are_copies() -> None:
    [document] = load_documents("one: &x {labels: {app: web}}\ntwo: *x\n")
    document["one"]["labels"]["app"] = "changed"
    assert document["two"] == {"labels": {"app": "web"}}


@pytest.mark.parametrize("text", ["m:\n  <<: *x\n  a: own\n", "m:\n  a: own\n  <<: *x\n"])
def test_a_key_of_its_own_wins_over_a_merged_one(text: str) -> None:
    assert load_documents(f"base: &x {{a: merged, b: 2}}\n{text}")[0]["m"] == {"a": "own", "b": 2}


def test_an_anchor_is_known_in_its_own_document_only() -> None:
    assert code_of("a: &x 1\n---\nb: *x\n") == "alias"


def test_an_escaped_control_character_in_a_value_is_kept_as_configmaps_hold_them() -> None:
    assert (
        load_documents('data: "\\e[31m"')
        == load_documents('{"data": "\\u001b[31m"}')
        == [{"data": "\x1b[31m"}]
    )


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("a: b\x00c", "control-character"),
        ("a: b\x07", "control-character"),
        ("a: \x7f", "control-character"),
        ("a: b\x85\x9b", "control-character"),
        ('{"a": "b\x01"}', "control-character"),
        ('a: "\\0"', "control-character"),
        ('{"a": "\\u0000"}', "control-character"),
        ('{"a": ["\\ud800"]}', "control-character"),
        ('"a\\n": 1', "control-character"),
        ('{"a\\u001b": 1}', "control-character"),
        ("a: 1\nb: 2\na: 3\n", "duplicate-key"),
        ("on: 1\ntrue: 2\n", "duplicate-key"),
        ('{"a": {"b": 1, "\\u0062": 2}}', "duplicate-key"),
        ("x: &x {a: 1}\ny: {<<: *x, <<: *x}\n", "duplicate-key"),
        ("a: !!python/object/apply:os.system [ls]\n", "tag"),
        ("a: !secret b\n", "tag"),
        ("a: !!int x\n", "tag"),
        ("!mine\na: b\n", "tag"),
        ("a: !!set {b}\n", "tag"),
        ("%TAG ! tag:example.com,2000:\n---\na: 1\n", "tag"),
        ("a: 123456789012345678901234567890\n", "number"),
        ('{"a": 123456789012345678901234567890}', "number"),
        ("a: .inf\n", "number"),
        ('{"a": NaN}', "number"),
        ('{"a": 1e999}', "number"),
        ("1.5: a\n", "key"),
        ("~: a\n", "key"),
        ("? {a: b}\n: c\n", "key"),
        ("x: &x [1]\n? *x\n: c\n", "key"),
        ("a: *nowhere\n", "alias"),
        ("a: &x [*x]\n", "alias"),
        ("x: &x 1\nm: {<<: *x}\n", "alias"),
        ("- a\n", "not-an-object"),
        ("[1]", "not-an-object"),
        ('{"a": 1} x', "syntax"),
        ('{"a": 1} 5', "not-an-object"),
        ("a: [1\n", "syntax"),
        ("a:\n\t- b\n", "syntax"),
        ('{"a": 1', "syntax"),
        (b"a: \xff\xfe", "encoding"),
        ("a: \ud800", "encoding"),
    ],
    ids=repr,
)
def test_refused_with_its_reason(text: str | bytes, code: str) -> None:
    assert code_of(text) == code


def test_an_error_names_the_line() -> None:
    with pytest.raises(Invalid, match="Line 4") as refused:
        load_documents("a: 1\nb:\n  c: 2\n  c: 3\n")
    assert refused.value.extra["line"] == 4


@pytest.mark.parametrize(
    "text",
    [
        "token: hunter2\ntoken: hunter2\n",
        "k: !x hunter2",
        "k: [hunter2",
        'k: "hunter2\\0"',
        "k: hunter2: hunter2",
    ],
)
def test_an_error_does_not_quote_a_value(text: str) -> None:
    with pytest.raises(KubeloreError) as refused:
        load_documents(text)
    assert "hunter2" not in f"{refused.value!r} {refused.value.remedy} {refused.value.extra}"
    assert refused.value.__cause__ is None


@pytest.mark.parametrize("opening", ["- ", "[", '{"a":', "a:\n"])
def test_depth_is_bounded_on_both_paths(opening: str) -> None:
    def nested(depth: int) -> str:
        if opening == "a:\n":
            return "".join("  " * level + "a:\n" for level in range(depth)) + "  " * depth + "b\n"
        if opening == "- ":
            return "k:\n" + "- " * (depth - 1) + "b"
        close = {"[": "]", '{"a":': "}"}[opening]
        body = opening * (depth - 1) + "1" + close * (depth - 1)
        return f'{{"k": {body}}}'

    assert load_documents(nested(100))
    assert code_of(nested(101)) == "too-deep"


def test_depth_counts_through_aliases() -> None:
    halves = "a: &a " + "[" * 60 + "]" * 60 + "\nb: " + "[" * 60 + "*a" + "]" * 60 + "\n"
    assert code_of(halves) == "too-deep"
    assert load_documents(halves, max_depth=121)


def test_limits_are_exact() -> None:
    assert load_documents("a: 1\n", max_bytes=5)
    assert code_of("a: 1\n", max_bytes=4) == "too-large"
    assert load_documents("a: 1\n---\nb: 1\n", max_documents=2)
    assert code_of("a: 1\n---\nb: 1\n", max_documents=1) == "too-many-documents"
    assert code_of('{"a": 1}{"b": 1}', max_documents=1) == "too-many-documents"
    assert load_documents("a: [1, 2]\n", max_nodes=9)
    assert code_of("a: [1, 2]\n", max_nodes=8) == "too-many-nodes"
    assert code_of('{"a": [1, 2]}', max_nodes=3) == "too-many-nodes"


def billion_laughs() -> str:
    lines = ["a: &a [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    for name, before in zip("bcdefghij", "abcdefghi", strict=True):
        lines.append(f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]")
    return "\n".join(lines)


HOSTILE = {
    "billion laughs (CVE-2019-11253)": billion_laughs(),
    "one long text repeated": f"a: &a '{'x' * 1_000_000}'\nb: [{'*a,' * 700_000}]",
    "merges repeated": f"a: &a {{{','.join(f'k{i}: 1' for i in range(1000))}}}\nb:\n"
    + "- {<<: *a}\n" * 250_000,
    "keys upon keys (CVE-2019-11254)": "---" + " ? - " * 600_000,
    "costly mapping": "a: " * 1_000_000,
    "open brackets": "[" * MAX_BYTES,
    "open braces": "{" * MAX_BYTES,
    "open JSON": '{"a":' * (MAX_BYTES // 5),
    "dashes": "- " * (MAX_BYTES // 2),
    "empty lists": f"[{'[],' * 1_000_000}]",
    "tiny items": "- 1_\n" * (MAX_BYTES // 5),
    "tiny JSON": f'{{"a":[{"0," * 1_500_000}0]}}',
    "deep and wide": "[" * 99 + "a," * 1_500_000,
    "tag directives": "".join(f"%TAG !a{i}! x\n" for i in range(200_000)),
    "anchors": "".join(f"- &a{i} b\n" for i in range(200_000)),
    "documents": "--- a\n" * (MAX_BYTES // 6),
    "quotes that do not end": '{"a": "' + '\\"' * 1_500_000,
    "a huge number": '{"a": ' + "9" * 3_000_000 + "}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_text_is_refused_in_bounded_time(name: str) -> None:
    started = time.process_time()
    with pytest.raises((TooLarge, Invalid, BadRequest)):
        load_documents(HOSTILE[name][:MAX_BYTES])
    # Processor time of this process; 0.7 s at most where it was measured, hours without the limits.
    assert time.process_time() - started < 3


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30) | st.text(
    alphabet="ab:-#'\"\n\t {}[]0189_.,&*!|>%@`?yno~", max_size=12
)
# A whole float between the largest signed and unsigned integer reads back as an integer; see below.
floats = st.floats(allow_nan=False, allow_infinity=False).filter(lambda number: not 2**63 <= number < 2**64)
numbers = st.integers(-(2**63), 2**64 - 1) | floats
names = st.text(alphabet="abz019-._/ yn~", max_size=8)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=20,
)


def flat(value: Any) -> Any:
    """What Kubernetes makes of numbers: whole floats are integers."""
    if isinstance(value, float) and value.is_integer() and -(2**63) <= value < 2**63:
        return int(value)
    if isinstance(value, dict):
        return {key: flat(item) for key, item in value.items()}
    return [flat(item) for item in value] if isinstance(value, list) else value


@given(st.dictionaries(names, values, min_size=1, max_size=4))
def test_what_is_printed_reads_back_as_the_same_value(value: dict[str, Any]) -> None:
    [again] = load_documents(dump(value))
    assert again == flat(value)
    assert json.dumps(again, sort_keys=True) == json.dumps(
        load_documents(json.dumps(value))[0], sort_keys=True
    )


@given(st.floats(2**63, 2**64, exclude_max=True))
def test_a_whole_float_that_fits_64_bits_is_printed_as_an_integer_like_kubectl_does(number: float) -> None:
    assert dump({"a": number}) == f"a: {int(number)}\n"
    assert load_documents(dump({"a": number})) == [{"a": int(number)}]


@given(st.dictionaries(names, values, min_size=1, max_size=4))
def test_json_reads_the_same_on_either_path(value: dict[str, Any]) -> None:
    text = json.dumps(flat(value), ensure_ascii=False)
    assert load_documents(text) == load_documents(dump(value)) == [flat(value)]


@given(st.text(alphabet="ab:-#'\"\n\t {}[],&*!|>%?<~\\0x", max_size=40) | st.binary(max_size=40))
def test_any_text_reads_or_is_refused(text: str | bytes) -> None:
    try:
        documents = load_documents(text)
    except KubeloreError:
        return
    assert all(isinstance(document, dict) for document in documents)
