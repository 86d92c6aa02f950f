"""How often somebody may ask, and how often they may be wrong."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kubelore.gateway.rates import Buckets, network_of


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_whoever_is_wrong_too_often_waits_but_who_is_known_at_the_same_address_does_not(
    world, another
) -> None:
    client = await another(failures_burst=3, failures_per_second=0.01)
    admin = {"Authorization": world.http.headers["Authorization"]}
    known, unknown = [{"Authorization": f"Bearer {(await world.token())['token']}"} for _ in range(2)]
    assert (await client.get("/api/whoami", headers=known)).status_code == 200
    wrong = {"Authorization": f"Bearer klt_{'0' * 16}_{'A' * 43}"}
    for _ in range(3):
        assert (await client.get("/api/whoami", headers=wrong)).status_code == 401
    for refused in (wrong, unknown, {"Cookie": f"kubelore_session=kls_{'0' * 16}_{'A' * 43}"}):
        answer = await client.get("/api/whoami", headers=refused)
        assert (answer.status_code, answer.json()["reason"]) == (429, "TooManyRequests")
        assert 0 < int(answer.headers["retry-after"]) <= 100
    for passing in (known, admin):
        assert (await client.get("/api/whoami", headers=passing)).status_code == 200
    # To show nothing is not to guess.
    assert (await client.get("/api/whoami")).status_code == 401


async def test_a_subject_that_asks_too_often_is_slowed_down_and_nobody_else(world, another) -> None:
    client = await another(requests_burst=3, requests_per_second=0.01)
    first, second = [
        {"Authorization": f"Bearer {(await world.token(name))['token']}"} for name in ("one", "two")
    ]
    seen = [(await client.get("/api/whoami", headers=first)).status_code for _ in range(4)]
    assert seen == [200, 200, 200, 429]
    assert (await client.get("/api/whoami", headers=second)).status_code == 200


@given(
    st.floats(0.1, 100),
    st.integers(1, 50),
    st.lists(st.tuples(st.floats(0, 10), st.integers(1, 30)), max_size=30),
)
def test_no_more_come_through_than_the_burst_and_the_rate_allow(rate, burst, arrivals) -> None:
    clock = Clock()
    buckets = Buckets(rate, burst, clock=clock)
    passed = 0
    for pause, number in arrivals:
        clock.now += pause
        passed += sum(buckets.take("a") == 0 for _ in range(number))
        assert passed <= burst + rate * clock.now + 1e-6


@given(st.floats(0.1, 100), st.integers(1, 20))
def test_who_waits_as_long_as_was_said_comes_through(rate, burst) -> None:
    clock = Clock()
    buckets = Buckets(rate, burst, clock=clock)
    while not (wait := buckets.take("a")):
        pass
    clock.now += wait + 1e-9
    assert buckets.take("a") == 0
    assert buckets.take("a") > 0


def test_memory_is_bounded_and_the_least_used_is_forgotten() -> None:
    buckets = Buckets(0.001, 1, kept=2, clock=Clock())
    assert [buckets.take(key) == 0 for key in ("a", "b", "b", "c", "a", "c")] == [
        True,
        True,
        False,
        True,
        True,
        False,
    ]


def test_a_rate_of_nothing_limits_nothing() -> None:
    buckets = Buckets(0, 1)
    assert [buckets.take("a") for _ in range(100)] == [0.0] * 100


def test_an_ipv6_network_counts_as_one_address() -> None:
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:1") != network_of("2001:db8:0:1::1")
    assert network_of("192.0.2.1") != network_of("192.0.2.2")
    assert network_of("::ffff:192.0.2.1") != network_of("::ffff:192.0.2.2")
