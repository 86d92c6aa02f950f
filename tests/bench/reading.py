"""Pages, selections, searches, big answers and single objects, through the gateway, by one client and by eight."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import Any

from tests.bench.figures import Latency, Reach, Row, seconds
from tests.bench.fleet import Access
from tests.bench.http_client import Connection, measure, measure_together, own_cost
from tests.bench.sync import WHOLE_LISTS, whole_lists
from tests.bench.world import RESOURCES, World, list_pods

CLIENTS = 8
APP = "checkout"
SELECTOR = f"app={APP},tier=backend"
PAGE = 100


@dataclass(frozen=True)
class Question:
    """One query, what it may take, and the kubectl command for the same; `others` are asked in turn with it."""

    work: str
    query: dict[str, Any]
    reach: Reach | None = None
    kubectl: tuple[str, ...] = ()
    said: str = ""
    others: tuple[dict[str, Any], ...] = ()


def page(world: World) -> list[Row]:
    """The first 100 pods of all clusters by name: whole, as metadata, as a table."""
    whole = Reach("3 / 8 ms", (0.003, 0.008))
    first = ("get", "--raw", f"/api/v1/pods?limit={PAGE}")
    everything = ("get", "pods", "-A")
    said = f"`kubectl get --raw '/api/v1/pods?limit={PAGE}'` in each"
    rows = _ask(world, Question(f"page of {PAGE} whole pods by name", _pods(), whole, first, said))
    if world.size.whole_lists:
        that_s = whole_lists(world.kubectl)
        mine = _timed(world, _pods())
        work = "the same, against kubectl's only way to order a fleet by name"
        told = f"`kubectl {' '.join(WHOLE_LISTS)}` in each"
        rows.append(Row(work, str(mine), instead=told, that=seconds(that_s), ratio=that_s / mine.p50))
    metadata = _pods(view="metadata")
    rows += _ask(world, Question(f"page of {PAGE} pods, metadata", metadata, whole, first, said))
    table = Question(f"page of {PAGE} pods, table", _pods(view="table"), None, everything)
    return rows + _ask(world, table)


def select(world: World) -> list[Row]:
    """The first page of a label selection, and of a search for a substring."""
    one_app = f"{world.size.one_app:,}"
    rare = _rare_substring(world)
    table = ("get", "pods", "-A", "--no-headers")
    grep = "`kubectl get pods -A` in each, for a grep over names"
    labels = Question(
        f"label selector `{SELECTOR}` ({one_app} match), first page of {PAGE} whole pods",
        _pods(labels=SELECTOR),
        Reach("3 ms", (0.003,)),
        ("get", "pods", "-A", "-l", SELECTOR, "-o", "json"),
    )
    searching = Reach("10 ms", (0.010,))
    common = f"substring search for `{APP}` ({one_app} match), first page of {PAGE} whole pods"
    new = f"substring search for a piece of `{APP}` that was not asked for lately ({one_app} match), the same page"
    pieces = tuple(_pods(search=piece) for piece in _pieces(APP))
    few = f"substring search for 4 letters of a name ({rare[1]} match), all of them"
    return [
        *_ask(world, labels),
        *_ask(world, Question(new, _pods(search=APP), searching, table, grep, pieces)),
        *_ask(world, Question(common, _pods(search=APP), searching, table, grep)),
        *_ask(world, Question(few, _pods(search=rare[0]), searching, table, grep)),
    ]


def bulk(world: World) -> list[Row]:
    """All pods of one app in one answer."""
    count = min(world.size.one_app, 10_000)
    rows: list[Row] = []
    for view, words, reach in (
        ("metadata", "metadata", Reach("0.1 s", (0.1,))),
        ("object", "whole", Reach("0.2 s", (0.2,))),
    ):
        query = _pods(labels=f"app={APP}", limit=10_000, view=view)
        command = ("get", "pods", "-A", "-l", f"app={APP}", "-o", "json")
        rows += _ask(world, Question(f"{count:,} pods in one answer, {words}", query, reach, command))
    return rows


def get(world: World) -> list[Row]:
    """One pod by its id, against kubectl and against its API server asked directly by the same client."""
    found = list_pods(world.stack, labels=SELECTOR)["items"][0]["id"]
    cluster, _, namespace, name = found.split(":", 3)
    connection = world.connect()
    path = f"{RESOURCES}/{found}"
    taken = measure(lambda: connection.get(path), world.size)
    cost = own_cost(connection.get(path), world.size)
    reach = Reach("2 ms p50", (0.002,))
    met = reach.met_by(taken.p50) if world.size.targets else None
    row = Row("one pod by id", str(taken), reach.text, met, client=seconds(cost))
    kubeconfig = next(path for path in world.clusters.kubeconfigs if path.stem == cluster)
    command = ("get", "pod", name, "-n", namespace, "-o", "json")
    kubectl_s = world.kubectl.one(kubeconfig, *command, runs=world.size.rival_runs * 3)
    access = Access.of(kubeconfig.read_text())
    api_server = Connection(access.server, access.headers, access.context)
    direct = measure(lambda: api_server.get(f"/api/v1/namespaces/{namespace}/pods/{name}"), world.size)
    api_server.close()
    asked = "its API server (kubesim), asked by the same client"
    return [
        row.with_rival(
            "`kubectl get pod NAME -n NAMESPACE -o json`", seconds(kubectl_s), kubectl_s / taken.p50
        ),
        row.with_rival(asked, str(direct), direct.p50 / taken.p50),
    ]


def busy(world: World) -> list[Row]:
    """The page of whole pods for eight clients at once, while pods change in all clusters."""
    size = world.size
    reach = Reach("10 / 25 ms", (0.010, 0.025))
    cost = own_cost(world.connect().get(RESOURCES, _pods()), size, CLIENTS)
    quiet = _many_clients(world)
    world.clusters.change_pods(size.updates_per_second)
    try:
        taken = _many_clients(world)
    finally:
        world.clusters.change_pods(0)
    met = reach.met_by(taken.p50, taken.p99) if size.targets else None
    work = f"page of {PAGE} whole pods, {CLIENTS} clients"
    changing = Row(
        f"{work}, {size.updates_per_second:,} updates a second",
        str(taken),
        reach.text,
        met,
        client=seconds(cost),
    )
    return [
        Row(work, str(quiet), client=seconds(cost)),
        changing.with_rival("without updates", str(quiet), quiet.p50 / taken.p50),
    ]


def _pods(**more: Any) -> dict[str, Any]:
    return {"type": "pods", "limit": PAGE, **more}


def _ask(world: World, question: Question) -> list[Row]:
    """Kubelore and kubectl, the same question."""
    connection = world.connect()
    body = connection.get(RESOURCES, question.query)
    taken = _timed(world, question.query, *question.others)
    cost = own_cost(body, world.size)
    reach = question.reach
    met = reach.met_by(taken.p50, taken.p99) if reach and world.size.targets else None
    row = Row(question.work, str(taken), reach.text if reach else "", met, client=seconds(cost))
    that_s = world.kubectl.everywhere(*question.kubectl, runs=world.size.rival_runs)
    said = question.said or f"`kubectl {' '.join(question.kubectl)}` in each"
    return [row.with_rival(said, seconds(that_s), that_s / taken.p50)]


def _timed(world: World, *queries: dict[str, Any]) -> Latency:
    connection, turns = world.connect(), cycle(queries)
    return measure(lambda: connection.get(RESOURCES, next(turns)), world.size)


def _many_clients(world: World) -> Latency:
    connections = [world.connect() for _ in range(CLIENTS)]
    return measure_together([partial(one.get, RESOURCES, _pods()) for one in connections], world.size)


def _pieces(word: str, least: int = 4) -> list[str]:
    """What a word has in it, but the word: of eight letters twice as many as are remembered (decision 0119)."""
    found = [word[start:end] for start in range(len(word)) for end in range(start + least, len(word) + 1)]
    return [piece for piece in found if piece != word]


def _rare_substring(world: World) -> tuple[str, int]:
    """Letters from the end of one pod's name, and how many pods have them."""
    query = _pods(labels=SELECTOR, limit=1)
    name = json.loads(world.connect().get(RESOURCES, query))["items"][0]["object"]["metadata"]["name"]
    letters = name[-4:]
    return letters, json.loads(world.connect().get(RESOURCES, _pods(search=letters)))["total"]
