"""Browser sessions: the cookie, who may use it from where, and when it ends."""

from __future__ import annotations

from contextlib import aclosing
from http.cookies import SimpleCookie
from typing import Any

import httpx
import pytest
import pytest_asyncio

from kubelore.common.authz import ADMINISTRATOR
from kubelore.common.errors import Unauthenticated
from kubelore.common.store import open_database
from kubelore.gateway.minting import FOR_BROWSER, read
from kubelore.gateway.repository import SessionRepository
from kubelore.gateway.sessions import IDLE_S, LIFETIME_S, Sessions
from kubelore.gateway.standing import Standing
from kubelore.lab.waiting import wait_for

WATCH = "/api/k8s/unified/watch"


class Browser:
    """A client that has a cookie, its page's origin and its CSRF token."""

    def __init__(self, url: str, opened: httpx.Response) -> None:
        assert opened.status_code == 201, opened.text
        (morsel,) = SimpleCookie(opened.headers["set-cookie"]).values()
        self.morsel = morsel
        self.session = opened.json()
        self.origin = url
        self.csrf = self.session["csrf_token"]
        self.http = httpx.AsyncClient(
            base_url=url, timeout=20, headers={"Cookie": f"{morsel.key}={morsel.value}"}
        )

    def writing(self, **different: str | None) -> dict[str, str]:
        """The headers of a request that changes something, some of them changed or left out."""
        headers = {"Origin": self.origin, "X-CSRF-Token": self.csrf}
        changed = {name.replace("_", "-"): value for name, value in different.items()}
        return {name: value for name, value in {**headers, **changed}.items() if value is not None}


@pytest_asyncio.fixture(loop_scope="session")
async def browser(world):
    made = await world.token("alice", role="admin")
    headers = {"Authorization": f"Bearer {made['token']}"}
    opened = Browser(world.url, await world.stranger.post("/api/session", headers=headers))
    opened.token = made
    yield opened
    await opened.http.aclose()


async def test_a_token_becomes_a_cookie_that_scripts_and_other_sites_do_not_get(world, browser) -> None:
    assert browser.morsel.key == "kubelore_session"
    assert (browser.morsel["httponly"], browser.morsel["samesite"], browser.morsel["path"]) == (
        True,
        "strict",
        "/",
    )
    assert not browser.morsel["domain"]
    shown = (await browser.http.get("/api/session")).json()
    assert shown == browser.session
    assert (shown["subject"], shown["grants"]) == ("alice", browser.token["grants"])
    assert shown["credential"].startswith("session:")
    assert (await browser.http.get("/api/whoami")).json()["credential"] == shown["credential"]
    async with await open_database(world.settings) as database:
        (kept,) = await database.collection("sessions").find()
    assert browser.morsel.value[-43:] not in str(kept)
    assert browser.csrf not in str(kept)


async def test_behind_https_the_cookie_is_one_that_nobody_else_can_set(world, another) -> None:
    client = await another(public_url="https://kubelore.example")
    headers = {"Authorization": world.http.headers["Authorization"]}
    opened = Browser("https://kubelore.example", await client.post("/api/session", headers=headers))
    assert (opened.morsel.key, opened.morsel["secure"]) == ("__Host-kubelore_session", True)
    cookie = {"Cookie": f"{opened.morsel.key}={opened.morsel.value}"}
    assert (await client.get("/api/whoami", headers=cookie)).status_code == 200
    assert (
        await client.delete(
            "/api/session", headers={**cookie, **opened.writing(Origin="http://kubelore.example")}
        )
    ).status_code == 403
    plain = {"Cookie": f"kubelore_session={opened.morsel.value}"}
    assert (await client.get("/api/whoami", headers=plain)).status_code == 401
    assert (await client.delete("/api/session", headers={**cookie, **opened.writing()})).status_code == 204


async def test_what_changes_something_needs_the_csrf_token_and_an_origin_of_our_own(browser) -> None:
    body = {"name": "x", "grants": [{"role": "viewer"}]}
    refused: list[dict[str, str]] = [
        browser.writing(X_CSRF_Token=None),
        browser.writing(X_CSRF_Token=""),
        browser.writing(X_CSRF_Token=browser.csrf[:-1]),
        browser.writing(Origin=None),
        browser.writing(Origin="null"),
        browser.writing(Origin="https://evil.example"),
        browser.writing(Origin=browser.origin + ".evil.example"),
        browser.writing(Origin=browser.origin.replace("http:", "https:")),
        browser.writing(Origin=None, Referer=browser.origin + "/"),
    ]
    for headers in refused:
        answer = await browser.http.post("/api/tokens", json=body, headers=headers)
        assert (answer.status_code, answer.json()["reason"]) == (403, "Forbidden"), headers
    assert (await browser.http.post("/api/tokens", json=body, headers=browser.writing())).status_code == 201


async def test_a_csrf_token_is_of_its_own_session_only(world, browser) -> None:
    headers = {"Authorization": f"Bearer {browser.token['token']}"}
    other = Browser(world.url, await world.stranger.post("/api/session", headers=headers))
    assert other.csrf != browser.csrf
    answer = await browser.http.delete("/api/session", headers=browser.writing(X_CSRF_Token=other.csrf))
    assert (answer.status_code, answer.json()["code"]) == (403, "CsrfTokenInvalid")
    await other.http.aclose()


