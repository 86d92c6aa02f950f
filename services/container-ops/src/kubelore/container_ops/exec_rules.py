"""Which policy stands against a command. Pure.

A denied command is a guard rail, not a wall: who may open a shell may type what
they like in it, and a program can be copied under another name. A policy
without commands denies everything, and that is a wall.
"""

from __future__ import annotations

import fnmatch
import posixpath
import re
import shlex
from collections.abc import Iterable, Sequence

from kubelore.common.contracts.containers import ContainerId
from kubelore.common.contracts.exec_policies import ExecPolicy, ExecRule
from kubelore.common.errors import Forbidden, Invalid, KubeloreError

MAX_GLOBS = 100
MAX_GLOB = 253
MAX_MESSAGE = 500
MAX_REASON = 1000
_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?\Z")


def objection(
    policies: Iterable[ExecPolicy], subject: str, target: ContainerId, command: Sequence[str], reason: str
) -> KubeloreError | None:
    """Why a command may not be run by the policies; a denial goes before a missing reason."""
    about = [one for one in policies if applies(one.rule, subject, target, command)]
    for policy in about:
        if policy.rule.effect == "deny":
            return Forbidden(
                policy.rule.message or f"the policy {policy.name} denies this in {_place(target)}",
                remedy=f"Ask an administrator of {target.cluster} about the exec policy {policy.name}.",
                code="ExecDenied",
                policy=policy.name,
            )
    if about and not reason.strip():
        return Invalid(
            about[0].rule.message or f"the policy {about[0].name} asks for a reason in {_place(target)}",
            remedy="Say why with `reason` (--reason on the command line).",
            code="ReasonRequired",
            policy=about[0].name,
        )
    return None


def applies(rule: ExecRule, subject: str, target: ContainerId, command: Sequence[str]) -> bool:
    """Whether a rule is about this command of this subject in this container."""
    return (
        _any(rule.clusters, target.cluster)
        and _any(rule.namespaces, target.namespace)
        and _any(rule.subjects, subject)
        and not _any(rule.exempt, subject)
        and (not rule.commands or _command_matches(rule.commands, command))
    )


def check_policy(name: str, rule: ExecRule) -> None:
    """Raise Invalid for a policy that cannot be one."""
    if not _NAME.match(name):
        raise Invalid(
            f"{name[:80]!r} is no name of a policy", remedy="Use lower-case letters, digits and '-'."
        )
    for what in ("clusters", "namespaces", "subjects", "exempt", "commands"):
        globs: tuple[str, ...] = getattr(rule, what)
        if len(globs) > MAX_GLOBS or any(not 0 < len(glob) <= MAX_GLOB for glob in globs):
            raise Invalid(f"a policy has at most {MAX_GLOBS} {what}, each of 1 to {MAX_GLOB} characters")
        if not globs and what in ("clusters", "namespaces", "subjects"):
            raise Invalid(f"a policy without {what} is about nothing", remedy="Write * for all.")
    if len(rule.message) > MAX_MESSAGE:
        raise Invalid(f"a policy's message has at most {MAX_MESSAGE} characters")


def _command_matches(globs: Sequence[str], command: Sequence[str]) -> bool:
    if not command:
        return False
    return _any(globs, shlex.join(command)) or _any(globs, posixpath.basename(command[0]))


def _any(globs: Iterable[str], text: str) -> bool:
    return any(fnmatch.fnmatchcase(text, glob) for glob in globs)


def _place(target: ContainerId) -> str:
    return f"{target.cluster}/{target.namespace}"
