"""When backups are due: cron in time zones, around the change of clocks, with jitter; and which of them go."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelore.common.errors import Invalid
from kubelore.yaml_vcs.scheduling import DAY_S, Kept, Schedule, expired

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 3, 1, tzinfo=UTC).timestamp()

CRONS = st.sampled_from(
    ["* * * * *", "*/5 * * * *", "30 2 * * *", "10,50 2 * * *", "0 0 1 * *", "15 */6 * * 1-5", "0 12 * * 6L"]
)
ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"])
MOMENTS = st.integers(1_700_000_000, 1_900_000_000)


def local(schedule: Schedule, *begin: int, count: int) -> list[str]:
    after = datetime(*begin, tzinfo=BERLIN).timestamp()
    slots = islice(schedule.slots(after), count)
    return [datetime.fromtimestamp(slot, BERLIN).isoformat(timespec="minutes") for slot in slots]


def test_a_daily_backup_whose_hour_is_left_out_in_spring_is_due_when_that_hour_ends() -> None:
    assert local(Schedule("30 2 * * *", "Europe/Berlin"), 2026, 3, 28, count=3) == [
        "2026-03-28T02:30+01:00",
        "2026-03-29T03:00+02:00",
        "2026-03-30T02:30+02:00",
    ]
    # Two in the hour that is left out become one.
    assert local(Schedule("10,50 2 * * *", "Europe/Berlin"), 2026, 3, 29, count=2) == [
        "2026-03-29T03:00+02:00",
        "2026-03-30T02:10+02:00",
    ]


def test_a_daily_backup_in_the_hour_that_comes_twice_in_autumn_is_due_once() -> None:
    daily = Schedule("30 2 * * *", "Europe/Berlin")
    assert local(daily, 2026, 10, 25, count=2) == ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"]
    second = datetime(2026, 10, 25, 2, 15, tzinfo=BERLIN, fold=1).timestamp()
    assert next(daily.slots(second)) == datetime(2026, 10, 26, 2, 30, tzinfo=BERLIN).timestamp()


def test_an_hourly_backup_goes_through_the_change_of_clocks_every_hour() -> None:
    for begin in ((2026, 3, 29), (2026, 10, 25)):
        after = datetime(*begin, tzinfo=BERLIN).timestamp()
        slots = list(islice(Schedule("0 * * * *", "Europe/Berlin").slots(after), 6))
        assert {b - a for a, b in pairwise(slots)} == {3600}


@given(CRONS, ZONES, MOMENTS, st.integers(0, 40 * DAY_S))
def test_the_latest_slot_is_the_one_that_walking_through_all_of_them_finds(
    cron: str, zone: str, after: int, passed: int
) -> None:
    if cron.startswith("*"):
        passed %= 2 * DAY_S
    schedule = Schedule(cron, zone, jitter_s=40, seed="a")
    walked = None
    for slot in schedule.slots(after):
        if slot > after + passed:
            break
        if schedule.due(slot) <= after + passed:
            walked = slot
    assert schedule.latest(after + passed, after) == walked


@given(CRONS, ZONES, MOMENTS)
def test_slots_rise_are_at_whole_minutes_and_do_not_depend_on_where_one_begins(
    cron: str, zone: str, after: int
) -> None:
    schedule = Schedule(cron, zone)
    slots = list(islice(schedule.slots(after), 20))
    assert all(after < a < b and a % 60 == 0 for a, b in pairwise(slots))
    for begin in (slots[3], slots[3] + 1, slots[4] - 1):
        assert next(schedule.slots(begin)) == slots[4]


@given(st.text(max_size=8), MOMENTS, st.integers(0, 3600))
def test_jitter_is_always_the_same_for_a_policy_and_slot_and_within_its_bound(
    seed: str, slot: int, jitter_s: int
) -> None:
    schedule = Schedule("0 0 * * *", jitter_s=jitter_s, seed=seed)
    assert schedule.due(slot) == Schedule("0 0 * * *", jitter_s=jitter_s, seed=seed).due(slot)
    assert slot <= schedule.due(slot) <= slot + jitter_s


def test_policies_that_are_due_together_are_spread_by_their_jitter() -> None:
    due = {Schedule("0 3 * * *", jitter_s=1800, seed=str(n)).due(3 * 3600) for n in range(100)}
    assert len(due) > 80


def test_the_next_runs_are_told_with_their_jitter() -> None:
    schedule = Schedule("0 3 * * *", jitter_s=600, seed="a")
    coming = schedule.coming(NOW, 3)
    assert coming == [schedule.due(int(NOW) + 3 * 3600 + day * DAY_S) for day in range(3)]
    assert schedule.coming(coming[0] - 0.5, 1) == coming[:1]
    assert schedule.coming(coming[0], 1) == coming[1:2]


@pytest.mark.parametrize(
    "schedule",
    [
        Schedule("nonsense"),
        Schedule("* * * *"),
        Schedule("*/15 * * * * *"),
        Schedule("61 * * * *"),
        Schedule("0 0 30 2 *"),
        Schedule("0 0 31 2,4 *"),
        Schedule("* * */20 * 1L"),
        Schedule("1" * 200 + " * * * *"),
        Schedule("0 3 * * *", "Europe/Atlantis"),
        Schedule("0 3 * * *", "../../etc/passwd"),
        Schedule("0 3 * * *", ""),
        Schedule("0 3 * * *", jitter_s=-1),
        Schedule("0 3 * * *", jitter_s=3601),
        Schedule("*/5 * * * *", jitter_s=300),
        Schedule("0,2 3 * * *", jitter_s=120),
    ],
)
def test_what_is_no_schedule_is_refused_with_a_remedy(schedule: Schedule) -> None:
    with pytest.raises(Invalid) as refused:
        schedule.check(NOW)
    assert refused.value.remedy


BACKUPS = st.lists(
    st.builds(Kept, st.uuids().map(str), st.integers(0, 100 * DAY_S).map(float), st.booleans()),
    max_size=30,
    unique_by=lambda kept: kept.id,
)


@given(BACKUPS, st.integers(0, 10), st.integers(0, 60))
def test_retention_keeps_what_it_promises_and_never_takes_the_last_good_backup(
    backups: list[Kept], count: int, days: int
) -> None:
    now = 100.0 * DAY_S
    gone = set(expired(backups, now, count, days))
    good = sorted((b for b in backups if b.good), key=lambda b: (b.at, b.id), reverse=True)
    left = [b for b in good if b.id not in gone]
    assert left[:1] == good[:1]
    assert left == good[: len(left)]
    if count:
        assert len(left) <= count
    for backup in left[1:]:
        assert not days or now - backup.at <= days * DAY_S
    for backup in good[len(left) :]:
        assert (count and good.index(backup) >= count) or (days and now - backup.at > days * DAY_S)
    if not count and not days:
        assert not gone & {b.id for b in good}
    rest = [b for b in backups if b.id not in gone]
    assert not expired(rest, now, count, days)
