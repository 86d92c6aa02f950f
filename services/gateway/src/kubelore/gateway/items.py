"""The objects of an answer, as they came: raw JSON, or packed with what unpacks them.

They are unpacked piece by piece while the answer is sent, so that 10,000
objects never lie in memory whole, and other requests come in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

from kubelore.common.contracts.resources import Packed, View
from kubelore.common.errors import IntegrityError, TooLarge
from kubelore.common.frames import Buffer, Unpacker, partial_size, whole_size

MAX_BYTES = 128 * 1024 * 1024
"""No answer may be larger unpacked; what travels on the bus has the same limit, packed."""


class Unpacked:
    """The packed objects of one reply, with what unpacks each.

    Raises IntegrityError when they are not `count`, or do not fill the reply.
    """

    def __init__(self, packed: Packed, unpackers: Sequence[Unpacker], count: int) -> None:
        frames = memoryview(packed.frames)
        ends = list(accumulate(packed.lengths, initial=0))
        if not len(packed.lengths) == len(packed.uses) == count or ends[-1] != len(frames):
            raise IntegrityError("packed objects do not fill their reply")
        if packed.uses and not max(packed.uses) < len(unpackers):
            raise IntegrityError("a packed object names no dictionary of its reply")
        self.frames = [frames[start:end] for start, end in pairwise(ends)]
        self.unpackers = [unpackers[place] for place in packed.uses]


@dataclass(slots=True)
class Items:
    """Ids and objects in the order of the answer; `unpackers` is None for what is raw JSON already."""

    view: View
    ids: list[str] = field(default_factory=list)
    bodies: list[Buffer] = field(default_factory=list)
    unpackers: list[Unpacker | None] = field(default_factory=list)

    def add(self, id: str, body: Buffer, unpacker: Unpacker | None) -> None:
        """One more at the end; one that has gone meanwhile (no bytes) is left out."""
        if body:
            self.ids.append(id)
            self.bodies.append(body)
            self.unpackers.append(unpacker)

    def extend(self, ids: Sequence[str], unpacked: Unpacked) -> None:
        """A whole reply at the end."""
        self.ids.extend(ids)
        self.bodies.extend(unpacked.frames)
        self.unpackers.extend(unpacked.unpackers)

    def __len__(self) -> int:
        return len(self.ids)

    def sizes(self) -> list[int]:
        """Bytes of each object unpacked; raises TooLarge when all together are."""
        of: Callable[[Buffer], int] = whole_size if self.view == "object" else partial_size
        found = [
            len(body) if unpacker is None else of(body)
            for body, unpacker in zip(self.bodies, self.unpackers, strict=True)
        ]
        if sum(found) > MAX_BYTES:
            raise TooLarge(
                f"an answer of {sum(found)} bytes", remedy="Ask for less: a smaller limit or view=metadata."
            )
        return found

    def pieces(self, start: int, stop: int) -> Iterator[tuple[Buffer, ...]]:
        """The objects from one place to another, each in pieces to be joined."""
        whole = self.view == "object"
        for body, unpacker in zip(self.bodies[start:stop], self.unpackers[start:stop], strict=True):
            if unpacker is None:
                yield (body,)
            elif whole:
                yield unpacker.whole_pieces(body)
            else:
                yield unpacker.partial_pieces(body)
