"""The allow-lists of the bus, tried from each user's own credentials: exactly what is needed is let through."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import nats
import pytest
import pytest_asyncio
from pydantic import SecretStr

from kubelore.common.bus import (
    Bus,
    ChangeConsumer,
    ChangePublisher,
    Leases,
    Service,
    connect,
    create_durables,
)
from kubelore.common.bus.prepare import prepare
from kubelore.common.contracts import clusters
from kubelore.common.contracts.changes import Change, Record
from kubelore.common.contracts.clusters import ClusterRef, Credentials
from kubelore.common.contracts.endpoints import ENDPOINTS
from kubelore.common.contracts.permissions import (
    OPERATOR,
    PROBE,
    SERVICES,
    Permissions,
    consuming,
    permissions_of,
    render,
)
from kubelore.common.settings import CommonSettings
from kubelore.stack.servers import Account, NatsServer

WRITER = "writer"
USERS = (*SERVICES, PROBE)
STREAMS = ("CHANGES", "FEED", "EVENTS", "PARKED", "KV_LEASES", "KV_CHECKPOINTS")
SECRET = "0123456789abcdef0123456789abcdef"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NatsServer]:
    """A server with the users of an installation, and one that consumes changes and does nothing else."""
    limits = {user: permissions_of(user).as_configuration() for user in USERS}
    writer = Permissions(tuple(consuming(WRITER)), (f"_INBOX_{WRITER}.>",))
    limits[WRITER] = writer.as_configuration()
    passwords = {user: secrets.token_urlsafe(16) for user in (*USERS, WRITER, OPERATOR)}
    account = Account("KUBELORE", passwords, limits)
    async with NatsServer(tmp_path_factory.mktemp("nats"), accounts=(account,)) as running:
        bus = await join(running, OPERATOR)
        await prepare(bus)
        await bus.close()
        yield running


async def join(server: NatsServer, user: str, name: str = "") -> Bus:
    password = SecretStr(server.accounts[0].users[user])
    settings = CommonSettings(nats_url=server.url, nats_user=user, nats_password=password)
    return await connect(settings, name=name or user)


async def refused(server: NatsServer, user: str, lines: Iterable[str]) -> set[str]:
    """The subjects of those protocol lines that the server does not let the user say.

    In the client protocol itself: the server answers in order, so what it has
    to say about a line is here before the answer to the PING behind all of them.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        async with asyncio.timeout(20):
            await reader.readline()
            options = {
                "user": user,
                "pass": server.accounts[0].users[user],
                "verbose": False,
                "pedantic": False,
            }
            writer.write(f"CONNECT {json.dumps(options)}\r\n{''.join(lines)}PING\r\n".encode())
            found: set[str] = set()
            while (line := (await reader.readline()).decode()) != "PONG\r\n":
                if line.startswith("-ERR 'Permissions Violation"):
                    found.add(line.split('"')[1])
                else:
                    # Messages that come for a subscription; anything else is a mistake of the test.
                    assert line.startswith(("INFO", "MSG", "HMSG")), line
                    if line.startswith(("MSG", "HMSG")):
                        await reader.readexactly(int(line.split()[-1]) + 2)
            return found
    finally:
        writer.close()
        await writer.wait_closed()


async def may_publish(server: NatsServer, user: str, subjects: Iterable[str]) -> set[str]:
    chosen = set(subjects)
    return chosen - await refused(server, user, (f"PUB {subject} 0\r\n\r\n" for subject in chosen))


async def may_subscribe(server: NatsServer, user: str, subjects: Iterable[str]) -> set[str]:
    chosen = sorted(set(subjects))
    lines = (f"SUB {subject} {number}\r\n" for number, subject in enumerate(chosen))
    return set(chosen) - await refused(server, user, lines)


def session(server: str, client: str, side: str) -> str:
    return f"kubelore.v1.session.{server}.{client}.{SECRET}.{side}"


def pairs() -> set[tuple[str, str]]:
    """Who answers whom, according to the endpoints."""
    return {(endpoint.service, caller) for endpoint in ENDPOINTS for caller in endpoint.callers}


