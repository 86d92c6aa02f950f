"""The matrix of who may do what, and its algebra."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelore.common.authz import ADMINISTRATOR, Caller, Grant, covers
from kubelore.common.errors import Forbidden, Invalid, NotFound

RBAC = "rolebindings.rbac.authorization.k8s.io"


def caller(*grants: Grant) -> Caller:
    return Caller(subject="somebody", grants=grants)


def grant(role: str = "viewer", clusters: str = "*", namespaces: str = "*", rights: str = "") -> Grant:
    return Grant(
        role=role,  # type: ignore[arg-type]
        clusters=tuple(clusters.split(",")),
        namespaces=tuple(namespaces.split(",")),
        rights=tuple(filter(None, rights.split(","))),  # type: ignore[arg-type]
    )


def writes(who: Caller, cluster: str, type_name: str, namespace: str) -> bool:
    try:
        who.check_write(cluster, type_name, namespace)
    except Forbidden:
        return False
    return True


@pytest.mark.parametrize(
    ("role", "type_name", "namespace", "may"),
    [
        ("viewer", "configmaps", "shop", False),
        ("operator", "configmaps", "shop", True),
        ("operator", "secrets", "shop", True),
        ("operator", "deployments.apps", "shop", True),
        ("operator", "certificates.cert-manager.io", "shop", True),
        ("operator", "resourcequotas", "shop", False),
        ("operator", "limitranges", "shop", False),
        ("operator", RBAC, "shop", False),
        ("operator", "rolebindings.authorization.openshift.io", "shop", False),
        ("operator", "endpoints", "shop", False),
        ("operator", "namespaces", "", False),
        ("operator", "nodes", "", False),
        ("operator", "customresourcedefinitions.apiextensions.k8s.io", "", False),
        ("admin", "resourcequotas", "shop", True),
        ("admin", RBAC, "shop", True),
        ("admin", "nodes", "", True),
        ("admin", "namespaces", "", True),
    ],
)
def test_a_role_writes_what_kubernetes_own_role_of_that_kind_would(
    role: str, type_name: str, namespace: str, may: bool
) -> None:
    assert writes(caller(grant(role)), "prod", type_name, namespace) is may


def test_an_admin_of_some_namespaces_changes_nothing_outside_of_namespaces() -> None:
    who = caller(grant("admin", namespaces="team-*"))
    assert writes(who, "prod", RBAC, "team-a")
    assert not writes(who, "prod", "namespaces", "")
    assert not writes(who, "prod", "configmaps", "other")


def test_a_viewer_of_one_namespace_sees_it_and_its_namespace_object_and_nothing_else() -> None:
    who = caller(grant(clusters="prod-*", namespaces="shop"))
    assert who.may_read("prod-eu", "pods", "shop", "web")
    assert who.may_read("prod-eu", "namespaces", "", "shop")
    assert not who.may_read("prod-eu", "namespaces", "", "kube-system")
    assert not who.may_read("prod-eu", "pods", "kube-system", "web")
    assert not who.may_read("prod-eu", "nodes", "", "node-1")
    assert not who.may_read("test", "pods", "shop", "web")
    assert not who.unrestricted


def test_a_cluster_that_is_not_for_somebody_does_not_exist_for_them() -> None:
    who = caller(grant("admin", clusters="test"))
    with pytest.raises(NotFound):
        who.check_write("prod", "configmaps", "shop")
    with pytest.raises(NotFound):
        who.check_whole_cluster("prod", "remove", "admin")


def test_a_right_is_in_no_role() -> None:
    with pytest.raises(Forbidden):
        caller(grant("admin")).check_right("exec", "prod", "shop")
    caller(grant("viewer", rights="exec")).check_right("exec", "prod", "shop")
    with pytest.raises(Forbidden):
        caller(grant("viewer", namespaces="shop", rights="secrets")).check_right("secrets", "prod", "")


def test_only_an_admin_of_everything_administers() -> None:
    ADMINISTRATOR.check_admin("make tokens")
    for less in (grant("admin", clusters="prod-*"), grant("admin", namespaces="a"), grant("operator")):
        with pytest.raises(Forbidden):
            caller(less).check_admin("make tokens")


@pytest.mark.parametrize("glob", ["", "A", "a b", "[a]", "a.b", "-a", "a" * 64, "a,b", "a/b", "*.*"])
def test_a_glob_that_matches_no_name_is_refused(glob: str) -> None:
    with pytest.raises(Invalid):
        Grant(role="viewer", clusters=(glob,)).check()
    with pytest.raises(Invalid):
        Grant(role="viewer", namespaces=(glob,)).check()


def test_a_glob_of_stars_is_not_the_permission_for_what_lies_in_no_namespace() -> None:
    who = caller(grant(namespaces="**"))
    assert who.may_read("prod", "pods", "shop", "web")
    assert not who.may_read("prod", "nodes", "", "n")


GRANTS = st.builds(
    grant,
    role=st.sampled_from(["viewer", "operator", "admin"]),
    clusters=st.sampled_from(["*", "prod-*", "prod-eu", "test"]),
    namespaces=st.sampled_from(["*", "team-*", "team-a", "shop"]),
    rights=st.sampled_from(["", "exec", "secrets,exec"]),
)
PLACES = st.tuples(
    st.sampled_from(["prod-eu", "prod-us", "test"]),
    st.sampled_from(["pods", "secrets", RBAC, "nodes"]),
    st.sampled_from(["", "team-a", "shop"]),
)


@given(GRANTS, GRANTS, PLACES)
def test_a_grant_that_covers_another_lets_everything_through_that_the_other_does(
    held: Grant, asked: Grant, place: tuple[str, str, str]
) -> None:
    if not covers([held], asked):
        return
    cluster, type_name, namespace = place
    less, more = caller(asked), caller(held)
    if less.may_read(cluster, type_name, namespace, "x"):
        assert more.may_read(cluster, type_name, namespace, "x")
    if less.sees(cluster) and writes(less, cluster, type_name, namespace):
        assert writes(more, cluster, type_name, namespace)


@given(st.lists(GRANTS, max_size=4), GRANTS, PLACES)
def test_a_further_grant_takes_nothing_away(
    grants: list[Grant], further: Grant, place: tuple[str, str, str]
) -> None:
    cluster, type_name, namespace = place
    if caller(*grants).may_read(cluster, type_name, namespace, "x"):
        assert caller(*grants, further).may_read(cluster, type_name, namespace, "x")


@given(GRANTS)
def test_everything_covers_every_grant_and_every_grant_itself(asked: Grant) -> None:
    assert covers([asked], asked)
    if not set(asked.rights) - {"exec", "secrets", "backup"}:
        assert covers(ADMINISTRATOR.grants, asked)
