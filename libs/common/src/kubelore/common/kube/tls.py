"""The TLS context of one cluster, built from certificates in memory."""

from __future__ import annotations

import os
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kubelore.common.errors import KubeconfigRefused
from kubelore.common.kube.access import ClusterAccess


def tls_context(access: ClusterAccess) -> ssl.SSLContext:
    """A context that trusts the kubeconfig's authority alone, or the system's where it names none.

    Python 3.13 began to refuse authorities without key usage, which many
    clusters still have and Kubernetes' own clients accept: that one strictness
    is cleared, every other check stays. Raises KubeconfigRefused (`invalid-data`).
    """
    try:
        context = ssl.create_default_context(cadata=access.ca_pem.decode("ascii") if access.ca_pem else None)
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if access.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if access.client_cert_pem:
            with _in_a_file(access.client_cert_pem + b"\n" + access.client_key_pem) as path:
                context.load_cert_chain(path, password=_no_passphrase)
    except (ssl.SSLError, UnicodeDecodeError) as error:
        raise KubeconfigRefused(
            "the certificates of the kubeconfig cannot be used for TLS",
            code="invalid-data",
            remedy="export the kubeconfig again, for example with `kubectl config view --raw --flatten`",
        ) from error
    return context


def _no_passphrase() -> str:
    """Answers OpenSSL's question for a passphrase, which would else be asked on the terminal."""
    return ""


@contextmanager
def _in_a_file(pem: bytes) -> Iterator[str]:
    """A path with this content while the block runs: a client certificate can be loaded by path alone.

    In memory where the system can (Linux), else a file of mode 0600.
    """
    if hasattr(os, "memfd_create") and Path("/proc/self/fd").is_dir():
        descriptor = os.memfd_create("client-certificate", os.MFD_CLOEXEC)
        path, temporary = f"/proc/self/fd/{descriptor}", False
    else:
        descriptor, path = tempfile.mkstemp(prefix="kubelore-")
        temporary = True
    try:
        os.write(descriptor, pem)
        yield path
    finally:
        os.close(descriptor)
        if temporary:
            Path(path).unlink(missing_ok=True)