REQUESTS = {
    endpoint: endpoint.subject(None if endpoint.scope == "service" else "replica-1") for endpoint in ENDPOINTS
}
SESSIONS = {session(one, other, side) for one in USERS for other in USERS for side in ("in", "out")}
CLUSTER_EVENTS = {
    f"kubelore.v1.events.cluster.prod.{happened}"
    for happened in ("added", "removed", "updated", "connected", "disconnected", "synced")
}
STORED = {
    *CLUSTER_EVENTS,
    "kubelore.v1.events.alert.prod.critical.scanner",
    "kubelore.v1.events.alert.prod.critical.yaml-vcs",
    "kubelore.v1.events.alert.prod.warning.yaml-vcs",
    "kubelore.v1.events.alert.prod.warning.container-ops",
    "$KV.LEASES.logs.prod",
    "$KV.LEASES.containers.upkeep",
    "kubelore.v1.events.audit.prod.denied",
    "kubelore.v1.events.restore.prod.running",
    "kubelore.v1.events.backup.b1.completed",
    "kubelore.v1.events.resource.prod.p03",
    "kubelore.v1.fence.prod",
    "kubelore.v1.parked.writer.p03",
    "kubelore.v1.feed.delivery",
    "kubelore.v1.stored.kubelore.v1.events.resource.prod.p03",
    "$KV.LEASES.observer.prod",
    "$KV.LEASES.registry.health",
    "$KV.LEASES.gateway.audit",
    "$KV.LEASES.restore.r1",
    "$KV.LEASES.backups.schedules",
    "$KV.LEASES.keeping.prune",
    "$KV.LEASES.replica.resource-ops.r1",
    "$KV.LEASES.consumers.writer.r1",
    "$KV.LEASES.partition.writer.p03",
    "$KV.CHECKPOINTS.prod",
}
FILTERS = {
    "kubelore.v1.events.cluster.>",
    "kubelore.v1.events.cluster.*.synced",
    "kubelore.v1.events.alert.>",
    "kubelore.v1.events.audit.>",
    "kubelore.v1.events.>",
    "kubelore.v1.events.resource.*.p03",
    ">",
    "$KV.LEASES.>",
    "$KV.LEASES.observer.>",
    "$KV.LEASES.replica.resource-ops.>",
    "$KV.LEASES.logs.>",
    "$KV.LEASES.partition.writer.>",
    "$KV.CHECKPOINTS.>",
}


def api(call: str) -> str:
    return f"$JS.API.{call}"


def jetstream() -> set[str]:
    """Every call of the JetStream API on every stream, plain and with every filter."""
    calls = {"INFO", "STREAM.NAMES", "STREAM.LIST", "STREAM.CREATE.OTHER", "ACCOUNT.PURGE.KUBELORE"}
    for stream in STREAMS:
        for verb in (
            "CREATE",
            "UPDATE",
            "DELETE",
            "PURGE",
            "INFO",
            "MSG.GET",
            "MSG.DELETE",
            "SNAPSHOT",
            "RESTORE",
        ):
            calls.add(f"STREAM.{verb}.{stream}")
        calls |= {f"DIRECT.GET.{stream}", f"CONSUMER.NAMES.{stream}", f"CONSUMER.LIST.{stream}"}
        for consumer in ("mine-abc", "feed", "fences", "writer-p03"):
            for verb in (
                "CREATE",
                "DURABLE.CREATE",
                "DELETE",
                "INFO",
                "MSG.NEXT",
                "RESET",
                "PAUSE",
                "LEADER.STEPDOWN",
            ):
                calls.add(f"CONSUMER.{verb}.{stream}.{consumer}")
        calls |= {f"CONSUMER.CREATE.{stream}.mine-abc.{bound}" for bound in FILTERS}
    return {api(call) for call in calls}


OTHERS = {
    *(f"$SRV.{verb}" for verb in ("PING", "INFO", "STATS")),
    *(f"$SRV.{verb}.{service}" for verb in ("PING", "INFO", "STATS") for service in SERVICES),
    "$SYS.REQ.SERVER.PING",
    "$JS.ACK.CHANGES.feed.1.2.3.4.5",
    "$JS.ACK.CHANGES.writer-p03.1.2.3.4.5",
    "$JS.FC.CHANGES.feed.x",
    "kubelore.v1.anything",
    *(f"_INBOX_{user}.abc.def" for user in (*USERS, OPERATOR)),
    "_INBOX.abc",
}
PUBLISHED = {*REQUESTS.values(), *SESSIONS, *STORED, *jetstream(), *OTHERS}


