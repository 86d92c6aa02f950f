"""Which annotations are shared between objects, and which are an object's own.

A value that many objects carry (a checksum of a config, a scrape port) is kept
once with the rows that have it. A value that only one object has (its address,
its container's id) would cost more in an index than in the object's own line
of text. Keys are told apart by what was seen of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

MAX_VALUE_CHARS = 1024
"""Of each annotation this much can be searched."""
UNSEARCHED = frozenset({"kubectl.kubernetes.io/last-applied-configuration"})
"""A second copy of the whole manifest: every search would hit it, and it can be as large as the object."""
MAX_KEYS = 4096
DISTINCT_BEFORE_OWN = 64


class AnnotationKinds:
    """Learns per annotation key whether its values are shared. Bounded by MAX_KEYS keys."""

    def __init__(self) -> None:
        self._seen: dict[str, list[int]] = {}
        self._own: set[str] = set()

    def sort(
        self, annotations: Mapping[str, str], known: Callable[[str], bool]
    ) -> tuple[list[str], list[str]]:
        """The annotations of one object as lower-case `key=value`: shared ones and own ones."""
        shared: list[str] = []
        own: list[str] = []
        for key, value in annotations.items():
            if key in UNSEARCHED:
                continue
            word = f"{key}={value[:MAX_VALUE_CHARS]}".lower().replace("\n", " ")
            (own if self._is_own(key, word, known) else shared).append(word)
        return shared, own

    def _is_own(self, key: str, word: str, known: Callable[[str], bool]) -> bool:
        if key in self._own:
            return True
        seen = self._seen.get(key)
        if seen is None:
            if len(self._seen) >= MAX_KEYS:
                return True
            seen = self._seen[key] = [0, 0]
        seen[0] += 1
        if not known(word):
            seen[1] += 1
            if seen[1] > DISTINCT_BEFORE_OWN and seen[1] * 2 > seen[0]:
                self._own.add(key)
        return False
