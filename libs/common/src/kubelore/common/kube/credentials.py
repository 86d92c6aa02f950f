"""Certificates, keys and tokens of a kubeconfig, checked before anything connects with them.

A wrong credential is named here, with its reason, instead of surfacing later as
a TLS alert that says nothing. Nothing in an error repeats a credential.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from kubelore.common.errors import KubeconfigRefused
from kubelore.common.kube.access import ClusterAccess

MAX_CREDENTIAL_BYTES = 512 * 1024


class Claims(msgspec.Struct):
    """What a JWT says of itself; nothing of it is verified here."""

    exp: float | None = None
    iat: float | None = None
    sub: str = ""

    @property
    def service_account(self) -> tuple[str, str] | None:
        """Namespace and name of the service account whose token it is."""
        prefix, _, rest = self.sub.partition("system:serviceaccount:")
        namespace, separator, name = rest.partition(":")
        return (namespace, name) if not prefix and separator and namespace and name else None


def decode_data(text: str, *, field: str) -> bytes:
    """The bytes of a `*-data` field; raises KubeconfigRefused (`invalid-data`)."""
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise KubeconfigRefused(
            f"{field} is not base64",
            code="invalid-data",
            remedy="export the kubeconfig again, for example with `kubectl config view --raw --flatten`",
        ) from error


def check_authority(pem: bytes, *, now: datetime) -> None:
    """Check certificate-authority-data: PEM certificates, at least one not expired."""
    certificates = _certificates(pem, field="certificate-authority-data")
    if all(certificate.not_valid_after_utc <= now for certificate in certificates):
        last = max(certificate.not_valid_after_utc for certificate in certificates)
        raise _expired("the certificate authority", last)


def check_client_pair(certificate_pem: bytes, key_pem: bytes, *, now: datetime) -> None:
    """Check that certificate and key are readable, belong together and have not expired."""
    certificate = _certificates(certificate_pem, field="client-certificate-data")[0]
    try:
        key = load_pem_private_key(key_pem, password=None)
    except TypeError as error:
        raise KubeconfigRefused(
            "client-key-data is encrypted with a passphrase",
            code="encrypted-key",
            remedy="give a key without a passphrase; it is stored sealed",
        ) from error
    except ValueError as error:
        raise KubeconfigRefused(
            "client-key-data is no PEM private key",
            code="invalid-data",
            remedy="export the kubeconfig again, for example with `kubectl config view --raw --flatten`",
        ) from error
    encoding = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if certificate.public_key().public_bytes(*encoding) != key.public_key().public_bytes(*encoding):
        raise KubeconfigRefused(
            "client-certificate-data and client-key-data do not belong together",
            code="key-mismatch",
            remedy="take both from the same user entry",
        )
    if certificate.not_valid_after_utc <= now:
        raise _expired("the client certificate", certificate.not_valid_after_utc)


def check_token(token: str, *, now: datetime) -> None:
    """Check that a bearer token can stand in a header and, where it is a JWT, has not expired."""
    if len(token) > MAX_CREDENTIAL_BYTES or any(not 0x21 <= ord(character) <= 0x7E for character in token):
        raise KubeconfigRefused(
            "the token has characters that no bearer token has",
            code="invalid-data",
            remedy="paste the token again, without line breaks or quotes",
        )
    expires = token_expiry(token)
    if expires is not None and expires <= now:
        raise KubeconfigRefused(
            f"the token expired at {expires:%Y-%m-%dT%H:%M:%SZ}",
            code="token-expired",
            remedy="make a new one, for example with `kubectl create token NAME --duration=8760h`",
        )


def token_claims(token: str) -> Claims | None:
    """What a token says of itself; None for one that is no JWT."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        payload = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        return msgspec.json.decode(payload, type=Claims)
    except (ValueError, msgspec.MsgspecError):
        return None


def token_expiry(token: str) -> datetime | None:
    """When a JWT expires; None for other tokens and for JWTs that do not say."""
    claims = token_claims(token)
    if claims is None or claims.exp is None:
        return None
    try:
        return datetime.fromtimestamp(claims.exp, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def certificate_expiry(pem: bytes) -> datetime | None:
    """When the first certificate of a PEM text expires; None when there is none."""
    return _certificates(pem, field="certificate")[0].not_valid_after_utc if pem else None


def earliest_expiry(access: ClusterAccess) -> datetime | None:
    """When the first of the client certificate and the token stops working; None when neither says."""
    token = token_expiry(access.token) if access.token else None
    return min(_present((certificate_expiry(access.client_cert_pem), token)), default=None)


def _present(times: Iterable[datetime | None]) -> list[datetime]:
    return [time for time in times if time is not None]


def _certificates(pem: bytes, *, field: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise KubeconfigRefused(
            f"{field} holds no PEM certificate",
            code="invalid-data",
            remedy="export the kubeconfig again, for example with `kubectl config view --raw --flatten`",
        ) from error


def _expired(what: str, when: datetime) -> KubeconfigRefused:
    return KubeconfigRefused(
        f"{what} expired at {when:%Y-%m-%dT%H:%M:%SZ}",
        code="certificate-expired",
        remedy="renew it on the cluster, and export the kubeconfig again",
    )
