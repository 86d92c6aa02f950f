"""Kubeconfigs and credentials, open in memory only and sealed everywhere else."""

from __future__ import annotations

import msgspec

from kubelore.common.crypto import Keyring
from kubelore.common.errors import IntegrityError, Invalid
from kubelore.common.kube import ClusterAccess


class Vault:
    """Opens what is sealed to the registry, and seals what it stores to the name of its cluster."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def public_key(self) -> bytes:
        """The key to seal kubeconfigs to."""
        return self._keyring.recipient().public_key

    def kubeconfig(self, box: bytes, purpose: str) -> str:
        """A kubeconfig sealed for a purpose (`inspect`, or the cluster's name). Raises Invalid."""
        try:
            return self._keyring.open_box(box, context=f"kubeconfig:{purpose}").decode()
        except IntegrityError as error:
            raise Invalid(
                "the kubeconfig was not sealed to this registry", remedy="Send it again."
            ) from error
        except UnicodeDecodeError as error:
            raise Invalid("the kubeconfig is not UTF-8 text") from error

    def seal(self, cluster: str, access: ClusterAccess) -> bytes:
        """Credentials as they are stored."""
        return self._keyring.seal(msgspec.msgpack.encode(access), context=f"cluster:{cluster}")

    def open(self, cluster: str, sealed: bytes) -> ClusterAccess:
        """Stored credentials in memory. Raises IntegrityError."""
        plain = self._keyring.open(sealed, context=f"cluster:{cluster}")
        try:
            return msgspec.msgpack.decode(plain, type=ClusterAccess)
        except msgspec.MsgspecError:
            # Not chained: the decoder's message may quote what it could not decode.
            raise IntegrityError(f"the credentials of {cluster} are of no known form") from None
