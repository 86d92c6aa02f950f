"""What is written to make an object what a version says: nothing that the version does not hold is lost by it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kubelore.yaml_vcs.normalising import RULES, Normaliser, Policy, Rule
from kubelore.yaml_vcs.repository import Resource
from kubelore.yaml_vcs.reverting import Intent, Live, by_rules, replacing

WEB = Resource.of("prod:deployments.apps:shop:web")
SERVERS = {"uid": "u-1", "resourceVersion": "7", "generation": 3, "managedFields": [{"manager": "kubectl"}]}


def deployment(image: str, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", **metadata},
        "spec": {"replicas": 3, "image": image},
        "status": {"replicas": 3},
    }


@pytest.mark.parametrize(
    "left_out",
    [
        ("metadata", "finalizers"),
        ("metadata", "ownerReferences"),
        ("metadata", "*"),
        ("metadata",),
        ("spec", "replicas"),
    ],
    ids=".".join,
)
def test_what_a_rule_leaves_out_stays_as_it_is_in_the_object(left_out: tuple[str, ...]) -> None:
    rules = Normaliser(Policy(rules=(*RULES, Rule(paths=(left_out,)))))
    owned: dict[str, Any] = {"finalizers": ["shop/guard"], "ownerReferences": [{"name": "boss"}]}
    there = deployment("web:2", **owned, **SERVERS)
    live = Live(
        uid="u-1", rv="7", object=there, content=rules.content(WEB.type, deployment("web:2", **owned))
    )
    content = rules.content(WEB.type, deployment("web:1", **owned))
    made = replacing(
        Intent(resource=WEB, entry=None, content=content, live=live), rules.paths_of(WEB.type)
    ).object
    assert made == deployment("web:1", **owned)
    assert msgspec.json.encode(there) == msgspec.json.encode(deployment("web:2", **owned, **SERVERS))


def test_an_object_that_is_gone_is_made_anew_with_what_a_later_rule_leaves_out() -> None:
    """Else an autoscaled Deployment of ten replicas came back with one."""
    rules = Normaliser(Policy(rules=(*RULES, Rule(paths=(("spec", "replicas"),)))))
    content = Normaliser().content(WEB.type, deployment("web:1"))
    assert by_rules(rules, WEB.type, content, Live()) == content
    assert b"replicas" not in by_rules(rules, WEB.type, content, Live(uid="u-1", rv="7"))
