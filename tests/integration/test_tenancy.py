"""A viewer of one namespace walks everything that the API describes, and finds nothing of anybody else.

Everything that is not for the viewer carries a canary, a text that occurs
nowhere else. The walk follows the OpenAPI document, so an endpoint that is added
later is walked too: one that this test does not know how to call fails it, and
has to be taught here (`values`, `BODIES`). The same walk as the administrator
must find the canaries, at every endpoint but those of `SHOWS_NONE`, or it would
prove nothing.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import secrets
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

import httpx
import pytest_asyncio

from kubelore.common.bus.feed_window import Position
from kubelore.common.kube import AddressPolicy, KubeClient, ResourceType, read_kubeconfig
from kubelore.common.kube.resource_type import NAMESPACES
from kubelore.kubesim import podlife
from kubelore.kubesim.app import SimulatedFleet
from kubelore.lab.waiting import wait_for

POLICY = AddressPolicy(allow_private=True)
VISIBLE = "visible"
OPEN = "for-everybody"
VIEWER = "viewer-of-one-namespace"
MARK = "cn-"
"""What every canary contains: a search for it must find none."""
STREAM = "text/event-stream"
CONTAINERS = "/api/k8s/containers"
HOURLY = 3600

CONFIG_MAPS = ResourceType(group="", version="v1", plural="configmaps", kind="ConfigMap", namespaced=True)
SECRETS = ResourceType(group="", version="v1", plural="secrets", kind="Secret", namespaced=True)
ROLES = ResourceType(
    group="rbac.authorization.k8s.io",
    version="v1",
    plural="clusterroles",
    kind="ClusterRole",
    namespaced=False,
)
KINDS = (CONFIG_MAPS, SECRETS, ROLES, NAMESPACES)


def canary(what: str) -> str:
    return f"{MARK}{what}-{secrets.token_hex(4)}"


@dataclass
class Tenancy:
    """Three clusters: the viewer reads one namespace in two of them, and may not know that the third exists."""

    kubelore: Any
    clients: dict[str, KubeClient]
    theirs: str
    hidden: str
    canaries: set[str] = field(default_factory=set)
    values: set[str] = field(default_factory=set)
    """Values of Secrets, as they are and as the API server writes them, which nobody may find."""
    planted: list[str] = field(default_factory=list)
    """Ids of what the viewer may not see."""
    viewer: httpx.AsyncClient = field(init=False)
    token: dict[str, Any] = field(init=False)
    other: dict[str, Any] = field(init=False)
    """Somebody else's token, which sees everything."""
    watch_from: str = ""
    """A position before some of it was planted."""
    foreign: str = ""
    """A `continue` of the administrator's."""
    operation: str = ""
    """What the administrator did to a hidden object."""
    restore: str = ""
    """A restore from it, in a dry run."""
    backup: str = ""
    """A backup of the hidden namespace."""
    done: str = ""
    """What the administrator did in a hidden container."""

    @property
    def admin(self) -> httpx.AsyncClient:
        return self.kubelore.http

    def new(self, what: str) -> str:
        made = canary(what)
        self.canaries.add(made)
        return made

    def one(self, what: str) -> str:
        """A canary of a sort."""
        return min(name for name in self.canaries if name.startswith(f"{MARK}{what}-"))

    def ids(self) -> list[str]:
        """Planted ids, one of each sort and place: their names stand for all others."""
        return list({one.rpartition(":")[0]: one for one in self.planted}.values())

    async def write(self, cluster: str, kind: ResourceType, namespace: str, name: str, **body: Any) -> None:
        metadata = {"name": name, **body.pop("metadata", {})}
        manifest = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, **body}
        await self.clients[cluster].create(kind, namespace or None, json.dumps(manifest).encode())
        if name not in (VISIBLE, OPEN):
            self.planted.append(f"{cluster}:{kind.name}:{namespace}:{name}")

    async def plant(self, cluster: str, namespace: str) -> None:
        """Objects with a canary in every place that an answer could show."""
        marks = {
            "labels": {"canary": self.new("label"), self.new("key"): "x"},
            "annotations": {"canary": self.new("annotation")},
        }
        data = {self.new("data"): "x"}
        await self.write(cluster, CONFIG_MAPS, namespace, self.new("name"), metadata=marks, data=data)
        value = canary("value")
        self.values |= {value, base64.b64encode(value.encode()).decode()}
        await self.write(
            cluster, SECRETS, namespace, self.new("secret"), stringData={self.new("entry"): value}
        )

    def shown(self, told: str, said: str) -> set[str]:
        """What an answer tells of others that its request did not say itself."""
        return {one for one in self.canaries | self.values if one in told and one not in said}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def tenancy(kubelore) -> AsyncIterator[Tenancy]:
    async with AsyncExitStack() as stack:
        fleet = await stack.enter_async_context(SimulatedFleet(clusters=3, pods=6))
        theirs, hidden = canary("cluster"), canary("namespace")
        clients = {
            name: await stack.enter_async_context(
                KubeClient(read_kubeconfig(simulated.kubeconfig, None, POLICY), POLICY)
            )
            for name, simulated in zip(("mine", "also", theirs), fleet, strict=True)
        }
        made = Tenancy(kubelore, clients, theirs, hidden, {theirs, hidden})
        for name in clients:
            await _furnish(made, name)
        pod = made.new("pod")
        for simulated in fleet:
            simulated.state.seed_object("pods", _running_pod(pod, made.hidden))
        for number, name in enumerate(clients):
            stack.push_async_callback(kubelore.remove, name)
            await kubelore.onboard(name, fleet[number].kubeconfig, **_marks(made, name))
        await _let_in(made)
        stack.push_async_callback(made.viewer.aclose)
        await _act(made)
        yield made
        for token in (made.token, made.other):
            await made.admin.delete(f"/api/tokens/{token['id']}")
        await made.admin.delete(f"/api/k8s/yaml/backup/policies/{made.one('policy')}")
        await made.admin.delete(f"/api/k8s/logs/policies/{made.one('logged')}")
        await made.admin.delete(f"/api/k8s/logs/alerts/{made.one('watched')}")
        await made.admin.delete(f"{CONTAINERS}/exec/policies/{made.one('guard')}")