def reading(stream: str, *filters: str) -> set[str]:
    """What it takes to read a stream by a consumer of one's own.

    Whose consumer it is, is not told apart: its name is the only key, and is
    never told to anybody, as those calls that list names are refused.
    """
    calls = {f"STREAM.INFO.{stream}"}
    calls |= {f"CONSUMER.{verb}.{stream}.{name}" for verb in ("MSG.NEXT", "DELETE") for name in ("mine-abc",)}
    calls |= {f"CONSUMER.CREATE.{stream}.mine-abc.{bound}" for bound in filters}
    return {api(call) for call in calls}


def fixed_names(stream: str) -> set[str]:
    """The same calls on names that only another stream's consumers have: there is nothing behind them here."""
    return {
        api(f"CONSUMER.{verb}.{stream}.{name}")
        for verb in ("MSG.NEXT", "DELETE")
        for name in ("feed", "fences", "writer-p03")
    }


NEEDED = {
    "cluster-registry": {
        *(CLUSTER_EVENTS - {"kubelore.v1.events.cluster.prod.synced"}),
        *reading("EVENTS", "kubelore.v1.events.cluster.>", "kubelore.v1.events.cluster.*.synced"),
        *fixed_names("EVENTS"),
        "$KV.LEASES.registry.health",
        api("STREAM.INFO.KV_LEASES"),
        api("STREAM.MSG.GET.KV_LEASES"),
    },
    "resource-ops": {
        "kubelore.v1.events.cluster.prod.synced",
        "kubelore.v1.events.resource.prod.p03",
        "kubelore.v1.fence.prod",
        *reading("EVENTS", "kubelore.v1.events.cluster.>", "kubelore.v1.events.cluster.*.synced"),
        *fixed_names("EVENTS"),
        *reading("KV_LEASES", "$KV.LEASES.observer.>", "$KV.LEASES.replica.resource-ops.>"),
        *fixed_names("KV_LEASES"),
        api("STREAM.MSG.GET.KV_LEASES"),
        "$KV.LEASES.observer.prod",
        "$KV.LEASES.replica.resource-ops.r1",
        "$KV.CHECKPOINTS.prod",
        *(
            api(f"STREAM.{verb}.{stream}")
            for verb in ("INFO", "MSG.GET")
            for stream in ("CHANGES", "KV_CHECKPOINTS")
        ),
    },
    "gateway": {
        *reading("EVENTS", "kubelore.v1.events.cluster.>", "kubelore.v1.events.cluster.*.synced"),
        *fixed_names("EVENTS"),
        *reading("KV_LEASES", "$KV.LEASES.observer.>"),
        *fixed_names("KV_LEASES"),
        *reading("FEED"),
        *fixed_names("FEED"),
        *(api(f"CONSUMER.CREATE.FEED.{name}") for name in ("mine-abc", "feed", "fences", "writer-p03")),
        api("STREAM.INFO.CHANGES"),
        api("STREAM.MSG.GET.CHANGES"),
        api("STREAM.MSG.GET.FEED"),
        "kubelore.v1.events.audit.prod.denied",
        "$KV.LEASES.gateway.audit",
        api("STREAM.INFO.KV_LEASES"),
        api("STREAM.MSG.GET.KV_LEASES"),
        "$SRV.STATS",
    },
    # What a consumer of changes may do by its own names, the test of WRITER tells.
    "yaml-vcs": {
        "kubelore.v1.events.alert.prod.critical.yaml-vcs",
        "$KV.LEASES.backups.schedules",
        "kubelore.v1.events.alert.prod.warning.yaml-vcs",
        *reading("KV_LEASES", "$KV.LEASES.observer.>"),
        *fixed_names("KV_LEASES"),
        "kubelore.v1.events.backup.b1.completed",
        "$KV.LEASES.keeping.prune",
        *(api(f"STREAM.{verb}") for verb in ("INFO.CHANGES", "INFO.PARKED")),
        *(api(f"STREAM.MSG.{verb}") for verb in ("GET.KV_LEASES", "GET.PARKED", "DELETE.PARKED")),
        "kubelore.v1.events.restore.prod.running",
        "$KV.LEASES.restore.r1",
    },
    "container-ops": {
        *reading("EVENTS", "kubelore.v1.events.cluster.>", "kubelore.v1.events.cluster.*.synced"),
        *fixed_names("EVENTS"),
        "kubelore.v1.events.alert.prod.warning.container-ops",
        "$KV.LEASES.logs.prod",
        "$KV.LEASES.containers.upkeep",
        *reading("KV_LEASES", "$KV.LEASES.logs.>"),
        *fixed_names("KV_LEASES"),
        api("STREAM.MSG.GET.KV_LEASES"),
    },
    PROBE: {f"$SRV.PING.{service}" for service in SERVICES},
}


