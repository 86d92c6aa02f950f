"""What a restore will do, decided from records alone: order, what stays out, what of an object goes along."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelore.common.errors import BadRequest, Invalid
from kubelore.yaml_vcs import restore_rules
from kubelore.yaml_vcs.restoring import (
    Card,
    Owner,
    Plan,
    Selection,
    card_of,
    existing_of,
    plan,
    prepare,
    rank_of,
    rename_namespaces,
)

TYPES = (
    "customresourcedefinitions.apiextensions.k8s.io",
    "namespaces",
    "storageclasses.storage.k8s.io",
    "serviceaccounts",
    "secrets",
    "configmaps",
    "persistentvolumes",
    "persistentvolumeclaims",
    "roles.rbac.authorization.k8s.io",
    "rolebindings.rbac.authorization.k8s.io",
    "services",
    "deployments.apps",
    "replicasets.apps",
    "pods",
    "horizontalpodautoscalers.autoscaling",
    "widgets.example.org",
    "resourcequotas",
    "validatingwebhookconfigurations.admissionregistration.k8s.io",
    "apiservices.apiregistration.k8s.io",
)


def thing(
    name: str, namespace: str = "shop", *, uid: str = "", owners: Any = None, **more: Any
) -> dict[str, Any]:
    """An object as an API server would list it."""
    metadata = {
        "name": name,
        "uid": uid or f"uid-{name}",
        "resourceVersion": "7",
        "generation": 3,
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "managedFields": [{"manager": "kubectl"}],
        **({"namespace": namespace} if namespace else {}),
        **({"ownerReferences": owners} if owners else {}),
        **more.pop("metadata", {}),
    }
    return {"metadata": metadata, **more}


def owner(uid: str, kind: str = "Widget", *, controller: bool = False) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": kind, "name": "x", "uid": uid, "controller": controller}


def cards(*listed: tuple[str, dict[str, Any]]) -> list[Card]:
    return [card_of(number, "prod", type_name, found) for number, (type_name, found) in enumerate(listed)]


def planned(found: list[Card], **selection: Any) -> Plan:
    return plan(found, Selection(**selection), lambda _: True)


def rules_of(result: Plan) -> dict[str, str]:
    return {item.card.name: item.rule for item in result.items}


def sent(
    type_name: str,
    found: dict[str, Any],
    renamed: dict[str, str] | None = None,
    uids: dict[str, str] | None = None,
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The manifest for one object on its own, and the rules by which it differs."""
    selection = Selection(namespace_map=renamed or {})
    homes = [
        card_of(number, "prod", "namespaces", thing(name, "")) for number, name in enumerate(renamed or {}, 1)
    ]
    plan_ = plan([card_of(0, "prod", type_name, found), *homes], selection, lambda _: True)
    item = next(one for one in plan_.items if one.number == 0)
    prepared = prepare(item, copy.deepcopy(found), renamed or {}, uids or {})
    return prepared.object, prepared.rules


# order


@st.composite
def backups(draw: st.DrawFn) -> list[Card]:
    """Objects of any types, some owned by others, in cycles too."""
    count = draw(st.integers(1, 25))
    return [
        Card(
            number=number,
            cluster="prod",
            type=draw(st.sampled_from(TYPES)),
            namespace=draw(st.sampled_from(("", "shop", "team"))),
            name=f"n{number}",
            uid=f"u{number}",
            owners=tuple(
                Owner(f"u{draw(st.integers(0, count - 1))}", "Widget", draw(st.booleans()))
                for _ in range(draw(st.integers(0, 2)))
            ),
        )
        for number in range(count)
    ]


def cyclic(found: list[Card]) -> bool:
    """Whether owners own one another, or stand higher than is followed."""
    by_uid = {card.uid: card for card in found}

    def height(card: Card, left: int) -> int:
        if left == 0:
            return 99
        return max(
            (1 + height(by_uid[one.uid], left - 1) for one in card.owners if one.uid != card.uid), default=0
        )

    return any(height(card, 9) > 7 for card in found)