def _running_pod(name: str, namespace: str) -> dict[str, Any]:
    """A pod whose log names it."""
    pod: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"app": name},
            "uid": str(uuid.uuid4()),
            "creationTimestamp": "2026-11-01T00:00:00Z",
        },
        "spec": {"containers": [{"name": "web", "image": "registry.example/web:1"}]},
    }
    return {**pod, "status": podlife.running(pod, "2026-11-01T00:00:00Z")}


async def _furnish(made: Tenancy, cluster: str) -> None:
    for namespace in (VISIBLE, made.hidden):
        await made.write(cluster, NAMESPACES, "", namespace)
    await made.plant(cluster, made.hidden)
    if cluster == made.theirs:
        await made.plant(cluster, VISIBLE)
    await made.write(cluster, ROLES, "", made.new("role"), rules=[])
    await made.write(cluster, CONFIG_MAPS, VISIBLE, OPEN, data={"a": cluster})


def _marks(made: Tenancy, cluster: str) -> dict[str, Any]:
    if cluster != made.theirs:
        return {}
    return {"tags": [made.new("tag")], "group": made.new("group"), "description": made.new("text")}


async def _let_in(made: Tenancy) -> None:
    grant = {"role": "viewer", "rights": [], "clusters": ["mine", "also"], "namespaces": [VISIBLE]}
    made.token = await _token(made, VIEWER, grant)
    made.other = await _token(made, made.new("person"), GRANT)
    made.viewer = _as(made, made.token)


async def _token(made: Tenancy, name: str, grant: dict[str, Any]) -> dict[str, Any]:
    body = {"name": name, "grants": [grant], "expires_in_s": HOURLY}
    answer = await made.admin.post("/api/tokens", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()


def _as(made: Tenancy, token: dict[str, Any]) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=made.kubelore.url,
        headers={"Authorization": f"Bearer {token['token']}"},
        timeout=30,
        limits=httpx.Limits(max_connections=None),
    )


async def _act(made: Tenancy) -> None:
    """What the administrator does to what is hidden: it is in the feed, in the audit and among the operations."""
    page = await made.kubelore.list(type="configmaps", limit=1)
    made.watch_from, made.foreign = page["watch_from"], page["continue"]
    assert made.foreign
    group = made.one("group")
    described = await made.admin.patch(
        f"/api/k8s/groups/{group}", json={"description": made.new("said-of-group")}
    )
    assert described.status_code == 200, described.text
    target = f"mine:configmaps:{made.hidden}:{_name(made, 'mine')}"
    answer = await made.admin.patch(
        f"/api/k8s/unified/resources/{target}",
        params={"reason": made.new("reason"), "change_log": made.new("change-log")},
        json={"metadata": {"annotations": {"changed": "yes"}}},
    )
    assert answer.status_code == 200, answer.text
    made.operation = answer.headers["operation-id"]
    kept = await made.admin.post(
        "/api/k8s/yaml/backup/create",
        json={
            "clusters": ["mine", made.theirs],
            "namespaces": [made.hidden],
            "name": made.new("backup"),
            "reason": made.new("why-kept"),
        },
    )
    assert kept.status_code == 202, kept.text
    made.backup = kept.json()["id"]
    await _restore(made)

    policy = {"name": made.new("policy"), "schedule": "0 3 * * *", "clusters": [made.theirs], "paused": True}
    answer = await made.admin.post("/api/k8s/yaml/backup/policies", json=policy)
    assert answer.status_code == 201, answer.text
    for rules, what in (("policies", "logged"), ("alerts", "watched")):
        rule = {"name": made.new(what), "scope": {"clusters": [made.theirs]}, "paused": True}
        answer = await made.admin.post(f"/api/k8s/logs/{rules}", json=rule)
        assert answer.status_code == 201, answer.text

    await _run(made)

    async def recorded() -> bool:
        histories = [await made.admin.get(f"/api/k8s/yaml/versions/{quote(one)}") for one in made.ids()]
        return all(one.status_code == 200 for one in histories) and made.one("change-log") in str(
            (await made.admin.get(f"/api/k8s/yaml/versions/{target}")).json()
        )

    await wait_for(recorded, "the histories to have what was planted", 30)
    tagged = await made.admin.post(
        f"/api/k8s/yaml/versions/{target}/tags", json={"name": "gold", "version": 1, "note": made.new("note")}
    )
    assert tagged.status_code == 201, tagged.text
    drafted = await made.admin.post(
        f"/api/k8s/yaml/versions/{target}/branches", json={"name": "idea", "note": made.new("draft-note")}
    )
    assert drafted.status_code == 201, drafted.text


async def _run(made: Tenancy) -> None:
    """A command in a hidden container, which is on record although its pod is gone, and a policy about such."""
    rule = {"effect": "deny", "clusters": [made.theirs], "message": made.new("refusal")}
    answer = await made.admin.post(f"{CONTAINERS}/exec/policies", json={**rule, "name": made.new("guard")})
    assert answer.status_code == 201, answer.text
    body = {"command": [made.new("command")], "reason": made.new("why-run")}
    answer = await made.admin.post(f"{CONTAINERS}/mine:{made.hidden}:web-0:web/exec", json=body)
    assert answer.status_code == 404, answer.text
    made.done = (await made.admin.get(f"{CONTAINERS}/operations")).json()["items"][0]["id"]


