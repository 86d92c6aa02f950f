"""Objects at rest come back byte for byte, whatever they are, and no dictionary learns from Secrets."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubelore.common.errors import IntegrityError
from kubelore.common.frames import Dictionary, Unpacker, metadata_only, partial_size, whole_size
from kubelore.common.kube.facts import read
from kubelore.common.kube.resource_type import ResourceType
from kubelore.resource_ops.codec import SAMPLES, TRAIN_AT, Codec, split
from kubelore.resource_ops.read_model import ReadModel

SECRETS = ResourceType(group="", version="v1", plural="secrets", kind="Secret", namespaced=True)

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def _parts(raw: bytes):
    facts = read("widgets.example.com", raw)
    return split(raw, facts.metadata, facts.managed)


@settings(max_examples=300)
@given(
    st.dictionaries(st.sampled_from(["apiVersion", "spec", "status", "x", '"metadata":']), values),
    st.dictionaries(st.sampled_from(["generation", "uid2", "z"]), values),
    st.none() | st.lists(values, max_size=2),
    st.sampled_from([(",", ":"), (", ", ": ")]),
    st.integers(0, 3),
)
def test_any_object_comes_back_byte_for_byte(body, meta, managed, separators, place):
    metadata = list({"name": "a", **meta}.items())
    if managed is not None:
        metadata.insert(min(place, len(metadata)), ("managedFields", managed))
    entries = list(body.items())
    entries.insert(min(place, len(entries)), ("metadata", dict(metadata)))
    raw = json.dumps(dict(entries), separators=separators).encode()
    codec = Codec()
    packed = codec.pack(_parts(raw))
    assert codec.whole(packed) == raw
    assert msgspec.json.decode(codec.lean(packed)).keys() == dict(entries).keys()
    partial = json.loads(codec.partial(packed))
    assert partial["kind"] == "PartialObjectMetadata"
    unpacker, short = Unpacker(Dictionary()), metadata_only(packed)
    assert b"".join(unpacker.whole_pieces(memoryview(packed))) == raw
    assert b"".join(unpacker.partial_pieces(memoryview(short))) == codec.partial(packed)
    assert (whole_size(packed), partial_size(short)) == (len(raw), len(codec.partial(packed)))
    if separators == (",", ":"):
        assert partial["metadata"] == {key: value for key, value in metadata if key != "managedFields"}


def _widget(number: int) -> bytes:
    spec = {"color": "green", "size": number, "parts": [f"part-{number % 7}-{n}" for n in range(40)]}
    meta = {"name": f"widget-{number}", "labels": {"app": f"app-{number % 9}"}, "uid": f"{number:032x}"}
    return json.dumps({"metadata": meta, "spec": spec}, separators=(",", ":")).encode()


def test_objects_packed_before_and_after_the_dictionary_was_trained_both_come_back():
    codec = Codec()
    raws = [_widget(number) for number in range(TRAIN_AT[-1] + 2)]
    packed = [codec.pack(_parts(raw)) for raw in raws]
    assert [codec.whole(one) for one in packed] == raws
    assert len(packed[-1]) < 0.6 * len(packed[0])


def test_no_dictionary_is_made_of_secrets():
    models = ReadModel()
    model = models.open("east")
    for number in range(TRAIN_AT[0] + SAMPLES):
        raw = _widget(number).replace(b'"uid"', b'"namespace":"x","uid"')
        model.upsert(SECRETS, raw)
    codec = models.codec("secrets")
    later = codec.pack(_parts(_widget(1)))
    assert later == Codec(learn=False).pack(_parts(_widget(1)))
    assert codec.dictionaries() == {}
    assert codec.fingerprint(later) == ""


def test_a_dictionary_has_the_name_of_its_bytes():
    first, same, other = (Codec() for _ in range(3))
    for number in range(TRAIN_AT[-1]):
        first.pack(_parts(_widget(number)))
        same.pack(_parts(_widget(number)))
        other.pack(_parts(_widget(number + 1)))
    named = [set(codec.dictionaries()) for codec in (first, same, other)]
    assert named[0] == named[1] != named[2]
    assert all(name == found.fingerprint() for name, found in first.dictionaries().items())


def test_what_does_not_unpack_is_an_error_of_ours():
    codec = Codec()
    packed = [codec.pack(_parts(_widget(number))) for number in range(TRAIN_AT[-1] + 1)][-1]
    other = Codec()
    for number in range(500, 500 + TRAIN_AT[-1]):
        other.pack(_parts(_widget(number)))
    (dictionary,) = other.dictionaries().values()
    for unpacker, bytes_ in (
        (Unpacker(Dictionary()), packed),
        (Unpacker(dictionary), packed[:-20]),
        (Unpacker(dictionary), packed[:17] + b"no frame" + packed[25:]),
    ):
        with pytest.raises(IntegrityError):
            unpacker.whole(bytes_)
    with pytest.raises(IntegrityError):
        whole_size(packed[:17] + b"no frame" + packed[25:])
