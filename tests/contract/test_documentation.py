"""The documentation against the code: settings, refusals, commands, links, and the records of decisions."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from kubelore.cli.__main__ import app
from kubelore.common.settings import CommonSettings
from kubelore.container_ops.settings import ContainerOpsSettings
from kubelore.gateway.settings import GatewaySettings
from kubelore.resource_ops.settings import ResourceOpsSettings

ROOT = Path(__file__).parents[2]
OPERATIONS = ROOT / "docs" / "operations.md"
DECISIONS = ROOT / "docs" / "decisions"
DOCUMENTS = sorted(
    path
    for pattern in (
        "*.md",
        "docs/*.md",
        "docs/decisions/*.md",
        "services/*/*.md",
        "stack/*.md",
        "tools/*/*.md",
    )
    for path in ROOT.glob(pattern)
)
KUBECONFIG_SOURCES = ("libs/common/src/kubelore/common/kube", "services/cluster-registry/src")

LINK = re.compile(r"\[[^\]]*\]\((?!https?:|mailto:)([^)\s]+)\)")
CODE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)
KUBELORE = re.compile(r"(?:^|[\s`/])kubelore(?![^`\n]* v\d)((?: [a-z][a-z-]*)+)", re.MULTILINE)


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def row_of(name: str, setting: FieldInfo) -> str:
    default: Any = setting.get_default(call_default_factory=True)
    if isinstance(default, SecretStr):
        default = default.get_secret_value()
    if isinstance(default, bool | list | dict):
        default = json.dumps(default)
    described = str(setting.description)
    if name not in CommonSettings.model_fields:
        owners = {"Gateway": GatewaySettings, "resource-ops": ResourceOpsSettings}
        owner = next((one for one, of in owners.items() if name in of.model_fields), "container-ops")
        described = f"{owner} only. {described}"
    shown = f"`{default}`" if default not in (None, "") else ""
    return f"| `KUBELORE_{name.upper()}` | {shown} | {described} |"


def test_every_setting_is_documented_as_it_is() -> None:
    lines = [line for line in OPERATIONS.read_text().splitlines() if line.startswith("| `KUBELORE_")]
    settings = GatewaySettings.model_fields | ResourceOpsSettings.model_fields
    settings = settings | {
        name: of for name, of in ContainerOpsSettings.model_fields.items() if name not in settings
    }
    assert lines == [row_of(name, setting) for name, setting in settings.items()]


def refusal_codes() -> Iterator[str]:
    """Every literal `code` of a KubeconfigRefused in the sources."""
    for folder in KUBECONFIG_SOURCES:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                match node:
                    case ast.Call(func=ast.Name("KubeconfigRefused"), keywords=words):
                        yield from (
                            code for word in words if word.arg == "code" for code in literals(word.value)
                        )


def literals(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.IfExp):
        yield from (*literals(node.body), *literals(node.orelse))
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    else:
        raise AssertionError(f"a code that cannot be read from the source: {ast.unparse(node)}")


def test_every_code_of_a_refused_kubeconfig_has_its_remedy_and_no_other_is_promised() -> None:
    section = OPERATIONS.read_text().split("## Kubeconfigs that are refused")[1].split("\n## ")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    documented = [code for cell in cells for code in re.findall(r"`([a-z-]+)`", cell)]
    assert sorted(documented) == sorted(set(refusal_codes()))


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_links_lead_to_a_file_and_a_heading(document: Path) -> None:
    for link in LINK.findall(CODE.sub("", document.read_text())):
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), link
        if anchor:
            assert anchor in headings(target), link


def headings(document: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_commands_that_are_named_exist(document: Path) -> None:
    command: Any = typer.main.get_command(app)
    for code in CODE.findall(document.read_text()):
        for words in KUBELORE.findall(code):
            first, *rest = words.split()
            assert first in command.commands, f"kubelore{words}"
            group = getattr(command.commands[first], "commands", None)
            if group and rest:
                assert rest[0] in group, f"kubelore{words}"


def records() -> list[Path]:
    return sorted(DECISIONS.glob("[0-9]*.md"))


def test_decisions_have_numbers_of_their_own_and_stand_in_the_index() -> None:
    numbers = [path.name[:4] for path in records()]
    assert len(set(numbers)) == len(numbers)
    index = (DECISIONS / "README.md").read_text()
    assert re.findall(r"\]\((\d{4}-[^)]+\.md)\)", index) == [path.name for path in records()]


@pytest.mark.parametrize("record", records(), ids=lambda path: path.name[:4])
def test_a_decision_says_context_decision_measure_and_consequences_on_one_page(record: Path) -> None:
    text = record.read_text()
    for part in ("Context", "Decision", "easured", "Consequences"):
        assert re.search(rf"^(#+ .*|\*\*.*){part}", text, re.MULTILINE), f"{record.name}: no {part}"
    assert len(text.split()) <= 700
