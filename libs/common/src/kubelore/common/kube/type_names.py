"""Which resource types a person means: every form that kubectl accepts, over several clusters.

`pods`, `pod`, `Pod`, `po`, `deploy.apps`, `deployments.v1.apps`, a prefix of
the group, a category (`all`), several with commas. Where a name fits types of
several groups, one is taken as kubectl takes it: the core group first, then
Kubernetes' own groups, then others. Discovery's own order within Kubernetes'
groups is not kept (no two of them share a name, but for `events`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from kubelore.common.errors import BadRequest
from kubelore.common.kube.resource_type import ResourceType

_OBSERVED_AS = {"events.events.k8s.io": "events"}
"""A type's second group, under which it is not observed again (it has the storage of the first)."""
_BUILT_IN = ("apps", "batch", "autoscaling", "policy", "extensions")


def resolve(written: Iterable[str], served: Iterable[Mapping[str, ResourceType]]) -> set[str]:
    """Names of the types meant, over the types that each cluster serves.

    A type that only some of the clusters serve is fine. Raises BadRequest for
    one that none serves, with what was probably meant; `unknown_type` in its
    `extra` is set, since another replica's clusters may serve it.
    """
    clusters = list(served)
    found: set[str] = set()
    for text in (part.strip() for some in written for part in some.split(",")):
        if not text:
            continue
        if not any(text in types for types in clusters):
            text = _OBSERVED_AS.get(text, text)
        # The canonical name first: looking it up costs nothing, understanding another form walks every type.
        meant = {
            name
            for types in clusters
            for name in ((text,) if text in types else _resolve_one(text, types.values()))
        }
        if not meant and any(clusters):
            raise _unknown(text, clusters)
        found |= meant
    return found


def one_type(written: str, served: Mapping[str, ResourceType]) -> ResourceType:
    """The one type that is meant. Raises BadRequest for a name of none, or of several."""
    names = sorted(resolve([written], [served]))
    if len(names) != 1:
        raise BadRequest(f"{written[:100]!r} names no single type")
    return served[names[0]]


def _resolve_one(text: str, types: Iterable[ResourceType]) -> list[str]:
    word, _, rest = text.partition(".")
    word = word.lower()
    types = list(types)
    named = [found for found in types if _is_named(found, word)]
    for narrowed in _narrowings(rest.lower(), named):
        if narrowed:
            return [min(narrowed, key=_preference).name]
    return [] if rest else [found.name for found in types if word in found.categories]


def _is_named(found: ResourceType, word: str) -> bool:
    return word in (found.plural, found.singular, found.kind.lower()) or word in found.short_names


def _narrowings(rest: str, named: list[ResourceType]) -> Iterable[list[ResourceType]]:
    """What a suffix can mean, in the order kubectl tries: version and group, group, prefix of a group."""
    if not rest:
        yield named
        return
    version, _, group = rest.partition(".")
    yield [found for found in named if found.version == version and found.group == group]
    yield [found for found in named if found.group == rest]
    yield [found for found in named if found.group.startswith(rest)]


def _preference(found: ResourceType) -> tuple[int, str]:
    if not found.group:
        return (0, "")
    built_in = found.group in _BUILT_IN or found.group.endswith(".k8s.io")
    return (1 if built_in else 2, found.group)


def _unknown(text: str, clusters: Iterable[Mapping[str, ResourceType]]) -> BadRequest:
    words: dict[str, str] = {}
    for types in clusters:
        for found in types.values():
            for word in (found.name, found.plural, found.singular, *found.short_names):
                words.setdefault(word, found.name)
    close = get_close_matches(text.lower(), words, n=3, cutoff=0.6)
    meant = list(dict.fromkeys(words[word] for word in close))
    remedy = (
        f"Did you mean {' or '.join(meant)}?"
        if meant
        else "`kubelore api-resources` lists the types that the clusters serve."
    )
    shown = text[:253]
    return BadRequest(
        f'the server doesn\'t have a resource type "{shown}"', remedy=remedy, unknown_type=shown
    )
