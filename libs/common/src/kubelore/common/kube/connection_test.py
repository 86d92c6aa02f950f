"""Tests a connection step by step, so that what is wrong has a name and a remedy.

dns, tcp, tls, authentication, authorization, version: the first that fails
stops the rest, which are reported as not tried.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec

from kubelore.common.contracts.clusters import ConnectionTest, TestStep
from kubelore.common.errors import (
    DeadlineExceeded,
    Forbidden,
    KubeloreError,
    NotFound,
    Unauthenticated,
    Unavailable,
    Unsupported,
    UpstreamError,
)
from kubelore.common.kube.addresses import PolicyResolver, literal_address, open_socket
from kubelore.common.kube.credentials import earliest_expiry
from kubelore.common.kube.discovery import discover
from kubelore.common.kube.errors import certificate_error, connection_error
from kubelore.common.kube.resource_type import ResourceType
from kubelore.common.kube.tls import tls_context
from kubelore.common.kube.transport import Transport

STEP_TIMEOUT_S = 5.0
WARN_BEFORE = timedelta(days=30)
CONCURRENT_REVIEWS = 16
_VERBS = ("get", "list", "watch", "create", "patch", "delete")
_STEPS = ("dns", "tcp", "tls", "authentication", "authorization", "version")


class _User(msgspec.Struct):
    username: str = ""


class _ReviewStatus(msgspec.Struct, rename="camel"):
    allowed: bool = False
    user_info: _User | None = None


class _Review(msgspec.Struct):
    status: _ReviewStatus


class _Version(msgspec.Struct, rename="camel"):
    git_version: str


async def test_connection(transport: Transport, cluster: str) -> ConnectionTest:
    """Test every step; what is wrong with the cluster stands in the answer and is not raised."""
    return await _Probe(transport, cluster).run()


class _Probe:
    """One run of the test; later steps use what earlier ones found."""

    def __init__(self, transport: Transport, cluster: str) -> None:
        self._transport = transport
        expires = earliest_expiry(transport.access)
        self._result = ConnectionTest(
            cluster=cluster,
            ok=True,
            steps=[],
            certificate_expires_at=_time(expires) if expires else None,
        )
        self._expires = expires
        endpoint = urlsplit(transport.access.proxy_url or transport.access.server)
        self._host = endpoint.hostname or ""
        self._port = endpoint.port or 443
        self._addresses: list[tuple[int, str]] = []
        self._socket: socket.socket | None = None

    async def run(self) -> ConnectionTest:
        """Every step in its order, each with its own deadline."""
        steps: tuple[Callable[[], Awaitable[str]], ...] = (
            self._dns,
            self._tcp,
            self._tls,
            self._authentication,
            self._authorization,
            self._version,
        )
        try:
            for name, step in zip(_STEPS, steps, strict=True):
                self._result.steps.append(await self._step(name, step))
        finally:
            if self._socket is not None:
                self._socket.close()
        return self._result

    async def _step(self, name: str, step: Callable[[], Awaitable[str]]) -> TestStep:
        if not self._result.ok:
            return TestStep(name=name, ok=None, detail="not tried")
        started = time.monotonic()
        try:
            async with asyncio.timeout(STEP_TIMEOUT_S):
                detail = await step()
            failure = None
        except TimeoutError:
            failure = DeadlineExceeded(
                f"no answer within {STEP_TIMEOUT_S:g} s",
                remedy="check that the API server runs, and that firewalls let this machine through",
            )
            detail = failure.detail
        except KubeloreError as error:
            failure, detail = error, error.detail
        self._result.ok = failure is None
        return TestStep(
            name=name,
            ok=failure is None,
            detail=detail,
            remedy=failure.remedy if failure else None,
            latency_ms=round((time.monotonic() - started) * 1000, 1),
        )

    async def _dns(self) -> str:
        literal = literal_address(self._host)
        if literal is not None:
            self._addresses = [(socket.AF_INET6 if literal.version == 6 else socket.AF_INET, str(literal))]
            return f"{literal} is an address"
        try:
            found = await PolicyResolver(self._transport.policy).resolve(self._host, self._port)
        except OSError as error:
            raise connection_error(error, self._host) from error
        self._addresses = [(each["family"], each["host"]) for each in found]
        return f"{self._host} is {', '.join(address for _, address in self._addresses[:4])}"

    async def _tcp(self) -> str:
        failure: OSError | None = None
        for family, address in self._addresses:
            info = (family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, self._port))
            sock = open_socket(self._transport.policy, info)
            try:
                await asyncio.get_running_loop().sock_connect(sock, (address, self._port))
            except OSError as error:
                sock.close()
                failure = error
            except BaseException:
                sock.close()
                raise
            else:
                self._socket = sock
                return f"connected to {_bracketed(address)}:{self._port}"
        raise Unavailable(
            f"cannot connect to {self._host}:{self._port}: {_why(failure)}",
            remedy="check that the API server runs, and that firewalls let this machine through",
        ) from failure

    async def _tls(self) -> str:
        access = self._transport.access
        if access.proxy_url:
            with contextlib.suppress(Unauthenticated, Forbidden):
                await self._transport.request("GET", "/version", timeout_s=STEP_TIMEOUT_S)
            return "the certificates of the proxy and of the API server verify"
        sock, self._socket = self._socket, None
        name = access.tls_server_name or self._host
        try:
            context = tls_context(access)
            _, writer = await asyncio.open_connection(sock=sock, ssl=context, server_hostname=name)
        except ssl.SSLCertVerificationError as error:
            raise certificate_error(error, name) from error
        except OSError as error:
            raise connection_error(error, name) from error
        try:
            certificate = writer.get_extra_info("peercert") or {}
        finally:
            writer.close()
        if access.insecure:
            return "the certificate is not checked (insecure-skip-tls-verify)"
        return f"the certificate is valid until {_time(_not_after(certificate))}"

    async def _authentication(self) -> str:
        try:
            user = await self._username()
        except Unauthenticated as error:
            if self._expires is not None and self._expires <= datetime.now(UTC):
                raise Unauthenticated(
                    f"the credentials expired at {_time(self._expires)}",
                    remedy="renew them, and add the cluster's kubeconfig again",
                ) from error
            raise
        if user == "system:anonymous":
            raise Unauthenticated(
                "the API server does not recognise the credentials, and treats them as anonymous",
                remedy="check that token or certificate belong to this cluster",
            )
        detail = f"accepted as {user}" if user else "accepted"
        if self._expires is not None and self._expires - datetime.now(UTC) < WARN_BEFORE:
            detail += f"; the credentials expire at {_time(self._expires)}"
        return detail

    async def _username(self) -> str:
        """Who the API server takes us for; empty where it cannot say (before 1.28)."""
        try:
            group, kind = "authentication.k8s.io", "SelfSubjectReview"
            review = await self._review(group, kind, "selfsubjectreviews", {})
        except Forbidden as error:
            if "system:anonymous" in error.detail:
                return "system:anonymous"
            review = _Review(status=_ReviewStatus())
        except (NotFound, Unsupported):
            await self._transport.request("GET", "/api", timeout_s=STEP_TIMEOUT_S)
            review = _Review(status=_ReviewStatus())
        return review.status.user_info.username if review.status.user_info else ""

    async def _authorization(self) -> str:
        allowed = [verb for verb, may in zip(_VERBS, await self._may_all(), strict=True) if may]
        if "list" in allowed and "watch" in allowed:
            return f"may {', '.join(allowed)} everything"
        types = [each for each in (await discover(self._transport)).types if each.observable]
        readable = await self._readable(types)
        self._result.skipped_types = sorted({each.name for each in types} - readable)
        if not readable:
            raise Forbidden(
                "the user of this kubeconfig may list and watch nothing across the cluster",
                remedy="bind a role, for example `kubectl create clusterrolebinding kubelore-view "
                "--clusterrole=view --user=NAME` (or --serviceaccount=NAMESPACE:NAME)",
            )
        return f"may list and watch {len(readable)} of {len(types)} types across the cluster"

    async def _may_all(self) -> list[bool]:
        everything = {"group": "*", "resource": "*"}
        return await asyncio.gather(*(self._may(everything | {"verb": verb}) for verb in _VERBS))

    async def _readable(self, types: list[ResourceType]) -> set[str]:
        room = asyncio.Semaphore(CONCURRENT_REVIEWS)

        async def readable(each: ResourceType) -> bool:
            what = {"group": each.group, "resource": each.plural}
            async with room:
                return await self._may(what | {"verb": "list"}) and await self._may(what | {"verb": "watch"})

        answers = await asyncio.gather(*(readable(each) for each in types))
        return {each.name for each, may in zip(types, answers, strict=True) if may}

    async def _may(self, attributes: dict[str, str]) -> bool:
        spec = {"resourceAttributes": attributes}
        kind, plural = "SelfSubjectAccessReview", "selfsubjectaccessreviews"
        return (await self._review("authorization.k8s.io", kind, plural, spec)).status.allowed

    async def _review(self, group: str, kind: str, plural: str, spec: Mapping[str, object]) -> _Review:
        body = {"apiVersion": f"{group}/v1", "kind": kind} | ({"spec": spec} if spec else {})
        reply = await self._transport.request(
            "POST",
            f"/apis/{group}/v1/{plural}",
            body=msgspec.json.encode(body),
            content_type="application/json",
            timeout_s=STEP_TIMEOUT_S,
        )
        return _decoded(reply.body, _Review)

    async def _version(self) -> str:
        started = time.monotonic()
        reply = await self._transport.request("GET", "/version", timeout_s=STEP_TIMEOUT_S)
        self._result.latency_ms = round((time.monotonic() - started) * 1000, 1)
        self._result.version = _decoded(reply.body, _Version).git_version
        return f"Kubernetes {self._result.version}"


_Answer = TypeVar("_Answer", _Review, _Version)


def _decoded(body: bytes, kind: type[_Answer]) -> _Answer:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.MsgspecError as error:
        raise UpstreamError(
            "the answer is not what an API server sends",
            remedy="check that the address in the kubeconfig is an API server's",
        ) from error


def _not_after(certificate: Mapping[str, object]) -> datetime:
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(str(certificate["notAfter"])), UTC)


def _time(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def _why(error: OSError | None) -> str:
    """What the system says; asyncio puts its own words in front of it."""
    return os.strerror(error.errno).lower() if error is not None and error.errno else "no address answers"


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
