"""What is left of a kubeconfig after cleansing: everything needed to connect, and nothing to follow.

No path, no command but one that the operator allowed word for word, no user
name. `repr` shows no credential, so that a careless log line cannot either.
"""

from __future__ import annotations

from typing import Any

import msgspec


class ExecCommand(msgspec.Struct, frozen=True, kw_only=True):
    """A credential plugin that the operator's settings allow; run without a shell."""

    argv: tuple[str, ...]
    api_version: str
    provide_cluster_info: bool = False


class ClusterAccess(msgspec.Struct, kw_only=True, repr_omit_defaults=True):
    """One cluster and one user, ready to connect; empty bytes and strings mean "not given".

    PEM values are bytes. `server` has no trailing slash. Secret: keep it sealed
    wherever it is stored or sent (`Keyring.seal` of its msgpack).
    """

    server: str
    context: str = ""
    namespace: str = ""
    tls_server_name: str = ""
    proxy_url: str = ""
    insecure: bool = False
    ca_pem: bytes = b""
    client_cert_pem: bytes = b""
    client_key_pem: bytes = b""
    token: str = ""
    exec: ExecCommand | None = None

    @property
    def authentication(self) -> str:
        """How it authenticates, in the words of `ContextReport.authentication`."""
        if self.exec is not None:
            return "exec"
        if self.token:
            return "token"
        return "client-certificate" if self.client_cert_pem else "none"

    def __repr__(self) -> str:
        """The server and the kind of credentials, never a credential."""
        return f"ClusterAccess(server={self.server!r}, authentication={self.authentication!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """What rich shows: the same as `repr`."""
        return [("server", self.server), ("authentication", self.authentication)]
