"""What is found in a block is what is found line by line, and no block is passed over that holds a match."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubelore.common.contracts.logs import LogFilter
from kubelore.container_ops.literals import literals_of
from kubelore.container_ops.log_filter import LineFilter
from kubelore.container_ops.text_scanning import TextScanner, needs_of_filter
from kubelore.container_ops.token_filter import FilterBuilder, Need, columns_in, needs_of, row_of, runs_with

WORDS = st.sampled_from(
    [b"error", b"ERROR", b"Error42", b"timeout", b"order-17", b"user_9", b"deadbeef01", b"(a)", b"a.b", b"x",
     "größe".encode(), "ошибка".encode(), "\N{KELVIN SIGN}elvin".encode(), b"\x1b[31mred\x1b[0m", b"\xff\xfe",
     b'{"level":50}', b"level=warn", b"", b"\x1b[", b"W1129 17:00:00"]
)  # fmt: skip
LINE = st.lists(WORDS, max_size=5).map(b" ".join)
TEXTS = st.lists(LINE, min_size=1, max_size=12).map(b"\n".join)
REGEXES = [
    "error", "err.*42", "^error", "timeout$", r"\berror\b", r"order-\d+", "[^a]+beef", "(?i)KELVIN", "(error|timeout)",
    r"user_\d", "a[^z]*x", r"\Aerror", "(?s)e.*r", r"x*", "ош.бка", "gr[oö]ße", "(?:order)-(?:1)7", r"e{1}rror", "(?-m:^)x",
    "[[:alpha:]]rror", r"dead\w+", "a{,3}b", r"\(a\)",
]  # fmt: skip
FILTERS = st.builds(
    LogFilter,
    search=st.sampled_from(["", "", "error", "rror", "4", "ELVIN", "k", "größe", "beef", "order-1", "(a)"]),
    regex=st.sampled_from(["", "", *REGEXES]),
    ignore_case=st.booleans(),
    inverse=st.booleans(),
    level=st.sampled_from([None, None, "info", "warn", "error"]),
)


@given(TEXTS, FILTERS)
@settings(deadline=None, max_examples=600)
def test_a_block_is_searched_as_its_lines_are(text: bytes, asked: LogFilter) -> None:
    line_filter = LineFilter(asked)
    expected = [number for number, line in enumerate(text.split(b"\n")) if line_filter.matches_text(line)]
    assert TextScanner(line_filter).matching(text) == expected


@given(st.lists(TEXTS, min_size=1, max_size=5), FILTERS)
@settings(deadline=None, max_examples=600)
def test_no_block_is_passed_over_that_holds_a_match(texts: list[bytes], asked: LogFilter) -> None:
    builder = FilterBuilder()
    for text in texts:
        builder.add(text)
    built = builder.finish()
    scanner = TextScanner(LineFilter(asked))
    holding = {column for column, text in enumerate(texts) if scanner.matching(text)}
    for need in needs_of_filter(asked):
        runs = [need.text] if need.exact else runs_with(built.vocabulary, need, most=1000)
        assert runs is not None
        candidates: set[int] = set()
        for run in runs:
            row = row_of(run, built.rows)
            chunk = built.chunks[row // built.rows_per_chunk]
            candidates |= columns_in(chunk, row % built.rows_per_chunk, len(texts))
        assert holding <= candidates


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("timeout", [b"timeout"]),
        (r"order-\d+ failed", [b"order-", b" failed"]),
        (r"\berror\b", [b"\nerror\n"]),
        ("(connection) refused", [b"connection refused"]),
        ("(?:very )+slow", [b"very ", b"slow"]),
        ("a*b?", []),
        ("[[:digit:]]abc", []),
        (r"\p{Greek}abc", []),
        ("red|green", []),
    ],
)
def test_literals_of_a_regular_expression(pattern: str, found: list[bytes]) -> None:
    assert literals_of(pattern, ignore_case=False) == found


def test_a_whole_word_is_needed_exactly_and_a_part_of_one_is_sought_in_the_vocabulary() -> None:
    assert needs_of(b" req42 ") == [
        Need(b"req42", exact=True),
        Need(b"req", begins=True, ends=True, exact=True),
    ]
    assert needs_of(b"fused") == [Need(b"fused")]
    assert needs_of(b"4711") == []
