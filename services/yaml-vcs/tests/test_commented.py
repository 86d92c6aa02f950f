"""YAML changed in places: it says what is wanted whatever was there, and keeps what people wrote."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kubelore.common.kube.differences import same
from kubelore.common.kube.documents import dump, load_documents
from kubelore.yaml_vcs.commented import MAX_NODES, MAX_TEXT, revised

TEXTS = st.sampled_from(
    ["", "a", "yes", "on", "0644", "1e3", "null", "~", "# no comment", "a: b", "two\nlines", " x"]
)
KEYS = TEXTS.filter(lambda text: "\n" not in text)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | TEXTS,
    lambda inner: st.dictionaries(KEYS, inner, max_size=3) | st.lists(inner, max_size=3),
    max_leaves=10,
)
OBJECTS = st.dictionaries(st.sampled_from(["a", "b", "on", "containers"]), VALUES, max_size=4)

COMMENTED = """\
# At the top.
kind: Deployment
spec:
    replicas: 2   # two
    containers:
      # The first.
      - name: web
        image: "one"
      - name: log   # the second
        image: tail
"""


@given(OBJECTS, OBJECTS)
def test_a_revised_text_says_what_is_wanted(held, wanted) -> None:
    assert same(load_documents(revised(dump(held), wanted)) or [{}], [wanted])


def test_comments_and_quotes_stay_where_nothing_was_changed() -> None:
    (found,) = load_documents(COMMENTED)
    found["spec"]["replicas"] = 3
    found["spec"]["containers"][1]["image"] = "yes"
    text = revised(COMMENTED, found)
    for kept in ("# At the top.", "# two", "# The first.", "# the second", 'image: "one"'):
        assert kept in text
    assert same(load_documents(text), [found])


def test_a_text_with_anchors_is_written_anew_rather_than_changed_in_two_places() -> None:
    text = "a: &x {v: 1}\nb: *x\n"
    assert same(
        load_documents(revised(text, {"a": {"v": 2}, "b": {"v": 1}})), [{"a": {"v": 2}, "b": {"v": 1}}]
    )


def test_what_is_too_large_to_be_read_with_comments_is_written_anew_at_once() -> None:
    text = "# A comment.\na: [" + "{}, " * MAX_NODES + "]\nb: 1\n"
    (wanted,) = load_documents(text)
    wanted["b"] = 2
    assert revised(text, wanted) == dump(wanted)
    long = "# A comment.\na: " + "x" * MAX_TEXT + "\nb: 1\n"
    (wanted,) = load_documents(long)
    wanted["b"] = 2
    assert revised(long, wanted) == dump(wanted)
