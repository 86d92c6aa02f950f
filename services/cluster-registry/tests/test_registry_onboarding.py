"""Onboarding clusters, and what is refused: over the bus, on simulated clusters."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import yaml

from kubelore.common.contracts import clusters
from kubelore.common.contracts.clusters import AddCluster, ClusterRef, ListClusters, Sealed
from kubelore.common.crypto import Keyring
from kubelore.common.errors import (
    AlreadyExists,
    BadRequest,
    Conflict,
    Invalid,
    KubeconfigRefused,
    NotFound,
    Unavailable,
    UpstreamError,
)
from kubelore.kubesim.faults import Faults


def with_token(kubeconfig: str, token: str) -> str:
    config = yaml.safe_load(kubeconfig)
    config["users"][0]["user"] = {"token": token}
    return yaml.safe_dump(config)


async def test_a_cluster_that_answers_is_onboarded_with_what_it_says_of_itself(registry, fleet) -> None:
    added = await registry.add("prod", group="eu", tags=["b", "a", "a"], description="the first")
    assert added == await registry.get("prod")
    assert (added.id, added.display_name, added.server) == ("prod", "prod", fleet[0].server)
    assert (added.group, added.tags, added.created_by) == ("eu", ["a", "b"], "admin")
    assert added.version.startswith("v1.")
    assert added.kube_system_uid
    assert (added.status, added.health_status, added.generation) == ("connected", "healthy", 1)
    await registry.until_told("prod", "added")


async def test_what_the_caller_says_wins_over_what_is_detected(registry) -> None:
    added = await registry.add("prod", display_name="Production", provider="aws", region="eu-west-1")
    assert (added.display_name, added.provider, added.region) == ("Production", "aws", "eu-west-1")


async def test_a_name_is_given_once(registry, fleet) -> None:
    await registry.add("prod")
    with pytest.raises(AlreadyExists, match="named 'prod'"):
        await registry.add("prod", fleet[1].kubeconfig)
    with pytest.raises(AlreadyExists, match="named 'prod'"):
        await registry.add("prod")


async def test_a_taken_name_is_told_even_when_the_new_cluster_is_out_of_reach(registry, fleet) -> None:
    await registry.add("prod")
    await fleet[1].close()
    with pytest.raises(AlreadyExists):
        await registry.add("prod", fleet[1].kubeconfig)


async def test_the_same_cluster_is_not_onboarded_under_a_second_name(registry) -> None:
    await registry.add("prod")
    with pytest.raises(AlreadyExists) as refused:
        await registry.add("alias")
    assert refused.value.extra["existing"] == "prod"
    assert refused.value.remedy is not None
    with pytest.raises(NotFound):
        await registry.get("alias")


async def test_a_duplicate_that_is_allowed_does_not_open_the_door_for_others(registry) -> None:
    await registry.add("prod")
    await registry.add("copy", allow_duplicate=True)
    await registry.remove("prod")
    with pytest.raises(AlreadyExists) as refused:
        await registry.add("third")
    assert refused.value.extra["existing"] == "copy"


async def test_of_two_who_add_the_same_cluster_at_once_under_two_names_one_succeeds(registry) -> None:
    outcomes = await asyncio.gather(
        *(registry.add(name) for name in ("one", "two", "three", "four")), return_exceptions=True
    )
    refused = [outcome for outcome in outcomes if isinstance(outcome, AlreadyExists)]
    page = await registry.bus.request(clusters.LIST, ListClusters())
    assert len(page.items) == 1
    assert len(refused) == 3
    assert {error.extra["existing"] for error in refused} == {page.items[0].name}


async def test_of_two_who_add_two_clusters_at_once_under_one_name_one_succeeds(registry, fleet) -> None:
    outcomes = await asyncio.gather(
        registry.add("prod"), registry.add("prod", fleet[1].kubeconfig), return_exceptions=True
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["AlreadyExists", "ClusterConnection"]


async def test_a_removed_cluster_is_gone_and_may_come_back_under_any_name(registry) -> None:
    await registry.add("prod")
    await registry.remove("prod")
    with pytest.raises(NotFound):
        await registry.get("prod")
    with pytest.raises(NotFound):
        await registry.bus.request(clusters.CREDENTIALS, ClusterRef("prod"))
    with pytest.raises(NotFound):
        await registry.remove("prod")
    await registry.add("other")
    await registry.until_told("prod", "added", "removed")


async def test_a_cluster_that_comes_back_has_a_generation_nobody_saw_before(registry) -> None:
    first = await registry.add("prod")
    await registry.remove("prod")
    assert (await registry.add("prod")).generation == first.generation + 1


async def test_a_former_name_is_not_given_to_another_cluster_silently(registry, fleet) -> None:
    await registry.add("prod")
    await registry.remove("prod")
    with pytest.raises(Conflict, match="another cluster") as refused:
        await registry.add("prod", fleet[1].kubeconfig)
    assert "new_history" in (refused.value.remedy or "")
    added = await registry.add("prod", fleet[1].kubeconfig, new_history=True)
    assert added.server == fleet[1].server


async def test_a_new_history_that_failed_leaves_the_old_one_protected(registry, fleet) -> None:
    await registry.add("prod")
    await registry.remove("prod")
    await registry.add("second", fleet[1].kubeconfig)
    with pytest.raises(AlreadyExists):
        await registry.add("prod", fleet[1].kubeconfig, new_history=True)
    await registry.remove("second")
    with pytest.raises(Conflict, match="another cluster"):
        await registry.add("prod", fleet[1].kubeconfig)


async def test_a_removal_that_died_half_way_is_healed_by_another(registry, repository) -> None:
    await registry.add("prod")
    await repository.remember_former(await registry.get("prod"), "2026-01-01T00:00:00.000Z")
    assert (await registry.get("prod")).status == "connected"
    await registry.remove("prod")
    assert (await registry.add("prod")).generation == 2


async def test_credentials_are_sealed_at_rest_and_open_with_the_keyring_only(
    registry, fleet, settings
) -> None:
    await registry.add("prod")
    found = await registry.bus.request(clusters.CREDENTIALS, ClusterRef("prod"))
    token = fleet[0].identity.token.encode()
    assert token not in found.sealed
    keyring = Keyring.load(settings.keyring_dir / "clusters.json")
    assert token in keyring.open(found.sealed, context="cluster:prod")


async def test_a_box_for_another_name_is_refused(registry, fleet) -> None:
    box = await registry.sealed(fleet[0].kubeconfig, "other")
    with pytest.raises(Invalid, match="not sealed to this registry"):
        await registry.bus.request(clusters.ADD, AddCluster(name="prod", sealed=box))


async def test_a_box_that_is_none_is_refused(registry) -> None:
    request = AddCluster(name="prod", sealed=Sealed(b"nonsense"))
    with pytest.raises(Invalid, match="not sealed to this registry"):
        await registry.bus.request(clusters.ADD, request)


async def test_credentials_that_the_cluster_refuses_are_the_kubeconfigs_fault(registry, fleet) -> None:
    with pytest.raises(KubeconfigRefused) as refused:
        await registry.add("prod", with_token(fleet[0].kubeconfig, "not-the-token"))
    assert refused.value.code == "unauthenticated"
    assert "not-the-token" not in f"{refused.value.detail} {refused.value.remedy} {refused.value.extra}"


@pytest.mark.parametrize(
    ("faults", "error"),
    [
        (Faults(error_rate=1.0, error_code=503), Unavailable),
        (Faults(error_rate=1.0, error_code=500), UpstreamError),
        (Faults(error_rate=1.0, error_code=404, paths="/version"), UpstreamError),
        (Faults(error_rate=1.0, error_code=403, paths="/version"), KubeconfigRefused),
    ],
    ids=["unavailable", "broken", "no-api-server", "forbidden"],
)
async def test_a_cluster_that_does_not_answer_well_is_not_added(registry, fleet, faults, error) -> None:
    await fleet[0].inject(faults)
    with pytest.raises(error) as refused:
        await registry.add("prod")
    assert fleet[0].server in refused.value.detail
    assert refused.value.remedy
    with pytest.raises(NotFound):
        await registry.get("prod")


async def test_a_cluster_out_of_reach_is_not_added(registry, fleet) -> None:
    await fleet[0].inject(Faults(refuse=True))
    with pytest.raises(Unavailable, match="cannot be reached"):
        await registry.add("prod")


async def test_a_cluster_without_nodes_to_see_is_added_all_the_same(registry, fleet) -> None:
    await fleet[0].inject(Faults(error_rate=1.0, error_code=404, paths="/nodes"))
    assert (await registry.add("prod")).provider == "other"


async def test_a_cluster_whose_identity_may_not_be_read_is_added_without_one(registry, fleet) -> None:
    await fleet[0].inject(Faults(error_rate=1.0, error_code=403, paths="/namespaces/kube-system"))
    assert (await registry.add("prod")).kube_system_uid == ""
    assert (await registry.add("second")).kube_system_uid == ""


@pytest.mark.parametrize("name", ["Prod", "a.b", "", "*", "a" * 64])
async def test_what_is_no_name_is_refused(registry, name: str) -> None:
    with pytest.raises(BadRequest):
        await registry.add(name)
    with pytest.raises(BadRequest):
        await registry.get(name)


@pytest.mark.parametrize("endpoint", [clusters.GET, clusters.REMOVE, clusters.TEST, clusters.CREDENTIALS])
async def test_a_cluster_that_is_not_there_is_not_found(registry, endpoint: Any) -> None:
    with pytest.raises(NotFound, match="no cluster named"):
        await registry.bus.request(endpoint, ClusterRef("nothing"))


async def test_inspecting_shows_every_context_and_stores_nothing(registry, fleet) -> None:
    config = yaml.safe_load(fleet[0].kubeconfig)
    config["users"].append({"name": "runner", "user": {"exec": {"command": "aws", "apiVersion": "v1"}}})
    cluster = config["clusters"][0]["name"]
    config["contexts"].append({"name": "eks", "context": {"cluster": cluster, "user": "runner"}})
    report = await registry.inspect(yaml.safe_dump(config))
    assert [context.usable for context in report.contexts] == [True, False]
    assert (await registry.bus.request(clusters.LIST, ListClusters())).total == 0


async def test_a_connection_test_tells_its_steps_and_never_raises_for_the_cluster(registry, fleet) -> None:
    await registry.add("prod")
    good = await registry.bus.request(clusters.TEST, ClusterRef("prod"))
    assert good.ok
    assert good.version.startswith("v1.")
    await fleet[0].inject(Faults(refuse=True))
    bad = await registry.bus.request(clusters.TEST, ClusterRef("prod"))
    assert not bad.ok
    assert any(step.ok is False and step.remedy for step in bad.steps)


async def test_namespaces_that_limit_what_is_observed_go_along_with_the_credentials(registry) -> None:
    added = await registry.add("prod", namespaces=["shop", "cart", "shop"])
    assert added.namespaces == ["cart", "shop"]
    credentials = await registry.bus.request(clusters.CREDENTIALS, ClusterRef("prod"))
    assert credentials.namespaces == ["cart", "shop"]
    with pytest.raises(BadRequest):
        await registry.add("other", namespaces=["Shop"])
