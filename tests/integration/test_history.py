"""Every change on real clusters becomes a version: who, when, what, whoever made it."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
import pytest_asyncio

from kubelore.lab.waiting import wait_for

pytestmark = pytest.mark.lab

SPACE = "remembered"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def alpha(kubelore, lab_pair):
    """A real cluster that is onboarded, with a namespace of these tests' own."""
    plane = lab_pair.first
    kubectl = plane.kubectl()
    await kubelore.onboard("alpha", plane.kubeconfig())
    await kubectl("create", "namespace", SPACE)
    yield kubectl
    await kubectl("delete", "namespace", SPACE, "--wait=false")
    await kubelore.remove("alpha")


async def versions(kubelore, id_: str) -> list[dict[str, Any]]:
    answer = await kubelore.http.get(f"/api/k8s/yaml/versions/{id_}")
    return answer.json()["items"] if answer.status_code == 200 else []


async def test_what_kubectl_and_kubelore_change_is_remembered_with_who_did_it(kubelore, alpha) -> None:
    id_ = f"alpha:configmaps:{SPACE}:motd"
    await alpha("create", "configmap", "motd", "-n", SPACE, "--from-literal=text=hello")
    await wait_for(lambda: _counts(kubelore, id_, 1), "the first version", 15)
    manifest = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "motd", "namespace": SPACE},
        "data": {"text": "bye"},
    }
    operation = {"action": "apply", "cluster": "alpha", "manifest": json.dumps(manifest), "force": True}
    body = {"operations": [operation], "reason": "say goodbye"}
    answer = await kubelore.http.post("/api/k8s/unified/batch", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["succeeded"] == 1, answer.text
    await alpha("annotate", "configmap", "motd", "-n", SPACE, "team=shop")
    await alpha("delete", "configmap", "motd", "-n", SPACE)
    await wait_for(lambda: _counts(kubelore, id_, 4), "four versions", 15)

    async def attributed() -> bool:
        return any(one["actor"]["kind"] == "user" for one in await versions(kubelore, id_))

    await wait_for(attributed, "the write through Kubelore to be put down to its user", 15)
    told = [
        (one["happened"], one["actor"]["kind"], one["created_by"]) for one in await versions(kubelore, id_)
    ]
    assert told == [
        ("deleted", "unknown", ""),
        ("updated", "manager", "kubectl-annotate"),
        ("updated", "user", "admin"),
        ("created", "manager", "kubectl-create"),
    ]
    diff = (await kubelore.http.get(f"/api/k8s/yaml/versions/{id_}/diff", params={"from": 1, "to": 2})).json()
    assert [(one["path"], one["old"], one["new"]) for one in diff["changes"]] == [
        ("data.text", "hello", "bye")
    ]
    blame = (await kubelore.http.get(f"/api/k8s/yaml/versions/{id_}/blame", params={"version": 3})).json()
    assert {text.strip(): version for version, text in blame["lines"]}["text: bye"] == 2
    verified = (await kubelore.http.get(f"/api/k8s/yaml/versions/{id_}/verify")).json()
    assert (verified["ok"], verified["versions"]) == (True, 4)


async def test_a_deployment_that_its_controllers_roll_out_adds_one_version_a_change(kubelore, alpha) -> None:
    id_ = f"alpha:deployments.apps:{SPACE}:web"
    await alpha("create", "deployment", "web", "-n", SPACE, "--image=one", "--replicas=2")
    await wait_for(lambda: _counts(kubelore, id_, 1), "the first version", 15)
    await alpha("set", "image", "deployment/web", "*=two", "-n", SPACE)

    async def rolled() -> bool:
        found = json.loads(await alpha("get", "deployment", "web", "-n", SPACE, "-o", "json"))
        return found["status"].get("observedGeneration") == found["metadata"]["generation"] == 2

    await wait_for(rolled, "the controller to have seen the change", 30)
    mark = f"alpha:configmaps:{SPACE}:mark"
    await alpha("create", "configmap", "mark", "-n", SPACE)
    # Changes are recorded in the order of the cluster's stream; what came before the mark's is in.
    await wait_for(lambda: _counts(kubelore, mark, 1), "the mark", 15)
    assert len(await versions(kubelore, id_)) == 2


async def test_no_value_of_a_secret_is_in_its_history(kubelore, alpha) -> None:
    id_ = f"alpha:secrets:{SPACE}:login"
    await alpha("create", "secret", "generic", "login", "-n", SPACE, "--from-literal=password=c4nary-one")
    await alpha(
        "patch", "secret", "login", "-n", SPACE, "-p", '{"stringData":{"password":"c4nary-two","user":"u"}}'
    )
    await wait_for(lambda: _counts(kubelore, id_, 2), "both versions", 15)
    diff = await kubelore.http.get(f"/api/k8s/yaml/versions/{id_}/diff")
    assert {one["path"] for one in diff.json()["changes"]} == {"data.password", "data.user"}
    whole = await kubelore.http.get(f"/api/k8s/yaml/versions/{id_}/2")
    for text in (diff.text, whole.text):
        assert "c4nary" not in text
        assert "YzRuYXJ5" not in text


async def test_a_value_opens_for_the_right_secrets_and_a_redacted_one_for_nobody(kubelore, alpha) -> None:
    id_ = f"alpha:secrets:{SPACE}:door"
    path = f"/api/k8s/yaml/versions/{id_}/1"
    await alpha("create", "secret", "generic", "door", "-n", SPACE, "--from-literal=key=c4nary-old")
    await alpha("patch", "secret", "door", "-n", SPACE, "-p", '{"stringData":{"key":"c4nary-new"}}')
    await wait_for(lambda: _counts(kubelore, id_, 2), "both versions", 15)
    headers = {"Idempotency-Key": "reveal-the-door"}
    body = {"reason": "the old key is needed"}
    shown = await kubelore.http.post(f"{path}/reveal", json=body, headers=headers)
    assert base64.b64decode(shown.json()["data"]["key"]) == b"c4nary-old"
    again = await kubelore.http.post(f"{path}/reveal", json=body, headers=headers)
    assert (again.status_code, again.json()["code"]) == (409, "AnswerNotKept")
    gone = await kubelore.http.post(f"{path}/redact", json={"reason": "leaked"})
    assert gone.json()["versions"] == [1]
    refused = await kubelore.http.post(f"{path}/reveal", json=body)
    assert refused.status_code == 410
    acts = (await kubelore.http.get("/api/audit", params={"resource": id_})).json()["items"]
    assert [(one["action"], one["outcome"]) for one in acts] == [
        ("versions.reveal", "failed"),
        ("versions.redact", "ok"),
        ("versions.reveal", "ok"),
    ]
    assert (await kubelore.http.get(f"/api/k8s/yaml/versions/{id_}/verify")).json()["ok"]


async def _counts(kubelore, id_: str, number: int) -> bool:
    return len(await versions(kubelore, id_)) >= number
