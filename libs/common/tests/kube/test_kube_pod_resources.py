"""What a pod asks for, by the scheduler's rule."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelore.common.errors import Invalid
from kubelore.common.kube.pod_resources import (
    Container,
    PodSpec,
    Resources,
    add,
    pod_resources,
    read_pod,
)
from kubelore.common.kube.quantity import Quantity


def container(cpu: str = "", limit: str = "", sidecar: bool = False) -> Container:
    return Container(
        Resources(requests={"cpu": cpu} if cpu else None, limits={"cpu": limit} if limit else None),
        "Always" if sidecar else "",
    )


def cpu_of(spec: PodSpec, kind: str = "requests") -> str:
    return str(pod_resources(spec, kind).get("cpu", Quantity()))  # type: ignore[arg-type]


def test_containers_run_together_and_init_containers_one_after_the_other() -> None:
    spec = PodSpec([container("100m"), container("200m")], [container("250m"), container("50m")])
    assert cpu_of(spec) == "300m"
    assert cpu_of(PodSpec(spec.containers, [container("1"), container("50m")])) == "1"


def test_a_sidecar_counts_with_everything_that_starts_after_it() -> None:
    sidecar = container("100m", sidecar=True)
    assert cpu_of(PodSpec([container("200m")], [sidecar])) == "300m"
    assert cpu_of(PodSpec([container("200m")], [sidecar, container("500m")])) == "600m"
    assert cpu_of(PodSpec([container("200m")], [container("500m"), sidecar])) == "500m"


def test_overhead_comes_on_top_but_makes_no_limit_where_there_is_none() -> None:
    spec = PodSpec([container("100m")], overhead={"cpu": "50m"})
    assert cpu_of(spec) == "150m"
    assert cpu_of(spec, "limits") == "0"
    assert cpu_of(PodSpec([container(limit="1")], overhead={"cpu": "50m"}), "limits") == "1050m"


def test_what_the_pod_declares_replaces_its_containers_sum() -> None:
    spec = PodSpec([container("100m"), container("100m")], resources=Resources(requests={"cpu": "2"}))
    assert cpu_of(spec) == "2"


def test_a_finished_pod_holds_nothing() -> None:
    for phase, holds in (("Running", True), ("Pending", True), ("Succeeded", False), ("Failed", False)):
        assert read_pod(b'{"spec":{"containers":[]},"status":{"phase":"%s"}}' % phase.encode()).holds is holds


def test_what_is_no_pod_or_no_quantity_is_invalid() -> None:
    with pytest.raises(Invalid):
        read_pod(b'{"spec": 3}')
    with pytest.raises(Invalid, match="quantity"):
        cpu_of(PodSpec([container("lots")]))


_millis = st.integers(0, 4000)
_containers = st.lists(st.tuples(_millis, st.booleans()), max_size=6)


@given(st.lists(_millis, max_size=6), _containers)
def test_a_pod_asks_for_the_most_that_runs_at_any_moment(
    main: list[int], init: list[tuple[int, bool]]
) -> None:
    """Against a replay of the pod's life: after each start, what runs is counted."""
    kept, moments = 0, [0]
    for millis, sidecar in init:
        moments.append(kept + millis)
        kept += millis if sidecar else 0
    moments.append(kept + sum(main))
    spec = PodSpec(
        [container(f"{millis}m") for millis in main],
        [container(f"{millis}m", sidecar=sidecar) for millis, sidecar in init],
    )
    assert pod_resources(spec, "requests").get("cpu", Quantity()) == Quantity.parse(f"{max(moments)}m")


@given(st.lists(_millis, min_size=1, max_size=6))
def test_sums_do_not_depend_on_the_order(values: list[int]) -> None:
    amounts = [{"cpu": Quantity.parse(f"{value}m")} for value in values]

    def total(of: list[dict[str, Quantity]]) -> Quantity:
        found: dict[str, Quantity] = {}
        for one in of:
            found = add(found, one)
        return found["cpu"]

    assert total(amounts) == total(amounts[::-1]) == Quantity.parse(f"{sum(values)}m")
