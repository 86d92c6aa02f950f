"""Types are found by every form that kubectl accepts."""

from __future__ import annotations

import pytest

from kubelore.common.errors import BadRequest
from kubelore.common.kube.resource_type import NAMESPACES, PODS, ResourceType
from kubelore.common.kube.type_names import resolve


def _type(
    plural: str, kind: str, group: str = "", version: str = "v1", **more: tuple[str, ...]
) -> ResourceType:
    return ResourceType(
        group=group, version=version, plural=plural, kind=kind, singular=kind.lower(), namespaced=True, **more
    )


SERVED = {
    kind.name: kind
    for kind in (
        _type("deployments", "Deployment", "apps", short_names=("deploy",), categories=("all",)),
        _type("events", "Event", "events.k8s.io", short_names=("ev",)),
        _type("events", "Event", short_names=("ev",)),
        _type(
            "services", "Service", "serving.knative.dev", short_names=("ksvc",), categories=("all", "knative")
        ),
        _type("services", "Service", short_names=("svc",), categories=("all",)),
        _type("ingresses", "Ingress", "networking.k8s.io", short_names=("ing",)),
        _type("ingresses", "Ingress", "traefik.example.com", version="v1alpha1"),
        PODS,
        NAMESPACES,
    )
}


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("pods", {"pods"}),
        ("pod", {"pods"}),
        ("Pod", {"pods"}),
        ("po", {"pods"}),
        ("po,ns", {"pods", "namespaces"}),
        (" po , ", {"pods"}),
        ("deploy", {"deployments.apps"}),
        ("deployments.apps", {"deployments.apps"}),
        ("deployment.apps", {"deployments.apps"}),
        ("deploy.apps", {"deployments.apps"}),
        ("deployments.v1.apps", {"deployments.apps"}),
        ("Deployment.v1.apps", {"deployments.apps"}),
        ("pods.v1", {"pods"}),
        ("pods.v1.", {"pods"}),
        ("events", {"events"}),
        ("events.events.k8s.io", {"events.events.k8s.io"}),
        ("svc", {"services"}),
        ("service", {"services"}),
        ("services.serving.knative.dev", {"services.serving.knative.dev"}),
        ("services.serving", {"services.serving.knative.dev"}),
        ("ingress", {"ingresses.networking.k8s.io"}),
        ("ingresses.v1alpha1.traefik.example.com", {"ingresses.traefik.example.com"}),
        ("knative", {"services.serving.knative.dev"}),
        ("all", {"deployments.apps", "services", "services.serving.knative.dev"}),
        ("", set()),
    ],
)
def test_a_type_is_found_as_kubectl_finds_it(written: str, meant: set[str]):
    assert resolve([written], [SERVED]) == meant


@pytest.mark.parametrize("written", ["deployments.v2.apps", "pods.apps", "poods", "pods.v2", "."])
def test_what_no_cluster_serves_is_refused_in_kubectls_words(written: str):
    with pytest.raises(BadRequest, match="the server doesn't have a resource type") as refused:
        resolve([written], [SERVED])
    assert refused.value.extra == {"unknown_type": written}


def test_a_misspelt_type_is_answered_with_what_was_probably_meant():
    with pytest.raises(BadRequest) as refused:
        resolve(["deploymnts"], [SERVED])
    assert refused.value.remedy == "Did you mean deployments.apps?"


def test_a_type_that_is_observed_under_another_group_is_found_by_either_name():
    events = {"events": SERVED["events"]}
    assert resolve(["events.events.k8s.io"], [events]) == {"events"}


def test_a_type_that_only_one_cluster_serves_is_found():
    assert resolve(["deploy", "po"], [{"pods": PODS}, SERVED]) == {"deployments.apps", "pods"}


def test_clusters_whose_types_are_not_known_yet_refuse_nothing():
    assert resolve(["certificates"], [{}, {}]) == set()
