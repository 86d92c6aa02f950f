"""What a node touches of the machine: fixed places, one lock, and the sweeping after a killed run.

The places are fixed so that a later run finds the leftovers of one that died: container shims live on by
design when their parents are killed, and mounts, the bridge and control groups belong to nobody.
"""

import asyncio
import fcntl
import os
import shutil
import signal
from io import TextIOWrapper
from pathlib import Path

from kubelore.lab.errors import LabError, LabUnavailableError
from kubelore.lab.packages import find_program
from kubelore.lab.process import run_command
from kubelore.lab.waiting import wait_for

RUN = Path("/run/kubelore-lab")
DATA = Path("/var/lib/kubelore-lab")
SOCKET = RUN / "containerd.sock"
BRIDGE = "kubelore0"
NODE_ADDRESS = "10.213.77.1"
POD_SUBNET = "10.213.77.0/24"
FIRST_POD_ADDRESS = "10.213.77.10"

_LOCK = Path("/run/kubelore-lab.lock")
_LOCK_SECONDS = 240
_CGROUPS = Path("/sys/fs/cgroup")
_CONTAINER_LOG_LINKS = Path("/var/log/containers")
_OURS = ("containerd", "kubelet", "metrics-server", "containerd-shim-runc-v2")


class NodeLock:
    """One node per machine: held from start to stop, and by the kernel given back when the holder dies."""

    def __init__(self) -> None:
        self._handle: TextIOWrapper | None = None

    async def acquire(self) -> None:
        """Wait for another run's node to end; raises LabUnavailableError after four minutes."""
        handle = _LOCK.open("w")  # noqa: ASYNC230

        async def taken() -> bool:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True

        try:
            await wait_for(taken, "another node to end", _LOCK_SECONDS, 0.5, (BlockingIOError,))
        except LabError as error:
            handle.close()
            raise LabUnavailableError("another lab node runs on this machine") from error
        self._handle = handle

    def release(self) -> None:
        """Give it back; harmless when not held."""
        if self._handle is not None:
            self._handle.close()
            self._handle = None


def require_node_machine() -> None:
    """Raise LabUnavailableError where no node can be: it needs root, and a kernel with overlayfs."""
    if os.geteuid() != 0:
        raise LabUnavailableError("a node needs root")
    if "overlay" not in Path("/proc/filesystems").read_text():
        raise LabUnavailableError("a node needs overlayfs in the kernel")


async def make_bridge() -> None:
    """The bridge that pods hang on; its address is the node's, for a node may not have the loopback's."""
    ip = find_program("ip")
    await run_command(ip, "link", "add", BRIDGE, "type", "bridge")
    prefix = POD_SUBNET.partition("/")[2]
    await run_command(ip, "address", "add", f"{NODE_ADDRESS}/{prefix}", "dev", BRIDGE)
    await run_command(ip, "link", "set", BRIDGE, "up")


async def sweep() -> None:
    """Remove everything that a node leaves or left on the machine. Only for the holder of the lock."""
    for pid in _own_processes():
        _kill(pid)
    await wait_for(_nothing_runs, "the node's processes to end", 20)
    await _unmount()
    if _has_bridge():
        await run_command(find_program("ip"), "link", "delete", BRIDGE)
    _remove_cgroups()
    _remove_log_links()
    for folder in (RUN, DATA):
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


def leftovers() -> list[str]:
    """What of a node is still on the machine, in words; empty when it is clean."""
    found = [f"process {pid}" for pid in _own_processes()]
    found += [f"mount {path}" for path in _mounts()]
    if _has_bridge():
        found.append(f"bridge {BRIDGE}")
    found += [f"folder {folder}" for folder in (RUN, DATA) if folder.exists()]
    return found


def _own_processes() -> list[int]:
    """Daemons and shims whose command line names our folder, and the first processes of their containers."""
    parents: dict[int, int] = {}
    ours: set[int] = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes().split(b"\0")
            state, parent = (entry / "stat").read_text().rsplit(") ", 1)[1].split()[:2]
        except OSError:
            continue
        if state == "Z":
            continue
        parents[int(entry.name)] = int(parent)
        name = Path(command[0].decode(errors="replace")).name
        if name in _OURS and any(str(RUN).encode() in argument for argument in command):
            ours.add(int(entry.name))
    return [pid for pid, parent in parents.items() if pid in ours or parent in ours]


async def _nothing_runs() -> bool:
    return not _own_processes()


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


async def _unmount() -> None:
    """Lazily, the innermost first: what a dying process still holds goes away with it."""
    for path in reversed(_mounts()):
        await run_command(find_program("umount"), "--lazy", path)
    if left := _mounts():
        raise LabError(f"still mounted after the node's end: {', '.join(left)}")


def _mounts() -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = (Path(line.split()[4].replace("\\040", " ")) for line in lines)
    return [str(point) for point in points if point.is_relative_to(RUN) or point.is_relative_to(DATA)]


def _has_bridge() -> bool:
    return Path(f"/sys/class/net/{BRIDGE}").exists()


def _remove_log_links() -> None:
    """The kubelet links every container's log into a place that can't be configured."""
    for link in _CONTAINER_LOG_LINKS.glob("*.log"):
        if link.is_symlink() and link.readlink().is_relative_to(DATA):
            link.unlink()


def _remove_cgroups() -> None:
    """The kubelet's groups, the innermost first; the kernel refuses those with processes in them."""
    roots = [*_CGROUPS.glob("kubepods"), *_CGROUPS.glob("*/kubepods")]
    for root in roots:
        for folder, _, _ in os.walk(root, topdown=False):
            try:
                Path(folder).rmdir()
            except OSError:
                continue