async def _restore(made: Tenancy) -> None:
    """Restore, in a dry run, from the backup, which has been made and says everything that may not be known."""

    async def ended(path: str, states: tuple[str, ...]) -> bool:
        found = (await made.admin.get(path)).json()
        return found.get("status", found.get("state")) in states

    backup = f"/api/k8s/yaml/backup/{made.backup}"
    await wait_for(lambda: ended(backup, ("completed",)), "the backup to be made", 30)
    body = {"backup_id": made.backup, "dry_run": True, "reason": made.new("why-restored")}
    begun = await made.admin.post("/api/k8s/yaml/backup/restore", json=body)
    assert begun.status_code == 202, begun.text
    made.restore = begun.json()["id"]
    restore = f"/api/k8s/yaml/restore/{made.restore}"
    await wait_for(lambda: ended(restore, ("completed",)), "the restore to end", 60)


def _name(made: Tenancy, cluster: str) -> str:
    start = f"{cluster}:configmaps:{made.hidden}:"
    return next(one.removeprefix(start) for one in made.planted if one.startswith(start))


def values(tenancy: Tenancy, path: str, schema: dict[str, Any]) -> dict[str, list[str]]:
    """What each parameter is filled with; one that is not here fails the test."""
    name, label = _name(tenancy, "mine"), tenancy.one("label")
    moments = "date-time" in json.dumps(schema)
    objects = [*tenancy.ids(), f"mine:configmaps:{VISIBLE}:{OPEN}", f"mine:namespaces::{VISIBLE}"]
    ids = objects
    if "tokens" in path:
        ids = [tenancy.other["id"]]
    elif path.startswith(CONTAINERS) and "operations" not in path:
        ids = [f"{name}:{tenancy.hidden}:{tenancy.one('pod')}:web" for name in ("mine", tenancy.theirs)]
        ids.append(f"mine:{VISIBLE}:web-0:web")
    elif "operations" in path:
        ids = [tenancy.operation]
    elif "yaml/restore" in path:
        ids = [tenancy.restore]
    elif "backup" in path:
        ids = [tenancy.backup]
    if path.endswith(("/tags", "/branches", "/drift")):
        name = "gold"
    return {
        "id": ids,
        "cluster": [tenancy.theirs, "mine"],
        "clusters": [
            "mine",
            tenancy.theirs,
            f"mine,{tenancy.theirs}",
            "mine,also",
            f"tag:{tenancy.one('tag')}",
        ],
        "type": ["configmaps", "secrets", "namespaces", "clusterroles", "pods,nodes", "events"],
        "namespace": [tenancy.hidden, VISIBLE, "default"]
        + ([f"{VISIBLE},{tenancy.hidden}"] if path.endswith(("resources", "watch", "compare")) else []),
        "labels": ["canary", f"canary={label}"],
        "fields": [f"metadata.name={name}", f"metadata.namespace={tenancy.hidden}"],
        "search": [MARK, name],
        "sort": ["-created", "cluster", "namespace"],
        "limit": ["1", "100"],
        "continue": [tenancy.foreign],
        "view": ["object", "metadata", "table"],
        "stale": ["exclude"],
        "output": ["json", "yaml"],
        "at_least": ["1"],
        "since": ["2026-01-01T00:00:00Z"] if moments else [tenancy.watch_from],
        "until": ["2999-01-01T00:00:00Z"],
        "at": ["2999-01-01T00:00:00Z"],
        "after": ["0"],
        "version": ["1"],
        "from": ["2026-01-01T00:00:00Z"] if path.endswith("snapshot/diff") else ["0"],
        "to": ["2999-01-01T00:00:00Z"] if path.endswith("snapshot/diff") else ["1", "live"],
        "actor": ["admin", VIEWER, tenancy.one("person")],
        "action": ["clusters.add", "clusters.*"],
        "resource": [tenancy.theirs, name, f"mine:configmaps:{tenancy.hidden}*"],
        "outcome": ["ok"],
        "result": ["created", "skipped"],
        "name": [name, OPEN],
        "ignore": ["data"],
        "status": ["different", "missing", "unknown", "connected"],
        "tag": ["gold"] if "yaml" in path else [tenancy.one("tag")],
        "branch": ["idea"] if "branches/" in path else ["main", "idea"],
        "against": ["main"],
        "group": [tenancy.one("group")],
        "provider": ["other"],
        "dry_run": ["true"],
        "force": ["true"],
        "stop_on_error": ["true"],
        "reason": ["because"],
        "change_log": ["more"],
        "uid": ["0"],
        "rv": ["1"],
        "propagation": ["Foreground"],
        "grace_period_s": ["0"],
        "policy": [tenancy.one(what) for what in ("policy", "logged", "guard")],
        "alert": [tenancy.one("watched")],
        "logs": ["true"],
        "pod": ["web-0"],
        "user": ["admin", VIEWER],
        "text": [MARK],
        "operation": [tenancy.done],
        "number": ["1"],
        "session": ["container-ops-0." + "0" * 32],
        "path": ["/etc/hostname"],
        "format": ["tar"] if path.endswith("load") else ["text", "jsonl" if "export" in path else "lines"],
        "direction": ["backward"],
        "compression": ["gzip"],
        "upload": ["one"],
        "offset": ["1"],
        "size": ["1"],
        "mode": ["0600"],
        "gid": ["0"],
        "sha256": ["0" * 64],
        "trailer": ["true"],
        "check": ["false"],
        "debug": ["false"],
        "workload": [f"pods/{tenancy.one('pod')}", "deployments.apps/web"],
        "container": ["*", "web"],
        "follow": ["false"],
        "tail": ["1"],
        "previous": ["true"],
        "plain": ["true"],
        "levels": ["true"],
        "prefix": ["true"],
        "timestamps": ["true"],
        "regex": ["."],
        "ignore_case": ["true"],
        "inverse": ["true"],
        "level": ["info"],
        "field": ["a"],
        "encoding": ["utf-8"],
        "word": ["true"],
        "stored": ["false"],
        "live": ["false"],
        "timeout_s": ["5"],
        "buckets": ["10"],
    }


