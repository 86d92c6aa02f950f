"""Which addresses a cluster's API server may have, checked in the kubeconfig and again at connect time.

A kubeconfig is written by a stranger, and following it makes this process a
client inside the operator's network. Link-local (cloud metadata), multicast
and unspecified addresses are never connected to; loopback and private ranges
only where the operator's settings allow it. A name is judged by what it
resolves to in the very moment of connecting, so that a second, different
answer (DNS rebinding, CVE-2018-18843) gains nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import SplitResult, urlsplit

from aiohttp.abc import AbstractResolver, ResolveResult

from kubelore.common.errors import KubeconfigRefused
from kubelore.common.settings import CommonSettings

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
AddressClass = Literal["public", "private", "forbidden"]

_FORBIDDEN = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",
        "169.254.0.0/16",
        "192.0.0.0/24",  # IETF protocol assignments; Oracle's metadata is 192.0.0.192
        "224.0.0.0/4",
        "240.0.0.0/4",
        "100.100.100.200/32",  # Alibaba Cloud's metadata
        "168.63.129.16/32",  # Azure's wire server
        "::/128",
        "fe80::/10",
        "ff00::/8",
        "fd00:ec2::/32",  # AWS' metadata and other instance services
        "fd20:ce::254/128",  # Google Cloud's metadata
    )
)
_PRIVATE = tuple(ipaddress.ip_network(network) for network in ("100.64.0.0/10", "fec0::/10"))
_NAT64 = tuple(ipaddress.ip_network(network) for network in ("64:ff9b::/96", "64:ff9b:1::/48"))
_V4_COMPATIBLE = ipaddress.ip_network("::/96")
_METADATA_NAMES = frozenset(
    {"metadata", "metadata.google.internal", "instance-data", "instance-data.ec2.internal"}
)
_NUMERIC_HOST = re.compile(r"(0x[0-9a-f]*|[0-9]+)(\.(0x[0-9a-f]*|[0-9]+))*\.?", re.IGNORECASE)
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """What the operator allows of a kubeconfig.

    `exec_allowed` holds whole command lines of credential plugins, as
    `kubelore.common.kube.credential_plugin` matches them; none by default.
    `exec_environment` is the whole environment that they run in.
    """

    allow_private: bool = False
    allow_insecure_tls: bool = False
    exec_allowed: tuple[str, ...] = ()
    exec_environment: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    @classmethod
    def from_settings(cls, settings: CommonSettings) -> AddressPolicy:
        """The policy that a service's settings describe."""
        return cls(
            allow_private=settings.allow_private_addresses,
            allow_insecure_tls=settings.allow_insecure_tls,
            exec_allowed=tuple(settings.allowed_exec_commands),
            exec_environment=tuple(
                (name, value.get_secret_value()) for name, value in settings.exec_environment.items()
            ),
        )


def classify(address: IPAddress) -> AddressClass:
    """Judge one address; an IPv4 address hidden in an IPv6 one counts as much as its wrapping."""
    classes = {_classify_bare(each) for each in (address, *_embedded(address))}
    for worst in ("forbidden", "private"):
        if worst in classes:
            return worst
    return "public"


def _classify_bare(address: IPAddress) -> AddressClass:
    if any(address.version == network.version and address in network for network in _FORBIDDEN):
        return "forbidden"
    if any(address.version == network.version and address in network for network in _PRIVATE):
        return "private"
    if address.version == 6 and any(address in network for network in _NAT64):
        return "public"
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return "public"
    return "public" if address.is_global else "private"


def _embedded(address: IPAddress) -> Iterator[ipaddress.IPv4Address]:
    """The IPv4 addresses that an IPv6 address stands for: mapped, compatible, 6to4, Teredo, NAT64."""
    if not isinstance(address, ipaddress.IPv6Address):
        return
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
    low = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if any(address in network for network in _NAT64):
        yield low
    if address in _V4_COMPATIBLE and int(address) > 1:
        yield low


def check_address(address: IPAddress, policy: AddressPolicy, *, host: str) -> None:
    """Raise KubeconfigRefused (`link-local` or `private-address`) unless the policy allows the address."""
    found = classify(address)
    shown = str(address) if str(address) == host else f"{host} ({address})"
    if found == "forbidden":
        raise KubeconfigRefused(
            f"{shown} is a link-local, metadata, multicast or reserved address",
            code="link-local",
            remedy="use the address that other machines reach the API server by",
        )
    if found == "private" and not policy.allow_private:
        raise KubeconfigRefused(
            f"{shown} is a loopback or private address, which this installation does not connect to",
            code="private-address",
            remedy="use a public address, or let the operator set KUBELORE_ALLOW_PRIVATE_ADDRESSES=true",
        )


