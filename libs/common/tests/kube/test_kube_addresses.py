"""The addresses a kubeconfig may name: https, nothing inside the operator's network unless allowed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kubelore.common.errors import KubeconfigRefused
from kubelore.common.kube import AddressPolicy, read_kubeconfig
from kubelore.common.settings import CommonSettings

STRICT = AddressPolicy()
LENIENT = AddressPolicy(allow_private=True)
Write = Callable[..., str]


def refusal(text: str, policy: AddressPolicy = STRICT) -> KubeconfigRefused:
    with pytest.raises(KubeconfigRefused) as caught:
        read_kubeconfig(text, None, policy)
    assert caught.value.remedy, "every refusal says what to do"
    return caught.value


SERVERS = {
    "http://api.example.com": "not-https",
    "": "not-https",
    "api.example.com:6443": "not-https",
    "unix:///run/docker.sock": "not-https",
    "file:///etc/passwd": "not-https",
    "https://admin:hunter2@api.example.com": "userinfo",
    "https://@api.example.com": "userinfo",
    "https://api.example.com\\@169.254.169.254/": "invalid-url",
    "https://api.example.com/?x=1": "invalid-url",
    "https://api.example.com/#x": "invalid-url",
    "https://api.example.com/../..": "invalid-url",
    "https://": "invalid-url",
    "https://api.example.com:99999": "invalid-url",
    "https://api.example.com:0": "invalid-url",
    "https://api example.com": "invalid-url",
    "https://api.example.com\r\nX-Header: 1": "invalid-url",
    "https://\u0430pi.example.com": "invalid-url",
    "https://-api.example.com": "invalid-url",
    "https://169.254.169.254": "link-local",
    "https://[fe80::1]": "link-local",
    "https://[fe80::1%25eth0]": "link-local",
    "https://[::ffff:169.254.169.254]": "link-local",
    "https://[64:ff9b::a9fe:a9fe]": "link-local",
    "https://[2002:a9fe:a9fe::]": "link-local",
    "https://[fd00:ec2::254]": "link-local",
    "https://100.100.100.200": "link-local",
    "https://168.63.129.16": "link-local",
    "https://0.0.0.0": "link-local",
    "https://[::]": "link-local",
    "https://224.0.0.1": "link-local",
    "https://[ff02::1]": "link-local",
    "https://255.255.255.255": "link-local",
    "https://2852039166": "link-local",
    "https://0xa9fea9fe": "link-local",
    "https://169.254.43518": "link-local",
    "https://0251.0376.0251.0376": "link-local",
    "https://metadata.google.internal": "link-local",
    "https://METADATA.google.internal.": "link-local",
    "https://127.0.0.1:6443": "private-address",
    "https://[::1]:6443": "private-address",
    "https://localhost:6443": "private-address",
    "https://api.localhost": "private-address",
    "https://10.0.0.1": "private-address",
    "https://172.16.0.1": "private-address",
    "https://192.168.1.1": "private-address",
    "https://100.64.0.1": "private-address",
    "https://[fd12::1]": "private-address",
    "https://[::ffff:10.0.0.1]": "private-address",
    "https://[64:ff9b::10.0.0.1]": "private-address",
    "https://127.1": "private-address",
    "https://2130706433": "private-address",
}


@pytest.mark.parametrize(("server", "code"), SERVERS.items())
def test_servers_that_are_refused(kubeconfig: Write, server: str, code: str) -> None:
    error = refusal(kubeconfig(cluster={"server": server}))
    assert error.code == code
    assert "hunter2" not in error.detail


@pytest.mark.parametrize(("server", "code"), SERVERS.items())
def test_a_proxy_is_held_to_the_same_rules(kubeconfig: Write, server: str, code: str) -> None:
    if server:
        assert refusal(kubeconfig(cluster={"proxy-url": server})).code == code


@pytest.mark.parametrize("server", [server for server, code in SERVERS.items() if code == "link-local"])
def test_link_local_stays_refused_where_private_is_allowed(kubeconfig: Write, server: str) -> None:
    assert refusal(kubeconfig(cluster={"server": server}), LENIENT).code == "link-local"


@pytest.mark.parametrize(
    "server",
    [
        "https://127.0.0.1:6443",
        "https://[::1]:6443",
        "https://localhost",
        "https://10.0.0.1",
        "https://[fd12::1]",
    ],
)
def test_private_addresses_by_setting(kubeconfig: Write, server: str) -> None:
    policy = AddressPolicy.from_settings(CommonSettings(allow_private_addresses=True))
    assert read_kubeconfig(kubeconfig(cluster={"server": server}), None, policy).server == server


def test_numeric_spellings_of_an_allowed_address_are_still_malformed(kubeconfig: Write) -> None:
    assert refusal(kubeconfig(cluster={"server": "https://2130706433"}), LENIENT).code == "invalid-url"


@pytest.mark.parametrize(
    "server", ["https://api.example.com/", "https://rancher.example.com/k8s/clusters/c-1", "https://1.1.1.1"]
)
def test_ordinary_servers_are_taken(kubeconfig: Write, server: str) -> None:
    assert read_kubeconfig(kubeconfig(cluster={"server": server}), None, STRICT).server == server.rstrip("/")


def test_a_server_name_is_a_name_and_nothing_else(kubeconfig: Write) -> None:
    assert refusal(kubeconfig(cluster={"tls-server-name": "a/b"})).code == "invalid-url"
    access = read_kubeconfig(kubeconfig(cluster={"tls-server-name": "kubernetes"}), None, STRICT)
    assert access.tls_server_name == "kubernetes"
