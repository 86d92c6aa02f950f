"""Logging in and handing out tokens by the command line, against a running Kubelore."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import sys
from pathlib import Path

import pytest

from kubelore.kubesim.app import SimulatedFleet
from kubelore.lab.waiting import wait_for


class Person:
    """Somebody with a home of their own at a terminal that is none."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self.logins = home / "config" / "kubelore" / "targets.json"

    async def __call__(self, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("KUBELORE_")}
        env = {
            **kept,
            "XDG_CONFIG_HOME": str(self._home / "config"),
            "XDG_DATA_HOME": str(self._home / "data"),
        }
        running = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "kubelore.cli",
            *arguments,
            env=env,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(60):
            out, err = await running.communicate(stdin.encode())
        assert running.returncode is not None
        return running.returncode, out.decode(), err.decode()

    async def succeeds(self, *arguments: str, stdin: str = "") -> str:
        code, out, err = await self(*arguments, stdin=stdin)
        assert code == 0, err
        return out


@pytest.fixture
def admin(tmp_path: Path) -> Person:
    return Person(tmp_path / "admin")


@pytest.fixture
def viewer(tmp_path: Path) -> Person:
    return Person(tmp_path / "viewer")


async def test_an_administrator_hands_out_a_token_and_takes_it_back(kubelore, admin, viewer) -> None:
    async with SimulatedFleet(clusters=2, pods=5) as fleet:
        for name, cluster in zip(("seen", "hidden"), fleet, strict=False):
            await kubelore.onboard(name, cluster.kubeconfig)
        try:
            await _hand_out_and_take_back(kubelore, admin, viewer)
        finally:
            for name in ("seen", "hidden"):
                await kubelore.remove(name)


async def _hand_out_and_take_back(kubelore, admin: Person, viewer: Person) -> None:
    said = await admin.succeeds("login", kubelore.url, "--name", "test", stdin=f"{kubelore.token}\n")
    assert f"Logged in to {kubelore.url} as admin" in said
    assert stat.S_IMODE(admin.logins.stat().st_mode) == 0o600
    secret = (
        await admin.succeeds(
            "tokens", "create", "ci", "--role", "viewer", "--cluster", "se*", "--expires", "1h"
        )
    ).strip()
    await viewer.succeeds("login", kubelore.url, stdin=secret)
    assert (await viewer.succeeds("whoami", "-o", "name")).strip() == "ci"
    assert (await viewer.succeeds("clusters", "list", "-o", "name")).split() == ["seen"]
    assert (await viewer.succeeds("get", "pods", "-A", "-o", "name")).count("seen:pods:") == 5
    code, _, err = await viewer("tokens", "create", "more")
    assert (code, "may not make tokens" in err) == (1, True)
    listed = await admin.succeeds("tokens", "list")
    assert "viewer se*/*" in listed
    assert secret not in listed
    tokens = json.loads(await admin.succeeds("tokens", "list", "-o", "json"))["items"]
    (token_id,) = [token["id"] for token in tokens if token["name"] == "ci"]
    assert token_id in (await admin.succeeds("tokens", "list", "-o", "name")).split()
    await admin.succeeds("tokens", "revoke", token_id)

    async def refused() -> bool:
        return (await viewer("whoami"))[0] == 1

    await wait_for(refused, "the token to be refused", 15)
    await admin.succeeds("logout")
    assert kubelore.token not in admin.logins.read_text()


async def test_a_token_that_is_not_valid_is_not_kept(kubelore, viewer) -> None:
    code, _, err = await viewer("login", kubelore.url, stdin="not-the-token-of-anybody")
    assert (code, "not valid" in err) == (1, True)
    assert not viewer.logins.exists()
    code, _, err = await viewer("login", kubelore.url, stdin="")
    assert (code, "no token was given" in err) == (1, True)
