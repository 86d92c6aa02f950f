"""Encryption of everything Kubelore keeps: keyrings, sealed envelopes, and boxes to a recipient.

Nothing here knows what is sealed. docs/keyring.md describes the formats.
"""

from kubelore.common.crypto.files import KeyringError
from kubelore.common.crypto.keyring import KeyInfo, Keyring
from kubelore.common.crypto.recipient import Recipient
from kubelore.common.crypto.sealer import Sealer
from kubelore.common.crypto.signing import Signer, Verifier

__all__ = ["KeyInfo", "Keyring", "KeyringError", "Recipient", "Sealer", "Signer", "Verifier"]
