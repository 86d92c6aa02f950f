"""Free ports on this machine for servers that must come back on the same one.

The ephemeral range is avoided on purpose: while a server is down, a client that
keeps connecting to a local port of that range may be given that very port as
its own source, and then it is connected to itself and the server cannot bind.
"""

from __future__ import annotations

import random
import socket
from pathlib import Path

from kubelore.common.errors import Unavailable

_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST = 20000
_TRIES = 200


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen on the port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def ports_are_free(first: int, count: int, host: str = "127.0.0.1") -> bool:
    """Whether servers could listen on `count` ports in a row now."""
    return all(port_is_free(first + number, host) for number in range(count))


def free_port(host: str = "127.0.0.1", *, count: int = 1) -> int:
    """The first of `count` ports in a row that are free now, outside the ephemeral range.

    Nobody holds them until a server listens; a caller that loses that race sees
    the server end, and asks again. Raises `Unavailable` when no port is free.
    """
    highest = _first_ephemeral() - count
    for _ in range(_TRIES):
        port = random.randint(_LOWEST, highest)  # noqa: S311 - a port is no secret
        if ports_are_free(port, count, host):
            return port
    raise Unavailable(f"no free port from {_LOWEST} to {highest} on {host}", remedy="Give one with --port.")


def _first_ephemeral() -> int:
    try:
        first = int(_EPHEMERAL.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        first = 32768
    return first if first > _LOWEST + 1000 else 65536
