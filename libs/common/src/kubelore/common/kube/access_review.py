"""What credentials may do in a cluster, as its own API server says.

For a whole cluster it is asked verb by verb (SelfSubjectAccessReview), since
that alone knows what an authorizer other than RBAC allows; for credentials that
reach some namespaces only, one SelfSubjectRulesReview per namespace tells all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import msgspec

from kubelore.common.errors import UpstreamError
from kubelore.common.kube.discovery import discover
from kubelore.common.kube.resource_type import ResourceType
from kubelore.common.kube.transport import Transport

VERBS = ("get", "list", "watch", "create", "patch", "delete")
MAIN_TYPES = (
    "pods",
    "services",
    "configmaps",
    "secrets",
    "persistentvolumeclaims",
    "events",
    "namespaces",
    "nodes",
    "deployments.apps",
    "statefulsets.apps",
    "daemonsets.apps",
    "jobs.batch",
    "cronjobs.batch",
    "ingresses.networking.k8s.io",
)
"""Types whose verbs are told one by one, where not everything is allowed."""
EVERYTHING = "*"
CONCURRENT_REVIEWS = 32
REVIEW_TIMEOUT_S = 5.0

Answer = TypeVar("Answer")


class Rights(msgspec.Struct, kw_only=True):
    """What may be done.

    `verbs` maps types to the verbs allowed on them: `*` alone where all six are
    allowed on everything. `readable` of the `total` observable types may be
    listed and watched; the others are `skipped`. `incomplete`: the API server
    could not name all that it allows.
    """

    verbs: dict[str, list[str]]
    skipped: list[str]
    readable: int
    total: int
    incomplete: bool = False


class _Allowed(msgspec.Struct):
    allowed: bool = False


class _AccessReview(msgspec.Struct):
    status: _Allowed


class Rule(msgspec.Struct, rename="camel"):
    """One rule of a SelfSubjectRulesReview."""

    verbs: list[str] = []
    api_groups: list[str] | None = None
    resources: list[str] | None = None
    resource_names: list[str] | None = None

    def allows(self, verb: str, group: str, plural: str) -> bool:
        """Whether it allows a verb on every object of a type."""
        return (
            not self.resource_names
            and _names(self.verbs, verb)
            and _names(self.api_groups or (), group)
            and _names(self.resources or (), plural)
        )


class _Rules(msgspec.Struct, rename="camel"):
    resource_rules: list[Rule] = []
    incomplete: bool = False


class _RulesReview(msgspec.Struct):
    status: _Rules


def _names(of: Iterable[str], wanted: str) -> bool:
    return any(each in (wanted, EVERYTHING) for each in of)


async def post_review(
    transport: Transport, group: str, plural: str, kind: str, spec: Mapping[str, object], answer: type[Answer]
) -> Answer:
    """Ask one review of an API group's v1; raises UpstreamError for an answer that is none."""
    body = {"apiVersion": f"{group}/v1", "kind": kind} | ({"spec": spec} if spec else {})
    reply = await transport.request(
        "POST",
        f"/apis/{group}/v1/{plural}",
        body=msgspec.json.encode(body),
        content_type="application/json",
        timeout_s=REVIEW_TIMEOUT_S,
    )
    try:
        return msgspec.json.decode(reply.body, type=answer)
    except msgspec.MsgspecError as error:
        raise UpstreamError(
            "the answer is not what an API server sends",
            remedy="check that the address in the kubeconfig is an API server's",
        ) from error


async def review_rights(transport: Transport, namespaces: Sequence[str] = ()) -> Rights:
    """Ask what may be done in the whole cluster, or in all of some namespaces.

    Without discovery where everything is allowed.
    """
    if namespaces:
        return await _in_namespaces(transport, namespaces)
    asking = _Asking(transport)
    everything = ResourceType(group="*", version="*", plural="*", kind="", namespaced=False)
    allowed = await asking.verbs(everything)
    if len(allowed) == len(VERBS):
        return Rights(verbs={EVERYTHING: allowed}, skipped=[], readable=0, total=0)
    types = await _observable(transport)
    readable = await asyncio.gather(*(asking.readable(each) for each in types))
    main = [each for each in types if each.name in MAIN_TYPES]
    verbs = await asyncio.gather(*(asking.verbs(each) for each in main))
    named = {each.name: found for each, found in zip(main, verbs, strict=True)}
    return _rights(named, types, dict(zip(types, readable, strict=True)))


class _Asking:
    """Reviews of one transport, each question once, a bounded number at a time."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._room = asyncio.Semaphore(CONCURRENT_REVIEWS)
        self._known: dict[tuple[str, str, str], bool] = {}

    async def verbs(self, of: ResourceType) -> list[str]:
        """Which of the verbs are allowed."""
        answers = await asyncio.gather(*(self._may(verb, of) for verb in VERBS))
        return [verb for verb, may in zip(VERBS, answers, strict=True) if may]

    async def readable(self, of: ResourceType) -> bool:
        """Whether it can be held up to date."""
        return await self._may("list", of) and await self._may("watch", of)

    async def _may(self, verb: str, of: ResourceType) -> bool:
        key = (verb, of.group, of.plural)
        if key not in self._known:
            spec = {"resourceAttributes": {"group": of.group, "resource": of.plural, "verb": verb}}
            group, plural, kind = (
                "authorization.k8s.io",
                "selfsubjectaccessreviews",
                "SelfSubjectAccessReview",
            )
            async with self._room:
                review = await post_review(self._transport, group, plural, kind, spec, _AccessReview)
            self._known[key] = review.status.allowed
        return self._known[key]


async def _in_namespaces(transport: Transport, namespaces: Sequence[str]) -> Rights:
    types = await _observable(transport)
    room = asyncio.Semaphore(CONCURRENT_REVIEWS)

    async def rules_of(namespace: str) -> _Rules:
        group, plural, kind = "authorization.k8s.io", "selfsubjectrulesreviews", "SelfSubjectRulesReview"
        async with room:
            spec = {"namespace": namespace}
            return (await post_review(transport, group, plural, kind, spec, _RulesReview)).status

    rules = await asyncio.gather(*(rules_of(namespace) for namespace in namespaces))
    given = [each.resource_rules for each in rules]
    verbs = {each: allowed_verbs(each, given) if each.namespaced else [] for each in types}
    readable = {each: {"list", "watch"} <= set(found) for each, found in verbs.items()}
    named = {each.name: found for each, found in verbs.items() if each.namespaced and each.name in MAIN_TYPES}
    return _rights(named, types, readable, incomplete=any(each.incomplete for each in rules))


def allowed_verbs(of: ResourceType, namespaces: Iterable[Iterable[Rule]]) -> list[str]:
    """The verbs that the rules of every one of the namespaces allow on a type."""
    held = [list(rules) for rules in namespaces]
    return [
        verb
        for verb in VERBS
        if all(any(rule.allows(verb, of.group, of.plural) for rule in rules) for rules in held)
    ]


async def _observable(transport: Transport) -> list[ResourceType]:
    return [each for each in (await discover(transport)).types if each.observable]


def _rights(
    verbs: dict[str, list[str]],
    types: list[ResourceType],
    readable: Mapping[ResourceType, bool],
    *,
    incomplete: bool = False,
) -> Rights:
    return Rights(
        verbs={name: verbs[name] for name in MAIN_TYPES if name in verbs},
        skipped=sorted(each.name for each in types if not readable[each]),
        readable=sum(readable.values()),
        total=len(types),
        incomplete=incomplete,
    )
