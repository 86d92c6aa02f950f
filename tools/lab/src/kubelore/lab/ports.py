"""Free TCP ports that stay free while a killed server is away.

Taken below the range from which the kernel gives ports to outgoing connections: a port from that range could
be lost to any connection between the kill of a server and its restart.
"""

import random
import socket
from pathlib import Path

from kubelore.lab.errors import LabError

_LOWEST = 15000
_DEFAULT_EPHEMERAL = 32768
_ATTEMPTS = 200


def free_ports(count: int, address: str = "127.0.0.1") -> list[int]:
    """That many different ports on which nothing listens; raises LabError when there are none."""
    chooser = random.SystemRandom()
    found: list[int] = []
    for _ in range(_ATTEMPTS):
        port = chooser.randrange(_LOWEST, _ephemeral_start())
        if port not in found and _is_free(address, port):
            found.append(port)
        if len(found) == count:
            return found
    raise LabError(f"no {count} free ports on {address}")


def _ephemeral_start() -> int:
    path = Path("/proc/sys/net/ipv4/ip_local_port_range")
    start = int(path.read_text().split()[0]) if path.exists() else _DEFAULT_EPHEMERAL
    return start if start > _LOWEST + _ATTEMPTS else _DEFAULT_EPHEMERAL


def _is_free(address: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
        return True
