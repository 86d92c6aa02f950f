"""Kubeconfigs from strangers: what is refused, with which code, and what is let through."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from hypothesis import event, given
from hypothesis import strategies as st

from kubelore.common.errors import KubeconfigRefused
from kubelore.common.kube import AddressPolicy, ClusterAccess, inspect_kubeconfig, read_kubeconfig

STRICT = AddressPolicy()
LENIENT = AddressPolicy(allow_private=True)
Write = Callable[..., str]


def refusal(text: str, policy: AddressPolicy = STRICT, context: str | None = None) -> KubeconfigRefused:
    with pytest.raises(KubeconfigRefused) as caught:
        read_kubeconfig(text, context, policy)
    assert caught.value.remedy, "every refusal says what to do"
    return caught.value


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_a_good_kubeconfig_becomes_plain_values(kubeconfig: Write, authority: Any) -> None:
    access = read_kubeconfig(kubeconfig(), None, STRICT)
    assert access == ClusterAccess(
        server="https://api.example.com:6443", context="prod", ca_pem=authority.pem, token="a-token"
    )


def test_access_survives_msgpack(kubeconfig: Write) -> None:
    access = read_kubeconfig(kubeconfig(), None, STRICT)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(access), type=ClusterAccess) == access


def test_no_credential_shows_in_a_repr(kubeconfig: Write, authority: Any) -> None:
    issued = authority.issue()
    user = {
        "token": "tell-nobody",
        "client-certificate-data": encoded(issued.certificate),
        "client-key-data": encoded(issued.key),
    }
    access = read_kubeconfig(kubeconfig(user=user), None, STRICT)
    assert "tell-nobody" not in repr(access)
    assert "PRIVATE" not in repr(access)
    assert "tell-nobody" not in str(access.__rich_repr__())


# 1. exec and auth-provider

EKS = {
    "apiVersion": "client.authentication.k8s.io/v1beta1",
    "command": "/usr/local/bin/aws",
    "args": ["--region", "eu-west-1", "eks", "get-token", "--cluster-name", "prod"],
}
ALLOWED = AddressPolicy(exec_allowed=("/usr/local/bin/aws --region * eks get-token --cluster-name *",))


def test_exec_is_refused(kubeconfig: Write) -> None:
    assert refusal(kubeconfig(user={"exec": EKS})).code == "exec"


def test_exec_beside_a_token_is_refused_as_well(kubeconfig: Write) -> None:
    assert refusal(kubeconfig(user={"exec": EKS, "token": "a-token"})).code == "exec"


def test_the_very_command_that_the_operator_allows_is_taken(kubeconfig: Write) -> None:
    access = read_kubeconfig(kubeconfig(user={"exec": EKS}), None, ALLOWED)
    assert access.exec is not None
    assert access.exec.argv == ("/usr/local/bin/aws", *EKS["args"])


@pytest.mark.parametrize(
    "changed",
    [
        {"command": "/tmp/aws"},
        {"command": "aws"},
        {"command": "sh", "args": ["-c", "aws --region x eks get-token --cluster-name y"]},
        {"args": [*EKS["args"], "--endpoint-url", "https://evil.example.com"]},
        {"args": ["--region", "--debug", "eks", "get-token", "--cluster-name", "prod"]},
        {"args": ["--region", "eu-west-1", "eks", "get-token", "--cluster-name", "file:///etc/passwd"]},
        {"args": ["--region", "eu-west-1", "eks", "get-token", "--cluster-name", "a b; id"]},
        {"args": None},
        {"env": [{"name": "LD_PRELOAD", "value": "/tmp/evil.so"}]},
        {"interactiveMode": "Always"},
        {"apiVersion": "client.authentication.k8s.io/v1alpha1"},
        {"command": 7},
    ],
)
def test_anything_else_than_that_command_is_refused(kubeconfig: Write, changed: dict[str, Any]) -> None:
    assert refusal(kubeconfig(user={"exec": EKS | changed}), ALLOWED).code == "exec"


def test_every_refusal_of_a_program_names_the_way_in(kubeconfig: Write) -> None:
    for user in ({"exec": EKS}, {"auth-provider": {"name": "gcp"}}, {"exec": EKS | {"env": [{"name": "A"}]}}):
        remedy = refusal(kubeconfig(user=user)).remedy or ""
        assert "kubelore clusters add --create-service-account" in remedy


@pytest.mark.parametrize(
    "provider", [{"name": "gcp", "config": {"cmd-path": "/bin/id"}}, {"name": "oidc"}, "gcp"]
)
def test_auth_providers_are_refused(kubeconfig: Write, provider: Any) -> None:
    assert refusal(kubeconfig(user={"auth-provider": provider}), ALLOWED).code == "auth-provider"


# 2. file paths


@pytest.mark.parametrize("field", ["tokenFile", "client-certificate", "client-key"])
def test_paths_of_a_user_are_refused(kubeconfig: Write, field: str) -> None:
    assert refusal(kubeconfig(user={field: "/etc/passwd", "token": "a-token"})).code == "file-path"


def test_the_path_of_an_authority_is_refused(kubeconfig: Write) -> None:
    assert refusal(kubeconfig(cluster={"certificate-authority": "/etc/ssl/ca.pem"})).code == "file-path"


# 4. TLS


def test_insecure_tls_is_refused(kubeconfig: Write) -> None:
    cluster = {"insecure-skip-tls-verify": True, "certificate-authority-data": None}
    assert refusal(kubeconfig(cluster=cluster)).code == "insecure-tls"
    assert read_kubeconfig(kubeconfig(cluster=cluster), None, AddressPolicy(allow_insecure_tls=True)).insecure


def test_an_expired_client_certificate_is_named_as_such(kubeconfig: Write, authority: Any) -> None:
    issued = authority.issue(days=(-10, -2))
    user = {"client-certificate-data": encoded(issued.certificate), "client-key-data": encoded(issued.key)}
    error = refusal(kubeconfig(user=user))
    assert error.code == "certificate-expired"
    assert "client certificate" in error.detail


def test_an_expired_authority_is_named_as_such(kubeconfig: Write) -> None:
    with pytest.raises(KubeconfigRefused) as caught:
        read_kubeconfig(kubeconfig(), None, STRICT, now=datetime.now(UTC) + timedelta(days=1000))
    assert caught.value.code == "certificate-expired"
    assert "authority" in caught.value.detail


def test_an_expired_token_is_named_as_such(kubeconfig: Write, jwt: Callable[[datetime], str]) -> None:
    token = jwt(datetime.now(UTC) - timedelta(hours=1))
    assert refusal(kubeconfig(user={"token": token})).code == "token-expired"
    assert read_kubeconfig(
        kubeconfig(user={"token": jwt(datetime.now(UTC) + timedelta(days=1))}), None, STRICT
    )


def test_a_key_of_another_certificate_is_refused(kubeconfig: Write, authority: Any) -> None:
    user = {
        "client-certificate-data": encoded(authority.issue().certificate),
        "client-key-data": encoded(authority.issue().key),
    }
    assert refusal(kubeconfig(user=user)).code == "key-mismatch"


def test_an_encrypted_key_is_refused_and_asks_for_no_passphrase(kubeconfig: Write, authority: Any) -> None:
    issued = authority.issue()
    key = serialization.load_pem_private_key(issued.key, None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"passphrase"),
    )
    user = {"client-certificate-data": encoded(issued.certificate), "client-key-data": encoded(key)}
    assert refusal(kubeconfig(user=user)).code == "encrypted-key"


@pytest.mark.parametrize(
    "user",
    [
        {"token": "two words"},
        {"token": "injected\r\nX-Header: 1"},
        {"client-certificate-data": "%%%", "client-key-data": "%%%"},
        {"client-certificate-data": encoded(b"no certificate"), "client-key-data": encoded(b"no key")},
        {"client-certificate-data": encoded(b"no certificate")},
    ],
)
def test_credentials_that_are_none_are_refused(kubeconfig: Write, user: dict[str, str]) -> None:
    error = refusal(kubeconfig(user=user))
    assert error.code == "invalid-data"
    assert not any(value in error.detail for value in user.values())


def test_an_authority_that_is_none_is_refused(kubeconfig: Write) -> None:
    assert refusal(kubeconfig(cluster={"certificate-authority-data": encoded(b"x")})).code == "invalid-data"


@pytest.mark.parametrize(
    ("user", "code"),
    [
        ({}, "no-credentials"),
        ({"username": "admin", "password": "hunter2"}, "basic-auth"),
        ({"token": "a-token", "as": "system:admin"}, "impersonation"),
        ({"token": "a-token", "as-groups": ["system:masters"]}, "impersonation"),
    ],
)
def test_users_that_cannot_be_used(kubeconfig: Write, user: dict[str, Any], code: str) -> None:
    assert refusal(kubeconfig(user=user)).code == code


# 5. contexts


def two_contexts(write: Write) -> str:
    contexts = [
        {"name": "prod", "context": {"cluster": "prod", "user": "admin"}},
        {"name": "lost-cluster", "context": {"cluster": "gone", "user": "admin"}},
        {"name": "lost-user", "context": {"cluster": "prod", "user": "gone"}},
        {"name": "empty", "context": None},
    ]
    return write(contexts=contexts)


def test_several_contexts_are_listed_and_the_caller_picks(kubeconfig: Write) -> None:
    error = refusal(two_contexts(kubeconfig))
    assert error.code == "ambiguous-context"
    assert error.extra["contexts"] == ["prod", "lost-cluster", "lost-user", "empty"]
    assert read_kubeconfig(two_contexts(kubeconfig), "prod", STRICT).context == "prod"


@pytest.mark.parametrize(
    ("context", "code"),
    [
        ("nowhere", "missing-context"),
        ("lost-cluster", "missing-cluster"),
        ("lost-user", "missing-user"),
        ("empty", "missing-cluster"),
    ],
)
def test_contexts_that_lead_nowhere(kubeconfig: Write, context: str, code: str) -> None:
    assert refusal(two_contexts(kubeconfig), context=context).code == code


def test_a_kubeconfig_without_a_context(kubeconfig: Write) -> None:
    assert refusal(kubeconfig(contexts=[])).code == "missing-context"


def test_a_name_that_stands_twice_is_refused(kubeconfig: Write) -> None:
    twice = [{"name": "admin", "user": {"token": "a"}}, {"name": "admin", "user": {"token": "b"}}]
    assert refusal(kubeconfig(users=twice)).code == "duplicate-name"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "just text",
        "- a\n- list",
        "{",
        "clusters: 7",
        "users: [{name: a, user: {token: {a: b}}}]",
        "\x00",
        "a: b\n---\nc: d",
    ],
)
def test_what_is_no_kubeconfig_is_refused(text: str) -> None:
    assert refusal(text).code in ("invalid-yaml", "missing-context")


def test_a_kubeconfig_over_its_size_is_refused() -> None:
    assert refusal("# " + "x" * (1024 * 1024)).code == "too-large"


def test_an_alias_bomb_is_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    assert refusal("\n".join(lines)).code == "invalid-yaml"


def test_inspection_tells_what_each_context_lacks(kubeconfig: Write) -> None:
    inspection = inspect_kubeconfig(two_contexts(kubeconfig), STRICT)
    assert {each.name: each.refusal for each in inspection.contexts} == {
        "prod": None,
        "lost-cluster": "missing-cluster",
        "lost-user": "missing-user",
        "empty": "missing-cluster",
    }
    assert [each.usable for each in inspection.contexts] == [True, False, False, False]
    assert inspection.current_context == "prod"


@pytest.mark.parametrize(
    ("user", "authentication"),
    [
        ({"token": "a"}, "token"),
        ({"exec": EKS}, "exec"),
        ({"auth-provider": {"name": "gcp"}}, "auth-provider"),
        ({"username": "a", "password": "hunter2"}, "basic"),
        ({"client-certificate": "/x", "client-key": "/y"}, "client-certificate"),
        ({}, "none"),
    ],
)
def test_inspection_names_the_kind_of_credentials(
    kubeconfig: Write, user: dict[str, Any], authentication: str
) -> None:
    report = inspect_kubeconfig(kubeconfig(user=user), STRICT).contexts[0]
    assert report.authentication == authentication


def test_inspection_shows_no_password_of_an_address(kubeconfig: Write) -> None:
    inspection = inspect_kubeconfig(
        kubeconfig(cluster={"server": "https://admin:hunter2@a.example.com"}), STRICT
    )
    assert b"hunter2" not in msgspec.json.encode(inspection)
    assert inspection.contexts[0].refusal == "userinfo"


def test_inspection_says_when_a_certificate_ends(kubeconfig: Write, authority: Any) -> None:
    issued = authority.issue()
    user = {"client-certificate-data": encoded(issued.certificate), "client-key-data": encoded(issued.key)}
    expires = inspect_kubeconfig(kubeconfig(user=user), STRICT).contexts[0].certificate_expires_at
    assert expires is not None
    assert datetime.fromisoformat(expires) > datetime.now(UTC)


def test_inspection_says_when_a_token_ends(kubeconfig: Write, jwt: Callable[[datetime], str]) -> None:
    report = inspect_kubeconfig(kubeconfig(user={"token": jwt(datetime(2100, 1, 2, tzinfo=UTC))}), STRICT)
    assert report.contexts[0].token_expires_at == "2100-01-02T00:00:00Z"
    assert report.contexts[0].certificate_expires_at is None


@pytest.mark.parametrize(
    ("context", "name"),
    [
        ("prod-eu", "prod-eu"),
        ("arn:aws:eks:eu-west-1:123456789012:cluster/Shop_1", "shop-1-eu-west-1"),
        ("gke_my-project_europe-west1_shop", "shop-europe-west1"),
        ("kubernetes-admin@kubernetes", "kubernetes-admin-kubernetes"),
        ("---", "cluster"),
        ("x" * 100, "x" * 63),
    ],
)
def test_a_name_is_suggested_for_each_context(kubeconfig: Write, context: str, name: str) -> None:
    text = kubeconfig(contexts=[{"name": context, "context": {"cluster": "prod", "user": "admin"}}])
    assert inspect_kubeconfig(text, STRICT).contexts[0].suggested_name == name


def test_no_name_is_suggested_twice(kubeconfig: Write) -> None:
    contexts = [
        {"name": name, "context": {"cluster": "prod", "user": "admin"}} for name in ("a_b", "a.b", "a:b")
    ]
    reports = inspect_kubeconfig(kubeconfig(contexts=contexts), STRICT).contexts
    assert [each.suggested_name for each in reports] == ["a-b", "a-b-2", "a-b-3"]


# Whatever a kubeconfig says, nothing to follow comes out of it.

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(
        ["/etc/passwd", "../ca.pem", "~/.kube/token", "$(id)", "http://x", "https://10.0.0.1", "a-token"]
    ),
    st.text(max_size=20),
    st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=2),
)
FIELDS = [
    "tokenFile",
    "token",
    "client-certificate",
    "client-key",
    "exec",
    "auth-provider",
    "username",
    "as",
    "tokenfile",
    "Exec",
]
CLUSTER_FIELDS = [
    "server",
    "certificate-authority",
    "proxy-url",
    "insecure-skip-tls-verify",
    "tls-server-name",
    "Server",
]


@given(
    user=st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=4),
    cluster=st.dictionaries(st.sampled_from(CLUSTER_FIELDS), VALUES, max_size=3),
)
def test_no_path_command_or_private_address_comes_through(
    user: dict[str, Any], cluster: dict[str, Any]
) -> None:
    config = {
        "clusters": [{"name": "c", "cluster": {"server": "https://api.example.com"} | cluster}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
    }
    try:
        access = read_kubeconfig(yaml.safe_dump(config), None, STRICT)
    except KubeconfigRefused as error:
        event(error.code)
        return
    assert access.exec is None
    assert not access.insecure
    assert access.server.startswith("https://")
    assert "10.0.0.1" not in access.server + access.proxy_url
    assert not access.client_cert_pem
    assert access.token == str(user["token"]).strip()
    assert not any(user.get(field) for field in ("tokenFile", "client-certificate", "client-key", "exec"))
    assert not cluster.get("certificate-authority")
