"""Tokens of an OpenID provider: which are taken, for whom, and how its keys are fetched."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from pydantic import ValidationError

from kubelore.common.errors import Unauthenticated, Unavailable
from kubelore.gateway import jwks
from kubelore.gateway.jwks import Jwks
from kubelore.gateway.settings import GatewaySettings

AUDIENCE = "kubelore"
ADMINS = [{"role": "admin"}]
TEAM = [{"role": "operator", "clusters": ["prod-*"], "namespaces": ["team-a"]}]


class Provider:
    """A provider with a key set and a discovery document, on loopback."""

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {"first": RSAKey.generate_key(2048, {"kid": "first"})}
        self.answer: web.Response | None = None
        self.asked: list[str] = []
        self.url = ""

    async def jwks(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        shown = [{**key.as_dict(private=False), "kid": kid} for kid, key in self.keys.items()]
        return self.answer or web.json_response({"keys": shown})

    async def discovery(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        return web.json_response({"issuer": self.url, "jwks_uri": f"{self.url}/keys"})

    def token(self, kid: str = "first", alg: str = "RS256", key: Any = None, **claims: Any) -> str:
        now = int(time.time())
        usual = {"iss": self.url, "aud": AUDIENCE, "sub": "alice", "exp": now + 300, "groups": ["team-a"]}
        whole = {name: value for name, value in {**usual, **claims}.items() if value is not None}
        header = {"alg": alg, **({"kid": kid} if kid else {})}
        return jwt.encode(header, whole, key or self.keys[kid], algorithms=[alg])


@pytest_asyncio.fixture(loop_scope="session")
async def provider() -> AsyncIterator[Provider]:
    made = Provider()
    app = web.Application()
    app.router.add_get("/keys", made.jwks)
    app.router.add_get("/.well-known/openid-configuration", made.discovery)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = site.name
    yield made
    await runner.cleanup()


@pytest_asyncio.fixture(loop_scope="session")
async def ask(another, provider: Provider):
    """Ask a gateway that is set up with the provider who the bearer of a token is."""
    client = await another(
        oidc_issuer=provider.url,
        oidc_audience=AUDIENCE,
        oidc_allow_loopback=True,
        oidc_grants=[
            {"value": "admins", "grants": ADMINS},
            {"value": "team-a", "grants": TEAM},
            {"claim": "email", "value": "bob@example.com", "grants": [{"role": "viewer"}]},
        ],
    )

    async def asking(token: str) -> tuple[int, dict[str, Any]]:
        answer = await client.get("/api/whoami", headers={"Authorization": f"Bearer {token}"})
        return answer.status_code, answer.json()

    return asking


async def test_claims_become_grants_by_the_settings(ask, provider: Provider) -> None:
    status, who = await ask(provider.token())
    assert (status, who["subject"], who["credential"]) == (200, "oidc:alice", "oidc")
    assert who["grants"] == [{**TEAM[0], "rights": []}]
    _, who = await ask(provider.token(sub="bob", groups=["admins", "else"], email="bob@example.com"))
    assert [grant["role"] for grant in who["grants"]] == ["admin", "viewer"]
    _, who = await ask(provider.token(groups="team-a"))
    assert [grant["role"] for grant in who["grants"]] == ["operator"]
    for nothing in (None, [], ["team"], "admins,team-a", {"team-a": True}, 7):
        status, who = await ask(provider.token(groups=nothing))
        assert (status, who["grants"]) == (200, []), nothing


async def test_a_token_that_breaks_a_rule_is_refused(ask, provider: Provider) -> None:
    now = int(time.time())
    stranger = RSAKey.generate_key(2048, {"kid": "first"})
    public = provider.keys["first"].as_pem(private=False)
    confused = OctKey.import_key(base64.urlsafe_b64encode(public).decode())
    none = ".".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
        for part in (
            {"alg": "none", "kid": "first"},
            {"iss": provider.url, "aud": AUDIENCE, "sub": "x", "exp": now + 300},
        )
    )
    good = provider.token()
    refused = {
        "issuer": provider.token(iss="https://evil.example"),
        "no issuer": provider.token(iss=None),
        "audience": provider.token(aud="another"),
        "no audience": provider.token(aud=None),
        "audiences": provider.token(aud=["another", "more"]),
        "expired": provider.token(exp=now - 61),
        "no expiry": provider.token(exp=None),
        "not yet": provider.token(nbf=now + 120),
        "future": provider.token(iat=now + 120),
        "another's key": provider.token(key=stranger),
        "unknown key": provider.token(kid="unknown", key=stranger),
        "symmetric": provider.token(alg="HS256", key=confused),
        "none": f"{none}.",
        "an algorithm that is no word": ".".join(
            (
                base64.urlsafe_b64encode(b'{"alg":["RS256"],"kid":"first"}').rstrip(b"=").decode(),
                *good.split(".")[1:],
            )
        ),
        "cut": good[:-10],
        "changed": good.split(".")[0] + "." + none.split(".")[1] + "." + good.split(".")[2],
        "nobody": provider.token(sub=None),
        "empty": provider.token(sub=""),
        "control characters": provider.token(sub="a\x1b[2J"),
        "long": provider.token(sub="x" * 201),
        "garbage": "a.b.c",
        "nested without end": _unpadded('{"a":' * 2_000 + "1" + "}" * 2_000) + ".e30.x",
    }
    for what, token in refused.items():
        status, problem = await ask(token)
        assert (status, problem["reason"]) == (401, "Unauthorized"), what
        assert token not in json.dumps(problem)


def _unpadded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


async def test_clocks_may_differ_by_a_minute(ask, provider: Provider) -> None:
    now = int(time.time())
    assert (await ask(provider.token(exp=now - 30)))[0] == 200
    assert (await ask(provider.token(nbf=now + 30)))[0] == 200


async def test_keys_of_every_usual_kind_are_taken(ask, provider: Provider) -> None:
    provider.keys |= {
        "ec": ECKey.generate_key("P-256", {"kid": "ec"}),
        "ed": OKPKey.generate_key("Ed25519", {"kid": "ed"}),
    }
    assert (await ask(provider.token("ec", "ES256")))[0] == 200
    assert (await ask(provider.token("ed", "Ed25519")))[0] == 200
    assert (await ask(provider.token(alg="PS512")))[0] == 200


async def test_a_key_says_which_algorithm_it_is_for(ask, provider: Provider) -> None:
    provider.keys["ps"] = RSAKey.generate_key(2048, {"kid": "ps", "alg": "PS256"})
    unbound = RSAKey.import_key({**provider.keys["ps"].as_dict(private=True), "alg": "RS256"})
    assert (await ask(provider.token("ps", "RS256", unbound)))[0] == 401
    assert (await ask(provider.token("ps", "PS256")))[0] == 200


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def test_a_new_key_is_found_and_made_up_ones_cause_no_flood(provider: Provider, clock: Clock) -> None:
    keys = Jwks(provider.url, f"{provider.url}/keys", allow_loopback=True, clock=clock)
    assert (await keys.key("first")).kid == "first"
    for number in range(20):
        with pytest.raises(Unauthenticated):
            await keys.key(f"made-up-{number}")
    assert len(provider.asked) == 1
    provider.keys = {"second": RSAKey.generate_key(2048, {"kid": "second"})}
    assert (await keys.key("first")).kid == "first"
    clock.now += jwks.REFETCH_S + 1
    assert (await keys.key("second")).kid == "second"
    with pytest.raises(Unauthenticated):
        await keys.key("first")
    assert len(provider.asked) == 2


async def test_a_key_that_was_withdrawn_stops_working_within_the_hour(
    provider: Provider, clock: Clock
) -> None:
    keys = Jwks(provider.url, allow_loopback=True, clock=clock)
    await keys.key("first")
    assert provider.asked == ["/.well-known/openid-configuration", "/keys"]
    provider.keys = {"second": RSAKey.generate_key(2048, {"kid": "second"})}
    clock.now += jwks.FRESH_S + 1
    with pytest.raises(Unauthenticated):
        await keys.key("first")


async def test_while_the_provider_is_away_its_keys_are_good_for_a_day(
    provider: Provider, clock: Clock
) -> None:
    keys = Jwks(provider.url, f"{provider.url}/keys", allow_loopback=True, clock=clock)
    await keys.key("first")
    provider.answer = web.Response(status=500)
    clock.now += jwks.KEPT_S - 1
    assert (await keys.key("first")).kid == "first"
    clock.now += 2 + jwks.REFETCH_S
    with pytest.raises(Unavailable):
        await keys.key("first")


BAD_ANSWERS = {
    "redirect": lambda: web.Response(status=302, headers={"Location": "/keys"}),
    "error": lambda: web.Response(status=404),
    "no JSON": lambda: web.Response(text="<html>"),
    "a list": lambda: web.json_response([]),
    "no keys": lambda: web.json_response({"keys": []}),
    "symmetric": lambda: web.json_response({"keys": [{"kty": "oct", "kid": "first", "k": "AAAA"}]}),
    "nonsense": lambda: web.json_response({"keys": [{"kty": "RSA", "kid": "first", "n": 1}, "x", None]}),
    "nested without end": lambda: web.Response(text='{"keys":' + "[" * 5_000 + "]" * 5_000 + "}"),
    "huge": lambda: web.json_response({"keys": [], "padding": "x" * (jwks.MAX_BYTES + 1)}),
}


@pytest.mark.parametrize("what", BAD_ANSWERS)
async def test_an_answer_that_is_no_key_set_gives_no_keys(provider: Provider, what: str) -> None:
    provider.answer = BAD_ANSWERS[what]()
    keys = Jwks(provider.url, f"{provider.url}/keys", allow_loopback=True)
    with pytest.raises(Unavailable):
        await keys.key("first")


@pytest.mark.parametrize(
    ("url", "loopback"),
    [
        ("http://idp.example/keys", True),
        ("http://127.0.0.1/keys", False),
        ("http://localhost/keys", True),
        ("https://user:secret@idp.example/keys", True),
        ("file:///etc/passwd", True),
        ("https://", True),
    ],
)
def test_keys_come_over_https_only(url: str, loopback: bool) -> None:
    with pytest.raises(ValidationError) as refused:
        GatewaySettings(
            oidc_issuer="https://idp.example",
            oidc_audience="x",
            oidc_jwks_url=url,
            oidc_allow_loopback=loopback,
        )
    assert "keys" in str(refused.value)


def test_a_provider_is_set_up_whole_or_not_at_all() -> None:
    for half in (
        {"oidc_issuer": "https://idp.example"},
        {"oidc_algorithms": ["HS256"]},
        {"oidc_algorithms": ["none"]},
        {"oidc_subject_prefix": ""},
        {"oidc_subject_prefix": "a"},
        {"oidc_grants": [{"value": "x", "grants": [{"role": "root"}]}]},
    ):
        with pytest.raises(ValidationError):
            GatewaySettings(**half)
