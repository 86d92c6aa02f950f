"""Which field manager made a change, from what managedFields said before and after."""

from __future__ import annotations

import pytest

from kubelore.yaml_vcs.normalising import Writer, who_wrote, writers


def owner(
    manager: str, time: str = "T1", fields: int = 0, operation: str = "Update", subresource: str = ""
) -> Writer:
    return Writer(manager, operation, subresource, time, fields)


APPLY = owner("kubelore", operation="Apply")


@pytest.mark.parametrize(
    ("before", "after", "wrote"),
    [
        ((), (), ("", "")),
        ((), (owner("a", "T1"), owner("b", "T2")), ("b", "Update")),
        ((APPLY,), (APPLY, owner("kubectl-annotate")), ("kubectl-annotate", "Update")),
        ((owner("a", "T1"),), (owner("a", "T2"),), ("a", "Update")),
        ((owner("a"), owner("b")), (owner("a", fields=1), owner("b")), ("a", "Update")),
        ((owner("a"), owner("b")), (owner("a", fields=1), owner("b", "T2", fields=2)), ("b", "Update")),
        ((), (owner("a"), owner("kubelet", "T9", subresource="status")), ("a", "Update")),
        ((), (owner("kubelet", subresource="status"),), ("kubelet", "Update")),
    ],
)
def test_the_writer_is_the_entry_that_is_new_then_the_one_that_changed_then_the_newest(
    before: tuple[Writer, ...], after: tuple[Writer, ...], wrote: tuple[str, str]
) -> None:
    assert who_wrote(before, after) == wrote


@pytest.mark.parametrize("managed", [None, "text", [], [None, 7], [{}], [{"manager": None, "time": 7}]])
def test_managed_fields_of_any_form_are_survived(managed: object) -> None:
    assert len(writers({"metadata": {"managedFields": managed}})) <= 1
    assert writers({}) == ()
