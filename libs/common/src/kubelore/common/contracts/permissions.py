"""What each service may say and hear on the bus, as NATS permissions made from the contracts.

A service is heard under its own user only. It may ask the endpoints that name
it as a caller, answer its own (a reply goes to where the request came from, and
nowhere else), take part in the sessions of those, and touch the streams and
buckets that `flows` gives it: a consumer it makes is bound to the very subjects
it follows. It reads no other service's inbox, requests or sessions.

`python -m kubelore.common.contracts.permissions` prints them for the
configuration of one's own NATS.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from kubelore.common.contracts import flows
from kubelore.common.contracts.changes import PARTITIONS
from kubelore.common.contracts.endpoint import Endpoint
from kubelore.common.contracts.endpoints import ENDPOINTS
from kubelore.common.contracts.flows import bucket_stream

OPERATOR = "operator"
"""Makes streams and durables, and may do everything: for installation and for people, never for a service."""
PROBE = "stack"
"""Asks whether services are there, and nothing else."""
SERVICES = ("cluster-registry", "resource-ops", "container-ops", "yaml-vcs", "gateway")

_VERBS = ("PING", "INFO", "STATS")
"""What ADR-32 lets be asked of a service."""
_LONGEST_REPLY_S = max(120, *(int(3 * endpoint.deadline_s) for endpoint in ENDPOINTS))


@dataclass(frozen=True, slots=True)
class Permissions:
    """Subjects a user may publish and subscribe; `answers` lets it reply once to each request it was sent."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    answers: bool = False

    def as_configuration(self) -> dict[str, Any]:
        """As a user's `permissions` in the configuration of NATS."""
        made: dict[str, Any] = {
            "publish": {"allow": list(self.publish)},
            "subscribe": {"allow": list(self.subscribe)},
        }
        if self.answers:
            made["allow_responses"] = {"max": 1, "expires": f"{_LONGEST_REPLY_S}s"}
        return made


def session_root(server: str, client: str) -> str:
    """What the subjects of a session begin with; both parties stand in it, so that no third can listen."""
    return f"kubelore.v1.session.{server}.{client}"


def permissions_of(user: str) -> Permissions:
    """What a service, or the user `stack`, may do. Raises ValueError for a user that is none of them."""
    if user == PROBE:
        return Permissions(tuple(f"$SRV.PING.{service}" for service in SERVICES), (f"_INBOX_{PROBE}.>",))
    if user not in SERVICES:
        raise ValueError(f"{user!r} is no service")
    own = [endpoint for endpoint in ENDPOINTS if endpoint.service == user]
    asked = [endpoint for endpoint in ENDPOINTS if user in endpoint.callers]
    publish = {*(_pattern(endpoint) for endpoint in asked), *_sent_in_sessions(user), *_stream_subjects(user)}
    subscribe = {f"_INBOX_{user}.>", *(_pattern(endpoint) for endpoint in own), *_heard_in_sessions(user)}
    if own:
        # Not `$SRV.*`: the server takes a subscription to `$SRV.>` for a word that `*` stands for.
        subscribe |= {f"$SRV.{verb}{of}" for verb in _VERBS for of in ("", f".{user}", f".{user}.>")}
    if user in flows.STATS_READERS:
        publish.add("$SRV.STATS")
    if user in flows.FEED_READERS:
        subscribe.add(flows.STORED_SUBJECTS)
    return Permissions(tuple(sorted(publish)), tuple(sorted(subscribe)), answers=bool(own))


def streams_of(service: str) -> tuple[str, ...]:
    """The streams that a service cannot work without, those behind buckets among them."""
    stem = "$JS.API.STREAM.INFO."
    return tuple(
        subject.removeprefix(stem) for subject in permissions_of(service).publish if subject.startswith(stem)
    )


def _pattern(endpoint: Endpoint[Any, Any]) -> str:
    return endpoint.subject(None if endpoint.scope == "service" else "*")


def _sessions(user: str) -> Iterator[tuple[str, bool]]:
    """The roots of the sessions it takes part in, and whether as the one that made the id.

    Replicas of one service that ask each other take part on both sides.
    """
    for endpoint in ENDPOINTS:
        for caller in endpoint.callers:
            root = session_root(endpoint.service, caller)
            yield from (
                (root, is_server)
                for is_server in (True, False)
                if user == (endpoint.service if is_server else caller)
            )


