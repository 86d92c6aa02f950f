"""What a write is said to have done, and what the cluster says about one whose answer got lost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from kubelore.common.errors import Conflict, Invalid, NotFound
from kubelore.resource_ops.write_outcomes import (
    MAX_CHANGES,
    MAX_SHOWN,
    evidence,
    hidden_changes,
    told,
    with_owners,
    without_quotes,
)

AT = datetime(2026, 11, 1, 12, 0, 0, 300_000, tzinfo=UTC)


def entry(seconds: float, manager: str = "kubelore", operation: str = "Apply", **more: str) -> dict[str, str]:
    time = (AT + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"manager": manager, "operation": operation, "time": time, "apiVersion": "v1", **more}


def live(*entries: dict[str, str], uid: str = "u", **more: Any) -> dict[str, Any]:
    return {"metadata": {"uid": uid, "resourceVersion": "7", "managedFields": list(entries), **more}}


@pytest.mark.parametrize(
    ("action", "uid", "object_now", "expected"),
    [
        ("apply", "u", live(entry(0)), ("probable", "7")),
        ("apply", "", live(entry(3)), ("probable", "7")),
        ("apply", "u", live(entry(0), entry(9, "kubectl", "Update")), ("probable", "")),
        ("apply", "u", live(entry(-60)), ("unknown", "")),
        ("apply", "u", live(entry(120)), ("unknown", "")),
        ("apply", "u", live(entry(0, "kubectl", "Update")), ("unknown", "")),
        ("apply", "u", live(entry(0), uid="another"), ("unknown", "")),
        ("apply", "", None, ("unknown", "")),
        ("patch", "u", live(entry(0)), ("unknown", "")),
        ("label", "u", live(entry(1, operation="Update")), ("probable", "7")),
        ("scale", "u", live(entry(1, operation="Update")), ("unknown", "")),
        ("scale", "u", live(entry(1, operation="Update", subresource="scale")), ("probable", "7")),
        ("delete", "u", None, ("probable", "")),
        ("delete", "u", live(uid="another"), ("probable", "")),
        ("delete", "u", live(), ("unknown", "")),
        ("delete", "u", live(deletionTimestamp="2026-11-01T12:00:31Z"), ("probable", "")),
        ("delete", "u", live(deletionTimestamp="2026-10-01T12:00:31Z"), ("unknown", "")),
    ],
)
def test_a_lost_write_is_found_by_field_manager_and_time_or_stays_unknown(
    action, uid, object_now, expected
) -> None:
    found = evidence(action, uid, AT, object_now)
    assert (found.state, found.rv) == expected


def test_of_many_and_long_changes_some_are_told_and_the_rest_counted_or_hidden() -> None:
    before = {"data": {f"key{number:04}": "a" for number in range(500)}}
    after = {"data": {f"key{number:04}": "b" for number in range(500)}}
    shown = told(before, after)
    assert (len(shown.changes), shown.more) == (MAX_CHANGES, 500 - MAX_CHANGES)
    long = told({"data": {}}, {"data": {f"k{number}": "x" * 4000 for number in range(100)}})
    assert len(msgspec.json.encode(long.changes)) < 2 * MAX_SHOWN
    assert [change.hidden for change in long.changes[:2]] == [False, False]
    assert long.changes[-1].hidden
    assert long.changes[-1].new is None


def test_keys_of_a_secret_are_told_when_they_came_went_or_hold_another_value() -> None:
    found = hidden_changes(
        {"same": b"1", "other": b"1", "gone": b"1"}, {"same": b"1", "other": b"2", "new": b"1"}
    )
    sides = {change.path: (change.old is None, change.new is None) for change in found}
    assert sides == {"data.gone": (True, False), "data.new": (False, True), "data.other": (True, True)}
    assert all(change.hidden for change in found)


def test_owners_are_read_from_the_api_servers_causes_and_times_from_the_object() -> None:
    causes = [
        {
            "message": 'conflict with "kubectl" using apps/v1 at 2026-11-01T12:00:00Z',
            "field": ".spec.replicas",
        },
        {"message": 'conflict with "kubectl" using apps/v1 at 2026-11-01T12:00:00Z', "field": ".spec.paused"},
        {"message": 'conflict with "hpa" with subresource "scale" using apps/v1', "field": ".spec.replicas"},
        {"message": 'conflict with "argo"', "field": ".metadata.labels.app"},
    ]
    error = with_owners(
        Conflict("Apply failed with 4 conflicts", causes=causes, operation="x"),
        live(entry(0, "kubectl", "Update")),
    )
    assert error.extra["operation"] == "x"
    told_of = [(one["manager"], one["operation"], one["fields"]) for one in error.extra["conflicts"]]
    assert told_of == [
        ("kubectl", "Update", ["spec.replicas", "spec.paused"]),
        ("hpa", "Update", ["spec.replicas"]),
        ("argo", "Apply", ["metadata.labels.app"]),
    ]
    assert error.extra["conflicts"][0]["at"] == "2026-11-01T12:00:00Z"
    plain = NotFound("no")
    assert with_owners(plain, None) is plain


def test_a_refusal_of_a_secret_keeps_fields_and_loses_words() -> None:
    causes = [{"field": "data[x]", "message": 'Invalid value: "hunter2"'}]
    error = without_quotes(
        Invalid('Secret "s" is invalid: "hunter2"', causes=causes, kubernetes_reason="Invalid")
    )
    assert "hunter2" not in f"{error.detail} {error.remedy} {error.extra}"
    assert "data[x]" in error.detail
    assert error.extra["kubernetes_reason"] == "Invalid"
