"""Amounts for people."""

from __future__ import annotations

import pytest

from kubelore.cli.quantities import rounded


@pytest.mark.parametrize(
    ("measured", "shown"),
    [
        ("11700092443n", "11701m"),
        ("1u", "1m"),
        ("0n", "0m"),
        ("49073743Ki", "47924Mi"),
        ("250m", "250m"),
        ("5Mi", "5Mi"),
        ("4", "4"),
        ("1500Gi", "1500Gi"),
    ],
)
def test_nanocores_and_kibibytes_are_rounded_up_and_all_else_stays(measured: str, shown: str) -> None:
    assert rounded(measured) == shown
