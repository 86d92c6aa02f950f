"""Carries out one write: authorized, recorded before the effect, sent once, told afterwards.

Any replica does so for any cluster; a lease is not needed, since the API server
orders what is written to it. What was done is published by whoever observes the
cluster, from the record that is left here (`outbox`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgspec

from kubelore.common.callers import current_caller
from kubelore.common.contracts.identity import ResourceId
from kubelore.common.contracts.writes import (
    Action,
    Apply,
    Delete,
    Label,
    OperationRecord,
    OperationRecords,
    OperationRef,
    Patch,
    Replace,
    Restart,
    Result,
    Scale,
    Write,
    Written,
)
from kubelore.common.crypto import Keyring
from kubelore.common.errors import BadRequest, Conflict, Forbidden, KubeloreError, NotFound, UpstreamError
from kubelore.common.kube import ResourceType
from kubelore.common.kube.secrets import strip_secret
from kubelore.common.kube.type_names import one_type
from kubelore.common.operations import current_operation
from kubelore.common.reach import Reach, Reached
from kubelore.common.telemetry import get_logger
from kubelore.resource_ops.replacing import REPLACE_TRIES, Replacement, check_there, goes_over, refused
from kubelore.resource_ops.repository import Due, Operation, OperationRepository
from kubelore.resource_ops.write_outcomes import Object, hidden_changes, told, with_owners, without_quotes
from kubelore.resource_ops.write_plans import (
    SECRETS,
    check_words,
    opened,
    read_manifest,
    sending,
    target_of,
    type_of_manifest,
    writable,
)

log = get_logger(__name__)

CONCLUDE_TRIES = 3
_CONCLUDE_PAUSE_S = 0.5
_ACTIONS: dict[type, Action] = {
    Apply: "apply",
    Patch: "patch",
    Delete: "delete",
    Scale: "scale",
    Restart: "restart",
    Label: "label",
    Replace: "replace",
}


@dataclass(frozen=True, slots=True)
class State:
    """An object as it was read, Secrets without their values."""

    object: Object
    hmacs: dict[str, bytes] | None = None

    @property
    def metadata(self) -> dict[str, Any]:
        return self.object.get("metadata") or {}


@dataclass(frozen=True, slots=True)
class _Work:
    """One write, the key it is recorded under, and what it is about."""

    key: str
    write: Write
    id: ResourceId
    type: ResourceType
    reached: Reached
    replacement: Replacement | None = None

    @property
    def namespace(self) -> str | None:
        return self.id.namespace or None


class Writer:
    """The write endpoints. `hurry` is told when there is something to publish; `clock` tells the time in UTC."""

    def __init__(
        self,
        reach: Reach,
        repository: OperationRepository,
        keyring: Keyring,
        *,
        replica: str,
        hurry: Callable[[], None],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._reach = reach
        self._repository = repository
        self._keyring = keyring
        self._replica = replica
        self._hurry = hurry
        self._clock = clock

    async def carry_out(self, write: Write) -> Written:
        """Do it, once; what it did.

        Raises Forbidden and NotFound for what is not the caller's to change, Conflict
        for one that was carried out before, and what the API server refuses. An error
        whose `outcome` is `unknown` leaves open whether it happened; every error names
        its `operation`.
        """
        key = f"{_operation()}.{write.item}"
        try:
            check_words(write)
            cluster = write.cluster if isinstance(write, Apply) else ResourceId.parse(write.id).cluster
            current_caller().check_cluster(cluster)
            async with self._reach.using(cluster) as reached:
                work = await self._work(key, write, cluster, reached)
                return await self._carry_out(work)
        except KubeloreError as error:
            error.extra.setdefault("operation", key)
            raise

    async def operations(self, request: OperationRef) -> OperationRecords:
        """What became of an operation: of its writes those that the caller made, or whose objects they may read."""
        caller = current_caller()
        found = [
            operation
            for operation in await self._repository.of(request.id)
            if caller.sees(operation.cluster)
            and (operation.actor == caller.subject or _may_read(ResourceId.parse(operation.id)))
        ]
        if not found:
            raise NotFound(f"there is no operation {request.id}", remedy="They are kept for 30 days.")
        return OperationRecords([_record(operation) for operation in found])

    async def _work(self, key: str, write: Write, cluster: str, reached: Reached) -> _Work:
        """Find out what the write is about, and that the caller may change it."""
        if isinstance(write, Apply):
            # Reading a large manifest takes half a second, which the other requests need not wait for.
            target = target_of(await asyncio.to_thread(read_manifest, write))
            found = await reached.find(lambda types: type_of_manifest(target, types.values()))
            home = (target.namespace or write.namespace) if found.namespaced else ""
            name = target.name
        else:
            wanted = ResourceId.parse(write.id)
            found = await reached.find(lambda types: one_type(wanted.type, types))
            home, name = wanted.namespace, wanted.name
        identity = writable(ResourceId(cluster, found.name, home, name), found)
        current_caller().check_write(cluster, found.name, home)
        if not isinstance(write, Replace):
            return _Work(key, write, identity, found, reached)
        replacement = opened(write, identity, found, self._keyring)
        return _Work(key, write, identity, replacement.type, reached, replacement)

    async def _carry_out(self, work: _Work) -> Written:
        before = await self._read(work)
        if isinstance(work.write, Replace):
            check_there(work.write, work.id, before.metadata if before else None)
        elif before is None and not isinstance(work.write, Apply):
            raise NotFound(f"there is no {work.id}")
        send = self._sending(work, before)
        if not work.write.dry_run:
            await self._repository.intend(self._intent(work, before))
        try:
            before, after = await self._sent(work, before, send)
        except KubeloreError as error:
            await self._conclude_failure(work, error)
            raise _explained(work, before, error) from error
        written = _written(work, before, after)
        if not work.write.dry_run:
            await self._conclude(work, written)
        return written

    async def _read(self, work: _Work) -> State | None:
        try:
            raw = await work.reached.client.get(work.type, work.namespace, work.id.name)
        except NotFound:
            return None
        except Forbidden as error:
            raise Forbidden(
                f"Kubelore's credentials may not read {work.id}, so it does not change it",
                remedy="Bind a role that allows get to the user of the cluster's kubeconfig.",
            ) from error
        return self._admitted(work, raw)

    def _admitted(self, work: _Work, raw: bytes) -> State:
        """The object without the values of a Secret, before anything else sees it."""
        if work.id.type != SECRETS:
            return State(_decoded(raw))
        # Which keys changed is shown, so the values need not go anywhere, not even sealed.
        stripped = strip_secret(raw, cluster=work.id.cluster, hmac=self._keyring.hmac)
        return State(_decoded(stripped.object), stripped.hmacs)

    def _sending(self, work: _Work, before: State | None) -> Callable[[], Any]:
        """What to do to send it, everything that can be refused here behind us."""
        write, client = work.write, work.reached.client
        if isinstance(write, Delete):
            return lambda: self._delete(work, write)
        if work.replacement is not None:
            return partial(self._replace, work, work.replacement, before)
        sent = sending(write, work.type, before.object if before else None, self._clock())

        async def send() -> State:
            if isinstance(write, Apply):
                raw = await client.apply(
                    work.type,
                    work.namespace,
                    work.id.name,
                    sent.body,
                    force=write.force,
                    dry_run=write.dry_run,
                )
            else:
                raw = await client.patch(
                    work.type,
                    work.namespace,
                    work.id.name,
                    sent.body,
                    sent.content_type,
                    dry_run=write.dry_run,
                    subresource=sent.subresource,
                )
            return _scaled(before, _decoded(raw)) if sent.subresource else self._admitted(work, raw)

        return send

    async def _sent(
        self, work: _Work, before: State | None, send: Callable[[], Any]
    ) -> tuple[State | None, State | None]:
        """The object as it was when the write met it, and as it is after.

        Controllers write the status of an object all the time. A replacement that is
        meant for whatever is there is refused then, for certain, and goes over what
        is there now.
        """
        for _ in range(REPLACE_TRIES - 1):
            try:
                return before, await send()
            except Conflict as error:
                if not (isinstance(work.write, Replace) and goes_over(work.write, error)):
                    raise
            before = await self._read(work)
            check_there(work.write, work.id, before.metadata if before else None)
            send = self._sending(work, before)
        return before, await send()

    async def _replace(self, work: _Work, replacement: Replacement, before: State | None) -> State:
        client, dry_run = work.reached.client, work.write.dry_run
        if before is None:
            raw = await client.create(work.type, work.namespace, replacement.body(), dry_run=dry_run)
        else:
            rv = work.write.rv or before.metadata.get("resourceVersion", "")
            body = replacement.body(uid=work.write.uid, rv=rv)
            raw = await client.replace(work.type, work.namespace, work.id.name, body, dry_run=dry_run)
        return self._admitted(work, raw)

    async def _delete(self, work: _Work, write: Delete) -> State | None:
        """The object as it ends, None when it is gone."""
        raw = await work.reached.client.delete(
            work.type,
            work.namespace,
            work.id.name,
            uid=write.uid or None,
            rv=write.rv or None,
            propagation=write.propagation,
            grace_period_s=write.grace_period_s,
            dry_run=write.dry_run,
        )
        state = self._admitted(work, raw)
        ending = state.object.get("kind") == work.type.kind and state.metadata.get("deletionTimestamp")
        return state if ending else None

    def _intent(self, work: _Work, before: State | None) -> Operation:
        write, metadata = work.write, before.metadata if before else {}
        return Operation(
            key=work.key,
            operation=current_operation(),
            cluster=work.id.cluster,
            id=str(work.id),
            type=work.id.type,
            action=_ACTIONS[type(write)],
            actor=current_caller().subject,
            reason=write.reason,
            change_log=write.change_log,
            at=self._clock(),
            replica=self._replica,
            uid=metadata.get("uid", ""),
            rv_before=metadata.get("resourceVersion", ""),
        )

    async def _conclude(self, work: _Work, written: Written) -> None:
        # An object that stayed as it was has no version of this write: whoever made it did.
        due: Due = "" if written.result == "unchanged" else "publish"
        await self._write_down(
            work,
            lambda: self._repository.conclude(
                work.key, "done", due=due, uid=written.uid, rv=written.rv, result=written.result
            ),
        )
        self._hurry()

    async def _conclude_failure(self, work: _Work, error: KubeloreError) -> None:
        if work.write.dry_run:
            return
        unknown = error.extra.get("outcome") == "unknown"
        await self._write_down(
            work,
            lambda: self._repository.conclude(
                work.key,
                "unknown" if unknown else "failed",
                due="resolve" if unknown else "",
                error=error.reason,
            ),
        )

    async def _write_down(self, work: _Work, conclude: Callable[[], Any]) -> None:
        """Record an outcome. When that fails, it is found out from the cluster later, and the answer stands."""
        for attempt in range(CONCLUDE_TRIES):
            try:
                await conclude()
                return
            except KubeloreError as error:
                log.warning("outcome not recorded", operation=work.key, detail=error.detail)
                if attempt + 1 < CONCLUDE_TRIES:
                    await asyncio.sleep(_CONCLUDE_PAUSE_S)


def _explained(work: _Work, before: State | None, error: KubeloreError) -> KubeloreError:
    """An API server's refusal with what a person needs to know, and without what nobody may."""
    live = before.object if before else None
    if work.replacement is not None:
        rv = work.write.rv or (before.metadata.get("resourceVersion", "") if before else "")
        return refused(error, work.id, rv=rv, live=live, replacement=work.replacement)
    raised = without_quotes(error) if work.id.type == SECRETS else error
    return with_owners(raised, live)


