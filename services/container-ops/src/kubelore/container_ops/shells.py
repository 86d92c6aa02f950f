"""Which command a terminal without a named one runs, and what it means that it cannot be run. Pure."""

from __future__ import annotations

from kubelore.common.errors import Invalid, KubeloreError

_CHOOSE = "command -v bash >/dev/null 2>&1 && exec bash; exec sh"
SHELL = ["sh", "-c", _CHOOSE]
"""bash where there is one, else sh: one command, so that it costs no second connection."""
DEBUG_SHELL = ["sh", "-c", "cd /proc/1/root 2>/dev/null; exec sh"]
"""In a debug container, beginning in the files of the container that it is beside."""
ASKED_FOR = (["bash"], ["sh"])
"""What a policy is asked about when nothing says which of them it will be."""

_MISSING = ("executable file not found", "no such file or directory", "not found")


def explained(error: KubeloreError, command: list[str]) -> KubeloreError:
    """The error of a command that could not be run, in plain words when that was because there is no shell."""
    said = error.detail.lower()
    if command != SHELL or "sh" not in said or not any(words in said for words in _MISSING):
        return error
    return Invalid(
        "the container's image has neither bash nor sh",
        remedy="Open it with `debug` (`kubelore exec -it --debug`): that adds an ephemeral container with a shell "
        "beside it, which stays in the pod's spec; or name a command that the image has.",
        code="NoShell",
    )