@given(backups())
def test_no_object_is_made_before_a_type_that_it_needs_and_none_before_its_owner(found: list[Card]) -> None:
    result = planned(found)
    waves = {item.card.uid: item.wave for item in result.items}
    assert sorted(item.number for item in result.items) == [card.number for card in found]
    for item in result.items:
        for other in result.items:
            unowned = not item.card.owners and not other.card.owners
            if unowned and rank_of(item.card.type) < rank_of(other.card.type):
                assert item.wave < other.wave
    if not cyclic(found):
        for card in found:
            for one in card.owners:
                if one.uid != card.uid:
                    assert waves[one.uid] < waves[card.uid]


@given(backups(), st.randoms(use_true_random=False))
def test_a_plan_does_not_depend_on_the_order_in_which_records_are_read(
    found: list[Card], random: Any
) -> None:
    shuffled = list(found)
    random.shuffle(shuffled)
    first, second = planned(found), planned(shuffled)
    if not any(item.clash for item in first.items):
        assert [(one.number, one.wave, one.rule) for one in first.items] == [
            (one.number, one.wave, one.rule) for one in second.items
        ]


def test_waves_hold_everything_that_is_restored_once_and_in_order() -> None:
    result = planned(
        cards(
            ("widgets.example.org", thing("w")),
            ("validatingwebhookconfigurations.admissionregistration.k8s.io", thing("hook", "")),
            ("deployments.apps", thing("web")),
            ("namespaces", thing("shop", "")),
            ("customresourcedefinitions.apiextensions.k8s.io", thing("widgets.example.org", "")),
            ("nodes", thing("node-1", "")),
        )
    )
    assert [[item.card.name for item in wave] for wave in result.waves()] == [
        ["widgets.example.org"],
        ["shop"],
        ["web"],
        ["w"],
        ["hook"],
    ]


# what stays out