def _written(work: _Work, before: State | None, after: State | None) -> Written:
    rv_before = before.metadata.get("resourceVersion", "") if before else ""
    uid = (after or before or State({})).metadata.get("uid", "")
    rv = after.metadata.get("resourceVersion", "") if after else ""
    result: Result
    if isinstance(work.write, Delete):
        shown, result = told({}, {}), "deleted"
    else:
        hidden = hidden_changes(before.hmacs if before else None, after.hmacs if after else None)
        shown = told(before.object if before else None, after.object if after else None, hidden)
        changed = bool(shown.changes) if work.write.dry_run else rv != rv_before
        result = "created" if before is None else "changed" if changed else "unchanged"
    return Written(
        operation=work.key,
        id=str(work.id),
        uid=uid,
        rv=rv,
        result=result,
        changes=shown.changes,
        more=shown.more,
        dry_run=work.write.dry_run,
    )


def _scaled(before: State | None, scale: Object) -> State:
    """The object as it is after its Scale was changed."""
    was = before.object if before else {}
    now = scale.get("metadata") or {}
    changed = {field: now[field] for field in ("uid", "resourceVersion") if field in now}
    replicas = (scale.get("spec") or {}).get("replicas", 0)
    spec = {**(was.get("spec") or {}), "replicas": replicas}
    return State({**was, "metadata": {**(was.get("metadata") or {}), **changed}, "spec": spec})


def _decoded(raw: bytes) -> Object:
    try:
        return msgspec.json.decode(raw, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError):
        # Not chained: the decoder's message may quote what it could not decode.
        raise UpstreamError("the API server answered with no object that can be read") from None


def _operation() -> str:
    operation = current_operation()
    if not operation:
        raise BadRequest("a write belongs to an operation", remedy="Ask through the gateway.")
    return operation


def _may_read(identity: ResourceId) -> bool:
    return current_caller().may_read(identity.cluster, identity.type, identity.namespace, identity.name)


def _record(operation: Operation) -> OperationRecord:
    return OperationRecord(
        operation=operation.key,
        id=operation.id,
        action=operation.action,
        actor=operation.actor,
        at=operation.at.timestamp(),
        state=operation.state,
        reason=operation.reason,
        change_log=operation.change_log,
        uid=operation.uid,
        rv=operation.rv,
        result=operation.result,
        error=operation.error,
    )
