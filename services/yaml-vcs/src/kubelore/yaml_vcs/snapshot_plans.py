"""What makes a namespace hold what it held at a time: the steps, their order, and what is left to others. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from kubelore.common.contracts.rollbacks import PlanItem
from kubelore.common.errors import Invalid
from kubelore.yaml_vcs import rendering
from kubelore.yaml_vcs.restore_rules import REASONS
from kubelore.yaml_vcs.restoring import card_of, rank_of
from kubelore.yaml_vcs.reverting import Intent, Step

NAMESPACES = "namespaces"


class Planned(msgspec.Struct, kw_only=True):
    """One step with what it is about; with `left` it is left to somebody else, and says to whom."""

    intent: Intent
    left: str = ""

    @property
    def step(self) -> Step:
        """What is to be done, were it not left."""
        return self.intent.step


def plan(intents: Iterable[Intent], uids: Mapping[str, str]) -> list[Planned]:
    """The steps in their order: what others are made in or with first, deletions last and backwards.

    `uids` are the ids of the objects that the namespace holds or held, by uid:
    what one of them controls is left to it.
    """
    planned = [
        Planned(intent=intent, left=_left_to(intent, uids))
        for intent in intents
        if intent.unknown or intent.step != "none"
    ]
    return sorted(planned, key=_place)


def name_of(planned: Sequence[Planned]) -> str:
    """Names a plan: equal for the same steps over the same objects as they are now, and for nothing else."""
    told = [
        [one.intent.resource.id, one.step, one.left, _number(one.intent), one.intent.live.content_hash]
        for one in planned
    ]
    return hashlib.sha256(msgspec.msgpack.encode(told)).hexdigest()[:40]


def waves(planned: Sequence[Planned]) -> list[list[Planned]]:
    """What is done, in groups that are done one after the other."""
    found: list[list[Planned]] = []
    last: tuple[bool, int] | None = None
    for one in planned:
        if one.left:
            continue
        if (place := _place(one)[:2]) != last:
            found.append([])
            last = place
        found[-1].append(one)
    return found


def shown(one: Planned, at: str) -> PlanItem:
    """A step as it is told."""
    intent = one.intent
    names = (f"{intent.resource.id} live", f"{intent.resource.id} {at}")
    before, after = intent.live.content, intent.content
    return PlanItem(
        id=intent.resource.id,
        step="leave" if one.left or intent.step == "none" else intent.step,
        version=_number(intent),
        resource_version=intent.live.rv,
        diff_content=rendering.unified(rendering.yaml_of(before), rendering.yaml_of(after), names),
        changes=rendering.changes(before, after),
        why=one.left,
    )


def _number(intent: Intent) -> int:
    return intent.entry.number if intent.entry is not None and intent.content else 0


def _place(one: Planned) -> tuple[bool, int, str]:
    rank = rank_of(one.intent.resource.type)
    gone = one.step == "delete"
    return gone, -rank if gone else rank, one.intent.resource.id


def _left_to(intent: Intent, uids: Mapping[str, str]) -> str:
    """Who else makes or removes an object; empty where it is to be written."""
    if intent.unknown:
        return intent.unknown
    resource = intent.resource
    found: dict[str, Any] = msgspec.json.decode(intent.content or intent.live.content)
    try:
        card = card_of(0, resource.cluster, resource.type, found)
    except Invalid:
        return ""
    if card.left_out:
        return f"{card.left_out}: {REASONS[card.left_out]}"
    owner = next((uids[one.uid] for one in card.owners if one.controller and one.uid in uids), "")
    return f"made-by-controller: {owner} makes it and removes it" if owner else ""
