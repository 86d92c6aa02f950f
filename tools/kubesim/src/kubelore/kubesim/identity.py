"""A cluster's credentials: CA, server certificate, token and port. Kept in a file, for restarts."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
import os
import secrets
import ssl
import tempfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_YEARS = datetime.timedelta(days=3650)


@dataclass(slots=True)
class Identity:
    """What a kubeconfig of the cluster rests on. Its repr shows no secret."""

    name: str
    host: str
    port: int  # 0 until the first start chose one
    ca_pem: str
    server_pem: str = field(repr=False)  # certificate and key
    token: str = field(repr=False)

    @classmethod
    def create(cls, name: str, host: str, port: int = 0) -> Identity:
        ca_pem, server_pem = _certificates(name, host)
        return cls(name, host, port, ca_pem, server_pem, secrets.token_urlsafe(32))

    @classmethod
    def load_or_create(cls, path: Path, name: str, host: str, port: int = 0) -> Identity:
        """The kept identity; a port that is given goes before the kept one."""
        if not path.exists():
            return cls.create(name, host, port)
        kept = cls(**json.loads(path.read_text()))
        return replace(kept, port=port or kept.port)

    def save(self, path: Path) -> None:
        write_private(path, json.dumps(asdict(self), indent=1))

    @property
    def server(self) -> str:
        return f"https://{self.host}:{self.port}"

    def kubeconfig(self) -> str:
        ca = base64.b64encode(self.ca_pem.encode()).decode()
        user = f"{self.name}-admin"
        return yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": self.name,
                "clusters": [
                    {"name": self.name, "cluster": {"server": self.server, "certificate-authority-data": ca}}
                ],
                "users": [{"name": user, "user": {"token": self.token}}],
                "contexts": [{"name": self.name, "context": {"cluster": self.name, "user": user}}],
            },
            sort_keys=False,
        )

    def ssl_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as pem:  # made 0600
            pem.write(self.server_pem)
            pem.flush()
            context.load_cert_chain(pem.name)
        return context


def write_private(path: Path, text: str) -> None:
    """Replaces a file atomically with one that only its owner reads."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    temporary.replace(path)


def _builder(subject: str, issuer: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + _YEARS)
    )


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    # Python 3.13 refuses CAs without key usage (VERIFY_X509_STRICT).
    unused = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    never = dict.fromkeys((*unused, "encipher_only", "decipher_only"), False)
    return x509.KeyUsage(digital_signature=True, key_cert_sign=ca, crl_sign=ca, **never)


def _certificates(name: str, host: str) -> tuple[str, str]:
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = f"kubesim-ca-{name}"
    ca_id = x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key())
    authority = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ca_id)
    ca = (
        _builder(ca_name, ca_name, ca_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(ca=True), critical=True)
        .add_extension(ca_id, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    names: list[x509.GeneralName] = [x509.DNSName("localhost"), x509.DNSName(name)]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in sorted({host, "127.0.0.1"})]
    certificate = (
        _builder(name, ca_name, key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(authority, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    plain, form = serialization.NoEncryption(), serialization.PrivateFormat.PKCS8
    pem = certificate.public_bytes(encoding) + key.private_bytes(encoding, form, plain)
    return ca.public_bytes(encoding).decode(), pem.decode()
