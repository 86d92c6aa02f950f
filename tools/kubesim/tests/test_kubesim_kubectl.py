"""kubectl works against a simulated cluster."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest

from kubelore.lab.kubectl import Kubectl

MANIFEST = """
apiVersion: v1
kind: ConfigMap
metadata: {{name: {0}, namespace: default, labels: {{app: {0}}}}}
data: {{colour: red, shape: round}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {0}, namespace: default}}
spec:
  replicas: 1
  selector: {{matchLabels: {{app: {0}}}}}
  template:
    metadata: {{labels: {{app: {0}}}}}
    spec: {{containers: [{{name: main, image: "main:1"}}]}}
"""


async def read(kubectl: Kubectl, *what: str) -> Any:
    return json.loads(await kubectl("get", *what, "-o", "json"))


@pytest.fixture
async def pod(kubectl: Kubectl) -> str:
    return (await kubectl("get", "pods", "-n", "team-01", "-o", "name")).split()[0].removeprefix("pod/")


async def test_get_prints_the_columns_of_pods(kubectl: Kubectl) -> None:
    lines = (await kubectl("get", "pods", "-A")).splitlines()
    assert lines[0].split() == ["NAMESPACE", "NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert len(lines) == 41
    assert all(line.split()[2:4] == ["1/1", "Running"] for line in lines[1:])


async def test_get_pages_through_everything(kubectl: Kubectl) -> None:
    assert len((await kubectl("get", "pods", "-A", "-o", "name", "--chunk-size=7")).split()) == 40


async def test_get_selects_by_labels_and_fields(kubectl: Kubectl) -> None:
    chosen = await kubectl("get", "pods", "-A", "-l", "app in (cart,api)", "-o", "name")
    assert len(chosen.split()) == 8
    on_node = await kubectl("get", "pods", "-A", "--field-selector", "spec.nodeName=node-1", "-o", "name")
    assert 0 < len(on_node.split()) < 40


async def test_apply_creates_and_changes(kubectl: Kubectl) -> None:
    manifest = MANIFEST.format("applied")
    assert (await kubectl("apply", "-f", "-", stdin=manifest)).count("created") == 2
    assert (await kubectl("apply", "-f", "-", stdin=manifest)).count("unchanged") == 2
    changed = manifest.replace("main:1", "main:2").replace(", shape: round", "")
    assert (await kubectl("apply", "-f", "-", stdin=changed)).count("configured") == 2
    assert (await read(kubectl, "configmap", "applied"))["data"] == {"colour": "red"}
    containers = (await read(kubectl, "deploy", "applied"))["spec"]["template"]["spec"]["containers"]
    assert [container["image"] for container in containers] == ["main:2"]


async def test_server_side_apply_names_the_owner_in_conflict(kubectl: Kubectl) -> None:
    manifest = MANIFEST.format("owned")
    await kubectl("apply", "--server-side", "--field-manager=one", "-f", "-", stdin=manifest)
    other = manifest.replace("colour: red", "colour: blue")
    arguments = ("apply", "--server-side", "--field-manager=two", "-f", "-")
    refused = await kubectl.run(*arguments, stdin=other)
    assert refused.code != 0
    assert 'conflict with "one"' in refused.stderr
    await kubectl(*arguments, "--force-conflicts", stdin=other)
    assert (await read(kubectl, "configmap", "owned"))["data"]["colour"] == "blue"


async def test_edit(kubectl: Kubectl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await kubectl("apply", "-f", "-", stdin=MANIFEST.format("edited"))
    editor = tmp_path / "vi"
    editor.write_text('#!/bin/sh\nsed -i s/main:1/main:9/ "$@"\n')
    editor.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    await kubectl("edit", "deploy", "edited")
    containers = (await read(kubectl, "deploy", "edited"))["spec"]["template"]["spec"]["containers"]
    assert containers[0]["image"] == "main:9"


async def test_label_and_annotate(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", stdin=MANIFEST.format("labelled"))
    await kubectl("label", "configmap", "labelled", "tier=web", "app-")
    await kubectl("annotate", "configmap", "labelled", "note=hello")
    meta = (await read(kubectl, "configmap", "labelled"))["metadata"]
    assert meta["labels"] == {"tier": "web"}
    assert meta["annotations"]["note"] == "hello"


async def test_scale(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", stdin=MANIFEST.format("scaled"))
    await kubectl("scale", "deploy", "scaled", "--replicas=5")
    assert (await read(kubectl, "deploy", "scaled"))["spec"]["replicas"] == 5


async def test_delete_waits_until_it_is_gone(kubectl: Kubectl) -> None:
    manifest = MANIFEST.format("deleted")
    await kubectl("apply", "-f", "-", stdin=manifest)
    await kubectl("delete", "-f", "-", stdin=manifest)
    assert "NotFound" in (await kubectl.run("get", "configmap", "deleted")).stderr


async def test_a_deleted_owner_takes_its_dependents_along(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", stdin=MANIFEST.format("owner"))
    uid = (await read(kubectl, "deploy", "owner"))["metadata"]["uid"]
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "owner", "uid": uid}
    patch = json.dumps({"metadata": {"ownerReferences": [reference]}})
    await kubectl("patch", "configmap", "owner", "--type=merge", "-p", patch)
    await kubectl("delete", "deploy", "owner")
    assert "NotFound" in (await kubectl.run("get", "configmap", "owner")).stderr


async def test_logs_say_the_same_twice(kubectl: Kubectl, pod: str) -> None:
    first = await kubectl("logs", "-n", "team-01", pod, "--tail=5", "--timestamps")
    again = await kubectl("logs", "-n", "team-01", pod, "--tail=50", "--timestamps")
    assert len(first.splitlines()) == 5
    assert first.splitlines()[0] in again
    refused = await kubectl.run("logs", "-n", "team-01", pod, "--previous")
    assert "previous terminated container" in refused.stderr


async def test_exec_runs_a_command(kubectl: Kubectl, pod: str) -> None:
    assert await kubectl("exec", "-n", "team-01", pod, "--", "hostname") == f"{pod}\n"
    failed = await kubectl.run("exec", "-n", "team-01", pod, "--", "sh", "-c", "echo oops >&2; exit 3")
    assert failed.code == 3 or "exit code 3" in failed.stderr
    missing = await kubectl.run("exec", "-n", "team-01", pod, "--", "no-such-program")
    assert missing.code != 0


async def test_exec_reads_stdin(kubectl: Kubectl, pod: str) -> None:
    script = "tee /tmp/seen | wc -c; cat /tmp/seen"
    out = await kubectl("exec", "-i", "-n", "team-01", pod, "--", "sh", "-c", script, stdin="hello")
    assert out == "5\nhello"


async def test_cp_brings_files_there_and_back(kubectl: Kubectl, pod: str, tmp_path: Path) -> None:
    content = random.Random(1).randbytes(3_000_000)
    (tmp_path / "up").mkdir()
    (tmp_path / "up" / "big file.bin").write_bytes(content)
    await kubectl("cp", str(tmp_path / "up"), f"team-01/{pod}:/tmp/there")
    digest = await kubectl("exec", "-n", "team-01", pod, "--", "sha256sum", "/tmp/there/big file.bin")
    assert digest.split()[0] == hashlib.sha256(content).hexdigest()
    await kubectl("cp", f"team-01/{pod}:/tmp/there", str(tmp_path / "down"))
    assert (tmp_path / "down" / "big file.bin").read_bytes() == content


async def test_top_shows_usage(kubectl: Kubectl) -> None:
    assert len((await kubectl("top", "nodes", "--no-headers")).splitlines()) == 3
    assert len((await kubectl("top", "pods", "-A", "--no-headers")).splitlines()) == 40


async def test_whoever_is_impersonated_may_only_read(kubectl: Kubectl, pod: str) -> None:
    await kubectl("get", "pods", "-n", "team-01", "--as=reader")
    for command in (("delete", "pod", pod), ("exec", pod, "--", "ls"), ("label", "pod", pod, "a=b")):
        refused = await kubectl.run(*command[:2], "-n", "team-01", "--as=reader", *command[2:])
        assert refused.code != 0
        assert 'User "reader" cannot' in refused.stderr


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("/openapi/v2", "/openapi/v2"),
        ("/api/v1/watch/pods", "/api/v1/watch/pods"),
        ("/api/v1/namespaces/team-01/pods/x/portforward", "pods/portforward"),
        ("/api/v1/namespaces/team-01/services/x/proxy", "services/proxy"),
    ],
)
async def test_what_is_missing_says_so(kubectl: Kubectl, path: str, what: str) -> None:
    refused = await kubectl.run("get", "--raw", path)
    assert f"kubesim does not implement {what}" in refused.stderr
