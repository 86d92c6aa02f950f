"""`-o jsonpath` and `custom-columns`: the same text that kubectl prints."""

from __future__ import annotations

import pytest
import typer

from kubelore.cli.templates import CustomColumns, Template

PODS = {
    "items": [
        {"metadata": {"name": "a", "labels": {"x.y/z": "1"}}, "spec": {"ports": [1, 2, 3]}, "ok": True},
        {"metadata": {"name": "b", "labels": {}}, "spec": {"ports": []}, "status": {"phase": "Running"}},
    ]
}


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{.items[*].metadata.name}", "a b"),
        (".items[0].metadata.name", "a"),
        ("{$.items[-1].metadata.name}", "b"),
        ("{.items[0].spec.ports}", "[1,2,3]"),
        ("{.items[0].spec.ports[:2]}", "[1,2]".replace("[1,2]", "1 2")),
        ("{.items[0].ok}", "true"),
        (r"{.items[0].metadata.labels.x\.y/z}", "1"),
        ("{.items[0].metadata.labels['x.y/z']}", "1"),
        ('{range .items[*]}{.metadata.name}{"\\t"}{.status.phase}{"\\n"}{end}', "a\t\nb\tRunning\n"),
        ("names: {.items[*].metadata.name}!", "names: a b!"),
        ("{range .items[*]}{range .spec.ports[*]}{@}{','}{end};{end}", "1,2,3,;;"),
        ("{.items[?(@.status.phase=='Running')].metadata.name}", "b"),
        ("{.nothing}", ""),
    ],
)
def test_a_template_is_filled_in(template: str, said: str) -> None:
    assert Template(template).render(PODS) == said


@pytest.mark.parametrize("template", ["{", "{.a", "}", "{range .a}x", "{end}", "{.a[}", "{.a[x]}"])
def test_what_is_no_template_is_refused(template: str) -> None:
    with pytest.raises(typer.BadParameter):
        Template(template)


def test_columns_of_ones_own_say_none_where_nothing_is() -> None:
    columns = CustomColumns("NAME:.metadata.name,PHASE:{.status.phase},PORTS:.spec.ports[*]")
    assert columns.header == ["NAME", "PHASE", "PORTS"]
    assert [columns.cells(pod) for pod in PODS["items"]] == [
        ["a", "<none>", "1,2,3"],
        ["b", "Running", "<none>"],
    ]


@pytest.mark.parametrize("text", ["", "NAME", "NAME:", ":.a", "NAME:.a[", "A:.a,"])
def test_what_are_no_columns_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        CustomColumns(text)
