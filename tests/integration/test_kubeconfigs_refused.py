"""What a kubeconfig may not make a server do is refused through the public door, with a code and a remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

USER = "{token: abc}"
CLUSTER = "{server: 'https://192.168.77.1:6443'}"


def kubeconfig(cluster: str = CLUSTER, user: str = USER, context: str = "{cluster: c, user: u}") -> str:
    return f"""
apiVersion: v1
kind: Config
current-context: x
clusters: [{{name: c, cluster: {cluster}}}]
users: [{{name: u, user: {user}}}]
contexts: [{{name: x, context: {context}}}]
"""


HOSTILE = {
    "a program": kubeconfig(
        user="{exec: {apiVersion: client.authentication.k8s.io/v1, command: touch, args: [PROOF]}}"
    ),
    "an auth provider": kubeconfig(
        user="{auth-provider: {name: gcp, config: {cmd-path: touch, cmd-args: PROOF}}}"
    ),
    "a file with the token": kubeconfig(user="{tokenFile: /etc/hostname}"),
    "files with the certificate": kubeconfig(
        user="{client-certificate: /etc/hostname, client-key: /etc/hostname}"
    ),
    "a file with the authority": kubeconfig(
        cluster="{server: 'https://192.168.77.1', certificate-authority: /etc/hostname}"
    ),
    "no TLS": kubeconfig(cluster="{server: 'http://192.168.77.1'}"),
    "a password in the address": kubeconfig(cluster="{server: 'https://user:pass@192.168.77.1'}"),
    "a metadata service": kubeconfig(cluster="{server: 'https://169.254.169.254'}"),
    "a link-local address": kubeconfig(cluster="{server: 'https://[fe80::1]'}"),
    "a metadata service as IPv6": kubeconfig(cluster="{server: 'https://[::ffff:169.254.169.254]'}"),
    "a proxy": kubeconfig(cluster="{server: 'https://192.168.77.1', proxy-url: 'http://169.254.169.254'}"),
    "TLS unverified": kubeconfig(cluster="{server: 'https://192.168.77.1', insecure-skip-tls-verify: true}"),
    "a cluster that is missing": kubeconfig(context="{cluster: nothing, user: u}"),
    "a user that is missing": kubeconfig(context="{cluster: c, user: nobody}"),
    "broken YAML": "not: [a kubeconfig",
    "nothing": "",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
async def test_a_hostile_kubeconfig_is_refused_with_a_code(kubelore, text: str, tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    answer = await kubelore.add("hostile", text.replace("PROOF", str(proof)))
    assert answer.status_code == 422, answer.text
    problem = answer.json()
    assert problem["reason"] == "KubeconfigRefused"
    assert problem["code"]
    assert problem["remedy"]
    assert not proof.exists()
    assert (await kubelore.http.get("/api/k8s/clusters/hostile")).status_code == 404


async def test_inspecting_tells_which_contexts_can_be_used_and_stores_nothing(kubelore) -> None:
    text = """
apiVersion: v1
kind: Config
current-context: good
clusters: [{name: c, cluster: {server: 'https://192.168.77.1:6443'}}]
users: [{name: u, user: {token: abc}}, {name: e, user: {exec: {apiVersion: client.authentication.k8s.io/v1, command: aws}}}]
contexts:
- {name: good, context: {cluster: c, user: u}}
- {name: 'arn:aws:eks:eu-west-1:1:cluster/Prod_EU', context: {cluster: c, user: e}}
"""
    report = (await kubelore.http.post("/api/k8s/clusters/inspect", json={"kubeconfig": text})).json()
    good, exec_ = report["contexts"]
    assert (good["usable"], report["current_context"]) == (True, "good")
    assert (exec_["usable"], exec_["suggested_name"], exec_["authentication"]) == (
        False,
        "prod-eu-eu-west-1",
        "exec",
    )
    assert exec_["refusal"]
    assert (await kubelore.http.get("/api/k8s/clusters/list")).json()["items"] == []


@pytest.mark.parametrize("name", ["Prod", "a.b", "-a", "a" * 64, "a b", "*", ">", "ä", ""])
async def test_a_name_that_is_no_dns_label_is_refused(kubelore, name: str) -> None:
    answer = await kubelore.add(name, kubeconfig())
    assert answer.status_code == 400
    assert answer.json()["remedy"]


async def test_an_alias_bomb_is_refused_quickly(kubelore) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [" + ", ".join([f"*a{n - 1}"] * 9) + "]" for n in range(1, 20)]
    answer = await kubelore.add("bomb", "\n".join(lines))
    assert answer.status_code == 422
    assert answer.elapsed.total_seconds() < 2


async def test_a_body_over_the_limit_is_refused(kubelore) -> None:
    answer = await kubelore.http.post("/api/k8s/clusters/add", content=b"x" * (9 * 1024 * 1024))
    assert answer.status_code == 413
    assert answer.json()["reason"] == "RequestEntityTooLarge"


async def test_a_cluster_that_cannot_be_reached_is_not_added(kubelore) -> None:
    answer = await kubelore.add("nobody", kubeconfig(cluster="{server: 'https://127.0.0.1:1'}"))
    assert answer.status_code == 503
    assert answer.json()["remedy"]
    assert (await kubelore.http.get("/api/k8s/clusters/nobody")).status_code == 404