@pytest.mark.parametrize(
    ("type_name", "found", "rule"),
    [
        ("namespaces", thing("kube-system", ""), "made-by-the-cluster"),
        ("serviceaccounts", thing("default"), "default-service-account"),
        ("configmaps", thing("kube-root-ca.crt"), "ca-of-the-cluster"),
        ("secrets", thing("t", type="kubernetes.io/service-account-token"), "service-account-token"),
        ("services", thing("kubernetes", "default"), "api-server-service"),
        ("services", thing("kubernetes", "shop"), ""),
        (
            "clusterroles.rbac.authorization.k8s.io",
            thing("view", "", metadata={"labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}}),
            "bootstrap-rbac",
        ),
        ("clusterroles.rbac.authorization.k8s.io", thing("mine", ""), ""),
        ("apiservices.apiregistration.k8s.io", thing("v1.apps", "", spec={"group": "apps"}), "built-in-api"),
        ("apiservices.apiregistration.k8s.io", thing("v1.m", "", spec={"service": {"name": "m"}}), ""),
        ("nodes", thing("n", ""), "state-of-the-cluster"),
        ("pods", thing("p", metadata={"annotations": {"kubernetes.io/config.mirror": "x"}}), "mirror-pod"),
        ("pods", thing("p", status={"phase": "Succeeded"}), "finished-pod"),
        ("pods", thing("p", status={"phase": "Running"}), ""),
        ("jobs.batch", thing("j", status={"completionTime": "2026-01-01T00:00:00Z"}), "finished-job"),
        ("jobs.batch", thing("j", status={"active": 1}), ""),
        (
            "persistentvolumes",
            thing("pv", "", metadata={"annotations": {"pv.kubernetes.io/provisioned-by": "x"}}),
            "provisioned-volume",
        ),
        ("configmaps", thing("c", metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"}), "being-deleted"),
    ],
)
def test_what_the_cluster_makes_itself_stays_out(type_name: str, found: dict[str, Any], rule: str) -> None:
    assert rules_of(planned(cards((type_name, found)))) == {found["metadata"]["name"]: rule}


def test_what_a_controller_makes_from_an_owner_that_is_restored_stays_out_and_the_rest_is_restored() -> None:
    deployment = ("deployments.apps", thing("web"))
    replica_set = ("replicasets.apps", thing("rs", owners=[owner("uid-web", "Deployment", controller=True)]))
    pod = ("pods", thing("pod", owners=[owner("uid-rs", "ReplicaSet", controller=True)]))
    secret = ("secrets", thing("pw", owners=[owner("uid-web", "Deployment", controller=True)]))
    assert rules_of(planned(cards(deployment, replica_set, pod, secret))) == {
        "web": "",
        "rs": "made-by-controller",
        "pod": "made-by-controller",
        "pw": "",
    }
    assert rules_of(planned(cards(replica_set, pod))) == {"rs": "", "pod": "made-by-controller"}
    assert rules_of(planned(cards(deployment, replica_set, pod), types=("pods",))) == {"pod": ""}


def test_secrets_that_the_caller_may_not_read_stay_out_visibly() -> None:
    found = cards(("secrets", thing("pw")), ("configmaps", thing("c")))
    assert rules_of(plan(found, Selection(), lambda _: False)) == {"pw": "secrets-right", "c": ""}


def test_every_rule_that_stands_in_a_result_says_why() -> None:
    rules = {rule.rule for rule in (*restore_rules.LEFT_OUT, *restore_rules.CUTS)}
    assert rules <= set(restore_rules.REASONS)
    assert all(restore_rules.REASONS.values())


# what goes along


def test_what_the_server_writes_is_not_sent() -> None:
    found, rules = sent("configmaps", thing("c", data={"a": "b"}, status={"x": 1}))
    assert found == {"metadata": {"name": "c", "namespace": "shop"}, "data": {"a": "b"}}
    assert rules == ()


def test_a_service_gets_a_new_address_and_a_headless_one_stays_headless() -> None:
    spec = {
        "clusterIP": "10.0.0.7",
        "clusterIPs": ["10.0.0.7"],
        "ports": [{"port": 80, "nodePort": 30080}],
        "healthCheckNodePort": 31000,
    }
    found, rules = sent("services", thing("web", spec=spec))
    assert found["spec"] == {"ports": [{"port": 80}]}
    assert rules == ("cluster-ip", "node-port")
    headless, rules = sent("services", thing("db", spec={"clusterIP": "None", "clusterIPs": ["None"]}))
    assert headless["spec"] == {"clusterIP": "None", "clusterIPs": ["None"]}
    assert rules == ()


def test_a_pod_loses_its_node_and_the_token_that_was_put_into_it() -> None:
    mounts = [{"name": "data", "mountPath": "/d"}, {"name": "kube-api-access-x7", "mountPath": "/t"}]
    spec = {
        "nodeName": "node-1",
        "priority": 0,
        "containers": [{"name": "a", "volumeMounts": mounts}, {"name": "b", "volumeMounts": [mounts[1]]}],
        "volumes": [{"name": "kube-api-access-x7"}, {"name": "data"}],
    }
    found, rules = sent("pods", thing("p", spec=spec))
    assert found["spec"] == {
        "containers": [{"name": "a", "volumeMounts": [mounts[0]]}, {"name": "b"}],
        "volumes": [{"name": "data"}],
    }
    assert rules == ("pod-placement", "injected-token")


def test_a_claim_forgets_a_volume_that_was_provisioned_for_it_and_keeps_one_that_somebody_chose() -> None:
    bound = {"pv.kubernetes.io/bind-completed": "yes", "team": "a"}
    dynamic = {**bound, "volume.kubernetes.io/storage-provisioner": "csi.example.org"}
    spec = {"volumeName": "pv-1", "storageClassName": "fast"}
    found, rules = sent(
        "persistentvolumeclaims", thing("c", metadata={"annotations": dynamic}, spec=dict(spec))
    )
    assert (found["spec"], found["metadata"]["annotations"]) == ({"storageClassName": "fast"}, {"team": "a"})
    assert rules == ("provisioned-claim", "binding")
    found, rules = sent(
        "persistentvolumeclaims", thing("c", metadata={"annotations": bound}, spec=dict(spec))
    )
    assert (found["spec"], found["metadata"]["annotations"]) == (spec, {"team": "a"})
    assert rules == ("binding",)


def test_a_volume_is_claimed_by_the_same_claim_whatever_its_uid() -> None:
    claim = {"namespace": "shop", "name": "c", "uid": "old", "resourceVersion": "9"}
    found, _ = sent("persistentvolumes", thing("pv", "", spec={"claimRef": claim}), {"shop": "shop-2"})
    assert found["spec"]["claimRef"] == {"namespace": "shop-2", "name": "c"}


def test_a_job_gets_a_selector_of_its_own_unless_somebody_wrote_it() -> None:
    labels = {"batch.kubernetes.io/controller-uid": "u", "controller-uid": "u", "app": "x"}
    spec = {
        "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}},
        "template": {"metadata": {"labels": labels}},
    }
    job = thing("j", metadata={"labels": labels}, spec=spec)
    found, rules = sent("jobs.batch", job)
    assert found["spec"] == {"template": {"metadata": {"labels": {"app": "x"}}}}
    assert found["metadata"]["labels"] == {"app": "x"}
    assert rules == ("job-selector",)
    manual = copy.deepcopy(job)
    manual["spec"]["manualSelector"] = True
    assert sent("jobs.batch", manual)[0]["spec"]["selector"] == spec["selector"]


def test_owners_are_named_by_their_new_uids_and_those_that_are_not_there_are_dropped() -> None:
    dependent = thing("s", owners=[owner("a"), owner("b")])
    found, rules = sent("configmaps", dependent, uids={"a": "new-a"})
    assert found["metadata"]["ownerReferences"] == [owner("new-a")]
    assert rules == ("owner-missing",)
    found, _ = sent("configmaps", dependent)
    assert "ownerReferences" not in found["metadata"]


# other namespaces


def test_a_renamed_namespace_is_renamed_wherever_kubernetes_names_it() -> None:
    renamed = {"shop": "shop-2"}
    binding = thing(
        "b",
        subjects=[
            {"kind": "ServiceAccount", "name": "web", "namespace": "shop"},
            {"kind": "ServiceAccount", "name": "web", "namespace": "other"},
            {"kind": "User", "name": "system:serviceaccount:shop:web"},
            {"kind": "Group", "name": "system:serviceaccounts:shop"},
            {"kind": "User", "name": "shop"},
        ],
    )
    found, _ = sent("rolebindings.rbac.authorization.k8s.io", binding, renamed)
    assert found["metadata"]["namespace"] == "shop-2"
    assert found["subjects"] == [
        {"kind": "ServiceAccount", "name": "web", "namespace": "shop-2"},
        {"kind": "ServiceAccount", "name": "web", "namespace": "other"},
        {"kind": "User", "name": "system:serviceaccount:shop-2:web"},
        {"kind": "Group", "name": "system:serviceaccounts:shop-2"},
        {"kind": "User", "name": "shop"},
    ]
    hook = thing("h", "", webhooks=[{"clientConfig": {"service": {"namespace": "shop", "name": "x"}}}])
    found, _ = sent("mutatingwebhookconfigurations.admissionregistration.k8s.io", hook, renamed)
    assert found["webhooks"][0]["clientConfig"]["service"]["namespace"] == "shop-2"
    named = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}}}
    policy = thing("p", spec={"ingress": [{"from": [named, {"ipBlock": {}}]}]})
    found, _ = sent("networkpolicies.networking.k8s.io", policy, renamed)
    assert found["spec"]["ingress"][0]["from"][0]["namespaceSelector"]["matchLabels"] == {
        "kubernetes.io/metadata.name": "shop-2"
    }
    namespace = thing("shop", "", metadata={"labels": {"kubernetes.io/metadata.name": "shop"}})
    found, _ = sent("namespaces", namespace, renamed)
    assert found["metadata"] == {"name": "shop-2", "labels": {"kubernetes.io/metadata.name": "shop-2"}}


NAMES = ("a", "b", "c", "d")


@st.composite
def bindings(draw: st.DrawFn) -> dict[str, Any]:
    """A RoleBinding that names namespaces in every way it can."""
    subjects = draw(
        st.lists(
            st.one_of(
                st.builds(
                    lambda home: {"kind": "ServiceAccount", "name": "x", "namespace": home},
                    st.sampled_from(NAMES),
                ),
                st.builds(lambda home: {"name": f"system:serviceaccount:{home}:x"}, st.sampled_from(NAMES)),
                st.builds(lambda name: {"name": name}, st.text(max_size=8)),
            )
        )
    )
    return {"metadata": {"name": "b", "namespace": draw(st.sampled_from(NAMES))}, "subjects": subjects}


@given(bindings(), st.permutations(NAMES))
def test_renaming_there_and_back_changes_nothing(found: dict[str, Any], others: list[str]) -> None:
    there = dict(zip(NAMES, others, strict=True))
    back = {new: old for old, new in there.items()}
    type_name = "rolebindings.rbac.authorization.k8s.io"
    before = copy.deepcopy(found)
    rename_namespaces(type_name, found, there)
    assert found["metadata"]["namespace"] == there[before["metadata"]["namespace"]]
    rename_namespaces(type_name, found, back)
    assert found == before


def test_two_objects_for_one_place_are_told_and_only_one_is_restored() -> None:
    result = planned(
        cards(("configmaps", thing("c", "a")), ("configmaps", thing("c", "b", uid="other"))),
        namespace_map={"a": "b"},
    )
    assert [(item.rule, item.clash, str(item.target)) for item in result.items] == [
        ("", False, "prod:configmaps:b:c"),
        ("same-place", True, "prod:configmaps:b:c"),
    ]


# what is chosen


def test_a_selection_takes_what_matches_all_that_it_names() -> None:
    found = cards(
        ("namespaces", thing("shop", "")),
        ("configmaps", thing("web", metadata={"labels": {"app": "web"}})),
        ("configmaps", thing("other", "team")),
        ("deployments.apps", thing("web-1")),
        ("clusterroles.rbac.authorization.k8s.io", thing("reader", "")),
    )

    def names(**selection: Any) -> list[str]:
        return [item.card.name for item in planned(found, **selection).items]

    assert set(names(namespaces=("shop",))) == {"shop", "web", "web-1"}
    assert names(types=("deployments",)) == names(types=("deployments.apps",)) == ["web-1"]
    assert set(names(names=("web*",))) == {"web", "web-1"}
    assert names(labels="app=web") == ["web"]
    assert names(namespaces=("shop",), types=("configmaps",)) == ["web"]


def test_several_clusters_do_not_become_one_unawares() -> None:
    found = [
        card_of(0, "prod", "configmaps", thing("a")),
        card_of(1, "test", "configmaps", thing("b")),
    ]
    with pytest.raises(Invalid, match="prod, test"):
        planned(found, cluster="new")
    (item,) = planned(found, cluster="new", source="test").items
    assert str(item.target) == "new:configmaps:shop:b"
    assert [one.target.cluster for one in planned(found).items] == ["prod", "test"]


@pytest.mark.parametrize(
    "selection",
    [
        Selection(cluster="no.dots"),
        Selection(namespaces=("Upper",)),
        Selection(namespace_map={"a": "../b"}),
        Selection(labels="a=b=c"),
        Selection(types=("",)),
        Selection(namespace_map={"a": "c", "b": "c"}),
        Selection(namespaces=("a",), namespace_map={"b": "c"}),
    ],
)
def test_what_can_be_no_selection_is_refused(selection: Selection) -> None:
    with pytest.raises((BadRequest, Invalid)):
        selection.check()


def test_what_cannot_be_changed_is_kept_where_it_exists() -> None:
    assert existing_of("persistentvolumeclaims", "update") == "skip"
    assert existing_of("persistentvolumeclaims", "fail") == "fail"
    assert existing_of("configmaps", "update") == "update"


def test_a_record_that_is_no_object_is_refused() -> None:
    for found in ({}, {"metadata": None}, {"metadata": {"name": ""}}, {"metadata": {"name": 3}}):
        with pytest.raises(Invalid, match="record 4"):
            card_of(4, "prod", "configmaps", found)
