"""What a restore will do, decided before anything is written. Pure.

A backup's records are looked at once, each giving a small `Card`; `plan` orders
them, and says of each where it goes or why it stays out. `prepare` makes of one
object the manifest that is sent. What is known of Kubernetes for that is data
(`restore_rules`). The numbers of items are those of the records in the backup,
so that the same backup and request give the same plan on any replica.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import msgspec

from kubelore.common.contracts.identity import ResourceId, check_cluster_name, check_namespaces
from kubelore.common.contracts.restores import Existing, StartRestore
from kubelore.common.errors import BadRequest, Invalid, NotFound
from kubelore.common.kube.selectors import LabelSelector
from kubelore.yaml_vcs.restore_rules import (
    CONTROLLED,
    CUTS,
    KEPT_AS_IS,
    LEFT_OUT,
    MADE_BY_CONTROLLER,
    NAMESPACE_LABEL,
    NAMESPACE_REFERENCES,
    NAMESPACES,
    ORDER,
    OWNER_MISSING,
    SECRETS,
    SUBJECTS,
    Cut,
    LeftOut,
    Path,
)

Object: TypeAlias = dict[str, Any]
Renamed: TypeAlias = Mapping[str, str]

MAX_OWNERS = 64
MAX_DEPTH = 8
"""Of owners of owners that are waited for; those further away are made with the eighth."""
_ABSENT = object()


class Owner(msgspec.Struct, frozen=True):
    """An owner reference, as far as it is decided by."""

    uid: str
    kind: str
    controller: bool


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """What planning needs of one object of a backup."""

    number: int
    cluster: str
    type: str
    namespace: str
    name: str
    uid: str = ""
    labels: dict[str, str] = {}
    owners: tuple[Owner, ...] = ()
    left_out: str = ""
    """The rule by which it is not restored, whatever is asked for."""

    @property
    def home(self) -> str:
        """The namespace that it lies in, or is."""
        return self.name if self.type == NAMESPACES else self.namespace


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """What of a backup is restored, and to where; what is empty is everything.

    `source` is one cluster of the backup, `cluster` where all of it goes instead
    of where it came from.
    """

    source: str = ""
    cluster: str = ""
    namespaces: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    labels: str = ""
    namespace_map: dict[str, str] = {}

    @classmethod
    def of(cls, asked: StartRestore) -> Selection:
        """What a request chooses."""
        return cls(
            source=asked.source,
            cluster=asked.cluster,
            namespaces=tuple(asked.namespaces),
            types=tuple(asked.types),
            names=tuple(asked.names),
            labels=asked.labels,
            namespace_map=asked.namespace_map,
        )

    def check(self) -> None:
        """Raise BadRequest or Invalid for what can be no selection."""
        for name in filter(None, (self.source, self.cluster)):
            check_cluster_name(name)
        check_namespaces(self.namespaces)
        check_namespaces([*self.namespace_map, *self.namespace_map.values()])
        LabelSelector.parse(self.labels)
        for what, words in (("types", self.types), ("names", self.names)):
            if len(words) > 100 or any(not 0 < len(word) <= 253 for word in words):
                raise BadRequest(f"at most 100 {what} of at most 253 characters can be named")
        idle = set(self.namespace_map) - set(self.namespaces)
        if self.namespaces and idle:
            raise Invalid(
                f"{min(idle)} is renamed and not among the namespaces that are restored",
                remedy="Name it in `namespaces` too, or leave it out of `namespace_map`.",
            )
        twice = _twice(self.namespace_map.values())
        if twice:
            raise Invalid(
                f"two namespaces cannot both become {twice}", remedy="Restore them one after the other."
            )

    def chooses(self) -> Callable[[Card], bool]:
        """Whether a card is among what is restored."""
        labels = LabelSelector.parse(self.labels)

        def chosen(card: Card) -> bool:
            return (
                (not self.source or card.cluster == self.source)
                and (not self.namespaces or card.home in self.namespaces)
                and (not self.types or any(_named(card.type, word) for word in self.types))
                and (not self.names or any(fnmatch.fnmatchcase(card.name, glob) for glob in self.names))
                and labels.matches(card.labels)
            )

        return chosen


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One object of the plan: where it goes, and in which wave; with a `rule` it stays out.

    The waves are done one after the other; what is in one may be done in any order.
    """

    card: Card
    target: ResourceId
    wave: int = 0
    rule: str = ""
    clash: bool = False
    """Another object of the plan has the same place: that is a failure, not a decision."""

    @property
    def number(self) -> int:
        return self.card.number


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is to be done, in order, and the uids in the backup of owners that are waited for."""

    items: tuple[Item, ...]
    owners: frozenset[str]

    def waves(self) -> Iterator[list[Item]]:
        """What is restored, wave by wave."""
        wave: list[Item] = []
        for item in self.items:
            if item.rule:
                continue
            if wave and wave[-1].wave != item.wave:
                yield wave
                wave = []
            wave.append(item)
        if wave:
            yield wave


class Prepared(msgspec.Struct, frozen=True):
    """A manifest as it is sent, and the rules by which it differs from the one in the backup."""

    object: Object
    rules: tuple[str, ...]


def card_of(number: int, cluster: str, type_name: str, found: Object) -> Card:
    """The card of one object. Raises Invalid for what is no object with a name."""
    metadata = found.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(metadata, dict) or not isinstance(name, str) or not name:
        raise Invalid(f"record {number} of the backup holds no object")
    namespace = str(metadata.get("namespace") or "")
    rule = next((rule.rule for rule in _left_out(type_name) if _fits(rule, namespace, name, found)), "")
    references = metadata.get("ownerReferences")
    owners = references[:MAX_OWNERS] if isinstance(references, list) else []
    return Card(
        number=number,
        cluster=cluster,
        type=type_name,
        namespace=namespace,
        name=name,
        uid=str(metadata.get("uid") or ""),
        labels={
            key: value for key, value in (metadata.get("labels") or {}).items() if isinstance(value, str)
        },
        owners=tuple(_owner(one) for one in owners if isinstance(one, dict)),
        left_out=rule,
    )


def plan(cards: Sequence[Card], selection: Selection, may_read_secrets: Callable[[Card], bool]) -> Plan:
    """What is done with each chosen card, in order.

    `may_read_secrets` says whether the caller may have the values of that Secret.
    Raises Invalid where several clusters of a backup would become one, and NotFound
    for a namespace that is named and not in the backup.
    """
    _check_namespaces(cards, selection)
    chooses = selection.chooses()
    chosen = [card for card in cards if chooses(card)]
    _check_sources(chosen, selection)
    restored = {card.uid: card for card in chosen if card.uid and not card.left_out}
    places: set[ResourceId] = set()
    placed: list[tuple[tuple[int, int], Item]] = []
    for card in chosen:
        target = target_of(card, selection)
        rule = card.left_out or _stays_out(card, restored, may_read_secrets)
        clash = not rule and target in places
        places |= set() if rule else {target}
        item = Item(card=card, target=target, rule="same-place" if clash else rule, clash=clash)
        placed.append((_place(card, restored), item))
    placed.sort(key=lambda one: (one[0], one[1].number))
    return Plan(items=tuple(_numbered(placed)), owners=_owners_waited_for(chosen, restored))


def target_of(card: Card, selection: Selection) -> ResourceId:
    """Where an object goes."""
    renamed = selection.namespace_map
    is_namespace = card.type == NAMESPACES
    return ResourceId(
        cluster=selection.cluster or card.cluster,
        type=card.type,
        namespace=renamed.get(card.namespace, card.namespace),
        name=renamed.get(card.name, card.name) if is_namespace else card.name,
    )


def prepare(item: Item, found: Object, renamed: Renamed, uids: Mapping[str, str]) -> Prepared:
    """The manifest to send for one object, which is changed on the way.

    `uids` are the uids in the target of owners, by their uid in the backup; an
    owner that is not among them is dropped.
    """
    rules = cut_fields(item.card.type, found)
    rename_namespaces(item.card.type, found, renamed)
    metadata = found.setdefault("metadata", {})
    if item.target.namespace:
        metadata["namespace"] = item.target.namespace
    metadata["name"] = item.target.name
    if adopt(metadata, uids):
        rules.append(OWNER_MISSING)
    return Prepared(found, tuple(dict.fromkeys(rules)))


def cut_fields(type_name: str, found: Object, skip: frozenset[str] = frozenset()) -> list[str]:
    """Take out of an object, in place, what cannot go along; the rules that did, where they are worth telling.

    Rules named in `skip` are not followed.
    """
    cuts = (cut for cut in _cuts(type_name) if cut.rule not in skip)
    return [cut.rule for cut in cuts if _cut(found, cut) and cut.told]


def existing_of(type_name: str, asked: Existing) -> Existing:
    """What is done where the object exists; some types are never updated."""
    return "skip" if asked == "update" and type_name in KEPT_AS_IS else asked


def rename_namespaces(type_name: str, found: Object, renamed: Renamed) -> None:
    """Write every reference to a renamed namespace that is known of anew, in place."""
    if not renamed:
        return

    def name(value: Any) -> Any:
        return renamed.get(value, value) if isinstance(value, str) else value

    for paths in _references(type_name):
        for path in paths:
            _each(found, path, name)
    for types, path in SUBJECTS:
        if type_name in types:
            _each(found, path, lambda value: _renamed_subject(value, renamed))
    if type_name == NAMESPACES:
        _each(found, ("metadata", "name"), name)
        _each(found, NAMESPACE_LABEL, name)
    elif isinstance(found.get("metadata"), dict) and "namespace" in found["metadata"]:
        _each(found, ("metadata", "namespace"), name)


# planning


def _check_sources(chosen: Sequence[Card], selection: Selection) -> None:
    sources = sorted({card.cluster for card in chosen})
    if selection.cluster and len(sources) > 1:
        raise Invalid(
            f"the backup is of {', '.join(sources[:10])}, which cannot all become {selection.cluster}",
            remedy="Name one of them as source.",
        )


def _stays_out(card: Card, restored: Mapping[str, Card], may_read_secrets: Callable[[Card], bool]) -> str:
    if card.type == SECRETS and not may_read_secrets(card):
        return "secrets-right"
    kinds = next((kinds for type_name, kinds in CONTROLLED if type_name == card.type), ())
    made = any(owner.controller and owner.kind in kinds and owner.uid in restored for owner in card.owners)
    return MADE_BY_CONTROLLER if made else ""


def _place(card: Card, restored: Mapping[str, Card], left: int = MAX_DEPTH) -> tuple[int, int]:
    """The rank by type, and how many owners of that rank come before; never before an owner."""
    place = (rank_of(card.type), 0)
    if not left:
        return place
    for owner in card.owners:
        above = restored.get(owner.uid)
        if above is not None and above.uid != card.uid:
            rank, depth = _place(above, restored, left - 1)
            place = max(place, (rank, depth + 1))
    return place


def _numbered(placed: Iterable[tuple[tuple[int, int], Item]]) -> Iterator[Item]:
    wave, last = -1, None
    for place, item in placed:
        if place != last:
            wave, last = wave + 1, place
        yield msgspec.structs.replace(item, wave=wave)


def _owners_waited_for(chosen: Iterable[Card], restored: Mapping[str, Card]) -> frozenset[str]:
    return frozenset(owner.uid for card in chosen for owner in card.owners if owner.uid in restored)


@lru_cache(maxsize=4096)
def rank_of(type_name: str) -> int:
    """The place of a type in the order; what no entry names is served by a CRD."""
    custom = 0
    for rank, globs in enumerate(ORDER):
        if globs == ("*",):
            custom = rank
        elif any(fnmatch.fnmatchcase(type_name, glob) for glob in globs):
            return rank
    return custom


@lru_cache(maxsize=4096)
def _left_out(type_name: str) -> tuple[LeftOut, ...]:
    return tuple(rule for rule in LEFT_OUT if _matches(type_name, rule.types))


def _fits(rule: LeftOut, namespace: str, name: str, found: Object) -> bool:
    return (
        _matches(namespace, rule.namespaces)
        and _matches(name, rule.names)
        and all(_at(found, path) == value for path, value in rule.equal)
        and all(_at(found, path) is not _ABSENT for path in rule.present)
        and all(_at(found, path) is _ABSENT for path in rule.absent)
    )


def _owner(reference: Mapping[str, Any]) -> Owner:
    return Owner(
        str(reference.get("uid", "")), str(reference.get("kind", "")), reference.get("controller") is True
    )


def _named(type_name: str, word: str) -> bool:
    """Whether a type is meant by a word: `deployments`, `deployments.apps`, `*.example.org`."""
    return fnmatch.fnmatchcase(type_name, word) or type_name.partition(".")[0] == word


def _matches(text: str, globs: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(text, glob) for glob in globs)


def _check_namespaces(cards: Iterable[Card], selection: Selection) -> None:
    """A name that was mistyped would let what it meant stay out or, renamed, go to where it came from."""
    named = {*selection.namespaces, *selection.namespace_map}
    absent = named - {card.home for card in cards if selection.source in ("", card.cluster)}
    if absent:
        raise NotFound(
            f"the backup holds nothing of the namespace {min(absent)}",
            remedy="Look at what it holds: kubelore backup get.",
        )


def _twice(values: Iterable[str]) -> str:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return ""


# what of an object goes along


@lru_cache(maxsize=4096)
def _cuts(type_name: str) -> tuple[Cut, ...]:
    return tuple(cut for cut in CUTS if _matches(type_name, cut.types))


@lru_cache(maxsize=4096)
def _references(type_name: str) -> tuple[tuple[Path, ...], ...]:
    return tuple(paths for types, paths in NAMESPACE_REFERENCES if _matches(type_name, types))


def _cut(found: Object, cut: Cut) -> bool:
    if any(_at(found, path) is _ABSENT for path in cut.when):
        return False
    if any(_at(found, path) == value for path, value in cut.unless):
        return False
    # All of them, whatever the first had.
    dropped = [_drop(found, path, cut.keep) for path in cut.paths]
    return any(dropped)


def adopt(metadata: Object, uids: Mapping[str, str]) -> bool:
    """Give owner references the uids of their owners now; whether one was dropped."""
    references = metadata.get("ownerReferences")
    if not isinstance(references, list):
        return False
    kept = [
        {**one, "uid": uids[one["uid"]]}
        for one in references
        if isinstance(one, dict) and uids.get(one.get("uid", ""))
    ]
    if kept:
        metadata["ownerReferences"] = kept
    else:
        del metadata["ownerReferences"]
    return len(kept) < len(references)


def _renamed_subject(value: Any, renamed: Renamed) -> Any:
    if not isinstance(value, str):
        return value
    parts = value.split(":")
    if parts[:2] in (["system", "serviceaccount"], ["system", "serviceaccounts"]) and len(parts) > 2:
        parts[2] = renamed.get(parts[2], parts[2])
        return ":".join(parts)
    return value


# paths


def _at(found: Any, path: Path) -> Any:
    """What stands at a path of plain names; `_ABSENT` for nothing."""
    for name in path:
        if not isinstance(found, dict) or name not in found:
            return _ABSENT
        found = found[name]
    return _ABSENT if found is None else found


def _members(found: Any, name: str) -> list[Any]:
    """The keys or indexes in a map or list that a name of a path stands for."""
    if isinstance(found, dict):
        if "*" in name:
            return [key for key in found if fnmatch.fnmatchcase(key, name)]
        return [name] if name in found else []
    if not isinstance(found, list):
        return []
    if name == "*":
        return list(range(len(found)))
    field, _, glob = name.strip("[]").partition("=")
    return [
        index
        for index, element in enumerate(found)
        if isinstance(element, dict) and fnmatch.fnmatchcase(str(element.get(field, "")), glob)
    ]


def _each(found: Any, path: Path, change: Callable[[Any], Any]) -> None:
    name, *rest = path
    for member in _members(found, name):
        if rest:
            _each(found[member], tuple(rest), change)
        else:
            found[member] = change(found[member])


def _drop(found: Any, path: Path, keep: Sequence[Any]) -> bool:
    """Remove what stands at a path, and the maps and lists that held nothing else; whether anything did."""
    name, *rest = path
    dropped = False
    for member in reversed(_members(found, name)):
        if rest:
            inner = found[member]
            gone = _drop(inner, tuple(rest), keep)
            dropped = dropped or gone
            if gone and inner in ({}, []) and isinstance(found, dict):
                del found[member]
        elif found[member] not in keep:
            del found[member]
            dropped = True
    return dropped
