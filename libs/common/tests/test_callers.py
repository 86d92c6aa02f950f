"""Whom a request is made for, on its way over the bus."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from joserfc import jwt
from joserfc.jwk import OKPKey

from kubelore.common.authz import Caller, Grant
from kubelore.common.bus import Bus, Service
from kubelore.common.callers import CallerSigner, CallerVerifier, acting_as, current_caller
from kubelore.common.contracts.endpoint import Endpoint
from kubelore.common.crypto import Keyring
from kubelore.common.errors import Unauthenticated

ALICE = Caller(subject="alice", grants=(Grant(role="viewer", clusters=("prod-*",)),), credential="token:1")
BOB = Caller(subject="bob", grants=(Grant(role="admin"),), credential="oidc")


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return Keyring.create(tmp_path / "gateway.json", "gateway")


def test_a_caller_arrives_as_it_was_sent(keyring: Keyring, tmp_path: Path) -> None:
    signer, verifier = CallerSigner(keyring.signer()), CallerVerifier.load(tmp_path)
    assert verifier.caller(signer.token(ALICE)) == ALICE
    assert verifier.caller(signer.token(BOB)) == BOB


def test_a_token_is_reused_while_it_lives_long_enough_and_dies_after_a_minute(
    keyring: Keyring, tmp_path: Path
) -> None:
    clock = Clock()
    signer = CallerSigner(keyring.signer(), clock)
    verifier = CallerVerifier(keyring.signer().verifier, clock)
    first = signer.token(ALICE)
    clock.now += 29
    assert signer.token(ALICE) == first
    clock.now += 2
    assert signer.token(ALICE) != first
    assert verifier.caller(first) == ALICE
    clock.now += 30
    with pytest.raises(Unauthenticated):
        verifier.caller(first)


def test_nobody_but_the_gateway_can_vouch(keyring: Keyring, tmp_path: Path) -> None:
    verifier = CallerVerifier.load(tmp_path)
    other = Keyring.create(tmp_path / "other" / "gateway.json", "gateway")
    claims = {"aud": "kubelore-bus", "sub": "x", "crd": "admin", "grants": [], "exp": 9_999_999_999}
    mine = OKPKey.import_key(keyring.signer().jwk())
    forged = [
        CallerSigner(other.signer()).token(ALICE),
        jwt.encode({"alg": "Ed25519"}, {**claims, "aud": "else"}, mine, algorithms=["Ed25519"]),
        jwt.encode({"alg": "Ed25519"}, {"aud": "kubelore-bus", "sub": "x"}, mine, algorithms=["Ed25519"]),
        "eyJhbGciOiJub25lIn0." + CallerSigner(keyring.signer()).token(ALICE).split(".")[1] + ".",
        CallerSigner(keyring.signer()).token(ALICE)[:-4] + "AAAA",
        "",
        "nonsense",
    ]
    for token in forged:
        with pytest.raises(Unauthenticated):
            verifier.caller(token)


class Who(msgspec.Struct):
    subject: str = ""


WHOAMI = Endpoint("who", "am", Who, Who)
THROUGH = Endpoint("who", "through", Who, Who)


async def test_a_service_answers_on_behalf_of_whom_the_gateway_names_and_passes_that_on(
    joining, keyring: Keyring
) -> None:
    gateway: Bus = await joining(name="gateway")
    gateway.signer = CallerSigner(keyring.signer())
    first, second = await joining(name="first"), await joining(name="second")
    for bus in (first, second):
        bus.verifier = CallerVerifier(keyring.signer().verifier)

    async def whoami(_: Who) -> Who:
        return Who(current_caller().subject)

    async def through(_: Who) -> Who:
        return await first.request(WHOAMI, Who())

    services = [Service(first, "who", "1.0.0"), Service(second, "who", "1.0.0")]
    services[0].serve(WHOAMI, whoami)
    services[1].serve(THROUGH, through)
    for service in services:
        await service.start()
    with acting_as(ALICE):
        assert (await gateway.request(WHOAMI, Who())).subject == "alice"
        assert (await gateway.request(THROUGH, Who())).subject == "alice"
        with acting_as(BOB):
            assert (await gateway.request(THROUGH, Who())).subject == "bob"
    with pytest.raises(Unauthenticated, match="names no caller"):
        await gateway.request(WHOAMI, Who())
    for service in services:
        await service.stop()


async def test_a_service_without_the_gateways_key_serves_nobody(joining, keyring: Keyring) -> None:
    bus: Bus = await joining(name="first")
    bus.signer, bus.speaks_for = CallerSigner(keyring.signer()), ALICE
    service = Service(bus, "who", "1.0.0")

    async def whoami(_: Who) -> Who:
        return Who(current_caller().subject)

    service.serve(WHOAMI, whoami)
    await service.start()
    with pytest.raises(Unauthenticated, match=r"gateway\.verify"):
        await bus.request(WHOAMI, Who())
    await service.stop()


def test_outside_of_a_request_there_is_no_caller() -> None:
    with pytest.raises(Unauthenticated):
        current_caller()
