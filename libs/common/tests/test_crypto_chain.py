"""Whatever is done to a chain of entries is found; what was pruned with a checkpoint is not missed."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kubelore.common.crypto.chain import (
    Chain,
    Checkpoint,
    Head,
    Link,
    Verdict,
    Verification,
    canonical,
    read,
    sign,
)
from kubelore.common.crypto.signing import Signer
from kubelore.common.errors import IntegrityError

SIGNER = Signer(bytes(range(32)))
SCOPE, NAME = "audit", "c1"
Entry = tuple[Link, bytes]

contents = st.lists(st.binary(max_size=20), min_size=1, max_size=30)


def chained(written: list[bytes], name: str = NAME) -> list[Entry]:
    chain = Chain(SCOPE, name)
    return [(chain.append(content), content) for content in written]


def head(serial: int, link: Link, **more: object) -> Head:
    return Head(chain=NAME, serial=serial, number=link.number, hash=link.hash, at=0.0, **more)


def heads_of(entries: list[Entry], every: int = 3, *, closed: bool = False) -> list[Head]:
    """The opening head, one every few entries, and one at the very end."""
    links = [Chain(SCOPE, NAME).genesis] + [link for link, _ in entries]
    signed = [links[0], *links[every::every]]
    signed = signed if signed[-1] == links[-1] else [*signed, links[-1]]
    heads = [head(serial, link) for serial, link in enumerate(signed)]
    return [*heads, head(len(heads), links[-1], closed=True)] if closed else heads


def verify(entries: list[Entry], heads: list[Head], checkpoint: Checkpoint | None = None) -> Verdict:
    verification = Verification(SCOPE, NAME, heads, checkpoint)
    for link, content in entries:
        verification.add(link.number, link.hash, content)
    return verification.finish()


def found(verdict: Verdict) -> str:
    assert verdict.fault is not None
    return verdict.fault.kind


@given(contents, st.integers(1, 7), st.booleans())
def test_a_chain_that_nobody_touched_verifies(written: list[bytes], every: int, closed: bool) -> None:
    verdict = verify(chained(written), heads_of(chained(written), every, closed=closed))
    assert verdict.ok
    assert (verdict.first, verdict.last, verdict.signed) == (1, len(written), len(written))
    assert verdict.closed == closed


@given(contents, st.data())
def test_a_changed_entry_is_found_where_it_is(written: list[bytes], data: st.DataObject) -> None:
    entries = chained(written)
    heads, at = heads_of(entries), data.draw(st.integers(0, len(entries) - 1))
    other = data.draw(st.binary(max_size=20).filter(lambda content: content != written[at]))
    entries[at] = (entries[at][0], other)
    verdict = verify(entries, heads)
    assert found(verdict) == "changed"
    assert verdict.fault is not None
    assert verdict.fault.number == at + 1


@given(contents, st.data())
def test_a_change_with_every_hash_made_anew_is_found_by_the_heads(
    written: list[bytes], data: st.DataObject
) -> None:
    heads, at = heads_of(chained(written)), data.draw(st.integers(0, len(written) - 1))
    other = data.draw(st.binary(max_size=20).filter(lambda content: content != written[at]))
    forged = chained([*written[:at], other, *written[at + 1 :]])
    assert found(verify(forged, heads)) == "rewritten"


@given(contents, st.data())
def test_a_dropped_entry_is_found(written: list[bytes], data: st.DataObject) -> None:
    entries = chained(written)
    at = data.draw(st.integers(0, len(entries) - 1))
    verdict = verify(entries[:at] + entries[at + 1 :], heads_of(entries))
    assert found(verdict) == ("cut" if at == len(entries) - 1 else "missing")
    assert verdict.fault is not None
    assert verdict.fault.number == at + 1


@given(contents, st.data())
def test_a_cut_tail_is_found(written: list[bytes], data: st.DataObject) -> None:
    entries = chained(written)
    left = data.draw(st.integers(0, len(entries) - 1))
    verdict = verify(entries[:left], heads_of(entries))
    assert found(verdict) == "cut"
    assert verdict.last == left


@given(contents, st.data())
def test_an_entry_that_comes_twice_is_found(written: list[bytes], data: st.DataObject) -> None:
    entries = chained(written)
    source = data.draw(st.integers(0, len(entries) - 1))
    target = data.draw(st.integers(source + 1, len(entries)))
    doubled = [*entries[:target], entries[source], *entries[target:]]
    assert found(verify(doubled, heads_of(entries))) == "disordered"


@given(contents, st.binary(max_size=20), st.data())
def test_an_entry_that_is_slipped_in_is_found(written: list[bytes], new: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(written)))
    forged = chained([*written[:at], new, *written[at:]])
    heads = heads_of(chained(written), closed=True)
    assume(forged[: len(written)] != chained(written) or at == len(written))
    assert found(verify(forged, heads)) in ("rewritten", "appended")


@given(contents.filter(lambda written: len(written) > 1), st.randoms(use_true_random=False))
def test_another_order_is_found(written: list[bytes], random: object) -> None:
    entries = chained(written)
    shuffled = list(entries)
    random.shuffle(shuffled)
    assume(shuffled != entries)
    assert not verify(shuffled, heads_of(entries)).ok


@given(contents.filter(lambda written: len(set(written)) > 1), st.data())
def test_contents_that_change_places_are_found(written: list[bytes], data: st.DataObject) -> None:
    one, other = sorted(data.draw(st.permutations(range(len(written))))[:2])
    assume(written[one] != written[other])
    moved = list(written)
    moved[one], moved[other] = moved[other], moved[one]
    assert found(verify(chained(moved), heads_of(chained(written)))) == "rewritten"


@given(contents, st.data())
def test_a_head_that_is_gone_is_found_unless_it_was_the_last(
    written: list[bytes], data: st.DataObject
) -> None:
    heads = heads_of(chained(written), every=2)
    gone = data.draw(st.integers(0, len(heads) - 2))
    verdict = verify(chained(written), heads[:gone] + heads[gone + 1 :])
    assert found(verdict) == ("unannounced" if gone == 0 else "heads-missing")


def test_a_chain_without_its_entries_or_without_its_heads_is_found() -> None:
    entries = chained([b"a", b"b"])
    assert found(verify([], heads_of(entries))) == "cut"
    assert found(verify(entries, [])) == "unannounced"


def test_a_chain_that_was_only_opened_is_whole() -> None:
    verdict = verify([], heads_of([]))
    assert verdict.ok
    assert (verdict.entries, verdict.last) == (0, 0)


def test_what_was_appended_after_the_newest_head_is_said_to_be_unsigned() -> None:
    entries = chained([b"a", b"b", b"c"])
    verdict = verify(entries, heads_of(entries[:1]))
    assert verdict.ok
    assert (verdict.signed, verdict.last) == (1, 3)


def test_entries_of_another_chain_do_not_fit() -> None:
    assert found(verify(chained([b"a"], "c2"), heads_of(chained([b"a"])))) == "changed"


def prune(entries: list[Entry], heads: list[Head], count: int) -> Checkpoint:
    verification = Verification(SCOPE, NAME, heads)
    for link, content in entries[:count]:
        verification.add(link.number, link.hash, content)
    return verification.checkpoint(at=1.0)


@given(contents, st.integers(1, 7), st.data())
def test_a_pruned_chain_verifies_with_its_checkpoint_and_not_without(
    written: list[bytes], every: int, data: st.DataObject
) -> None:
    entries, count = chained(written), data.draw(st.integers(1, len(written)))
    heads = heads_of(entries, every, closed=True)
    checkpoint = prune(entries, heads, count)
    left = [one for one in heads if one.serial > checkpoint.serial]
    for kept_entries in (entries[count:], entries[count // 2 :]):
        for kept_heads in (left, heads):
            verdict = verify(kept_entries, kept_heads, checkpoint)
            assert verdict.ok, verdict
            assert (verdict.first, verdict.last, verdict.closed) == (count + 1, len(entries), True)
    assert not verify(entries[count:], left).ok
    assert not verify(entries[count:], heads).ok


@given(contents, st.data())
def test_a_pruned_chain_hides_nothing_that_is_done_behind_the_checkpoint(
    written: list[bytes], data: st.DataObject
) -> None:
    entries, count = chained(written), data.draw(st.integers(0, len(written) - 1))
    heads = heads_of(entries)
    checkpoint = prune(entries, heads, count)
    at = data.draw(st.integers(count, len(entries) - 1))
    assert not verify(entries[count:at] + entries[at + 1 :], heads, checkpoint).ok
    changed = [*entries[count:at], (entries[at][0], entries[at][1] + b"!"), *entries[at + 1 :]]
    assert found(verify(changed, heads, checkpoint)) == "changed"


@given(contents, st.data())
def test_pruning_can_go_on_from_a_checkpoint(written: list[bytes], data: st.DataObject) -> None:
    entries, first = chained(written), data.draw(st.integers(0, len(written)))
    heads = heads_of(entries)
    earlier = prune(entries, heads, first)
    verification = Verification(SCOPE, NAME, heads, earlier)
    for link, content in entries[first:]:
        verification.add(link.number, link.hash, content)
    later = verification.checkpoint(at=2.0)
    assert (later.number, later.hash) == entries[-1][0]
    assert later == msgspec.structs.replace(prune(entries, heads, len(entries)), at=2.0)


def test_nothing_is_pruned_of_a_chain_that_does_not_verify() -> None:
    entries = chained([b"a", b"b"])
    with pytest.raises(IntegrityError):
        prune([(entries[0][0], b"x")], heads_of(entries), 1)


def test_a_signed_statement_opens_only_where_it_belongs() -> None:
    entries = chained([b"a"])
    statement = head(1, entries[0][0], writer="gateway-1")
    stored = sign(statement, SIGNER, SCOPE)
    assert read(stored, Head, SIGNER.verifier, SCOPE, NAME, 1) == statement
    other = Signer(bytes(32))
    for verifier, scope, name, place in (
        (other.verifier, SCOPE, NAME, 1),
        (SIGNER.verifier, "versions", NAME, 1),
        (SIGNER.verifier, SCOPE, "c2", 1),
        (SIGNER.verifier, SCOPE, NAME, 2),
    ):
        with pytest.raises(IntegrityError):
            read(stored, Head, verifier, scope, name, place)
    checkpoint = Checkpoint(chain=NAME, number=1, hash=entries[0][0].hash, serial=1, at=0.0)
    with pytest.raises(IntegrityError):
        read(sign(checkpoint, SIGNER, SCOPE), Head, SIGNER.verifier, SCOPE, NAME, 1)


@given(st.data())
def test_a_statement_of_which_a_bit_was_changed_does_not_open(data: st.DataObject) -> None:
    stored = bytearray(sign(head(1, chained([b"a"])[0][0]), SIGNER, SCOPE).rstrip(b"\n"))
    at, bit = data.draw(st.integers(0, len(stored) - 1)), data.draw(st.integers(0, 7))
    stored[at] ^= 1 << bit
    try:
        opened = read(bytes(stored), Head, SIGNER.verifier, SCOPE, NAME, 1)
    except IntegrityError:
        return
    # Base64's last character has bits that mean nothing.
    assert opened == head(1, chained([b"a"])[0][0])


def test_equal_entries_have_equal_bytes_whatever_the_order_and_the_driver() -> None:
    class Whole(int):
        """As BSON's Int64."""

    assert canonical({"a": 1, "b": [None, True, "x"]}) == canonical({"b": [None, True, "x"], "a": Whole(1)})
    assert canonical({"a": 1}) != canonical({"a": "1"})
