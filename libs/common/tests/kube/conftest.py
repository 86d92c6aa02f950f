"""A certificate authority and an HTTPS server with scripted answers, for what no healthy API server does."""

from __future__ import annotations

import base64
import ipaddress
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kubelore.common.kube import AddressPolicy, ClusterAccess

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Issued:
    """A certificate and its key, PEM."""

    certificate: bytes
    key: bytes


class Authority:
    """Issues certificates; with `key_usage` off it is one that Python 3.13's strict mode refuses."""

    def __init__(self, name: str = "test-ca", *, key_usage: bool = False) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        builder = _builder(
            self._name, self._name, self._key, now - timedelta(days=1), now + timedelta(days=90)
        )
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        if key_usage:
            usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
            builder = builder.add_extension(usage, critical=True)
        self.pem = _pem(builder.sign(self._key, hashes.SHA256()))

    def issue(
        self,
        name: str = "somebody",
        names: tuple[str, ...] = ("127.0.0.1",),
        *,
        days: tuple[float, float] = (-1, 60),
    ) -> Issued:
        """A certificate for these names, valid from and until this many days from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        start, end = (now + timedelta(days=each) for each in days)
        builder = _builder(subject, self._name, key, start, end).add_extension(
            x509.SubjectAlternativeName([_alternative(each) for each in names]), critical=False
        )
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return Issued(_pem(builder.sign(self._key, hashes.SHA256())), pem)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, start: datetime, end: datetime
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    return builder.serial_number(x509.random_serial_number()).not_valid_before(start).not_valid_after(end)


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


@dataclass
class ScriptedApi:
    """An HTTPS server whose answers the test writes; `requests` keeps what was asked, in order."""

    authority: Authority
    answer: Handler
    port: int = 0
    requests: list[web.Request] = field(default_factory=list)

    @property
    def server(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def access(self) -> ClusterAccess:
        return ClusterAccess(server=self.server, ca_pem=self.authority.pem, token="a-token")


StartApi = Callable[..., Awaitable[ScriptedApi]]


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def lenient() -> AddressPolicy:
    """Loopback is allowed, as in the embedded stack."""
    return AddressPolicy(allow_private=True)


@pytest_asyncio.fixture(loop_scope="session")
async def start_api(authority: Authority, tmp_path: Path) -> AsyncIterator[StartApi]:
    """Start servers that answer with a handler; stopped at the end of the test."""
    runners: list[web.AppRunner] = []

    async def start(
        answer: Handler, *, identity: Issued | None = None, client_ca: bytes | None = None
    ) -> ScriptedApi:
        api = ScriptedApi(authority, answer)

        async def handle(request: web.Request) -> web.StreamResponse:
            api.requests.append(request)
            return await api.answer(request)

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        runners.append(runner)
        context = _server_context(tmp_path, identity or authority.issue(), client_ca)
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        api.port = runner.addresses[0][1]
        return api

    yield start
    for runner in runners:
        await runner.cleanup()


def _server_context(folder: Path, identity: Issued, client_ca: bytes | None) -> ssl.SSLContext:
    path = folder / "server.pem"
    path.write_bytes(identity.certificate + identity.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    if client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=client_ca.decode())
    return context


@pytest.fixture
def server_context(tmp_path: Path) -> Callable[[Issued], ssl.SSLContext]:
    """The TLS context of a server with this identity."""

    def make(identity: Issued) -> ssl.SSLContext:
        return _server_context(tmp_path, identity, None)

    return make


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.fixture
def kubeconfig(authority: Authority) -> Callable[..., str]:
    """A kubeconfig with one context, good unless the test changes its `cluster` or `user` section."""

    def write(
        *, cluster: dict[str, Any] | None = None, user: dict[str, Any] | None = None, **top: Any
    ) -> str:
        config: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "prod",
                    "cluster": {
                        "server": "https://api.example.com:6443",
                        "certificate-authority-data": _base64(authority.pem),
                        **(cluster or {}),
                    },
                }
            ],
            "users": [{"name": "admin", "user": {"token": "a-token"} if user is None else user}],
            "contexts": [{"name": "prod", "context": {"cluster": "prod", "user": "admin"}}],
            "current-context": "prod",
        }
        return yaml.safe_dump(config | top)

    return write


@pytest.fixture
def jwt() -> Callable[[datetime], str]:
    """An unsigned token that says when it expires."""

    def make(expires: datetime) -> str:
        claims = base64.urlsafe_b64encode(json.dumps({"exp": int(expires.timestamp())}).encode()).decode()
        return f"header.{claims.rstrip('=')}.signature"

    return make
