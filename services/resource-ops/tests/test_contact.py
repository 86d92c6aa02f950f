"""The probe that tells whether a cluster answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from kubelore.common.errors import Unavailable
from kubelore.lab.waiting import wait_for
from kubelore.resource_ops.contact import BACKOFF_LIMIT_S, Contact, pause_s
from kubelore.resource_ops.incarnation import ClusterReplaced


class Server:
    """An API server that answers or not, and counts how often it was asked."""

    def __init__(self) -> None:
        self.up = True
        self.asked = 0
        self.greeted = 0
        self.greeting: Exception | None = None

    async def probe(self) -> None:
        self.asked += 1
        if not self.up:
            raise Unavailable("down")

    async def greet(self) -> None:
        self.greeted += 1
        if self.greeting is not None:
            raise self.greeting


@contextlib.asynccontextmanager
async def contact_with(server: Server) -> AsyncIterator[Contact]:
    contact = Contact(server.probe, server.greet)
    running = asyncio.create_task(contact.run())
    yield contact
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("failures", [2, 10, 1_000, 100_000])
def test_a_cluster_that_is_down_for_days_is_still_probed(failures: int) -> None:
    assert 0 < pause_s(failures) <= BACKOFF_LIMIT_S * 1.1


async def test_a_suspicion_that_proves_right_is_known_long_before_the_next_probe_is_due(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for limit in ("INTERVAL_S", "BACKOFF_LIMIT_S"):
        monkeypatch.setattr(f"kubelore.resource_ops.contact.{limit}", 600.0)
    server = Server()
    async with contact_with(server) as contact:
        await contact.reachable.wait()
        server.up = False
        contact.suspect()
        await wait_for(lambda: _gone(contact), "the contact to be lost")
        assert contact.error == "down"
        assert contact.last_ok is not None


async def test_many_suspicions_are_one_probe_a_second() -> None:
    server = Server()
    async with contact_with(server) as contact:
        await contact.reachable.wait()

        async def suspected_for_three_seconds() -> bool:
            contact.suspect()
            return server.asked >= 4

        started = asyncio.get_running_loop().time()
        await wait_for(suspected_for_three_seconds, "four probes", 10, every=0.01)
        assert asyncio.get_running_loop().time() - started > 2.5


async def test_nobody_is_told_of_a_contact_before_the_greeting() -> None:
    server = Server()
    server.greeting = Unavailable("not ready yet")
    async with contact_with(server) as contact:
        await wait_for(lambda: _says(contact, "not ready yet"), "the greeting to be refused")
        assert not contact.reachable.is_set()
        server.greeting = None
        await wait_for(lambda: _reached(contact), "the contact", 10)


async def test_a_replaced_cluster_ends_the_probing() -> None:
    server = Server()
    server.greeting = ClusterReplaced("another one")
    with pytest.raises(ClusterReplaced):
        await Contact(server.probe, server.greet).run()


async def _gone(contact: Contact) -> bool:
    return not contact.reachable.is_set()


async def _reached(contact: Contact) -> bool:
    return contact.reachable.is_set()


async def _says(contact: Contact, text: str) -> bool:
    return contact.error == text
