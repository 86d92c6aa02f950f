"""Substring search over lines and postings against a loop over all of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kubelore.resource_ops.annotations import DISTINCT_BEFORE_OWN, UNSEARCHED, AnnotationKinds
from kubelore.resource_ops.text_index import DENSE, MAX_NEEDLES, MAX_WAITING, SEGMENT_LINES, Lines, Postings

texts = st.text(alphabet="abé-=", max_size=6)


@given(
    st.lists(st.tuples(st.sampled_from([0, 1, 2, 1023, 1024, 1025, 5000]), texts), max_size=40),
    texts.filter(bool),
)
def test_lines_that_contain_the_needle_are_found(writes, needle):
    lines, plain = Lines(), {}
    for turn, (number, line) in enumerate(writes):
        lines.set(number, line)
        plain[number] = line
        if turn % 3 == 0:
            assert set(lines.search(needle)) == {n for n, text in plain.items() if needle in text}
    assert set(lines.search(needle)) == {n for n, text in plain.items() if needle in text}
    assert all(lines.get(number) == line for number, line in plain.items())


def test_more_lines_than_may_wait_and_more_hits_than_are_jumped_to_are_all_found():
    lines = Lines()
    count = SEGMENT_LINES + MAX_WAITING + DENSE
    for number in range(count):
        lines.set(number, f"web-{number}" if number % 2 else "db")
    assert list(lines.search("web-")) == list(range(1, count, 2))
    assert list(lines.search(f"web-{count - 1 | 1}")) in ([count - 1], [])


def test_a_needle_among_more_than_are_remembered_is_found_as_the_lines_are_now():
    lines = Lines()
    needles = [f"pod-{number}" for number in range(10, 10 + 2 * MAX_NEEDLES)]
    for number, needle in enumerate(needles):
        lines.set(number, needle)
    assert [list(lines.search(needle)) for needle in needles] == [[at] for at in range(len(needles))]
    lines.set(0, needles[-1])
    assert list(lines.search(needles[-1])) == [0, len(needles) - 1]
    assert list(lines.search(needles[0])) == []


@given(
    st.lists(
        st.tuples(st.booleans(), st.sampled_from(["app=Web", "app=db", "b", ""]), st.integers(0, 5)),
        max_size=60,
    )
)
def test_postings_equal_a_dict_of_sets(changes):
    postings, plain = Postings(), {}
    for add, text, row in changes:
        if add:
            postings.add(text, row)
            plain.setdefault(text, set()).add(row)
        else:
            postings.discard(text, row)
            plain.get(text, set()).discard(row)
    plain = {text: rows for text, rows in plain.items() if rows}
    assert len(postings) == len(plain)
    for text in ("app=Web", "app=db", "b", ""):
        assert set(postings.rows(text)) == plain.get(text, set())
    for needle in ("app", "web", "b"):
        found = {row for text, rows in plain.items() if needle in text.lower() for row in rows}
        assert set(postings.search(needle)) == found


def test_an_annotation_whose_values_are_all_different_becomes_the_objects_own():
    kinds, known = AnnotationKinds(), set()
    for number in range(3 * DISTINCT_BEFORE_OWN):
        shared, own = kinds.sort({"ip": f"10.0.0.{number}", "team": "red"}, known.__contains__)
        known.update(shared)
    assert (shared, own) == (["team=red"], [f"ip=10.0.0.{number}"])


def test_the_copy_of_the_manifest_that_kubectl_leaves_is_not_searched():
    assert AnnotationKinds().sort(dict.fromkeys(UNSEARCHED, "x"), bool) == ([], [])
