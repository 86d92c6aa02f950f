"""The programs that a node needs from the machine itself, installed through apt-get where they are missing.

What counts is that a program is there, not who brought it: containerd from elsewhere is fine.
"""

import os
import shutil
import subprocess
from pathlib import Path

from kubelore.lab.errors import LabUnavailableError

CNI_FOLDERS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
_CNI_PLUGINS = ("bridge", "host-local", "loopback")
_BUSYBOX = Path("/bin/busybox")
_PROGRAMS = {
    "containerd": "containerd",
    "ctr": "containerd",
    "containerd-shim-runc-v2": "containerd",
    "runc": "runc",
    "socat": "socat",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "iptables": "iptables",
    "umount": "mount",
}
# Debian keeps system programs where an unprivileged PATH may not look.
_PATH = os.pathsep.join(
    (os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin")
)
_APT_SECONDS = 600


def find_program(name: str) -> str:
    """The path of a program of the machine; raises LabUnavailableError when it is missing."""
    found = shutil.which(name, path=_PATH)
    if found is None:
        raise LabUnavailableError(f"{name} is missing on this machine")
    return found


def cni_folder() -> Path:
    """Where the CNI plugins lie; raises LabUnavailableError when they are missing."""
    for folder in CNI_FOLDERS:
        if all((folder / plugin).exists() for plugin in _CNI_PLUGINS):
            return folder
    raise LabUnavailableError("the CNI plugins are missing on this machine")


def busybox() -> Path:
    """A busybox that runs without libraries; raises LabUnavailableError when there is none."""
    if not _is_static(_BUSYBOX):
        raise LabUnavailableError("a static busybox is missing on this machine")
    return _BUSYBOX


def missing_packages() -> list[str]:
    """Debian's names of the packages whose programs are not here."""
    missing = {package for name, package in _PROGRAMS.items() if shutil.which(name, path=_PATH) is None}
    try:
        cni_folder()
    except LabUnavailableError:
        missing.add("containernetworking-plugins")
    if not _is_static(_BUSYBOX):
        missing.add("busybox-static")
    return sorted(missing)


def ensure_packages() -> None:
    """Install what is missing.

    Raises LabUnavailableError, with what is missing, where this process may not or can't install it.
    """
    missing = missing_packages()
    if not missing:
        return
    listed = " ".join(missing)
    if os.geteuid() != 0:
        raise LabUnavailableError(f"a node needs root to install {listed}")
    if shutil.which("apt-get") is None:
        raise LabUnavailableError(f"a node needs {listed}, and there is no apt-get to install them")
    _apt_get("update")
    _apt_get("install", "--yes", "--no-install-recommends", *missing)
    if still := missing_packages():
        raise LabUnavailableError(f"apt-get installed no {' '.join(still)}")


def _apt_get(*arguments: str) -> None:
    done = subprocess.run(
        ["apt-get", "-qq", "-o", f"DPkg::Lock::Timeout={_APT_SECONDS}", *arguments],
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_APT_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip().splitlines()
        raise LabUnavailableError(
            f"apt-get {arguments[0]} failed: {words[-1] if words else 'no reason given'}"
        )


def _is_static(path: Path) -> bool:
    """A dynamic ELF program names its loader near its start."""
    return path.exists() and b"/ld-linux" not in path.read_bytes()[:4096]
