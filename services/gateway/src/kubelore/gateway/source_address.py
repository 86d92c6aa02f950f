"""Where a request came from: the peer, or whom a proxy of ours says that it speaks for."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import TypeAlias

from starlette.types import Scope

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

FORWARDED = b"x-forwarded-for"
MAX_HOPS = 20


def source_address(scope: Scope, trusted: Sequence[Network] = ()) -> str:
    """The address of the client, empty where there is none (a socket file).

    `X-Forwarded-For` is believed only as far as those who wrote it are
    `trusted`: read from its end, the first address that is no proxy of ours.
    """
    client = scope.get("client")
    address = str(client[0]) if client else ""
    if not trusted or not _within(address, trusted):
        return address
    said = b",".join(value for name, value in scope.get("headers", ()) if name == FORWARDED)
    for hop in reversed([part.strip() for part in said.decode("latin-1").split(",")][-MAX_HOPS:]):
        if _parsed(hop) is None:
            return address
        address = hop
        if not _within(hop, trusted):
            return address
    return address


def _within(address: str, networks: Sequence[Network]) -> bool:
    parsed = _parsed(address)
    return parsed is not None and any(parsed in network for network in networks)


def _parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(address)
    except ValueError:
        return None
