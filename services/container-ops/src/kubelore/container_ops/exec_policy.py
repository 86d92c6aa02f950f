"""Whether somebody may do something in a container: the right `exec`, and the policies on top of it.

Everything that runs a command, opens a terminal or touches a file asks
`ExecPolicies.check_exec` first. Policies are read again after 2 s, so that one
that another replica changed holds within that; where they cannot be read,
nothing is run.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime

from kubelore.common.authz import Caller, Grant, covers
from kubelore.common.callers import current_caller
from kubelore.common.contracts.containers import ContainerId
from kubelore.common.contracts.exec_policies import (
    DeletedExecPolicy,
    ExecPolicy,
    ExecPolicyList,
    ExecPolicyRef,
    ExecRule,
    ListExecPolicies,
    PutExecPolicy,
)
from kubelore.common.contracts.identity import is_cluster_name
from kubelore.common.errors import Conflict, Forbidden, Invalid, NotFound
from kubelore.container_ops.exec_policy_repository import MAX_POLICIES, ExecPolicyRepository
from kubelore.container_ops.exec_rules import MAX_REASON, check_policy, objection

FRESH_S = 2.0


class ExecPolicies:
    """Checks what is to be done in containers, and keeps the policies."""

    def __init__(self, repository: ExecPolicyRepository) -> None:
        self._repository = repository
        self._known: list[ExecPolicy] = []
        self._read_at = float("-inf")

    async def check_exec(
        self, caller: Caller, target: ContainerId, command: Sequence[str], reason: str = ""
    ) -> None:
        """Raise NotFound, Forbidden (no right, `ExecDenied`) or Invalid (`ReasonRequired`) unless it may be done.

        `command` is what is run; a terminal's is its shell, a file operation's
        `["files:delete", path]` and the like.
        """
        caller.check_right("exec", target.cluster, target.namespace)
        if len(reason) > MAX_REASON:
            raise Invalid(f"a reason has at most {MAX_REASON} characters")
        refusal = objection(await self._policies(), caller.subject, target, command, reason)
        if refusal is not None:
            raise refusal

    async def _policies(self) -> list[ExecPolicy]:
        if time.monotonic() - self._read_at > FRESH_S:
            asked_at = time.monotonic()
            self._known = await self._repository.all()
            self._read_at = asked_at
        return self._known

    async def list(self, _: ListExecPolicies) -> ExecPolicyList:
        """The policies that the caller could change."""
        caller = current_caller()
        return ExecPolicyList([one for one in await self._repository.all() if _administers(caller, one.rule)])

    async def get(self, request: ExecPolicyRef) -> ExecPolicy:
        """One policy, for whoever could change it. Raises NotFound."""
        found = await self._repository.get(request.name)
        if not _administers(current_caller(), found.rule):
            raise NotFound(f"there is no exec policy {request.name!r}")
        return found

    async def put(self, request: PutExecPolicy) -> ExecPolicy:
        """Make or change a policy. Raises Invalid, Forbidden, AlreadyExists, NotFound, Conflict (too many)."""
        caller = current_caller()
        check_policy(request.name, request.rule)
        if not _administers(caller, request.rule):
            raise Forbidden(
                f"{caller.subject} may not say who runs commands in {', '.join(request.rule.clusters)}",
                remedy="That needs the role admin on these clusters, and the namespaces *.",
            )
        policy = ExecPolicy(
            name=request.name,
            rule=request.rule,
            updated_by=caller.subject,
            updated_at=datetime.now(UTC),
        )
        if request.create:
            if len(await self._repository.all()) >= MAX_POLICIES:
                raise Conflict(f"there are {MAX_POLICIES} exec policies", remedy="Delete one first.")
            await self._repository.add(policy)
        else:
            await self.get(ExecPolicyRef(request.name))
            await self._repository.put(policy)
        self._read_at = float("-inf")
        return policy

    async def delete(self, request: ExecPolicyRef) -> DeletedExecPolicy:
        """Remove a policy. Raises NotFound."""
        await self.get(request)
        await self._repository.delete(request.name)
        self._read_at = float("-inf")
        return DeletedExecPolicy(request.name)


def _administers(caller: Caller, rule: ExecRule) -> bool:
    """Whether somebody is admin of every cluster that the globs of a rule may mean."""
    return all(
        caller.namespaces(glob, "admin").everything
        if is_cluster_name(glob)
        else covers(caller.grants, Grant(role="admin", clusters=(glob,)))
        for glob in rule.clusters
    )
