"""The values of Secrets: sealed where they were observed, opened here, and only for whom may know them.

A version of a Secret holds a keyed hash per key; the values lie beside it in the
box that the observer sealed to the keyring `versions`, bound to the cluster, the
uid and the resourceVersion of that very version. Asked for over the bus they
leave this process sealed to the gateway, which alone may ask.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import msgspec

from kubelore.common.callers import current_caller
from kubelore.common.contracts.keeping import RevealedValues, RevealValues, reveal_context
from kubelore.common.crypto import Keyring, Recipient
from kubelore.common.errors import BadRequest, Gone, IntegrityError, NotFound
from kubelore.common.kube.secrets import secret_context
from kubelore.common.telemetry import get_logger
from kubelore.yaml_vcs.histories import Histories, redacted
from kubelore.yaml_vcs.history import GONE, Entry
from kubelore.yaml_vcs.normalising import HMACS, SECRETS
from kubelore.yaml_vcs.repository import Resource, Revealed, VersionRepository

log = get_logger(__name__)

MAX_KEYS = 1000
MAX_REASON = 1000


class SecretValues:
    """Opens what versions of Secrets have sealed beside them."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def values_of(self, resource: Resource, entry: Entry) -> dict[str, bytes]:
        """The values of a version, by key; none for a deleted one.

        Raises BadRequest for what is no Secret, Gone for a version that was
        redacted, NotFound for one that was taken without its values, and
        IntegrityError when they are not those of this version, or another keyring's.
        """
        if resource.type != SECRETS:
            raise BadRequest(f"{resource.id} is no Secret", remedy="Read the version: it hides nothing.")
        if entry.redaction is not None:
            raise redacted(resource.id, entry)
        if entry.kind in GONE:
            return {}
        if not entry.sealed:
            raise NotFound(
                f"version {entry.number} of {resource.id} has no values: it has none, or was taken without them",
                remedy="A later version may have them; `kubelore history` shows which there are.",
            )
        context = secret_context(resource.cluster, entry.uid, entry.rv)
        opened = self._keyring.open_box(entry.sealed, context=context)
        try:
            return msgspec.msgpack.decode(opened, type=dict[str, bytes])
        except msgspec.MsgspecError:
            # Not chained: the message may quote what it could not decode.
            raise IntegrityError(f"the values of version {entry.number} cannot be read") from None


class Revealing:
    """Answers with values, for callers who have the right `secrets` where the Secret is."""

    def __init__(
        self,
        repository: VersionRepository,
        histories: Histories,
        values: SecretValues,
        gateway: Recipient,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._repository = repository
        self._clock = clock
        self._histories = histories
        self._values = values
        self._gateway = gateway

    async def reveal(self, request: RevealValues) -> RevealedValues:
        """Values of one version, sealed to the gateway. Raises Forbidden and what `values_of` raises."""
        resource = await self._histories.readable(request.id)
        caller = current_caller()
        caller.check_right("secrets", resource.cluster, resource.namespace)
        entry = await self._histories.entry(request.id, request.version)
        values = self._values.values_of(resource, entry)
        await self._check(resource, entry, values)
        chosen = _chosen(values, request.keys, entry)
        said = Revealed(
            id=request.nonce,
            resource=resource.id,
            version=entry.number,
            keys=sorted(chosen),
            by=caller.subject,
            at=self._clock(),
            reason=request.reason[:MAX_REASON],
        )
        await self._repository.note_revealed(said)
        log.info("values revealed", subject=caller.subject, id=resource.id, version=entry.number)
        context = reveal_context(request.nonce, request.id, entry.number)
        sealed = self._gateway.seal(msgspec.msgpack.encode(chosen), context=context)
        return RevealedValues(id=request.id, version=entry.number, sealed=sealed)

    async def _check(self, resource: Resource, entry: Entry, values: dict[str, bytes]) -> None:
        """Raise IntegrityError when the values are of other keys than the version names."""
        if entry.kind in GONE:
            raise Gone(
                f"version {entry.number} of {resource.id} says that it was deleted",
                remedy="Take the version before it.",
            )
        content = msgspec.json.decode(await self._histories.content(entry, resource.id))
        if set(content.get(HMACS, ())) != set(values):
            raise IntegrityError(f"the values of version {entry.number} are not those of its keys")


def _chosen(values: dict[str, bytes], keys: Sequence[str], entry: Entry) -> dict[str, bytes]:
    if len(keys) > MAX_KEYS:
        raise BadRequest(f"{len(keys)} keys are asked for; at most {MAX_KEYS} at once")
    if missing := [key for key in keys if key not in values]:
        raise NotFound(f"version {entry.number} has no key {missing[0][:253]!r}")
    return {key: values[key] for key in keys} if keys else values
