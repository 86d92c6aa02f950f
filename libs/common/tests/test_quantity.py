"""Quantities behave as apimachinery's; the table in data/ was made with the Go package."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelore.common.errors import BadRequest
from kubelore.common.kube.quantity import MAX_BINARY, NANO, Format, Quantity

TABLE = json.loads((Path(__file__).parent / "data" / "quantities.json").read_text())
# apimachinery has no suffix above E and prints these without one (1000E as "1"): see the module's docstring.
BEYOND_EXA = {
    case["text"]
    for case in TABLE["cases"]
    if case.get("format") == "DecimalSI" and abs(Decimal(case["value"])) >= 10**21
}


@pytest.mark.parametrize("case", TABLE["cases"], ids=lambda case: repr(case["text"]))
def test_quantity_reads_and_prints_like_kubernetes(case: dict[str, Any]) -> None:
    if "error" in case:
        with pytest.raises(BadRequest) as refused:
            Quantity.parse(case["text"])
        assert refused.value.remedy
        return
    quantity = Quantity.parse(case["text"])
    assert quantity.value == Decimal(case["value"])
    assert quantity.format.value == case["format"]
    if case["text"] not in BEYOND_EXA:
        assert str(quantity) == case["canonical"]


@pytest.mark.parametrize("case", TABLE["operations"], ids=lambda case: f"{case['a']} and {case['b']}")
def test_arithmetic_and_order_like_kubernetes(case: dict[str, Any]) -> None:
    a, b = Quantity.parse(case["a"]), Quantity.parse(case["b"])
    assert str(a + b) == case["sum"]
    assert str(a - b) == case["difference"]
    assert (a > b) - (a < b) == case["compare"]
    assert (a == b) is (case["compare"] == 0)


def test_a_decimal_beyond_exa_keeps_its_value_when_printed() -> None:
    assert str(Quantity.parse("1000E")) == "1000E"
    assert str(Quantity.parse("1000000E")) == "1000000E"
    assert str(Quantity.parse("1234" + "0" * 20)) == "123400E"


@pytest.mark.parametrize("text", ["1" * 129, "1e100", "1e-100", "1e99999999999", "1e" + "9" * 120])
def test_costly_quantities_are_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        Quantity.parse(text)


def test_equal_values_of_different_families_are_one_key() -> None:
    assert {Quantity.parse("1Ki"): "x"}[Quantity.parse("1024")] == "x"
    assert Quantity.parse("1e3") == Quantity.parse("1k") == Quantity.parse("1000000m")


quantities = st.builds(
    Quantity,
    st.integers(-(MAX_BINARY * NANO), MAX_BINARY * NANO)
    | st.integers(-(2**60), 2**60).map(lambda value: value * NANO)
    | st.builds(lambda digits, power: digits * 10**power, st.integers(-9999, 9999), st.integers(0, 24))
    | st.builds(lambda digits, power: digits * NANO << power, st.integers(-999, 999), st.integers(0, 52)),
    st.sampled_from(Format),
)


@given(quantities)
def test_canonical_text_keeps_the_exact_value_without_a_fraction(quantity: Quantity) -> None:
    assert Quantity.parse(str(quantity)) == quantity
    assert "." not in str(quantity)


@given(quantities.filter(lambda quantity: quantity.format is not Format.BINARY_SI))
def test_canonical_text_is_its_own_canonical_text(quantity: Quantity) -> None:
    # Not so for the binary family: 5000 (bytes) has no binary suffix to remember it by, and reads back as 5k.
    assert str(Quantity.parse(str(quantity))) == str(quantity)


@given(quantities, quantities, quantities)
def test_sums_are_exact(a: Quantity, b: Quantity, c: Quantity) -> None:
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)
    assert (a + b) - b == a
    assert a - a == Quantity()
    assert -(a - b) == b - a


@given(quantities, quantities)
def test_order_is_the_order_of_the_values(a: Quantity, b: Quantity) -> None:
    assert (a < b) is (a.value < b.value)
    assert (a <= b) is (a.value <= b.value)
    assert (a == b) is (hash(a) == hash(b))


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=0, max_value=10**12, places=12))
def test_too_fine_values_round_up_and_never_to_nothing(value: Decimal) -> None:
    parsed = Quantity.parse(f"{value:f}").value
    assert 0 <= parsed - value < Decimal("1e-9")
    assert (parsed == 0) is (value == 0)


@given(st.text(alphabet="0123456789.+-eEinumkKMGTP", max_size=12))
def test_any_text_is_a_quantity_or_a_bad_request(text: str) -> None:
    try:
        quantity = Quantity.parse(text)
    except BadRequest:
        return
    assert Quantity.parse(str(quantity)) == quantity
