"""Vouching again for callers whose work outlasts a token: a job trades the old one for a fresh one.

An old token proves that this gateway once authenticated the caller; whether
that still counts is looked up by the credential it names, and what is granted
is what is granted now.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from kubelore.common.bus import Bus, Service
from kubelore.common.callers import CallerSigner, CallerVerifier, Word
from kubelore.common.contracts.vouching import SERVICE, VOUCH, Vouch, Vouched
from kubelore.common.errors import Unauthenticated
from kubelore.gateway.credentials import Credentials

VERSION = "0.1.0"
PROVIDERS_KEPT_S = 24 * 3600
"""So long after its last token a caller of an OpenID provider is still vouched for, as signed: nobody can be asked."""
_MAX_TOKEN = 256 * 1024


class Vouching:
    """Trades tokens of this installation's gateways. `clock` tells seconds since 1970."""

    def __init__(
        self,
        credentials: Credentials,
        verifier: CallerVerifier,
        signer: CallerSigner,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._credentials = credentials
        self._verifier = verifier
        self._signer = signer
        self._clock = clock

    async def vouch(self, asked: Vouch) -> Vouched:
        """A fresh token for the caller of an old one. Raises Unauthenticated, Unavailable."""
        if len(asked.token) > _MAX_TOKEN:
            raise Unauthenticated("the gateway does not vouch for this caller")
        word = self._verifier.word(asked.token)
        caller = await self._credentials.of_credential(word.caller.credential, lasting=asked.lasting)
        if caller is None:
            self._check_provider(word, asked.lasting)
            caller = word.caller
        return Vouched(token=self._signer.token(caller))

    def _check_provider(self, word: Word, lasting: bool) -> None:
        if lasting:
            raise Unauthenticated(
                f"{word.caller.subject} is known by a login that ends, and this goes on after it",
                remedy="Do this with an API token.",
            )
        if self._clock() - word.expires > PROVIDERS_KEPT_S:
            raise Unauthenticated(
                f"{word.caller.subject} was last authenticated over a day ago", remedy="Start it again."
            )


def vouching_service(bus: Bus, vouching: Vouching) -> Service:
    """What the gateway answers on the bus."""
    service = Service(bus, SERVICE, VERSION)
    service.serve(VOUCH, vouching.vouch)
    return service