class Body(NamedTuple):
    content: bytes
    type: str = "application/json"


@dataclass(frozen=True)
class Call:
    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    body: Body | None = None

    def said(self) -> str:
        """Everything that the caller said: an answer may repeat it."""
        return unquote(f"{self.path} {self.query} {self.body}")

    async def send(self, client: httpx.AsyncClient) -> httpx.Response:
        headers = {"Content-Type": self.body.type} if self.body else {}
        content = self.body.content if self.body else None
        while True:
            answer = await client.request(
                self.method, self.path, params=list(self.query), content=content, headers=headers
            )
            if answer.status_code != 429:
                return answer
            await asyncio.sleep(float(answer.headers.get("retry-after", "1")))

    def about(self, told: Callable[[str], str]) -> Call:
        """The same with every text replaced."""
        query = tuple((name, told(value)) for name, value in self.query)
        body = self.body and self.body._replace(content=told(self.body.content.decode()).encode())
        return replace(self, path=told(self.path), query=query, body=body)


class Operation(NamedTuple):
    """One operation of the description."""

    method: str
    path: str
    said: dict[str, Any]

    @property
    def key(self) -> tuple[str, str]:
        return self.method, self.path

    def parameters(self, where: str) -> list[dict[str, Any]]:
        return [one for one in self.said.get("parameters", []) if one["in"] == where]

    @property
    def streams(self) -> bool:
        return STREAM in self.said["responses"].get("200", {}).get("content", {})

    @property
    def reads(self) -> bool:
        return self.method == "GET" or self.key in READS

    def calls(self, tenancy: Tenancy, *, optional: bool = True) -> Iterator[Call]:
        """Every path with each optional parameter by itself, and each of them with every type."""
        inside, query = self.parameters("path"), self.parameters("query")
        known = {
            one["name"]: values(tenancy, self.path, one["schema"]).get(one["name"])
            for one in (*inside, *query)
        }
        strange = sorted(name for name, found in known.items() if found is None)
        assert not strange, f"teach the tenancy test what to fill into {strange} of {self.key}"
        needed = [one["name"] for one in query if one.get("required") or one["name"] == "type"]
        variations = [
            (),
            *(
                ((one["name"], value),)
                for one in query
                if optional and one["name"] not in needed
                for value in known[one["name"]] or ()
            ),
        ]
        bases = [
            tuple((name, value) for name, value in zip(needed, filled, strict=True) if value)
            for filled in itertools.product(
                *([*(known[name] or ()), *([] if self.method != "GET" else [""])] for name in needed)
            )
        ]
        bodies = self._bodies(tenancy)
        for filled in itertools.product(*(known[one["name"]] or () for one in inside)):
            at = self.path
            for one, value in zip(inside, filled, strict=True):
                at = at.replace("{" + one["name"] + "}", quote(value, safe=":"))
            for base, variation, body in itertools.product(bases, variations, bodies):
                yield Call(self.method, at, (*base, *variation), body)

    def _bodies(self, tenancy: Tenancy) -> list[Body | None]:
        if "requestBody" not in self.said:
            return [None]
        assert self.key in BODIES, f"teach the tenancy test a body for {self.key}"
        found = BODIES[self.key]
        bodies = found(tenancy) if callable(found) else [found]
        return [one if isinstance(one, Body) else Body(json.dumps(one).encode()) for one in bodies]


KUBECONFIG = "apiVersion: v1\nkind: Config\nclusters: []\nusers: []\ncontexts: []\n"
GRANT = {"role": "viewer", "rights": [], "clusters": ["*"], "namespaces": ["*"]}


def _manifest(kind: ResourceType, namespace: str, name: str) -> dict[str, Any]:
    home = {"namespace": namespace} if namespace else {}
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name, **home}}


def _manifests(tenancy: Tenancy) -> list[dict[str, Any]]:
    return [
        _manifest(CONFIG_MAPS, tenancy.hidden, _name(tenancy, "mine")),
        _manifest(CONFIG_MAPS, VISIBLE, OPEN),
        _manifest(SECRETS, VISIBLE, "another"),
        _manifest(ROLES, "", tenancy.one("role")),
        _manifest(NAMESPACES, "", tenancy.hidden),
    ]


def _batches(tenancy: Tenancy) -> list[dict[str, Any]]:
    """Every action, each on everything."""
    ids = values(tenancy, "", {})["id"]
    actions: list[dict[str, Any]] = [
        {"action": "delete"},
        {"action": "patch", "patch": {"data": {"a": "b"}}},
        {"action": "scale", "replicas": 0},
        {"action": "restart"},
        {"action": "label", "labels": {"a": "b"}},
    ]
    batches = [[{**action, "id": one} for one in ids] for action in actions]
    batches.append(
        [
            {"action": "apply", "clusters": [cluster], "manifest": one}
            for cluster in tenancy.clients
            for one in _manifests(tenancy)
        ]
    )
    return [
        {"operations": operations, "dry_run": dry_run} for operations in batches for dry_run in (False, True)
    ]


def _applied(tenancy: Tenancy) -> list[Body]:
    return [Body(json.dumps(one).encode(), "application/yaml") for one in _manifests(tenancy)]


def _submitted(tenancy: Tenancy) -> list[dict[str, Any]]:
    content = "\n---\n".join(json.dumps(one) for one in _manifests(tenancy))
    return [{"content": content, "clusters": list(tenancy.clients), "change_log": "all of it"}]


