"""The kubeconfigs on this machine: merged as kubectl merges them, and each cluster once."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import typer
import yaml

from kubelore.cli.contexts import Context, choose, contexts_of_text, one_per_server, read_kubeconfigs
from kubelore.cli.service_account import Account, Role, manifests
from kubelore.lab.kubectl import kubectl_program


def context(name: str, server: str) -> Context:
    return Context(name, name, server)


def config(*names: str, current: str = "", server: str = "https://{}.example.com") -> str:
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": {"server": server.format(name)}} for name in names],
            "users": [{"name": name, "user": {"tokenFile": f"{name}.token"}} for name in names],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}} for name in names],
            "current-context": current,
        }
    )


def test_several_files_are_merged_as_kubectl_merges_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, text in (
        ("one", config("a", "both")),
        ("two", config("both", "b", current="b", server="https://{}.other.example.com")),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config").write_text(text)
        for name in ("a", "b", "both"):
            (tmp_path / folder / f"{name}.token").write_text(f"{folder}-{name}\n")
    paths = [tmp_path / "one/config", tmp_path / "missing", tmp_path / "two/config"]
    monkeypatch.setenv("KUBECONFIG", ":".join(map(str, paths)))
    ours = yaml.safe_load(read_kubeconfigs(None))
    said = subprocess.run(
        [str(kubectl_program()), "config", "view", "--raw", "-o", "json"],
        check=True,
        capture_output=True,
        text=True,
    )
    theirs = json.loads(said.stdout)
    assert ours["current-context"] == theirs["current-context"] == "b"
    for plural, member in (("clusters", "cluster"), ("contexts", "context")):
        assert {one["name"]: one[member] for one in ours[plural]} == {
            one["name"]: one[member] for one in theirs[plural]
        }
    tokens = {one["name"]: one["user"]["token"] for one in ours["users"]}
    assert tokens == {"a": "one-a", "both": "one-both", "b": "two-b"}


def test_files_of_which_none_is_there_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nowhere/a:/nowhere/b")
    with pytest.raises(typer.BadParameter, match="/nowhere/a, /nowhere/b"):
        read_kubeconfigs(None)


def test_contexts_that_lead_to_one_server_are_one_cluster() -> None:
    found = [
        context("admin", "https://A.example.com"),
        context("other", "https://b.example.com:6443"),
        context("viewer", "https://a.example.com:443/"),
    ]
    choices = one_per_server(found, current=None)
    assert [(one.context.name, [each.name for each in one.merged]) for one in choices] == [
        ("admin", ["viewer"]),
        ("other", []),
    ]
    assert one_per_server(found, current="viewer")[0].context.name == "viewer"


def test_the_context_is_the_one_named_else_the_current_one() -> None:
    found, current = contexts_of_text(config("a", "b", current="b"))
    assert choose(found, current, None).name == "b"
    assert choose(found, current, "a").server == "https://a.example.com"
    for wanted, there in ((None, None), ("c", current)):
        with pytest.raises(typer.BadParameter, match="a, b"):
            choose(found, there, wanted)


def test_a_context_without_a_cluster_is_not_usable() -> None:
    broken = yaml.safe_load(config("a"))
    broken["contexts"].append({"name": "broken", "context": {"cluster": "gone", "user": "a"}})
    found, _ = contexts_of_text(yaml.safe_dump(broken))
    assert [(one.name, one.usable) for one in found] == [("a", True), ("broken", False)]
    assert "gone" in found[1].detail


def test_an_account_for_namespaces_is_bound_there_and_nowhere_else() -> None:
    made = list(manifests(Account(role=Role.EDIT, namespaces=("shop", "cart"))))
    assert [(one["kind"], one["metadata"].get("namespace")) for one in made[4:]] == [
        ("RoleBinding", "shop"),
        ("RoleBinding", "cart"),
    ]
    assert not [one for one in made if one["kind"].startswith("Cluster")]


def test_an_account_may_make_tokens_for_itself_alone() -> None:
    role = next(one for one in manifests(Account()) if one["kind"] == "Role")
    assert role["rules"] == [
        {
            "apiGroups": [""],
            "resources": ["serviceaccounts/token"],
            "resourceNames": ["kubelore"],
            "verbs": ["create"],
        }
    ]
