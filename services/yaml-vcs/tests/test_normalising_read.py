"""Objects are read from their bytes without decoding what is left out; what comes of it is the same."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelore.common.errors import Invalid
from kubelore.yaml_vcs.normalising import Normaliser, Policy, Rule, decoded

NAMES = st.sampled_from(
    ["a", "status", "uid", "annotations", "generation", "labels", "deployment.kubernetes.io/revision", "é\n"]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
ANNOTATIONS = st.dictionaries(
    st.sampled_from(["deployment.kubernetes.io/revision", "autoscaling.alpha.kubernetes.io/x", "mine"]),
    st.text(max_size=3),
    max_size=3,
)
METADATA = st.fixed_dictionaries(
    {},
    optional={
        "name": st.just("web"),
        "uid": st.just("u"),
        "labels": st.dictionaries(NAMES, st.text(max_size=3), max_size=2) | st.none(),
        "annotations": ANNOTATIONS,
        "managedFields": VALUES | st.lists(st.fixed_dictionaries({"manager": st.text(), "time": st.text()})),
        "generation": VALUES,
    },
)
OBJECTS = st.builds(
    lambda rest, metadata: {**rest, **({} if metadata is None else {"metadata": metadata})},
    st.dictionaries(NAMES, VALUES, max_size=4),
    METADATA | st.none(),
)
POLICIES = st.sampled_from(
    [
        None,
        Policy(rules=()),
        Policy(rules=(Rule(paths=(("metadata",), ("a", "uid"))),)),
        Policy(rules=(Rule(paths=(("metadata", "g*"), ("s*",))),)),
    ]
)


@given(found=OBJECTS, policy=POLICIES, type_name=st.sampled_from(["deployments.apps", "pods"]))
def test_reading_bytes_gives_what_decoding_all_of_it_gives(found, policy, type_name) -> None:
    normaliser = Normaliser(policy) if policy is not None else Normaliser()
    raw = msgspec.json.encode(found)
    read = normaliser.read(type_name, raw)
    whole = decoded(raw)
    assert read.labels == (whole.get("metadata", {}).get("labels") or {})
    assert read.content == normaliser.content(type_name, whole)


@pytest.mark.parametrize("raw", [b"", b"[]", b'{"metadata":[]}', b'{"metadata":{"name":}}', b'{"a":1'])
def test_bytes_that_are_no_object_are_refused(raw) -> None:
    with pytest.raises(Invalid):
        Normaliser().read("pods", raw)
