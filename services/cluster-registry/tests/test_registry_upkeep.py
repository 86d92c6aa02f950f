"""Changing clusters that are onboarded: what is said of them, and their credentials."""

from __future__ import annotations

import asyncio
import base64
import json

import msgspec
import pytest

from kubelore.cluster_registry.renewal import check_renewal
from kubelore.common.authz import WITHHELD, Grant
from kubelore.common.authz import Caller as Somebody
from kubelore.common.callers import acting_as
from kubelore.common.contracts import clusters
from kubelore.common.contracts.clusters import ClusterRef, ListClusters, UpdateCluster
from kubelore.common.crypto import Keyring
from kubelore.common.errors import BadRequest, Conflict, Forbidden, Invalid, KubeconfigRefused, NotFound
from kubelore.common.kube import AddressPolicy, read_kubeconfig
from kubelore.kubesim.faults import Faults
from kubelore.lab.waiting import wait_for

VIEWER = Somebody(subject="vera", grants=(Grant(role="viewer"),))
NARROW = Somebody(subject="nora", grants=(Grant(role="admin", namespaces=("team-a",)),))
POLICY = AddressPolicy(allow_private=True)


async def test_an_update_changes_what_it_names_and_nothing_else(registry) -> None:
    added = await registry.add("prod", group="eu", tags=["a"], description="the first")
    changed = await registry.update("prod", tags=["c", "b", "b"], description="")
    assert changed == await registry.get("prod")
    assert (changed.tags, changed.description, changed.group) == (["b", "c"], "", "eu")
    assert changed.updated_at > added.updated_at
    assert (changed.generation, changed.created_at) == (added.generation, added.created_at)
    await registry.until_told("prod", "added", "updated")
    assert registry.events[-1].actor == "admin"


async def test_an_update_of_nothing_changes_nothing(registry) -> None:
    added = await registry.add("prod")
    assert await registry.update("prod") == added


async def test_a_display_name_that_is_taken_away_is_the_name_again(registry) -> None:
    await registry.add("prod", display_name="Production")
    assert (await registry.update("prod", display_name="")).display_name == "prod"


async def test_other_namespaces_make_observers_start_anew(registry) -> None:
    await registry.add("prod", namespaces=["shop"])
    assert (await registry.update("prod", namespaces=["shop"])).generation == 1
    changed = await registry.update("prod", namespaces=["shop", "cart"])
    assert (changed.namespaces, changed.generation) == (["cart", "shop"], 2)
    credentials = await registry.bus.request(clusters.CREDENTIALS, ClusterRef("prod"))
    assert (credentials.namespaces, credentials.generation) == (["cart", "shop"], 2)
    with pytest.raises(BadRequest):
        await registry.update("prod", namespaces=["no/name"])


async def test_who_changes_different_fields_at_the_same_time_loses_nothing(registry, fleet) -> None:
    await registry.add("prod")
    await asyncio.gather(
        registry.update("prod", tags=["a"]),
        registry.update("prod", description="said"),
        registry.rotate("prod", fleet[0].kubeconfig),
        registry.update("prod", namespaces=["shop"]),
        registry.rotate("prod", fleet[0].kubeconfig),
        registry.update("prod", region="moon-1"),
    )
    found = await registry.get("prod")
    assert (found.tags, found.description, found.namespaces) == (["a"], "said", ["shop"])
    assert (found.region, found.generation) == ("moon-1", 4)


async def test_rotated_credentials_are_stored_sealed_with_a_generation_of_their_own(
    registry, fleet, repository, settings
) -> None:
    await registry.add("prod", tags=["kept"])
    text = fleet[0].kubeconfig
    rotated = await registry.rotate("prod", text.replace("sim-01", "other-name"))
    assert (rotated.generation, rotated.tags, rotated.status) == (2, ["kept"], "connected")
    assert rotated.context == "other-name"
    _, sealed = await repository.credentials("prod")
    keyring = Keyring.load(settings.keyring_dir / "clusters.json")
    assert b"https://" in keyring.open(sealed, context="cluster:prod")
    await registry.until_told("prod", "added", "updated")


async def test_credentials_of_another_cluster_are_refused_and_change_nothing(registry, fleet) -> None:
    added = await registry.add("prod")
    with pytest.raises(Conflict, match="another cluster") as refused:
        await registry.rotate("prod", fleet[1].kubeconfig)
    assert refused.value.remedy
    assert await registry.get("prod") == added


async def test_credentials_that_cannot_be_used_change_nothing(registry, fleet) -> None:
    added = await registry.add("prod")
    with pytest.raises(KubeconfigRefused):
        await registry.rotate("prod", "kind: Config")
    await fleet[0].inject(Faults(error_rate=1.0, error_code=401))
    with pytest.raises(KubeconfigRefused) as refused:
        await registry.rotate("prod", fleet[0].kubeconfig)
    assert refused.value.code == "unauthenticated"
    with pytest.raises(NotFound):
        await registry.rotate("nothing", fleet[0].kubeconfig)
    assert await registry.get("prod") == added


