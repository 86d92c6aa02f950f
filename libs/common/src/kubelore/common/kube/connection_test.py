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
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
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
from kubelore.common.kube.access_review import EVERYTHING, post_review, review_rights
from kubelore.common.kube.addresses import PolicyResolver, literal_address, open_socket
from kubelore.common.kube.credentials import certificate_expiry, earliest_expiry, token_expiry
from kubelore.common.kube.errors import certificate_error, connection_error
from kubelore.common.kube.tls import tls_context
from kubelore.common.kube.transport import Transport

STEP_TIMEOUT_S = 5.0
WARN_BEFORE = timedelta(days=30)
_LIMITS_S = {"authorization": 10.0}
"""Rights are asked for type by type: many small requests, where the others are one."""
_STEPS = ("dns", "tcp", "tls", "authentication", "authorization", "version")


class _User(msgspec.Struct):
    username: str = ""


class _ReviewStatus(msgspec.Struct, rename="camel"):
    user_info: _User | None = None


class _Review(msgspec.Struct):
    status: _ReviewStatus


class _Version(msgspec.Struct, rename="camel"):
    git_version: str


async def test_connection(
    transport: Transport, cluster: str, namespaces: Sequence[str] = (), *, now: datetime | None = None
) -> ConnectionTest:
    """Test every step; what is wrong with the cluster stands in the answer and is not raised.

    With `namespaces`, rights are judged in these alone.
    """
    return await _Probe(transport, cluster, list(namespaces), now or datetime.now(UTC)).run()


class _Probe:
    """One run of the test; later steps use what earlier ones found."""

    def __init__(self, transport: Transport, cluster: str, namespaces: list[str], now: datetime) -> None:
        self._transport = transport
        self._now = now
        certificate = certificate_expiry(transport.access.client_cert_pem)
        token = token_expiry(transport.access.token)
        self._result = ConnectionTest(
            cluster=cluster,
            ok=True,
            steps=[],
            namespaces=namespaces,
            certificate_expires_at=_time(certificate) if certificate else None,
            certificate_days_left=_days(certificate, now),
            token_expires_at=_time(token) if token else None,
            token_days_left=_days(token, now),
        )
        self._expires = earliest_expiry(transport.access)
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
        started, limit_s = time.monotonic(), _LIMITS_S.get(name, STEP_TIMEOUT_S)
        try:
            async with asyncio.timeout(limit_s):
                detail = await step()
            failure = None
        except TimeoutError:
            failure = DeadlineExceeded(
                f"no answer within {limit_s:g} s",
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
            if self._expires is not None and self._expires <= self._now:
                raise Unauthenticated(
                    f"the credentials expired at {_time(self._expires)}",
                    remedy="renew them, and send the kubeconfig: `kubelore clusters rotate NAME`",
                ) from error
            raise
        if user == "system:anonymous":
            raise Unauthenticated(
                "the API server does not recognise the credentials, and treats them as anonymous",
                remedy="check that token or certificate belong to this cluster",
            )
        detail = f"accepted as {user}" if user else "accepted"
        if self._expires is not None and self._expires - self._now < WARN_BEFORE:
            detail += f"; the credentials expire at {_time(self._expires)}"
        return detail

    async def _username(self) -> str:
        """Who the API server takes us for; empty where it cannot say (before 1.28)."""
        try:
            group, kind = "authentication.k8s.io", "SelfSubjectReview"
            review = await post_review(self._transport, group, "selfsubjectreviews", kind, {}, _Review)
        except Forbidden as error:
            if "system:anonymous" in error.detail:
                return "system:anonymous"
            review = _Review(status=_ReviewStatus())
        except (NotFound, Unsupported):
            await self._transport.request("GET", "/api", timeout_s=STEP_TIMEOUT_S)
            review = _Review(status=_ReviewStatus())
        return review.status.user_info.username if review.status.user_info else ""

    async def _authorization(self) -> str:
        namespaces = self._result.namespaces
        rights = await review_rights(self._transport, namespaces)
        self._result.verbs, self._result.skipped_types = rights.verbs, rights.skipped
        if EVERYTHING in rights.verbs:
            return f"may {', '.join(rights.verbs[EVERYTHING])} everything"
        where = f"in {', '.join(namespaces)}" if namespaces else "across the cluster"
        if not rights.readable:
            raise Forbidden(
                f"the user of this kubeconfig may list and watch nothing {where}",
                remedy=_IN_NAMESPACES if namespaces else _ACROSS,
            )
        said = f"may list and watch {rights.readable} of {rights.total} types {where}"
        return f"{said}; the API server could not name every right" if rights.incomplete else said

    async def _version(self) -> str:
        started = time.monotonic()
        reply = await self._transport.request("GET", "/version", timeout_s=STEP_TIMEOUT_S)
        self._result.latency_ms = round((time.monotonic() - started) * 1000, 1)
        try:
            self._result.version = msgspec.json.decode(reply.body, type=_Version).git_version
        except msgspec.MsgspecError as error:
            raise UpstreamError(
                "the answer is not what an API server sends",
                remedy="check that the address in the kubeconfig is an API server's",
            ) from error
        return f"Kubernetes {self._result.version}"


_ACROSS = (
    "bind a role, for example `kubectl create clusterrolebinding kubelore-view --clusterrole=view --user=NAME` "
    "(or --serviceaccount=NAMESPACE:NAME); or observe only the namespaces that they reach: "
    "`kubelore clusters update NAME --namespace NAMESPACE`"
)
_IN_NAMESPACES = (
    "bind a role in each of these namespaces, for example `kubectl create rolebinding kubelore-view "
    "--clusterrole=view --user=NAME -n NAMESPACE` (or --serviceaccount=NAMESPACE:NAME)"
)


def _not_after(certificate: Mapping[str, object]) -> datetime:
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(str(certificate["notAfter"])), UTC)


def _time(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def _days(when: datetime | None, now: datetime) -> int | None:
    """Whole days that are left; below zero once it is over."""
    return (when - now) // timedelta(days=1) if when else None


def _why(error: OSError | None) -> str:
    """What the system says; asyncio puts its own words in front of it."""
    return os.strerror(error.errno).lower() if error is not None and error.errno else "no address answers"


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
