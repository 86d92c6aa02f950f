"""An object as a person reads it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from kubelore.cli.description import Related, describe_object, title

NOW = datetime(2026, 1, 2, tzinfo=UTC)
ITEM = {
    "id": "east:deployments.apps:shop:web",
    "object": {
        "kind": "Deployment",
        "metadata": {
            "name": "web",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app": "web", "tier": "front"},
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "note": "x"},
            "managedFields": [{"manager": "kubectl"}],
        },
        "spec": {
            "replicas": 2,
            "paused": False,
            "selector": {"matchLabels": {"app.kubernetes.io/Name": "web"}},
            "template": {"spec": {"containers": [{"name": "main", "image": "web:1", "args": ["a", "b"]}]}},
        },
        "status": {
            "readyReplicas": 1,
            "conditions": [
                {
                    "type": "Available",
                    "status": "True",
                    "reason": "Enough",
                    "lastTransitionTime": "2026-01-01T23:59:00Z",
                }
            ],
        },
    },
}
EVENT = {
    "metadata": {},
    "type": "Normal",
    "reason": "Scaled",
    "message": "up\nto 2",
    "count": 3,
    "lastTimestamp": "2026-01-01T23:00:00Z",
    "source": {"component": "controller"},
}


def lines(**related) -> list[str]:
    return list(describe_object(ITEM, Related(**related), NOW))


def test_it_says_what_the_object_is_and_how_it_stands() -> None:
    said = lines()
    assert said[:4] == [
        "Name:          web",
        "Namespace:     shop",
        "Cluster:       east",
        "Type:          deployments.apps",
    ]
    assert "Created:       2026-01-01T00:00:00Z (24h ago)" in said
    assert "  Replicas: 2" in said
    assert "  Paused: false" in said
    assert "      app.kubernetes.io/Name: web" in said
    assert "        - main" in said
    assert "          Args: a, b" in said
    assert "  Ready Replicas: 1" in said
    assert any(line.split() == ["Available", "True", "Enough", "60s"] for line in said)


def test_it_leaves_out_what_nobody_reads() -> None:
    said = "\n".join(lines())
    assert "managedFields" not in said
    assert "Managed" not in said
    assert "last-applied" not in said


def test_it_tells_owners_pods_and_events() -> None:
    said = lines(owners=["ReplicaSet/web-1", "Deployment/web"], pods=[["Name"], ["web-1-x"]], events=[EVENT])
    assert "Controlled By: ReplicaSet/web-1 of Deployment/web" in said
    assert said[said.index("Pods:") + 2].strip() == "web-1-x"
    event = said[said.index("Events:") + 2]
    assert event.split() == ["Normal", "Scaled", "60m", "(x3)", "controller", "up", "to", "2"]


def test_it_says_when_there_are_no_events_rather_than_nothing() -> None:
    assert lines(events=[])[-1] == "Events:        <none>"


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("terminationGracePeriodSeconds", "Termination Grace Period Seconds"),
        ("podIP", "Pod IP"),
        ("podIPs", "Pod IPs"),
        ("hostIPs", "Host IPs"),
        ("clusterIP", "Cluster IP"),
        ("imageID", "Image ID"),
        ("example.com/key", "example.com/key"),
    ],
)
def test_names_of_fields_are_written_as_words(key: str, said: str) -> None:
    assert title(key) == said
