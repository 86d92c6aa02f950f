"""What a container has for work on its files, and how that is called.

Paths are arguments of the programs, never shell text. An argument has to be
UTF-8 on its way to the container, which a path need not be: words that are not
travel as octal escapes, and one constant script makes them bytes again.

A container without a shell is worked on through a debug container in its
process namespace. There each program runs with the target's root as its own
(`chroot`), so that links in the target lead where they lead for the target, and
is still found: `/proc/<pid>/root` of a shell that stays outside leads back. That
takes a debug image whose programs need no libraries, as busybox's do.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from kubelore.common.contracts.containers import ContainerId
from kubelore.common.errors import Conflict, DeadlineExceeded, KubeloreError, TooLarge, Unsupported
from kubelore.common.kube import Channel, ExecStream
from kubelore.common.reach import Reached
from kubelore.container_ops.pods import Pod, containers_of, named_container, read_pod

Flavour: TypeAlias = Literal["gnu", "busybox", "other"]
Word: TypeAlias = str | bytes

MAX_OUTPUT = 4 * 1024 * 1024
MAX_ERRORS = 16 * 1024
MAX_PROBED = 64 * 1024
"""What a shell may say of its programs: some paths, and the first line of a version."""
RUN_S = 30.0
_PROBE_S = 10.0
_MAX_KNOWN = 4096

TOOLS = (
    *("sh", "env", "find", "stat", "cat", "head", "tail", "dd", "sha256sum", "mv", "rm", "rmdir", "mkdir"),
    *(
        "chmod",
        "chown",
        "readlink",
        "tar",
        "gzip",
        "printf",
        "test",
        "wc",
        "cp",
        "ln",
        "touch",
        "xargs",
        "grep",
        "tee",
    ),
)
_PROBE = "; ".join((*(f"command -v {tool}" for tool in TOOLS), "echo --", "stat --version 2>&1"))
_DECODE = 'for a; do a=$(printf "%b." "$a"); set -- "$@" "${a%.}"; shift; done; exec "$@"'
_CHROOT = 'd=/proc/$$/root; PATH=$d/bin:$d/usr/bin chroot /proc/1/root "$@"; exit $?'
_SPOKEN = ("env", "LC_ALL=C", "QUOTING_STYLE=literal")
"""Programs speak English, whatever the image's language, and write names as they are."""


@dataclass(frozen=True, slots=True)
class Ran:
    """How a program ended, and what it wrote."""

    code: int
    out: bytes
    errors: bytes


@dataclass(frozen=True, slots=True)
class Toolbox:
    """The programs for a container's files. `runs_in` is itself, or its debug container."""

    target: ContainerId
    runs_in: ContainerId
    flavour: Flavour
    tools: frozenset[str]

    def need(self, *tools: str) -> None:
        """Raise Unsupported when one of the programs is missing."""
        if missing := [tool for tool in tools if tool not in self.tools]:
            raise Unsupported(
                f"the container {self.target.container} has no {' and no '.join(missing)}", remedy=_OFFER
            )

    def argv(self, words: Sequence[Word]) -> list[str]:
        """The command as exec takes it, for a program of the box and its arguments."""
        spoken: list[Word] = [*_SPOKEN, *words]
        if any(_is_foreign(word) for word in spoken):
            spoken = ["sh", "-c", _DECODE, "sh", *map(_escaped, spoken)]
        plain = [word if isinstance(word, str) else word.decode() for word in spoken]
        return plain if self.runs_in == self.target else ["sh", "-c", _CHROOT, "sh", *plain]

    async def start(
        self, reached: Reached, words: Sequence[Word], *, stdin: bool = False, idle_s: float = RUN_S
    ) -> ExecStream:
        """Start a program whose output is read as it comes."""
        place = self.runs_in
        return await reached.client.exec(
            place.namespace, place.pod, place.container, self.argv(words), stdin=stdin, idle_s=idle_s
        )

    async def run(
        self,
        reached: Reached,
        words: Sequence[Word],
        *,
        given: bytes | None = None,
        most: int = MAX_OUTPUT,
        seconds: float = RUN_S,
    ) -> Ran:
        """Run a program to its end; `given` is its input, which it has to know the length of.

        Raises TooLarge for more output than `most` bytes, DeadlineExceeded, and
        what the API server refuses.
        """
        try:
            async with asyncio.timeout(seconds):
                return await self._run(reached, words, given, most)
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"{_name(words)} took longer than {seconds:g} s in {self.target.container}",
                outcome="unknown",
            ) from error

    async def _run(self, reached: Reached, words: Sequence[Word], given: bytes | None, most: int) -> Ran:
        out, errors = bytearray(), bytearray()
        async with await self.start(reached, words, stdin=given is not None) as stream:
            sending = asyncio.create_task(stream.send(given or b""))
            try:
                async for channel, data in stream:
                    if channel == Channel.STDERR:
                        errors += data[: MAX_ERRORS - len(errors)]
                        continue
                    out += data
                    if len(out) > most:
                        raise TooLarge(f"{_name(words)} answered more than {most} bytes")
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
            return Ran(stream.exit_code or 0, bytes(out), bytes(errors))