async def test_another_sites_page_reads_nothing(browser) -> None:
    for headers in (
        {"Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        answer = await browser.http.get("/api/k8s/clusters/list", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "ForeignOrigin"), headers
    for headers in (
        {},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": browser.origin},
    ):
        assert (await browser.http.get("/api/k8s/clusters/list", headers=headers)).status_code == 200


async def test_origins_of_the_settings_are_ours_too(world, another) -> None:
    client = await another(allowed_origins=["https://console.example/"])
    headers = {"Authorization": world.http.headers["Authorization"]}
    opened = Browser(str(client.base_url), await client.post("/api/session", headers=headers))
    cookie = {"Cookie": f"{opened.morsel.key}={opened.morsel.value}"}
    writing = opened.writing(Origin="https://console.example")
    assert (await client.delete("/api/session", headers={**cookie, **writing})).status_code == 204


async def test_a_watch_is_opened_by_our_own_page_only(world, browser) -> None:
    await world.replica("prod-eu")
    for headers in ({}, {"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "none"}):
        assert (await browser.http.get(WATCH, headers=headers)).status_code == 403, headers
    for headers in ({"Origin": browser.origin}, {"Sec-Fetch-Site": "same-origin"}):
        async with browser.http.stream("GET", WATCH, headers=headers) as answer:
            assert answer.status_code == 200


async def test_a_session_ends_when_it_is_closed_and_so_do_its_watches(world, browser) -> None:
    await world.replica("prod-eu")
    browser.http.headers["Origin"] = browser.origin
    async with aclosing(world.watching(client=browser.http)) as watching:
        events = await anext(watching)
        ended = await browser.http.delete("/api/session", headers=browser.writing())
        assert ended.status_code == 204
        assert f'{browser.morsel.key}=""' in ended.headers["set-cookie"]
        while True:
            name, _, data = await events.next(bookmarks=True)
            if name == "error":
                break
        assert data["reason"] == "Unauthorized"
    assert (await browser.http.get("/api/whoami")).status_code == 401


async def test_a_session_ends_with_the_token_that_opened_it(world, browser) -> None:
    assert (await world.http.delete(f"/api/tokens/{browser.token['id']}")).status_code == 204
    assert (await browser.http.get("/api/whoami")).status_code == 401


async def test_an_administrators_session_ends_when_the_token_in_the_settings_is_changed(
    world, another
) -> None:
    headers = {"Authorization": world.http.headers["Authorization"]}
    opened = Browser(world.url, await world.stranger.post("/api/session", headers=headers))
    cookie = {"Cookie": f"{opened.morsel.key}={opened.morsel.value}"}
    assert (await (await another()).get("/api/whoami", headers=cookie)).status_code == 200
    changed = await another(admin_token="quite-another-token")
    assert (await changed.get("/api/whoami", headers=cookie)).status_code == 401
    await opened.http.aclose()


async def test_a_session_never_outlives_its_token(world) -> None:
    made = await world.token("brief", expires_in_s=5)
    headers = {"Authorization": f"Bearer {made['token']}"}
    opened = Browser(world.url, await world.stranger.post("/api/session", headers=headers))
    assert opened.session["expires_at"] == made["expires_at"]

    async def ended() -> bool:
        return (await opened.http.get("/api/session")).status_code == 401

    await wait_for(ended, "the session to end", 10)
    await opened.http.aclose()


async def test_there_is_no_session_of_a_bearer_token_and_none_is_opened_with_a_cookie(world, browser) -> None:
    assert (await world.http.get("/api/session")).status_code == 404
    assert (await world.http.delete("/api/session")).status_code == 404
    assert (await browser.http.post("/api/session", headers=browser.writing())).status_code == 400


async def test_a_cookie_that_is_none_of_ours_opens_nothing(world, browser) -> None:
    value = browser.morsel.value
    for wrong in (value[:-1], value + "A", "", "x", value.replace("kls", "klt"), browser.token["token"]):
        answer = await world.stranger.get("/api/whoami", headers={"Cookie": f"kubelore_session={wrong}"})
        assert answer.status_code == 401, wrong
    as_bearer = await world.stranger.get("/api/whoami", headers={"Authorization": f"Bearer {value}"})
    assert as_bearer.status_code == 401


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest_asyncio.fixture(loop_scope="session")
async def sessions(settings, clock):
    async with await open_database(settings) as database:
        # Without the index: its server would compare with the real time.
        yield Sessions(SessionRepository(database), clock)


async def _never() -> Any:
    raise AssertionError


async def test_a_session_ends_after_half_an_hour_without_a_request(sessions, clock) -> None:
    session, secret = await sessions.open(Standing(ADMINISTRATOR, None, _never), "")
    presented = read(FOR_BROWSER, secret)
    for _ in range(3):
        clock.now += IDLE_S - 1
        assert (await sessions.of_secret(presented)).id == session.id
    clock.now += IDLE_S + 1
    with pytest.raises(Unauthenticated):
        await sessions.of_secret(presented)


async def test_a_session_ends_after_twelve_hours_however_much_it_is_used(sessions, clock) -> None:
    _, secret = await sessions.open(Standing(ADMINISTRATOR, None, _never), "")
    presented = read(FOR_BROWSER, secret)
    for _ in range(LIFETIME_S // 1200 - 1):
        clock.now += 1200
        await sessions.of_secret(presented)
    clock.now += 1200
    with pytest.raises(Unauthenticated):
        await sessions.of_secret(presented)
