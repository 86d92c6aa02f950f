"""Types of a cluster: aggregated and classic, broken extensions, preferred versions, twins."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web

from kubelore.common.errors import Unavailable
from kubelore.common.kube import AddressPolicy, Discovery, KubeClient

VERBS = ["get", "list", "watch"]


def classic(name: str, kind: str, version_hash: str = "") -> dict[str, Any]:
    return {
        "name": name,
        "kind": kind,
        "namespaced": True,
        "singularName": kind.lower(),
        "verbs": VERBS,
        "storageVersionHash": version_hash,
    }


def aggregated(name: str, kind: str, *subresources: str) -> dict[str, Any]:
    return {
        "resource": name,
        "responseKind": {"kind": kind},
        "scope": "Namespaced",
        "singularResource": kind.lower(),
        "verbs": VERBS,
        "subresources": [{"subresource": each} for each in subresources],
    }


def group(name: str, preferred: str, *versions: str) -> dict[str, Any]:
    listed = [{"groupVersion": f"{name}/{each}", "version": each} for each in versions]
    return {"name": name, "versions": listed, "preferredVersion": {"groupVersion": "", "version": preferred}}


CLASSIC: dict[str, Any] = {
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {
        "kind": "APIGroupList",
        "groups": [
            group("autoscaling", "v2", "v1", "v2"),
            group("batch", "v1", "v1", "v1beta1"),
            group("events.k8s.io", "v1", "v1"),
            group("metrics.k8s.io", "v1beta1", "v1beta1"),
        ],
    },
    "/api/v1": {
        "resources": [
            classic("pods", "Pod", "p"),
            classic("pods/exec", "PodExecOptions"),
            classic("pods/log", "Pod"),
            classic("events", "Event", "e"),
        ]
    },
    "/apis/autoscaling/v1": {
        "resources": [classic("horizontalpodautoscalers", "HorizontalPodAutoscaler", "h")]
    },
    "/apis/autoscaling/v2": {
        "resources": [classic("horizontalpodautoscalers", "HorizontalPodAutoscaler", "h")]
    },
    "/apis/batch/v1": {"resources": [classic("jobs", "Job", "j")]},
    "/apis/batch/v1beta1": {"resources": [classic("cronjobs", "CronJob", "c")]},
    "/apis/events.k8s.io/v1": {"resources": [classic("events", "Event", "e")]},
}

AGGREGATED: dict[str, Any] = CLASSIC | {
    "/api": {
        "kind": "APIGroupDiscoveryList",
        "items": [
            {
                "metadata": {"name": ""},
                "versions": [
                    {
                        "version": "v1",
                        "freshness": "Current",
                        "resources": [
                            aggregated("pods", "Pod", "exec", "log"),
                            aggregated("events", "Event"),
                        ],
                    }
                ],
            }
        ],
    },
    "/apis": {
        "kind": "APIGroupDiscoveryList",
        "items": [
            {
                "metadata": {"name": "autoscaling"},
                "versions": [
                    {
                        "version": each,
                        "resources": [aggregated("horizontalpodautoscalers", "HorizontalPodAutoscaler")],
                    }
                    for each in ("v2", "v1")
                ],
            },
            {
                "metadata": {"name": "batch"},
                "versions": [
                    {"version": "v1", "resources": [aggregated("jobs", "Job")]},
                    {"version": "v1beta1", "resources": [aggregated("cronjobs", "CronJob")]},
                ],
            },
            {
                "metadata": {"name": "events.k8s.io"},
                "versions": [{"version": "v1", "resources": [aggregated("events", "Event")]}],
            },
            {
                "metadata": {"name": "metrics.k8s.io"},
                "versions": [{"version": "v1beta1", "freshness": "Stale"}],
            },
        ],
    },
}


async def discovered(
    start_api: Any, lenient: AddressPolicy, documents: dict[str, Any]
) -> tuple[Discovery, Any]:
    async def answer(request: web.Request) -> web.Response:
        if request.path not in documents:
            return web.json_response({"kind": "Status", "code": 503, "message": "no endpoints"}, status=503)
        return web.json_response(documents[request.path])

    api = await start_api(answer)
    async with KubeClient(api.access, lenient) as client:
        return await client.discovery(), api


@pytest.mark.parametrize("documents", [CLASSIC, AGGREGATED], ids=["classic", "aggregated"])
async def test_both_ways_find_the_same_types(
    start_api: Any, lenient: AddressPolicy, documents: dict[str, Any]
) -> None:
    found, _ = await discovered(start_api, lenient, documents)
    assert [each.versioned for each in found.types] == [
        "pods.v1",
        "events.v1",
        "horizontalpodautoscalers.v2.autoscaling",
        "jobs.v1.batch",
        "cronjobs.v1beta1.batch",
    ]
    pods = found.by_name()["pods"]
    assert pods.subresources == ("exec", "log")
    assert pods.observable


@pytest.mark.parametrize("documents", [CLASSIC, AGGREGATED], ids=["classic", "aggregated"])
async def test_a_broken_extension_is_named_and_stops_nothing(
    start_api: Any, lenient: AddressPolicy, documents: dict[str, Any]
) -> None:
    found, _ = await discovered(start_api, lenient, documents)
    assert list(found.broken) == ["metrics.k8s.io/v1beta1"]


async def test_aggregated_discovery_asks_little(start_api: Any, lenient: AddressPolicy) -> None:
    _, api = await discovered(start_api, lenient, AGGREGATED)
    assert [request.path for request in api.requests[:2]] == ["/api", "/apis"]
    assert sorted(request.path for request in api.requests[2:]) == ["/api/v1", "/apis/events.k8s.io/v1"], (
        "only the types that two groups share are asked for their hash"
    )


async def test_types_of_one_name_and_different_storage_are_both_kept(
    start_api: Any, lenient: AddressPolicy
) -> None:
    other = CLASSIC | {"/apis/events.k8s.io/v1": {"resources": [classic("events", "Event", "another")]}}
    found, _ = await discovered(start_api, lenient, other)
    assert {"events", "events.events.k8s.io"} <= set(found.by_name())


async def test_a_server_without_discovery_is_an_error(start_api: Any, lenient: AddressPolicy) -> None:
    with pytest.raises(Unavailable):
        await discovered(start_api, lenient, {})