def literal_address(host: str) -> IPAddress | None:
    """The address a host literally is, the loose forms of inet_aton (`127.1`, `0x7f000001`) included."""
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        pass
    if _NUMERIC_HOST.fullmatch(host):
        try:
            return ipaddress.IPv4Address(socket.inet_aton(host.rstrip(".")))
        except OSError:
            return None
    return None


def check_url(url: str, policy: AddressPolicy, *, field: str) -> SplitResult:
    """Check a `server` or `proxy-url`: https, a host, no userinfo, no query, an address that is allowed.

    Raises KubeconfigRefused. The URL is never echoed whole: it may hold a password.
    """
    parts = _split(url, field)
    if parts.scheme != "https":
        raise KubeconfigRefused(
            f"{field} uses {parts.scheme or 'no scheme'!r}, not https",
            code="not-https",
            remedy="give an https:// address; credentials never travel in clear",
        )
    if "@" in parts.netloc:
        raise KubeconfigRefused(
            f"{field} holds a user name or password",
            code="userinfo",
            remedy="remove what stands before the @ in the address",
        )
    if parts.query or parts.fragment or "?" in url or "#" in url:
        raise _malformed(field, "it has a query or a fragment")
    _check_host(parts.hostname or "", policy, field)
    return parts


def _split(url: str, field: str) -> SplitResult:
    if any(ord(character) <= 0x20 or ord(character) >= 0x7F or character == "\\" for character in url):
        raise _malformed(field, "it has a character that no URL has")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _malformed(field, "its host or port cannot be read") from error
    if port == 0:
        raise _malformed(field, "its port is 0")
    if ".." in parts.path.split("/"):
        raise _malformed(field, "its path climbs with '..'")
    return parts


def _malformed(field: str, why: str) -> KubeconfigRefused:
    return KubeconfigRefused(
        f"{field} is no usable URL: {why}",
        code="invalid-url",
        remedy="write it as https://host[:port][/path]",
    )


def _check_host(host: str, policy: AddressPolicy, field: str) -> None:
    address = literal_address(host)
    if address is not None:
        check_address(address, policy, host=host)
        if str(address) != host and address.version == 4:
            raise _malformed(field, "an IPv4 address is written as four decimal numbers")
        return
    if not _HOST.fullmatch(host) or len(host) > 253:
        raise _malformed(field, "its host is no name and no address")
    name = host.rstrip(".").lower()
    if name in _METADATA_NAMES:
        raise KubeconfigRefused(
            f"{field} names a cloud metadata service",
            code="link-local",
            remedy="use the address that other machines reach the API server by",
        )
    if not policy.allow_private and (name == "localhost" or name.endswith(".localhost")):
        check_address(ipaddress.IPv4Address("127.0.0.1"), policy, host=host)


def check_server_name(name: str) -> None:
    """Check a `tls-server-name`: a host name or an address, nothing else. Raises KubeconfigRefused."""
    if literal_address(name) is None and not _HOST.fullmatch(name):
        raise KubeconfigRefused(
            "tls-server-name is no host name",
            code="invalid-url",
            remedy="give the name that stands in the server's certificate",
        )


class PolicyResolver(AbstractResolver):
    """Resolves a name and keeps only the addresses that the policy allows.

    The connector connects to exactly what this returns, and caches nothing, so
    every new connection is judged afresh. Raises KubeconfigRefused when no
    address is left.
    """

    def __init__(self, policy: AddressPolicy) -> None:
        self._policy = policy

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The allowed addresses of a host; OSError when it does not resolve (the connector's contract)."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
        allowed: list[ResolveResult] = []
        refused: KubeconfigRefused | None = None
        for kind, _, proto, _, sockaddr in found:
            address = str(sockaddr[0])
            try:
                check_address(ipaddress.ip_address(address.partition("%")[0]), self._policy, host=host)
            except KubeconfigRefused as error:
                refused = error
                continue
            allowed.append(
                ResolveResult(
                    hostname=host,
                    host=address,
                    port=port,
                    family=kind,
                    proto=proto,
                    flags=socket.AI_NUMERICHOST,
                )
            )
        if not allowed and refused is not None:
            raise refused
        return allowed

    async def close(self) -> None:
        """Nothing is held."""


def open_socket(policy: AddressPolicy, address_info: tuple[object, ...]) -> socket.socket:
    """Make the socket for one address: the last gate before connecting, literal addresses included.

    Keepalive probes find a dead peer within about a minute under streams that
    have nothing to say. Raises KubeconfigRefused.
    """
    family, kind, proto, _, sockaddr = address_info
    host = str(sockaddr[0])  # pyright: ignore[reportIndexIssue]
    check_address(ipaddress.ip_address(host.partition("%")[0]), policy, host=host)
    sock = socket.socket(int(family), int(kind), int(proto))  # pyright: ignore[reportArgumentType]
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
            if hasattr(socket, option):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    except OSError:
        sock.close()
        raise
    return sock