@pytest.mark.parametrize("user", USERS)
async def test_a_user_may_say_what_it_needs_and_nothing_else(server: NatsServer, user: str) -> None:
    requests = {subject for endpoint, subject in REQUESTS.items() if user in endpoint.callers}
    talks = {session(answers, asks, "out") for answers, asks in pairs() if answers == user}
    talks |= {session(answers, asks, "in") for answers, asks in pairs() if asks == user}
    assert await may_publish(server, user, PUBLISHED) == requests | talks | NEEDED[user]


@pytest.mark.parametrize("user", USERS)
async def test_a_user_may_hear_what_is_meant_for_it_and_nothing_else(server: NatsServer, user: str) -> None:
    wild = {
        ">",
        "*.>",
        "kubelore.>",
        "kubelore.v1.>",
        "kubelore.v1.session.>",
        "kubelore.v1.session.*.*.*.out",
    }
    wild |= {
        "kubelore.v1.events.>",
        "kubelore.v1.fence.*",
        "kubelore.v1.feed.delivery",
        "kubelore.v1.stored.>",
        "kubelore.v1.parked.>",
    }
    wild |= {"$JS.>", "$JS.API.>", "$JS.ACK.>", "$KV.>", "$KV.LEASES.>", "$SYS.>", "$SRV.>", "_INBOX.>"}
    wild |= {f"kubelore.v1.{service}.>" for service in SERVICES}
    sessions = {
        f"kubelore.v1.session.{one}.{other}.*.{side}"
        for one in (*USERS, "*")
        for other in (*USERS, "*")
        for side in ("in", "out")
    }
    inboxes = {f"_INBOX_{other}.>" for other in (*USERS, OPERATOR)}
    pings = {f"$SRV.PING.{service}" for service in SERVICES} | {"$SRV.PING", "$SRV.*", "$SRV.PING.>"}
    pings |= {f"$SRV.PING.{service}.*" for service in SERVICES}
    everything = {*wild, *sessions, *inboxes, *pings, *REQUESTS.values()}

    own = {subject for endpoint, subject in REQUESTS.items() if endpoint.service == user}
    meant = {f"_INBOX_{user}.>", *own}
    meant |= {f"kubelore.v1.session.{server}.{asks}.*.in" for server, asks in pairs() if server == user}
    meant |= {f"kubelore.v1.session.{server}.{asks}.*.out" for server, asks in pairs() if asks == user}
    if user == "gateway":
        meant.add("kubelore.v1.stored.>")
    if own:
        meant |= {"$SRV.PING", f"$SRV.PING.{user}", f"$SRV.PING.{user}.*"}
    assert await may_subscribe(server, user, everything) == meant


async def test_a_consumer_cannot_be_bound_to_other_subjects_than_its_maker_may_follow(
    server: NatsServer,
) -> None:
    bus = await join(server, "cluster-registry")
    try:
        for config in (
            {"filter_subject": "kubelore.v1.events.audit.>"},
            {"filter_subjects": ["kubelore.v1.events.audit.>"]},
            {},
        ):
            body = {"stream_name": "EVENTS", "config": {"name": "mine-abc", "ack_policy": "none", **config}}
            with pytest.raises(Exception, match="filter"):
                await bus.jetstream(
                    "CONSUMER.CREATE.EVENTS.mine-abc.kubelore.v1.events.cluster.*.synced", body
                )
    finally:
        await bus.close()


async def test_an_answer_of_any_size_reaches_its_asker(server: NatsServer) -> None:
    registry, observer = await join(server, "cluster-registry"), await join(server, "resource-ops")
    sealed = secrets.token_bytes(3 * 1024 * 1024)

    async def credentials(asked: ClusterRef) -> Credentials:
        box = sealed if asked.id == "large" else b"small"
        return Credentials(id=asked.id, generation=1, kube_system_uid="u", sealed=box)

    service = Service(registry, clusters.SERVICE, "1.0.0")
    service.serve(clusters.CREDENTIALS, credentials)
    await service.start()
    try:
        for name, expected in (("small", b"small"), ("large", sealed)):
            answer = await observer.request(clusters.CREDENTIALS, ClusterRef(name))
            assert answer.sealed == expected
    finally:
        await service.stop()
        for bus in (registry, observer):
            await bus.close()