def _sent_in_sessions(user: str) -> Iterator[str]:
    for root, is_server in _sessions(user):
        yield f"{root}.*.{'out' if is_server else 'in'}"


def _heard_in_sessions(user: str) -> Iterator[str]:
    for root, is_server in _sessions(user):
        yield f"{root}.*.{'in' if is_server else 'out'}"


def _stream_subjects(user: str) -> Iterator[str]:
    yield from (emission.subject for emission in flows.EMISSIONS if emission.service == user)
    for following in flows.FOLLOWINGS:
        if following.service == user:
            yield from _short_lived(flows.EVENTS, following.subject)
    yield from _leases(user)
    if user in flows.FEED_READERS:
        yield from (_info(flows.CHANGES), _get(flows.CHANGES), _get(flows.FEED))
        yield from _short_lived(flows.FEED)
    if user in flows.CHANGE_PUBLISHERS:
        yield from (flows.RESOURCE_SUBJECTS, flows.FENCE_SUBJECTS, _info(flows.CHANGES), _get(flows.CHANGES))
        checkpoints = bucket_stream(flows.CHECKPOINTS)
        yield from (f"$KV.{flows.CHECKPOINTS}.*", _info(checkpoints), _get(checkpoints))
    if user in flows.CHANGE_CONSUMERS:
        yield from consuming(user)


def _info(stream: str) -> str:
    return f"$JS.API.STREAM.INFO.{stream}"


def _get(stream: str) -> str:
    return f"$JS.API.STREAM.MSG.GET.{stream}"


def _short_lived(stream: str, filter_subject: str = "") -> Iterator[str]:
    """Reading by a consumer made for the moment, whose name nobody else can guess."""
    bound = f".{filter_subject}" if filter_subject else ""
    yield _info(stream)
    yield f"$JS.API.CONSUMER.CREATE.{stream}.*{bound}"
    yield f"$JS.API.CONSUMER.MSG.NEXT.{stream}.*"
    yield f"$JS.API.CONSUMER.DELETE.{stream}.*"


def _leases(user: str) -> Iterator[str]:
    own = [leasing.keys for leasing in flows.LEASINGS if leasing.service == user]
    watched = [watching.keys for watching in flows.LEASE_WATCHINGS if watching.service == user]
    yield from _leasing(own, watched)


def _leasing(own: Sequence[str], watched: Sequence[str]) -> Iterator[str]:
    stream = bucket_stream(flows.LEASES)
    if own:
        yield from (_info(stream), _get(stream))
    yield from (f"$KV.{flows.LEASES}.{keys}" for keys in own)
    for keys in watched:
        yield from _short_lived(stream, f"$KV.{flows.LEASES}.{keys}")


def consuming(service: str) -> Iterator[str]:
    """What a `ChangeConsumer` of the service publishes: its durables, the leases of its partitions, what it parks."""
    yield from _leasing(
        (f"consumers.{service}.*", f"partition.{service}.*"),
        (f"consumers.{service}.>", f"partition.{service}.>"),
    )
    yield from (_info(flows.CHANGES), _info(flows.PARKED), f"kubelore.v1.parked.{service}.*")
    yield from (_get(flows.PARKED), f"$JS.API.STREAM.MSG.DELETE.{flows.PARKED}")
    for partition in range(PARTITIONS):
        durable, bound = flows.partition_consumer(service, partition), flows.partition_filter(partition)
        yield f"$JS.API.CONSUMER.CREATE.{flows.CHANGES}.{durable}.{bound}"
        yield f"$JS.API.CONSUMER.MSG.NEXT.{flows.CHANGES}.{durable}"
        yield f"$JS.API.CONSUMER.RESET.{flows.CHANGES}.{durable}"
        yield f"$JS.ACK.{flows.CHANGES}.{durable}.>"


def render() -> str:
    """Every user with its permissions, to be included in an account of NATS; passwords come from its environment."""
    users: list[str] = []
    for user in (*SERVICES, PROBE, OPERATOR):
        password = f"$KUBELORE_{user.upper().replace('-', '_')}_PASSWORD"
        lines = [f'    user: "{user}", password: {password}']
        if user != OPERATOR:
            allowed = json.dumps(permissions_of(user).as_configuration(), indent=2).replace("\n", "\n    ")
            lines.append(f"    permissions: {allowed}")
        users.append("  {\n" + "\n".join(lines) + "\n  }")
    return "users = [\n" + "\n".join(users) + "\n]\n"


if __name__ == "__main__":
    sys.stdout.write(render())