def _rewound(tenancy: Tenancy) -> list[dict[str, Any]]:
    """Every namespace of every cluster, back to when there was nothing."""
    return [
        {"cluster": cluster, "namespace": namespace, "at": "2026-01-01", "dry_run": dry_run}
        for cluster in tenancy.clients
        for namespace in (tenancy.hidden, VISIBLE)
        for dry_run in (False, True)
    ]


def _snapshots(tenancy: Tenancy) -> list[dict[str, Any]]:
    return [
        {"cluster": cluster, "namespace": namespace, "name": "mine"}
        for cluster, namespace in (("mine", VISIBLE), (tenancy.theirs, tenancy.hidden))
    ]


def _log_rules(tenancy: Tenancy) -> list[dict[str, Any]]:
    return [{"name": "another", "scope": {"clusters": [cluster]}} for cluster in tenancy.clients]


BODIES: dict[tuple[str, str], Any] = {
    ("POST", "/api/k8s/clusters/add"): {"name": "another", "kubeconfig": KUBECONFIG},
    ("POST", "/api/k8s/clusters/inspect"): {"kubeconfig": KUBECONFIG},
    ("PATCH", "/api/k8s/clusters/{cluster}"): {"description": "changed"},
    ("PUT", "/api/k8s/clusters/{cluster}/kubeconfig"): {"kubeconfig": KUBECONFIG},
    ("POST", "/api/k8s/groups"): {"name": "another"},
    ("PATCH", "/api/k8s/groups/{group}"): {"description": "changed"},
    ("POST", "/api/k8s/yaml/backup/policies"): lambda tenancy: [
        {"name": "another", "schedule": "0 3 * * *", "clusters": [cluster]} for cluster in tenancy.clients
    ],
    ("PUT", "/api/k8s/yaml/backup/policies/{policy}"): {"schedule": "0 4 * * *"},
    ("PATCH", "/api/k8s/yaml/backup/policies/{policy}"): {"paused": False},
    ("POST", "/api/k8s/containers/{id}/exec/terminal"): {"command": ["id"]},
    ("POST", "/api/k8s/containers/{id}/files/upload"): Body(b"x", "application/octet-stream"),
    **{
        ("POST", f"/api/k8s/containers/{{id}}/files/{change}"): {"path": "/tmp/x", **more}
        for change, more in {
            "chmod": {"mode": "0600"},
            "chown": {"owner": "root"},
            "mkdir": {},
            "rename": {"to": "/tmp/y"},
            "delete": {"recursive": True},
        }.items()
    },
    ("PUT", "/api/k8s/containers/{id}/files/content"): {"content": "x"},
    ("POST", "/api/k8s/containers/{id}/files/batch"): {
        "operations": [{"action": "mkdir", "path": "/tmp/x"}, {"action": "delete", "path": "/tmp/x"}]
    },
    ("POST", "/api/k8s/containers/files/batch"): lambda tenancy: [
        {
            "containers": [f"mine:{tenancy.hidden}:web-1:web", f"{tenancy.theirs}:{VISIBLE}:web-1:web"],
            "operations": [{"action": "mkdir", "path": "/tmp/x"}],
        }
    ],
    ("POST", "/api/k8s/logs/policies"): _log_rules,
    ("POST", "/api/k8s/logs/alerts"): _log_rules,
    ("PUT", "/api/k8s/logs/policies/{policy}"): {"days": 1},
    ("PUT", "/api/k8s/logs/alerts/{alert}"): {"count": 2},
    ("POST", f"{CONTAINERS}/{{id}}/exec"): {"command": ["true"]},
    ("POST", f"{CONTAINERS}/{{id}}/debug"): {},
    ("POST", f"{CONTAINERS}/exec"): lambda tenancy: [
        {"command": ["true"], "containers": values(tenancy, CONTAINERS, {})["id"]},
        *(
            {"command": ["true"], "selection": {"clusters": [cluster], "namespaces": namespaces}}
            for cluster in tenancy.clients
            for namespaces in ([], [VISIBLE], [tenancy.hidden])
        ),
    ],
    ("POST", f"{CONTAINERS}/exec/policies"): {"name": "another", "effect": "deny"},
    ("PUT", f"{CONTAINERS}/exec/policies/{{policy}}"): {"effect": "deny"},
    ("POST", "/api/tokens"): {"name": "more", "grants": [GRANT], "expires_in_s": 600},
    ("POST", "/api/k8s/yaml/versions/{id}/{version}/reveal"): {"reason": "because"},
    ("POST", "/api/k8s/yaml/versions/{id}/{version}/redact"): {"reason": "because"},
    ("POST", "/api/k8s/yaml/backup/restore"): lambda tenancy: [
        {"backup_id": backup, "cluster": cluster, "source": "mine", "dry_run": dry_run}
        for backup in (tenancy.backup, "20260101-000000-aaaaaaaaaaaa")
        for cluster in ("mine", "also", tenancy.theirs)
        for dry_run in (False, True)
    ],
    ("POST", "/api/k8s/yaml/backup/create"): lambda tenancy: [
        {"clusters": clusters, "namespaces": namespaces}
        for clusters in ([], ["mine"], [tenancy.theirs])
        for namespaces in ([], [VISIBLE], [tenancy.hidden])
    ],
    ("PUT", "/api/k8s/yaml/policies/{cluster}"): {"retention": {"days": 7}},
    ("POST", "/api/k8s/unified/batch"): _batches,
    ("POST", "/api/k8s/unified/apply"): _applied,
    ("POST", "/api/k8s/yaml/versions/{id}/rollback"): lambda _: [
        {"version": 1, "dry_run": dry_run, "force": True} for dry_run in (False, True)
    ],
    ("POST", "/api/k8s/yaml/snapshot/rollback"): _rewound,
    ("POST", "/api/k8s/yaml/apply"): _submitted,
    ("POST", "/api/k8s/yaml/versions/{id}"): {"content": "kind: ConfigMap", "branch": "idea"},
    ("POST", "/api/k8s/yaml/versions/{id}/tags"): {"name": "mine"},
    ("POST", "/api/k8s/yaml/versions/{id}/branches"): {"name": "mine"},
    ("POST", "/api/k8s/yaml/versions/{id}/branches/{branch}/update"): {},
    ("POST", "/api/k8s/yaml/versions/{id}/validate"): {"content": "kind: ConfigMap"},
    ("POST", "/api/k8s/yaml/versions/{id}/merge"): {"branch": "idea", "dry_run": True},
    ("POST", "/api/k8s/yaml/snapshot/tags"): _snapshots,
    ("PATCH", "/api/k8s/unified/resources/{id}"): Body(
        b'{"metadata": {"labels": {"a": "b"}}}', "application/merge-patch+json"
    ),
}
"""Bodies that would do, were the viewer allowed to."""

