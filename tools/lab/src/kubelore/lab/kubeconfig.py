"""Kubeconfig files with everything inline, as Kubelore wants them."""

import base64

import yaml

from kubelore.lab.pki import Identity


def with_certificate(cluster: str, server: str, authority: bytes, user: str, identity: Identity) -> str:
    """A kubeconfig (YAML text) for a user who shows a client certificate."""
    credentials = {
        "client-certificate-data": _encode(identity.certificate),
        "client-key-data": _encode(identity.key),
    }
    return _document(cluster, server, authority, user, credentials)


def with_token(cluster: str, server: str, authority: bytes, user: str, token: str) -> str:
    """A kubeconfig (YAML text) for a user who shows a bearer token."""
    return _document(cluster, server, authority, user, {"token": token})


def _document(cluster: str, server: str, authority: bytes, user: str, credentials: dict[str, str]) -> str:
    context = f"{user}@{cluster}"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": cluster,
                "cluster": {"server": server, "certificate-authority-data": _encode(authority)},
            }
        ],
        "users": [{"name": user, "user": credentials}],
        "contexts": [{"name": context, "context": {"cluster": cluster, "user": user}}],
        "current-context": context,
    }
    return yaml.safe_dump(document, sort_keys=False)


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()
