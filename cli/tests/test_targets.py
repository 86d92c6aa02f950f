"""What a person means by the words behind `get`."""

import pytest
import typer

from kubelore.cli.targets import Target, parse_targets


@pytest.mark.parametrize(
    ("words", "targets"),
    [
        (["pods"], [Target("pods")]),
        (["deploy,svc"], [Target("deploy,svc")]),
        (["pod", "a", "b", "a"], [Target("pod", ("a", "b"))]),
        (["deploy/web", "svc/api"], [Target("deploy", ("web",)), Target("svc", ("api",))]),
        (["prod:pods:shop:web-0"], [Target("pods", ("web-0",), "prod", "shop")]),
        (
            ["prod:clusterroles.rbac.authorization.k8s.io::system:node"],
            [Target("clusterroles.rbac.authorization.k8s.io", ("system:node",), "prod", "")],
        ),
    ],
)
def test_every_form_of_kubectl_and_ids_are_understood(words: list[str], targets: list[Target]) -> None:
    assert parse_targets(words) == targets


@pytest.mark.parametrize(
    "words",
    [
        [""],
        ["pods", ""],
        ["deploy/web", "api"],
        ["pods", "svc/a"],
        ["a/b/c"],
        ["/x"],
        ["x/"],
        ["a:b:c:d", "e"],
    ],
)
def test_a_mixture_or_an_empty_word_is_refused(words: list[str]) -> None:
    with pytest.raises(typer.BadParameter):
        parse_targets(words)