async def test_only_a_service_accounts_token_can_be_renewed(registry, fleet) -> None:
    with pytest.raises(Invalid, match="service account"):
        await registry.add("prod", renew_token=True)
    await registry.add("prod")
    with pytest.raises(Invalid, match="service account"):
        await registry.rotate("prod", fleet[0].kubeconfig, renew_token=True)


async def test_who_may_only_look_changes_nothing(registry) -> None:
    await registry.add("prod")
    with acting_as(VIEWER), pytest.raises(Forbidden):
        await registry.bus.request(clusters.UPDATE, UpdateCluster(id="prod", tags=["x"]))
    with acting_as(VIEWER), pytest.raises(Forbidden):
        await registry.rotate("prod", registry.fleet[0].kubeconfig)


async def test_who_administers_one_cluster_does_not_put_it_where_others_send_things(registry) -> None:
    await registry.add("one")
    owner = Somebody(subject="otto", grants=(Grant(role="admin", clusters=("one",)),))
    with acting_as(owner):
        changed = await registry.bus.request(clusters.UPDATE, UpdateCluster(id="one", description="mine"))
        assert changed.description == "mine"
        for request in (UpdateCluster(id="one", group="prod"), UpdateCluster(id="one", tags=["prod"])):
            with pytest.raises(Forbidden):
                await registry.bus.request(clusters.UPDATE, request)


async def test_a_test_that_succeeds_ends_an_outage_at_once(registry, repository) -> None:
    await registry.add("prod")
    await repository.update("prod", status="disconnected", health_status="unhealthy", status_detail="away")
    assert (await registry.test("prod")).ok
    found = await registry.get("prod")
    assert (found.status, found.health_status, found.status_detail) == ("connected", "healthy", "")
    await registry.until_told("prod", "added", "connected")
    await registry.test("prod")
    await registry.update("prod", tags=["later"])
    await registry.until_told("prod", "added", "connected", "updated")


async def test_what_is_removed_is_gone_at_once_and_what_comes_after_is_another(
    registry, fleet, repository
) -> None:
    await registry.add("prod")
    await registry.remove("prod")
    with pytest.raises(NotFound):
        await registry.update("prod", tags=["x"])
    with pytest.raises(NotFound):
        await repository.credentials("prod")

    async def remembered() -> bool:
        former = await repository.former("prod")
        return former is not None and former.generation == 1

    await wait_for(remembered, "the name to be remembered")


async def test_what_changed_since_it_was_remembered_is_not_removed(registry, repository) -> None:
    """A generation that came between remembering and removing would come again, with the old credentials behind it."""
    stale = await registry.add("prod")
    await registry.update("prod", namespaces=["team-a"])
    with pytest.raises(Conflict):
        await repository.delete(stale)
    assert (await registry.get("prod")).generation == 2


async def test_who_sees_some_namespaces_is_told_neither_figures_nor_names_of_others(
    registry, repository
) -> None:
    await registry.add("prod", namespaces=["team-a", "team-b"])
    await repository.update("prod", resource_count=42)
    with acting_as(NARROW):
        (listed,) = (await registry.bus.request(clusters.LIST, ListClusters())).items
        shown = [listed, await registry.get("prod")]
        with pytest.raises(Forbidden):
            await registry.test("prod")
    assert [(one.resource_count, one.namespaces) for one in shown] == [(None, ["team-a"])] * 2
    with acting_as(VIEWER):
        whole = await registry.get("prod")
    assert (whole.resource_count, whole.namespaces) == (42, ["team-a", "team-b"])


async def test_what_an_api_server_said_is_told_only_to_who_reads_all_of_the_cluster(
    registry, repository
) -> None:
    said = 'User "system:serviceaccount:ops:kubelore" cannot get path "/readyz"'
    await registry.add("prod")
    await repository.update("prod", status="error", status_detail=said)
    with acting_as(NARROW):
        (listed,) = (await registry.bus.request(clusters.LIST, ListClusters())).items
        shown = [listed, await registry.get("prod")]
    assert [(one.status, one.status_detail) for one in shown] == [("error", WITHHELD)] * 2
    with acting_as(VIEWER):
        assert (await registry.get("prod")).status_detail == said


@pytest.mark.parametrize("made_at", [-1e300, -1e18, 0])
async def test_a_token_that_says_absurd_things_of_its_life_is_only_refused(fleet, made_at) -> None:
    claims = {"sub": "system:serviceaccount:a:b", "iat": made_at, "exp": 4e9}
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    access = msgspec.structs.replace(
        read_kubeconfig(fleet[0].kubeconfig, None, POLICY), token=f"e30.{body}.x", client_cert_pem=b""
    )
    with pytest.raises(Invalid, match="cannot be renewed"):
        await check_renewal(access, POLICY)
