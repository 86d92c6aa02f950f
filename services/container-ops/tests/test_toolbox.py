"""How words reach a program in a container, held against a real shell."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubelore.common.contracts.containers import ContainerId
from kubelore.common.errors import Unsupported
from kubelore.container_ops.toolbox import TOOLS, Toolbox

HERE = ContainerId("prod", "shop", "web", "app")
BOX = Toolbox(HERE, HERE, "gnu", frozenset(TOOLS) - {"tar"})
WORDS = st.lists(st.binary(max_size=40).map(lambda raw: raw.replace(b"\0", b"")), max_size=5)


@settings(max_examples=60, deadline=None)
@given(WORDS)
def test_any_bytes_reach_the_program_as_they_are(words: list[bytes]) -> None:
    argv = BOX.argv(["printf", "%s\\0", b"\xff", *words])
    said = subprocess.run(argv, capture_output=True, check=True, timeout=10).stdout
    assert said.split(b"\0")[:-1] == [b"\xff", *words]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), max_size=4))
def test_text_is_handed_over_unchanged_and_without_a_shell(words: list[str]) -> None:
    argv = BOX.argv(["stat", *words, *(word.encode() for word in words)])
    assert argv[:4] == ["env", "LC_ALL=C", "QUOTING_STYLE=literal", "stat"]
    assert argv[4:] == [*words, *words]


def test_a_debug_container_works_with_the_root_of_its_target() -> None:
    box = Toolbox(HERE, ContainerId("prod", "shop", "web", "debug"), "busybox", frozenset(TOOLS))
    argv = box.argv(["stat", "/etc/passwd"])
    assert "chroot /proc/1/root" in argv[2]
    assert argv[-2:] == ["stat", "/etc/passwd"]


def test_a_program_that_is_missing_is_named() -> None:
    BOX.need("stat", "find")
    with pytest.raises(Unsupported, match="no tar"):
        BOX.need("stat", "tar")
