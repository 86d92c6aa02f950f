"""Drafts on a real cluster: validated by its schema and a dry run, merged three ways, edited in an editor."""

from __future__ import annotations

import json
from typing import Any

import pytest
import pytest_asyncio

from kubelore.lab.waiting import wait_for

pytestmark = pytest.mark.lab

SPACE = "drafted"
API = "/api/k8s/yaml/versions"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def drafting(kubelore, lab_pair):
    """A real cluster that is onboarded, with a namespace of these tests' own."""
    plane = lab_pair.first
    kubectl = plane.kubectl()
    await kubelore.onboard("drafting", plane.kubeconfig())
    await kubectl("create", "namespace", SPACE)
    yield kubectl
    await kubectl("delete", "namespace", SPACE, "--wait=false")
    await kubelore.remove("drafting")


async def deployment(kubelore, kubectl, name: str) -> str:
    """A deployment that has a history; its id."""
    id_ = f"drafting:deployments.apps:{SPACE}:{name}"
    await kubectl("create", "deployment", name, "-n", SPACE, "--image=one", "--replicas=1")
    await wait_for(lambda: counts(kubelore, id_, 1), "the first version", 20)
    return id_


async def counts(kubelore, id_: str, number: int) -> bool:
    answer = await kubelore.http.get(f"{API}/{id_}")
    return answer.status_code == 200 and len(answer.json()["items"]) >= number


