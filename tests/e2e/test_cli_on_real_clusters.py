"""The command line on two real clusters, as a person types it."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path

import pytest
import pytest_asyncio
import yaml

from kubelore.lab.waiting import wait_for

pytestmark = pytest.mark.lab

NAMESPACE = "cli"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def cli(kubelore, command_line, lab_pair, tmp_path_factory):
    """Both lab clusters onboarded by the CLI, from one kubeconfig that names its certificates as files."""
    run = command_line(kubelore.url, kubelore.token)
    folder = tmp_path_factory.mktemp("kubeconfig")
    path = folder / "config"
    path.write_text(
        kubeconfig_with_files(
            folder, {"left": lab_pair.first.kubeconfig(), "right": lab_pair.second.kubeconfig()}
        )
    )
    added = await run("clusters", "add", "--from-kubeconfig", str(path), "--all-contexts", "--tag", "typed")
    assert added.code == 0, added.err
    assert added.out == "cluster left added\ncluster right added\n"
    for plane in (lab_pair.first, lab_pair.second):
        await plane.kubectl()("create", "namespace", NAMESPACE)
    for name in ("left", "right"):
        await kubelore.until_live(name)
    yield run
    await run("clusters", "remove", "--yes", "left", "right")


def kubeconfig_with_files(folder: Path, kubeconfigs: dict[str, str]) -> str:
    """One kubeconfig with a context each, whose certificates and keys lie in files beside it."""
    merged: dict[str, object] = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [],
        "users": [],
        "contexts": [],
    }
    for name, text in kubeconfigs.items():
        config = yaml.safe_load(text)
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        for section in (cluster, user):
            for key in [key for key in section if key.endswith("-data")]:
                plain = key.removesuffix("-data")
                (folder / f"{name}-{plain}").write_bytes(base64.b64decode(section.pop(key)))
                section[plain] = f"{name}-{plain}"
        merged["clusters"].append({"name": name, "cluster": cluster})
        merged["users"].append({"name": name, "user": user})
        merged["contexts"].append({"name": name, "context": {"cluster": name, "user": name}})
    return yaml.safe_dump(merged)


async def test_clusters_are_listed_with_their_status(cli) -> None:
    listed = await cli("clusters", "list", "--tag", "typed")
    assert listed.code == 0
    lines = [line.split() for line in listed.out.splitlines()]
    assert lines[0][:3] == ["NAME", "STATUS", "VERSION"]
    assert [line[:2] for line in lines[1:]] == [["left", "connected"], ["right", "connected"]]


async def test_objects_of_both_clusters_come_in_one_table(cli) -> None:
    said = await cli("get", "ns", "-A", "-c", "tag:typed")
    assert said.code == 0, said.err
    lines = [line.split() for line in said.out.splitlines()]
    assert lines[0] == ["CLUSTER", "NAME", "STATUS", "AGE"]
    assert {line[0] for line in lines[1:]} == {"left", "right"}


async def test_cluster_scoped_types_need_no_namespace_option(cli) -> None:
    said = await cli("get", "clusterroles", "cluster-admin", "-c", "left", "-o", "name")
    assert said.out == "left:clusterroles.rbac.authorization.k8s.io::cluster-admin\n"


async def test_one_object_prints_like_kubectl(cli, lab_pair) -> None:
    kubectl = lab_pair.first.kubectl()
    await kubectl(
        "create",
        "configmap",
        "printed",
        "-n",
        NAMESPACE,
        "--from-literal=answer=yes",
        "--from-literal=b=a\nb\n",
    )

    async def there() -> bool:
        return (await cli("get", "cm", "printed", "-n", NAMESPACE, "-c", "left")).code == 0

    await wait_for(there, "the object")
    for output in ("yaml", "json"):
        ours = await cli("get", "cm", "printed", "-n", NAMESPACE, "-c", "left", "-o", output)
        theirs = await kubectl("get", "cm", "printed", "-n", NAMESPACE, "-o", output)
        read = json.loads if output == "json" else yaml.safe_load
        assert read(ours.out)["data"] == read(theirs)["data"]
        assert "managedFields" not in ours.out


async def test_nothing_found_says_where_it_looked(cli) -> None:
    said = await cli("get", "pods", "-n", NAMESPACE, "-c", "left")
    assert (said.code, said.out) == (0, "")
    assert NAMESPACE in said.err
    named = await cli("get", "pods", "nothing", "-n", NAMESPACE, "-c", "left")
    assert named.code == 1


async def test_a_change_made_with_kubectl_is_shown_by_watch(cli, lab_pair) -> None:
    watching = await cli.start("watch", "cm", "-n", NAMESPACE, "-o", "json")
    try:
        assert watching.stdout is not None
        line = asyncio.create_task(watching.stdout.readline())
        kubectl = lab_pair.second.kubectl()
        number = 0
        while not line.done():
            # The watch says nothing when it is open, so changes are made until one is seen.
            number += 1
            await kubectl("create", "configmap", f"seen-{number}", "-n", NAMESPACE)
            assert number < 40
        event = json.loads(await line)
        assert (event["event"], event["cluster"], event["type"]) == ("added", "right", "configmaps")
    finally:
        watching.terminate()
        await watching.wait()


async def test_errors_name_the_remedy_and_end_with_code_one(cli) -> None:
    said = await cli("get", "deploymint", "-A")
    assert said.code == 1
    assert "deployments.apps" in said.err
    assert "Traceback" not in said.err


async def test_a_wrong_token_is_told_as_such(kubelore, command_line) -> None:
    said = await command_line(kubelore.url, "wrong-token")("clusters", "list")
    assert said.code == 1
    assert "token" in said.err


async def test_a_kubeconfig_that_would_run_a_program_is_refused(cli, tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(
        """
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: 'https://192.168.77.1'}}]
users: [{name: u, user: {exec: {apiVersion: client.authentication.k8s.io/v1, command: aws}}}]
contexts: [{name: eks, context: {cluster: c, user: u}}]
"""
    )
    said = await cli("clusters", "add", "eks", "--from-kubeconfig", str(path))
    assert said.code == 1
    assert "aws" in said.err or "exec" in said.err


async def test_a_connection_test_is_a_table_of_steps(cli) -> None:
    said = await cli("clusters", "test", "left")
    assert said.code == 0, said.err
    assert {"tcp", "tls", "authentication"} <= {line.split()[0] for line in said.out.splitlines()[1:]}


async def test_it_is_a_kubectl_plugin_too(cli) -> None:
    said = await cli("clusters", "list", "-o", "name", program="kubectl-kubelore")
    assert {"left", "right"} <= set(said.out.split())


async def test_the_same_objects_are_compared_and_the_exit_code_tells(cli, lab_pair) -> None:
    for plane, colour in ((lab_pair.first, "red"), (lab_pair.second, "blue")):
        kubectl = plane.kubectl()
        await kubectl("create", "configmap", "both", "-n", NAMESPACE, "--from-literal=size=1")
        await kubectl("create", "configmap", "paint", "-n", NAMESPACE, f"--from-literal=colour={colour}")
    arguments = ("compare", "cm", "-n", NAMESPACE, "-c", "left,right")

    async def arrived() -> bool:
        return (await cli(*arguments, "-o", "name", "--only", "different")).out.endswith(":paint\n")

    await wait_for(arrived, "both clusters to have them")
    whole = await cli(*arguments)
    assert whole.code == 1
    rows = {line.split()[1]: line.split()[2:] for line in whole.out.splitlines()[1:]}
    assert rows["both"] == ["same", "yes", "yes"]
    assert rows["paint"] == ["different", "yes", "yes", "data.colour"]
    one = await cli("compare", "cm/paint", "-n", NAMESPACE, "-c", "left,right")
    assert [line.split()[-2:] for line in one.out.splitlines()[-2:]] == [["left", "red"], ["right", "blue"]]
    assert (await cli("compare", "cm", "both", "-n", NAMESPACE, "-c", "left,right")).code == 0
    assert (await cli("compare", "cm/paint", "-n", NAMESPACE, "--ignore", "data.colour")).code == 0
    nowhere = await cli("compare", "cm/nowhere", "-n", NAMESPACE)
    assert (nowhere.code, nowhere.out) == (1, "")


async def test_rows_are_sorted_by_kubectls_paths_and_cells_look_as_kubectls(cli, lab_pair) -> None:
    kubectl = lab_pair.second.kubectl()
    ours, theirs = [
        await cli("get", "ns", "-c", "right", "-o", "name", f"--sort-by={column}")
        for column in ("created", ".metadata.creationTimestamp")
    ]
    assert (ours.code, ours.out) == (0, theirs.out)
    printed = (await kubectl("get", "priorityclasses", "--no-headers")).split("\n")
    said = await cli("get", "priorityclasses", "-c", "right", "--no-headers")
    assert [line.split()[1:4] for line in said.out.splitlines()] == [
        line.split()[:3] for line in printed if line
    ]


async def test_describe_tells_owners_pods_and_events_as_kubectl_does(cli, lab_pair) -> None:
    kubectl = lab_pair.first.kubectl()
    await kubectl("create", "deployment", "told", "--image=example.com/none:1", "-n", NAMESPACE)

    async def told() -> bool:
        said = await cli("describe", "deploy/told", "-n", NAMESPACE, "-c", "left")
        return "ScalingReplicaSet" in said.out and "told-" in said.out.partition("Pods:")[2]

    await wait_for(told, "the deployment's pods and events", 30)
    said = await cli("describe", "deploy", "told", "-n", NAMESPACE, "-c", "left")
    assert said.code == 0, said.err
    theirs = await kubectl("describe", "deployment", "told", "-n", NAMESPACE)
    for line in ("app=told", "Image: example.com/none:1", "Progressing", "ScalingReplicaSet"):
        assert line in " ".join(said.out.split())
        assert line in " ".join(theirs.split())
    pod = (
        await cli("get", "pods", "-n", NAMESPACE, "-c", "left", "-l", "app=told", "-o", "name")
    ).out.split()[0]
    assert "of Deployment/told" in (await cli("describe", pod)).out
    assert (await cli("describe", "deploy/nothing", "-n", NAMESPACE, "-c", "left")).code == 1


async def test_templates_and_columns_of_ones_own_print_what_kubectl_prints(cli, lab_pair) -> None:
    kubectl = lab_pair.first.kubectl()
    for output in (
        "jsonpath={range .items[*]}{.metadata.name}{'\\t'}{.spec.ports[0].port}{'\\n'}{end}",
        "custom-columns=NAME:.metadata.name,PORTS:.spec.ports[*].port,NONE:.spec.nothing",
    ):
        ours = await cli("get", "svc", "-n", "default", "-c", "left", "-o", output)
        theirs = await kubectl("get", "svc", "-n", "default", "-o", output)
        assert [line.split() for line in ours.out.splitlines()] == [
            line.split() for line in theirs.splitlines()
        ]
    assert (await cli("get", "svc", "-o", "jsonpath={.a")).code == 2


async def test_labels_are_shown_and_wide_tables_have_more_columns(cli) -> None:
    labels = await cli("get", "svc", "kubernetes", "-n", "default", "-c", "left", "--show-labels")
    assert labels.out.splitlines()[1].split()[-1] == "component=apiserver,provider=kubernetes"
    wide = await cli("get", "svc", "-n", "default", "-c", "left", "-o", "wide")
    assert wide.out.splitlines()[0].split()[-1] == "SELECTOR"


async def test_get_goes_on_with_the_changes(cli, lab_pair) -> None:
    watching = await cli.start("get", "cm", "-n", NAMESPACE, "-c", "right", "-w", "-o", "name")
    try:
        assert watching.stdout is not None
        await lab_pair.second.kubectl()("create", "configmap", "later", "-n", NAMESPACE)
        async with asyncio.timeout(20):
            while (
                line := (await watching.stdout.readline()).decode()
            ) != f"right:configmaps:{NAMESPACE}:later\n":
                assert line
    finally:
        watching.terminate()
        await watching.wait()


async def test_counts_and_types_of_both_clusters_are_told(cli) -> None:
    counted = json.loads((await cli("summary", "ns", "-c", "tag:typed", "-o", "json")).out)
    assert counted["total"] == sum(state["count"] for state in counted["clusters"]) > 8
    types = (await cli("api-resources", "-c", "tag:typed", "--api-group", "apps", "-o", "name")).out.split()
    assert "deployments.apps" in types
    assert "pods" not in types


async def test_a_shell_is_offered_clusters_types_namespaces_and_names(cli, command_line) -> None:
    async def offered(*words: str) -> list[str]:
        said = await cli(*words, program="kubectl_complete-kubelore")
        *found, directive = said.out.split("\n")[:-1]
        assert directive == ":4"
        return found

    assert "left" in await offered("get", "-c", "le")
    assert "deployments" in await offered("get", "deplo")
    assert "kube-system" in await offered("get", "pods", "-n", "kube-s")
    assert "deployments" in await offered("scale", "deplo")
    assert "kube-system" in await offered("delete", "cm", "-n", "kube-s")
    assert await offered("describe", "-n", "default", "-c", "left", "svc", "kub") == ["kubernetes"]
    nowhere = command_line("http://127.0.0.1:1", "none")
    said = await nowhere("get", "po", program="kubectl_complete-kubelore")
    assert (said.out.strip(), said.err) == (":4", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_every_shell_gets_a_script(cli, shell: str) -> None:
    said = await cli("completion", shell)
    assert (said.code, said.err) == (0, "")
    assert "_KUBELORE_COMPLETE" in said.out