READS = frozenset({("POST", "/api/k8s/clusters/inspect"), ("POST", "/api/k8s/clusters/{cluster}/test")})
"""What is sent by POST and changes nothing: walked with the GETs."""

OWN = frozenset({("POST", "/api/session"), ("DELETE", "/api/session")})
"""What a viewer may do all the same: sessions have the very rights of the token that they are opened with."""

UNDESCRIBED = tuple(
    Operation("GET", path, {"responses": {}})
    for path in ("/", "/docs", "/livez", "/readyz", "/metrics", "/openapi.json", "/api/nothing")
)
"""What answers and is no part of the description."""

SHOWS_NONE = {
    "/api/whoami": "the caller alone",
    "/api/session": "the caller alone",
    "/api/k8s/clusters/{cluster}/metrics": "figures",
    "/api/k8s/clusters/{cluster}/test": "steps of a connection",
    "/api/k8s/clusters/inspect": "what the request holds",
    "/api/audit/verify": "chains and numbers",
    "/api/k8s/yaml/versions/{id}/verify": "numbers",
    "/api/k8s/yaml/verify": "numbers, as long as nothing is broken",
    "/api/k8s/yaml/backup/policies/{policy}/runs": "times",
    "/api/k8s/yaml/backup/keys": "keys and numbers",
    "/api/k8s/yaml/backup/{id}/download": "ciphertext",
    "/api/k8s/containers/operations/{id}/recording": "nothing, where no terminal was open",
    "/api/k8s/containers/{id}/logs": "lines that a simulated pod writes of itself",
    "/api/k8s/containers/{id}/logs/export": "lines that a simulated pod writes of itself",
    CONTAINERS: "the containers of the pod that was asked for",
    "/api/k8s/yaml/parked": "nothing, where nothing is parked",
    "/api/k8s/logs/histogram": "numbers",
    "/api/k8s/yaml/policies": "rules, of which none is set",
    "/api/k8s/yaml/policies/{cluster}": "rules, and the cluster that was asked for",
    **dict.fromkeys((one.path for one in UNDESCRIBED), "nothing of clusters"),
}
"""Where even the administrator finds no canary, and why."""


async def described(tenancy: Tenancy) -> list[Operation]:
    document = (await tenancy.admin.get("/openapi.json")).json()
    found = [
        Operation(method.upper(), path, said)
        for path, operations in document["paths"].items()
        for method, said in operations.items()
    ]
    assert len(found) > 30
    return found


class Finding(NamedTuple):
    path: str
    call: Call
    shown: set[str]


async def walk(tenancy: Tenancy, client: httpx.AsyncClient) -> list[Finding]:
    """Which requests that read were answered with canaries that they did not name themselves."""
    found: list[Finding] = []
    for operation in (*await described(tenancy), *UNDESCRIBED):
        if not operation.reads or operation.streams:
            continue
        for call in operation.calls(tenancy):
            try:
                answer = await call.send(client)
            except httpx.HTTPError as error:
                error.add_note(str(call))
                raise
            # 501: what a simulated container has no program for.
            fine = answer.status_code < 500 or answer.status_code == 501
            assert fine, f"{call} answered {answer.status_code}: {answer.text}"
            if shown := tenancy.shown(_told(answer) + str(answer.headers), call.said()):
                found.append(Finding(operation.path, call, shown))
    return found


def _told(answer: httpx.Response) -> str:
    """What an answer says. In the audit log the viewer finds which things they themselves asked for before."""
    if answer.url.path != "/api/audit" or answer.status_code != 200:
        return answer.text
    items = answer.json()["items"]
    for item in items:
        if item["actor"] == VIEWER:
            del item["resource"], item["cluster"]
    return json.dumps(items)


async def test_no_answer_to_a_viewer_shows_anything_of_others(tenancy) -> None:
    found = await walk(tenancy, tenancy.viewer)
    assert not found, "\n".join(map(str, found[:20]))


async def test_the_same_walk_shows_everything_but_values_of_secrets_to_the_administrator(tenancy) -> None:
    found = await walk(tenancy, tenancy.admin)
    shown = set[str]().union(*(one.shown for one in found))
    assert tenancy.canaries - shown == set()
    assert not shown & tenancy.values
    walked = {one.path for one in (*await described(tenancy), *UNDESCRIBED) if one.reads and not one.streams}
    assert {one.path for one in found} == walked - SHOWS_NONE.keys()


async def test_a_viewer_finds_what_is_theirs(tenancy) -> None:
    page = (await tenancy.viewer.get("/api/k8s/unified/resources", params={"type": "cm"})).json()
    names = {item["id"] for item in page["items"]}
    assert {f"{name}:configmaps:{VISIBLE}:{OPEN}" for name in ("mine", "also")} <= names
    assert [state["name"] for state in page["clusters"]] == ["also", "mine"]
    compared = (await tenancy.viewer.get("/api/k8s/unified/compare", params={"type": "cm"})).json()
    statuses = {item["name"]: item["status"] for item in compared["items"]}
    assert statuses[OPEN] == "different"