async def text_of(kubelore, id_: str, **query: Any) -> str:
    answer = await kubelore.http.get(f"{API}/{id_}/1", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()["yaml_content"]


async def post(kubelore, path: str, body: dict[str, Any], status: int = 200) -> dict[str, Any]:
    answer = await kubelore.http.post(f"{API}/{path}", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


async def live(kubectl, name: str) -> dict[str, Any]:
    return json.loads(await kubectl("get", "deployment", name, "-n", SPACE, "-o", "json"))


async def test_a_draft_goes_into_the_cluster_beside_what_others_changed_there(kubelore, drafting) -> None:
    id_ = await deployment(kubelore, drafting, "shared")
    text = (await text_of(kubelore, id_)).replace("image: one", "image: two  # newer")
    recorded = await post(kubelore, id_, {"content": text, "change_log": "try two"}, 201)
    assert (recorded["branch"], recorded["happened"]) == ("drafts", "recorded")
    assert (await live(drafting, "shared"))["spec"]["template"]["spec"]["containers"][0]["image"] == "one"
    valid = await post(kubelore, f"{id_}/validate", {"branch": "drafts"})
    assert valid == {"valid": True, "problems": [], "unchecked": []}

    await drafting("scale", "deployment", "shared", "-n", SPACE, "--replicas=3")
    preview = await post(kubelore, f"{id_}/merge", {"branch": "drafts", "dry_run": True})
    paths = [one["path"] for one in preview["changes"]]
    assert paths == ["spec.template.spec.containers[name=one].image"]
    assert (preview["conflicts"], preview["result"]) == ([], "changed")
    assert (await live(drafting, "shared"))["spec"]["template"]["spec"]["containers"][0]["image"] == "one"

    body = {"branch": "drafts", "seen": preview["live"], "reason": "newer", "change_log": "two is out"}
    done = await post(kubelore, f"{id_}/merge", body)
    assert done["result"] == "changed"
    after = await live(drafting, "shared")
    assert (after["spec"]["replicas"], after["spec"]["template"]["spec"]["containers"][0]["image"]) == (
        3,
        "two",
    )

    async def told() -> bool:
        items = (await kubelore.http.get(f"{API}/{id_}")).json()["items"]
        return any((one["created_by"], one["change_log"]) == ("admin", "two is out") for one in items)

    await wait_for(told, "the merge to be in the history with its author and words", 20)
    again = await post(kubelore, f"{id_}/merge", {"branch": "drafts", "dry_run": True})
    assert (again["changes"], again["result"]) == ([], "unchanged")


async def test_a_conflict_is_named_and_nothing_written_until_it_is_decided(kubelore, drafting) -> None:
    id_ = await deployment(kubelore, drafting, "contested")
    text = (await text_of(kubelore, id_)).replace("replicas: 1", "replicas: 5")
    await post(kubelore, id_, {"content": text}, 201)
    await drafting("scale", "deployment", "contested", "-n", SPACE, "--replicas=2")
    refused = await post(kubelore, f"{id_}/merge", {"branch": "drafts"}, 409)
    assert refused["conflicts"] == [{"path": "spec.replicas", "base": 1, "ours": 2, "theirs": 5}]
    assert (await live(drafting, "contested"))["spec"]["replicas"] == 2
    await post(kubelore, f"{id_}/merge", {"branch": "drafts", "resolve": {"spec.replicas": "theirs"}})
    assert (await live(drafting, "contested"))["spec"]["replicas"] == 5


async def test_what_was_changed_since_the_preview_is_not_written_over(kubelore, drafting) -> None:
    id_ = await deployment(kubelore, drafting, "moving")
    text = (await text_of(kubelore, id_)).replace("image: one", "image: two")
    await post(kubelore, id_, {"content": text}, 201)
    preview = await post(kubelore, f"{id_}/merge", {"branch": "drafts", "dry_run": True})
    await drafting("annotate", "deployment", "moving", "-n", SPACE, "team=shop")
    await post(kubelore, f"{id_}/merge", {"branch": "drafts", "seen": preview["live"]}, 409)
    assert (await live(drafting, "moving"))["spec"]["template"]["spec"]["containers"][0]["image"] == "one"


async def test_faults_are_named_by_their_path_and_what_was_probably_meant(kubelore, drafting) -> None:
    id_ = await deployment(kubelore, drafting, "faulty")
    text = await text_of(kubelore, id_)
    wrong = text.replace("replicas: 1", "replicsa: 1").replace("image: one", "image: 7")
    found = await post(kubelore, f"{id_}/validate", {"content": wrong})
    told = {one["path"]: (one["source"], one["suggestion"]) for one in found["problems"]}
    assert told["spec.replicsa"] == ("schema", "replicas")
    assert "spec.template.spec.containers[0].image" in told
    assert not found["valid"]
    immutable = text.replace("app: faulty", "app: other")
    found = await post(kubelore, f"{id_}/validate", {"content": immutable})
    assert [(one["path"], one["source"]) for one in found["problems"]] == [("spec.selector", "server")]


async def test_what_departs_from_a_tag_is_found(kubelore, drafting) -> None:
    id_ = await deployment(kubelore, drafting, "tagged")
    await post(kubelore, f"{id_}/tags", {"name": "gold", "alert": True}, 201)
    query = {"cluster": "drafting", "namespace": SPACE, "tag": "gold"}
    assert (await kubelore.http.get("/api/k8s/yaml/drift", params=query)).json()["items"] == []
    await drafting("scale", "deployment", "tagged", "-n", SPACE, "--replicas=4")

    async def found() -> bool:
        items = (await kubelore.http.get("/api/k8s/yaml/drift", params=query)).json()["items"]
        return [(one["id"], [change["path"] for change in one["changes"]]) for one in items] == [
            (id_, ["spec.replicas"])
        ]

    await wait_for(found, "the drift to be listed", 20)

    async def alerted() -> bool:
        tags = (await kubelore.http.get(f"{API}/{id_}/tags")).json()["items"]
        return tags[0]["drifted"] == 2

    await wait_for(alerted, "the alert to be told", 20)


EDITOR = """\
#!/bin/sh
# The first time a field is misspelt; the second time, with what is wrong on top, it is put right.
if grep -q "replicas'?" "$1"; then
    cp "$1" "$(dirname "$0")/told"
    sed -i 's/replicsa: 1/replicas: 6/' "$1"
else
    sed -i 's/replicas: 1/replicsa: 1/' "$1"
fi
"""


async def test_an_edit_comes_back_to_the_editor_until_the_cluster_would_take_it(
    kubelore, drafting, command_line, tmp_path, monkeypatch
) -> None:
    id_ = await deployment(kubelore, drafting, "edited")
    editor = tmp_path / "editor"
    editor.write_text(EDITOR)
    editor.chmod(0o755)
    monkeypatch.setenv("KUBE_EDITOR", str(editor))
    cli = command_line(kubelore.url, kubelore.token)
    done = await cli("edit", id_, "--yes", "--change-log", "six of them")
    assert (done.code, done.out.splitlines()[-1]) == (0, f"{id_} changed"), done.err
    assert "+  replicas: 6" in done.out
    assert "#! spec.replicsa: unknown field" in (tmp_path / "told").read_text()
    assert (await live(drafting, "edited"))["spec"]["replicas"] == 6


async def test_a_draft_is_made_listed_merged_and_tagged_at_the_command_line(
    kubelore, drafting, command_line, tmp_path, monkeypatch
) -> None:
    id_ = await deployment(kubelore, drafting, "spoken")
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nsed -i 's/image: one/image: two  # newer/' \"$1\"\n")
    editor.chmod(0o755)
    monkeypatch.setenv("KUBE_EDITOR", str(editor))
    cli = command_line(kubelore.url, kubelore.token)
    assert (await cli("tag", id_, "before", "--alert")).code == 0
    recorded = await cli("edit", id_, "--branch", "newer")
    assert recorded.out == "version 2 recorded on newer\n", recorded.err
    listed = await cli("branch", "list", id_)
    assert listed.out.splitlines()[1].split()[:4] == ["newer", "2", "1", "0"]
    assert "# newer" in await text_of_draft(kubelore, id_, "newer", 2)
    assert "+      - image: two" in (await cli("branch", "diff", id_, "newer")).out
    assert (await cli("branch", "validate", id_, "newer")).code == 0
    refused = await cli("merge", id_, "newer")
    assert (refused.code, "say --yes" in refused.err) == (1, True)
    merged = await cli("merge", id_, "newer", "--yes")
    assert merged.code == 0, merged.err
    assert (await live(drafting, "spoken"))["spec"]["template"]["spec"]["containers"][0]["image"] == "two"

    async def drifted() -> bool:
        found = await cli("drift", "before", "-c", "drafting", "-n", SPACE)
        return found.code == 1 and id_ in found.out

    await wait_for(drifted, "the drift to be told", 20)


async def text_of_draft(kubelore, id_: str, branch: str, version: int) -> str:
    answer = await kubelore.http.get(f"{API}/{id_}/{version}", params={"branch": branch})
    return answer.json()["yaml_content"]
