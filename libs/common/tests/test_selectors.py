"""Selectors behave as apimachinery's; the tables in data/ were made with the Go package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelore.common.errors import BadRequest
from kubelore.common.kube.selectors import (
    MAX_LENGTH,
    FieldRequirement,
    FieldSelector,
    LabelRequirement,
    LabelSelector,
    Operator,
)

DATA = Path(__file__).parent / "data"
LABELS = json.loads((DATA / "label_selectors.json").read_text())
FIELDS = json.loads((DATA / "field_selectors.json").read_text())


@pytest.mark.parametrize("case", LABELS["cases"], ids=lambda case: repr(case["text"][:40]))
def test_label_selector_parses_prints_and_matches_like_kubernetes(case: dict[str, Any]) -> None:
    if "error" in case:
        with pytest.raises(BadRequest) as refused:
            LabelSelector.parse(case["text"])
        assert refused.value.remedy
        return
    selector = LabelSelector.parse(case["text"])
    assert str(selector) == case["string"]
    assert [[r.key, r.operator.value, list(r.values)] for r in selector.requirements] == case["requirements"]
    assert [i for i, labels in enumerate(LABELS["sets"]) if selector.matches(labels)] == case["matches"]


@pytest.mark.parametrize("case", FIELDS["cases"], ids=lambda case: repr(case["text"][:40]))
def test_field_selector_parses_prints_and_matches_like_kubernetes(case: dict[str, Any]) -> None:
    if "error" in case:
        with pytest.raises(BadRequest) as refused:
            FieldSelector.parse(case["text"])
        assert refused.value.remedy
        return
    selector = FieldSelector.parse(case["text"])
    assert str(selector) == case["string"]
    assert [[r.field, r.operator.value, r.value] for r in selector.requirements] == case["requirements"]
    assert [i for i, fields in enumerate(FIELDS["sets"]) if selector.matches(fields)] == case["matches"]


def test_the_tables_hold_both_answers() -> None:
    for table in (LABELS, FIELDS):
        refused = sum("error" in case for case in table["cases"])
        assert 50 < refused < len(table["cases"]) - 50


@pytest.mark.parametrize("parse", [LabelSelector.parse, FieldSelector.parse])
@pytest.mark.parametrize("text", ["a=b\0", "a=\0b", "a=b," * MAX_LENGTH])
def test_nul_and_endless_selectors_are_refused(parse: Any, text: str) -> None:
    with pytest.raises(BadRequest):
        parse(text)


def test_an_error_names_what_was_found_and_what_was_expected() -> None:
    with pytest.raises(BadRequest, match=r"found '\(', expected a value") as refused:
        LabelSelector.parse("tier=(web)")
    assert "key in (a,b)" in (refused.value.remedy or "")


words = st.from_regex(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,5}[A-Za-z0-9])?", fullmatch=True)
keys = words | st.from_regex(r"[a-z]{1,3}\.[a-z]{1,3}/[A-Za-z]{1,4}", fullmatch=True)
values = words | st.just("")
integers = st.integers(0, 2**63 - 1).map(str)
label_requirements = st.one_of(
    st.builds(LabelRequirement, keys, st.sampled_from([Operator.EXISTS, Operator.DOES_NOT_EXIST])),
    st.builds(
        lambda key, operator, value: LabelRequirement(key, operator, (value,)),
        keys,
        st.sampled_from([Operator.EQUALS, Operator.DOUBLE_EQUALS, Operator.NOT_EQUALS]),
        values,
    ),
    st.builds(
        lambda key, operator, chosen: LabelRequirement(key, operator, tuple(sorted(chosen))),
        keys,
        st.sampled_from([Operator.IN, Operator.NOT_IN]),
        st.sets(values, min_size=1, max_size=4),
    ),
    st.builds(
        lambda key, operator, value: LabelRequirement(key, operator, (value,)),
        keys,
        st.sampled_from([Operator.GREATER_THAN, Operator.LESS_THAN]),
        integers,
    ),
)
labels = st.dictionaries(keys, values | integers, max_size=5)


@given(st.lists(label_requirements, max_size=5))
def test_a_printed_label_selector_reads_back_as_itself(requirements: list[LabelRequirement]) -> None:
    selector = LabelSelector(tuple(sorted(requirements, key=lambda requirement: requirement.key)))
    assert LabelSelector.parse(str(selector)) == selector


@given(keys, st.sets(values, min_size=1, max_size=3), labels)
def test_notin_is_the_complement_of_in(key: str, chosen: set[str], found: dict[str, str]) -> None:
    inside = LabelSelector((LabelRequirement(key, Operator.IN, tuple(sorted(chosen))),))
    outside = LabelSelector.parse(str(inside).replace(" in (", " notin ("))
    assert inside.matches(found) is not outside.matches(found)


@given(st.lists(label_requirements, max_size=3), st.lists(label_requirements, max_size=3), labels)
def test_a_comma_means_and(
    left: list[LabelRequirement], right: list[LabelRequirement], found: dict[str, str]
) -> None:
    both = LabelSelector.parse(",".join(map(str, [*left, *right])))
    assert both.matches(found) is (
        LabelSelector(tuple(left)).matches(found) and LabelSelector(tuple(right)).matches(found)
    )


@given(st.text(alphabet="ab=!,()<> in\t/.-1", max_size=20))
def test_any_text_parses_or_is_a_bad_request(text: str) -> None:
    try:
        selector = LabelSelector.parse(text)
    except BadRequest:
        return
    assert LabelSelector.parse(str(selector)) == selector


field_values = st.text(alphabet="ab\\,=! é", max_size=8)
field_requirements = st.builds(
    FieldRequirement,
    st.from_regex(r"[a-z]{1,4}(\.[a-z]{1,4})?", fullmatch=True),
    st.sampled_from([Operator.EQUALS, Operator.NOT_EQUALS]),
    field_values,
)


@given(st.lists(field_requirements, max_size=4))
def test_a_printed_field_selector_reads_back_with_every_escape(requirements: list[FieldRequirement]) -> None:
    parsed = FieldSelector.parse(str(FieldSelector(tuple(requirements))))
    assert sorted(map(str, parsed.requirements)) == sorted(map(str, requirements))
    assert set(parsed.requirements) == set(requirements)


@given(field_requirements)
def test_an_absent_field_counts_as_empty(requirement: FieldRequirement) -> None:
    selector = FieldSelector((requirement,))
    assert selector.matches({}) is selector.matches({requirement.field: ""})