async def test_a_viewer_counts_what_they_see_and_nothing_more(tenancy) -> None:
    page = (await tenancy.viewer.get("/api/k8s/unified/resources", params={"limit": 10_000})).json()
    seen = len(page["items"])
    summary = (await tenancy.viewer.get("/api/k8s/unified/summary")).json()
    types = (await tenancy.viewer.get("/api/k8s/unified/types")).json()
    assert page["total"] == summary["total"] == sum(item["count"] for item in types["items"]) == seen
    assert sum(state["count"] for state in summary["clusters"]) == seen
    assert set(summary["namespaces"]) == {VISIBLE}
    clusters = (await tenancy.viewer.get("/api/k8s/clusters/list")).json()
    assert clusters["total"] == len(clusters["items"]) == 2
    assert {item["resource_count"] for item in clusters["items"]} <= {None, seen}


VOLATILE = frozenset({"as_of", "watch_from", "trace_id", "continue", "operation", "latency_ms", "took_ms"})


async def test_what_is_hidden_answers_as_what_does_not_exist(tenancy) -> None:
    """Otherwise a viewer who guesses a name learns whether it is there."""
    strangers = {one: one.rpartition("-")[0] + "-" + secrets.token_hex(4) for one in tenancy.canaries}
    others = {stranger: one for one, stranger in strangers.items()}
    for operation in await described(tenancy):
        if (
            operation.streams
            or operation.key in OWN
            or "/tokens" in operation.path
            or "audit" in operation.path
        ):
            continue
        for call in operation.calls(tenancy, optional=operation.reads):
            twin = call.about(lambda text: _renamed(text, strangers))
            if twin == call:
                continue
            real, guessed = await call.send(tenancy.viewer), await twin.send(tenancy.viewer)
            assert (real.status_code, _constant(real.text)) == (
                guessed.status_code,
                _constant(_renamed(guessed.text, others)),
            ), f"{call} tells what exists"


def _renamed(text: str, names: dict[str, str]) -> str:
    for one, other in names.items():
        text = text.replace(one, other)
    return text


def _constant(text: str) -> Any:
    """An answer without what is another one each time."""

    def keep(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: keep(one) for name, one in value.items() if name not in VOLATILE}
        return [keep(one) for one in value] if isinstance(value, list) else value

    try:
        return keep(json.loads(text))
    except ValueError:
        return text


async def test_no_page_ends_because_of_what_is_hidden(tenancy) -> None:
    """Otherwise the number of empty pages tells a viewer how much there is."""
    walked: set[str] = set()
    for operation in await described(tenancy):
        known = {one["name"] for one in operation.parameters("query")}
        # Of the audit a viewer has their own acts alone, and of logs lines of their own pods.
        if not {"limit", "continue"} <= known or operation.path.endswith(("audit", "logs", "search")):
            continue
        for call in operation.calls(tenancy, optional=False):
            said = dict(call.query)
            places = ({}, *({"namespace": one} for one in (tenancy.hidden, VISIBLE) if "namespace" in known))
            for place in places:
                query = {**said, **place, "limit": "1"}
                if await _went_on_behind_something(tenancy.viewer, replace(call, query=tuple(query.items()))):
                    walked.add(operation.path)
    assert {"/api/k8s/unified/resources", "/api/k8s/yaml/objects", "/api/k8s/yaml/verify"} <= walked


async def _went_on_behind_something(client: httpx.AsyncClient, call: Call) -> bool:
    """Follow a list to its end; whether there were more pages than one, none of them empty but the last."""
    pages, token = 0, ""
    while True:
        asked = replace(call, query=(*call.query, ("continue", token))) if token else call
        answer = await asked.send(client)
        if answer.status_code != 200:
            return False
        said, pages = answer.json(), pages + 1
        token = said.get("continue")
        if not token:
            return pages > 1
        shown = [value for name, value in said.items() if name not in ("clusters", "columns", "summary")]
        assert any(value for value in shown if isinstance(value, list)) or said.get("objects"), (
            f"{call} went on behind an empty page: {answer.text}"
        )


async def test_every_change_is_refused_to_a_viewer_and_changes_nothing(tenancy) -> None:
    before = await _state(tenancy)
    for operation in await described(tenancy):
        if operation.reads or operation.key in OWN:
            continue
        for call in operation.calls(tenancy):
            answer = await call.send(tenancy.viewer)
            assert _refused(answer), f"{call} answered {answer.status_code}: {answer.text}"
            assert not tenancy.shown(answer.text, call.said())
    assert await _state(tenancy) == before


def _refused(answer: httpx.Response) -> bool:
    """Whether all that was asked for was refused for want of a right, or as not there."""
    if answer.status_code != 200:
        return answer.status_code in (403, 404)
    results = answer.json()["results"]
    refused = [one for one in results if not one.get("skipped")]
    return bool(refused) and all(
        one["error"]["status"] in (403, 404) or "no cluster is chosen" in one["error"]["detail"]
        for one in refused
    )


async def _state(tenancy: Tenancy) -> Any:
    """Everything that a request could have changed."""
    clusters = (await tenancy.admin.get("/api/k8s/clusters/list")).json()["items"]
    said = ("id", "created_at", "display_name", "description", "tags", "group", "provider", "server")
    groups = (await tenancy.admin.get("/api/k8s/groups")).json()
    tokens = (await tenancy.admin.get("/api/tokens")).json()["items"]
    objects = [
        (cluster, raw["metadata"]["uid"], raw["metadata"]["resourceVersion"])
        for cluster, client in tenancy.clients.items()
        for kind in KINDS
        for raw in map(json.loads, (await client.list(kind)).items)
    ]
    return (
        [{name: one[name] for name in said} for one in clusters],
        groups,
        [(one["id"], one["grants"]) for one in tokens],
        objects,
    )