Debugging: TypeAlias = Callable[[Reached, ContainerId], Awaitable[ContainerId]]
"""Gives the running debug container of a container, made when there is none."""


class Toolboxes:
    """What containers were found to have: looked for once in each run of a container."""

    def __init__(self, debugging: Debugging) -> None:
        self._debugging = debugging
        self._known: OrderedDict[tuple[str, str, str, int], Toolbox | None] = OrderedDict()

    async def of(
        self, reached: Reached, target: ContainerId, *, debug: bool = False, pod: Pod | None = None
    ) -> Toolbox:
        """The programs for a container's files; with `debug`, those of its debug container where it has no shell.

        The target's container may be left out, for the pod's default; `pod` is its
        pod where that was read already. Raises
        NotFound, Conflict (it does not run) and Unsupported (it has no shell,
        and no debug container was asked for).
        """
        pod = pod or await read_pod(reached, target)
        target = named_container(pod, target)
        key = target.cluster, pod.metadata.uid, target.container, _restarts(pod, target)
        if key not in self._known:
            self._known[key] = await _probe(reached, target, target)
            while len(self._known) > _MAX_KNOWN:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        if (own := self._known[key]) is not None:
            return own
        if not debug:
            raise Unsupported(
                f"the container {target.container} of the pod {target.pod} has no shell", remedy=_OFFER
            )
        _check_alone(pod, target)
        return await self._debug(reached, target)

    async def _debug(self, reached: Reached, target: ContainerId) -> Toolbox:
        place = await self._debugging(reached, target)
        found = await _probe(reached, target, place)
        if found is None or found.flavour != "busybox":
            raise Unsupported(
                "the debug container is not made of busybox",
                remedy="Set KUBELORE_DEBUG_IMAGE to an image of a static busybox.",
            )
        return found


_OFFER = "Ask for a debug container (`debug`): it is added to the pod and stays there until the pod ends."


async def _probe(reached: Reached, target: ContainerId, place: ContainerId) -> Toolbox | None:
    """What a container has, for the files of a target; None when it has no shell."""
    try:
        async with asyncio.timeout(_PROBE_S):
            stream = await reached.client.exec(
                place.namespace, place.pod, place.container, ["sh", "-c", _PROBE], idle_s=_PROBE_S
            )
            async with stream:
                held = bytearray()
                async for _, data in stream:
                    held += data
                    if len(held) > MAX_PROBED:
                        raise Unsupported(
                            f"the shell of {place.container} says too much to be one", remedy=_OFFER
                        )
                said = bytes(held)
    except TimeoutError as error:
        raise DeadlineExceeded(f"{place.container} ran no shell within {_PROBE_S:g} s") from error
    except KubeloreError as error:
        if _is_not_found(error.detail):
            return None
        raise
    listed, marked, version = said.partition(b"--\n")
    if not marked:
        return None
    tools = frozenset(line.rpartition("/")[2] for line in listed.decode(errors="replace").split())
    flavour: Flavour = "gnu" if b"GNU" in version else "busybox" if b"BusyBox" in version else "other"
    return Toolbox(target, place, flavour, tools & frozenset(TOOLS))


def _check_alone(pod: Pod, target: ContainerId) -> None:
    """Raise Unsupported where process number 1 is not the target's: the node's own, it would be the node's root."""
    if pod.spec.host_pid or pod.spec.share_process_namespace:
        whose = "the node" if pod.spec.host_pid else "the other containers of its pod"
        raise Unsupported(
            f"{target.container} shares its processes with {whose}: its files cannot be told from theirs",
            remedy="Copy a file by mounting its volume in a pod of its own.",
        )


def _is_not_found(detail: str) -> bool:
    """Whether a runtime says that the program to be run is not in the image."""
    return any(
        said in detail for said in ("executable file not found", "no such file or directory", ": not found")
    )


def _restarts(pod: Pod, target: ContainerId) -> int:
    """Which run of a container this is. Raises Conflict when it does not run."""
    shown = next(one for one in containers_of(pod, target).containers if one.name == target.container)
    if shown.condition != "running":
        raise Conflict(
            f"the container {target.container} of the pod {target.pod} is {shown.condition}, not running",
            remedy="Its files can be reached while it runs.",
        )
    return shown.restarts


def _is_foreign(word: Word) -> bool:
    if isinstance(word, str):
        return False
    try:
        word.decode()
    except UnicodeDecodeError:
        return True
    return False


def _escaped(word: Word) -> str:
    """For printf's %b: printable ASCII as it is, every other byte and the backslash as \\0 and three octal digits."""
    raw = word.encode() if isinstance(word, str) else word
    return "".join(chr(byte) if 32 <= byte < 127 and byte != 92 else f"\\0{byte:03o}" for byte in raw)


def _name(words: Sequence[Word]) -> str:
    first = words[0]
    return first if isinstance(first, str) else first.decode(errors="replace")
