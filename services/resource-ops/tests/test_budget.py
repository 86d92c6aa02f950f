"""What is given up over a budget, in which order, and that nothing goes to and fro."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from kubelore.resource_ops.budget import LEAST_SAVING, NEEDED, PEOPLES, Budget, Holding, beyond_watches, plan

types = st.sampled_from(
    ["pods", "secrets", "namespaces", "leases.coordination.k8s.io", "widgets.lore.example", "roles.rbac"]
)


@st.composite
def holdings(draw: st.DrawFn) -> list[Holding]:
    keys = draw(st.lists(st.tuples(st.sampled_from(["east", "west"]), types), unique=True, max_size=10))
    found = []
    for cluster, name in keys:
        whole = draw(st.integers(0, 4_000_000))
        metadata = draw(st.integers(0, whole))
        hold = "whole" if name in NEEDED else draw(st.sampled_from(["whole", "metadata", "on-demand"]))
        found.append(Holding(cluster, name, hold, draw(st.integers(0, 2_000)), whole, metadata))
    return found


def apply(held: list[Holding], changes: dict) -> list[Holding]:
    return [msgspec.structs.replace(one, hold=changes.get(one.key, one.hold)) for one in held]


def cost(held: list[Holding]) -> int:
    return sum(one.cost(one.hold) for one in held)


budgets = st.integers(1, 20_000_000).map(lambda size: Budget(memory_bytes=size))


@given(holdings(), budgets)
def test_one_decision_is_enough_to_be_within_the_budget_or_everything_is_given_up(held, budget) -> None:
    after = apply(held, plan(held, budget)) if cost(held) > budget.memory_bytes else held
    if cost(after) > budget.memory_bytes:
        left = [one for one in after if one.hold != "on-demand" and one.type not in NEEDED]
        assert all(one.cost(one.hold) < LEAST_SAVING for one in left)


@given(holdings(), budgets)
def test_nothing_goes_to_and_fro_while_sizes_stay_as_they_are(held, budget) -> None:
    seen = []
    for _ in range(40):
        changes = plan(held, budget)
        if not changes:
            break
        state = {one.key: one.hold for one in held}
        assert state not in seen
        seen.append(state)
        held = apply(held, changes)
    assert plan(held, budget) == {}


@given(holdings(), budgets)
def test_what_people_look_at_is_given_up_last(held, budget) -> None:
    whole = [msgspec.structs.replace(one, hold="whole") for one in held]
    changes = plan(whole, budget)
    for key, hold in changes.items():
        assert key[1] not in NEEDED
        if key[1] in PEOPLES:
            others = [one for one in whole if one.type not in PEOPLES | NEEDED and one.key[1] != key[1]]
            assert all(
                changes.get(one.key) in (hold, "on-demand")
                or one.cost(changes.get(one.key, "whole")) - one.cost(hold) < LEAST_SAVING
                for one in others
            )


def test_the_largest_is_given_up_first_and_comes_back_only_well_below_the_budget() -> None:
    small = Holding("east", "roles.rbac", "whole", 100, 1_000_000, 100_000)
    large = Holding("east", "widgets.lore.example", "whole", 100, 5_000_000, 200_000)
    pods = Holding("east", "pods", "whole", 1000, 3_000_000, 500_000)
    held = [small, large, pods]
    assert plan(held, Budget(memory_bytes=10_000_000)) == {("east", "widgets.lore.example"): "metadata"}
    reduced = apply(held, {large.key: "metadata"})
    assert plan(reduced, Budget(memory_bytes=11_000_000)) == {}
    assert plan(reduced, Budget(memory_bytes=14_000_000)) == {large.key: "whole"}
    assert plan(reduced, Budget()) == {large.key: "whole"}


@given(st.dictionaries(st.tuples(st.sampled_from("abc"), types), st.integers(0, 5)), st.integers(1, 40))
def test_the_watches_that_are_kept_fit_and_are_the_most_important(wanted, most) -> None:
    beyond = beyond_watches(wanted, Budget(watches=most))
    kept = sum(count for key, count in wanted.items() if key not in beyond)
    needed = sum(count for (_, name), count in wanted.items() if name in NEEDED)
    assert kept <= max(most, needed)
    assert not any(name in NEEDED for _, name in beyond)
    assert beyond_watches(wanted, Budget()) == set()
    if beyond:
        assert kept + max(wanted[key] for key in beyond) > most


def test_a_type_is_given_up_in_one_cluster_after_the_other_and_pods_in_none() -> None:
    wanted = {(c, t): 1 for c in ("east", "west") for t in ("pods", "roles.rbac", "namespaces")}
    assert beyond_watches(wanted, Budget(watches=5)) == {("west", "roles.rbac")}
    assert beyond_watches(wanted, Budget(watches=4)) == {("east", "roles.rbac"), ("west", "roles.rbac")}