SIGN = "sign-for-everybody"


class Stream:
    """An open watch, and what it has said so far."""

    def __init__(self, call: Call, answer: httpx.Response) -> None:
        self.call = call
        self.told = ""
        self._answer = answer
        self._lines = answer.aiter_lines()

    @classmethod
    async def open(cls, stack: AsyncExitStack, client: httpx.AsyncClient, call: Call) -> Stream:
        """From now on nothing is missed: the server has taken its position."""
        request = client.build_request(call.method, call.path, params=list(call.query))
        answer = await client.send(request, stream=True)
        stack.push_async_callback(answer.aclose)
        assert answer.status_code < 500
        return cls(call, answer)

    async def until(self, enough: Callable[[str], bool]) -> None:
        """Read on until enough is told; a refusal is told whole."""
        async with asyncio.timeout(60):
            while (line := await anext(self._lines, None)) is not None:
                self.told += line + "\n"
                if not line and self._answer.status_code == 200 and enough(self.told):
                    return

    async def past(self, position: Position) -> None:
        """Read on until it has gone past a position in the feed; one that follows no cluster has none."""
        nowhere = dict(self.call.query).get("clusters", "").startswith("tag:")
        await self.until(lambda told: any(nowhere or at >= position for at in _positions(told)))


def _positions(told: str) -> list[Position]:
    return [Position.parse(line[4:]) for line in told.splitlines() if line.startswith("id: ")]


async def test_a_stream_shows_a_viewer_what_is_theirs_alone(tenancy) -> None:
    watches = [one for one in await described(tenancy) if one.streams and "logs" not in one.path]
    assert watches
    async with AsyncExitStack() as stack:
        everything = await Stream.open(stack, tenancy.admin, Call("GET", watches[0].path))
        opened = [
            await Stream.open(stack, tenancy.viewer, call)
            for watch in watches
            for call in watch.calls(tenancy)
        ]
        names = await _stir(tenancy)
        await everything.until(lambda told: all(name in told for name in names))
        # Behind all of that in the feed: whoever has come so far was not shown it.
        await tenancy.write("mine", CONFIG_MAPS, VISIBLE, SIGN)
        await everything.until(lambda told: SIGN in told)
        sign = _positions(everything.told.partition(SIGN)[0])[-1]
        await asyncio.gather(*(stream.past(sign) for stream in opened))
    assert not tenancy.values & {one for one in tenancy.values if one in everything.told}
    for stream in opened:
        assert not tenancy.shown(stream.told, stream.call.said()), f"{stream.call} showed {stream.told}"
    signed = [stream.call.query for stream in opened if SIGN in stream.told]
    assert () in signed
    assert (("type", "configmaps"), ("namespace", VISIBLE)) in signed


async def test_a_stream_of_logs_shows_a_viewer_what_is_theirs_alone(tenancy) -> None:
    streams = [one for one in await described(tenancy) if one.streams and "logs" in one.path]
    assert streams
    seen = ""
    for call in (call for one in streams for call in one.calls(tenancy)):
        query = (*(one for one in call.query if one[0] != "follow"), ("follow", "false"))
        ending = replace(call, query=query)
        answer = await ending.send(tenancy.viewer)
        assert not tenancy.shown(answer.text, ending.said()), f"{ending} showed {answer.text[:2000]}"
        seen += (await ending.send(tenancy.admin)).text
    assert tenancy.one("pod") in seen


async def _stir(tenancy: Tenancy) -> list[str]:
    """Changes of everything that is hidden; the names of what is new."""
    before = len(tenancy.planted)
    for cluster in tenancy.clients:
        await tenancy.plant(cluster, tenancy.hidden)
        await tenancy.write(cluster, ROLES, "", tenancy.new("role"), rules=[])
        await tenancy.write(cluster, NAMESPACES, "", tenancy.new("namespace"))
    await tenancy.plant(tenancy.theirs, VISIBLE)
    return [one.rpartition(":")[2] for one in tenancy.planted[before:]]


async def test_a_session_shows_no_more_than_the_token_that_it_was_opened_with(tenancy) -> None:
    async with httpx.AsyncClient(base_url=tenancy.kubelore.url, timeout=30) as browser:
        headers = {"Authorization": tenancy.viewer.headers["authorization"]}
        opened = await browser.post("/api/session", headers=headers)
        assert opened.status_code == 201, opened.text
        for path in ("/api/k8s/clusters/list", "/api/k8s/unified/resources?limit=10000"):
            by_cookie, by_token = await browser.get(path), await tenancy.viewer.get(path)
            assert by_cookie.status_code == 200
            assert not tenancy.shown(by_cookie.text, "")
            assert by_cookie.json()["total"] == by_token.json()["total"]
        written = await browser.delete(
            f"/api/k8s/unified/resources/mine:configmaps:{VISIBLE}:{OPEN}",
            headers={"X-CSRF-Token": opened.json()["csrf_token"], "Origin": tenancy.kubelore.url},
        )
        assert written.status_code == 403


async def test_a_token_that_is_revoked_shows_nothing_any_more(tenancy) -> None:
    made = await _token(tenancy, "short", GRANT)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(_as(tenancy, made))
        watch = await Stream.open(stack, client, Call("GET", "/api/k8s/unified/watch"))
        assert (await client.get("/api/k8s/clusters/list")).status_code == 200
        assert (await tenancy.admin.delete(f"/api/tokens/{made['id']}")).status_code == 204

        async def refused() -> bool:
            return (await client.get("/api/k8s/clusters/list")).status_code == 401

        await wait_for(refused, "the token to be refused", 10)
        async with asyncio.timeout(10):
            await watch.until(lambda _: False)
        assert "event: error" in watch.told