async def test_a_service_answers_once_and_only_who_asked(server: NatsServer) -> None:
    errors: list[str] = []

    async def note(error: Exception) -> None:
        errors.append(str(error))

    users = server.accounts[0].users
    registry = await nats.connect(
        server.url, user="cluster-registry", password=users["cluster-registry"], error_cb=note
    )
    observer = await nats.connect(
        server.url,
        user="resource-ops",
        password=users["resource-ops"],
        inbox_prefix="_INBOX_resource-ops",
    )
    serving = Bus(registry, name="cluster-registry", replica="cluster-registry-1")
    try:
        answered = asyncio.Event()

        async def answer(message: nats.aio.msg.Msg) -> None:
            await registry.publish(message.reply, b"answer")
            await registry.publish(message.reply, b"another")
            await registry.publish("_INBOX_gateway.guessed", b"forged")
            await serving.heard()
            answered.set()

        await registry.subscribe(clusters.CREDENTIALS.subject(), cb=answer)
        await serving.heard()
        reply = await observer.request(clusters.CREDENTIALS.subject(), b"", timeout=5)
        assert reply.data == b"answer"
        async with asyncio.timeout(5):
            await answered.wait()
        assert len(errors) == 2
        assert errors[1].endswith('"_inbox_gateway.guessed"')
    finally:
        await registry.close()
        await observer.close()


async def test_a_consumer_of_changes_gets_by_with_what_the_contracts_give_it(
    server: NatsServer, eventually
) -> None:
    operator, writer = await join(server, OPERATOR), await join(server, WRITER)
    await create_durables(operator, WRITER)
    observer = await join(server, "resource-ops")
    written: set[str] = set()

    async def write(records: list[Record]) -> None:
        for record in records:
            assert isinstance(record, Change)
            if record.rv == "3" and mended is False:
                raise ValueError
            written.add(record.rv)

    mended = False
    consumer = ChangeConsumer(writer, WRITER, write, attempts=1)
    running = asyncio.create_task(consumer.run())
    lease = await Leases(observer).acquire("observer.live")
    assert lease is not None
    publisher = ChangePublisher(observer, "live", lease)
    try:
        await publisher.fence()
        for number in range(6):
            await publisher.put(
                Change(
                    cluster="live",
                    incarnation=1,
                    type="pods",
                    uid=f"u{number}",
                    id=f"live:pods:default:p{number}",
                    kind="created",
                    rv=str(number),
                    at=0.0,
                )
            )
        await eventually(lambda: written == {"0", "1", "2", "4", "5"}, 20)
        # What the tests above said without sense is parked as well.
        (parked,) = [one for one in await consumer.list_parked() if one.record is not None]
        mended = True
        await consumer.replay_parked(parked.id)
        assert "3" in written
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await publisher.close()
        await lease.release()
        for bus in (operator, writer, observer):
            await bus.close()


async def test_the_printed_users_are_taken_by_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As docs/operations.md says: included in an account, passwords from the environment."""
    for user in (*SERVICES, PROBE, OPERATOR):
        monkeypatch.setenv(f"KUBELORE_{user.upper().replace('-', '_')}_PASSWORD", f"password-of-{user}")

    class Included(NatsServer):
        async def prepare(self) -> None:
            await super().prepare()
            (self.directory / "kubelore-users.conf").write_text(render())
            (self.directory / "nats.conf").write_text(
                f'port: {self.port}, host: "127.0.0.1", jetstream: {{store_dir: "{self.directory}"}}\n'
                f"accounts: {{ KUBELORE: {{ jetstream: enabled, include kubelore-users.conf }} }}\n"
            )

    accounts = (Account("KUBELORE", {user: f"password-of-{user}" for user in (*SERVICES, PROBE, OPERATOR)}),)
    async with Included(tmp_path / "nats", accounts=accounts) as running:
        bus = await join(running, OPERATOR)
        await prepare(bus)
        await bus.close()
        assert await may_publish(running, "gateway", {"$SRV.STATS", "$KV.LEASES.observer.prod"}) == {
            "$SRV.STATS"
        }
