"""What an API server does, written once and held against kubesim and against the real one.

A difference found by a service's test on the lab belongs here first, and then into kubesim.
"""

import asyncio
import base64
import json
import ssl
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import yaml

from kubelore.kubesim.app import SimulatedFleet
from kubelore.kubesim.simulated import SimulatedCluster
from kubelore.lab.fixtures import LabPair
from kubelore.lab.waiting import wait_for

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
PARTIAL = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io,application/json"
PARTIAL_LIST = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json"
Forget = Callable[[], Awaitable[None]]
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


class Answer:
    def __init__(self, code: int, body: Any) -> None:
        self.code = code
        self.body = body

    @property
    def refusal(self) -> tuple[int, str]:
        assert self.body["kind"] == "Status"
        assert self.body["code"] == self.code
        return self.code, self.body["reason"]


class Api:
    """A client of one API server that hides nothing: paths, bodies and codes as they are."""

    def __init__(self, session: aiohttp.ClientSession, server: str, context: ssl.SSLContext, ca: str) -> None:
        self._session = session
        self._server = server
        self._ssl = context
        self._ca = ca

    async def as_stranger(self, path: str, token: str) -> Answer:
        """Asks with this token and nothing else."""
        context = ssl.create_default_context(cadata=self._ca)
        headers = {"Authorization": f"Bearer {token}"}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.get(self._server + path, ssl=context) as response,
        ):
            return Answer(response.status, await response.json())

    async def __call__(
        self, method: str, path: str, body: Any = None, *, accept: str = "", type: str = "", **headers: str
    ) -> Answer:
        headers["Accept"] = accept or "application/json"
        if body is not None:
            headers["Content-Type"] = type or "application/json"
        async with self._session.request(
            method,
            self._server + path,
            data=None if body is None else json.dumps(body),
            headers={key.replace("_", "-"): value for key, value in headers.items()},
            ssl=self._ssl,
            timeout=aiohttp.ClientTimeout(total=20),
        ) as response:
            raw = await response.read()
            return Answer(response.status, json.loads(raw) if raw[:1] in b"{[" else raw.decode())

    async def events(self, path: str, count: int, begun: asyncio.Event | None = None) -> list[dict[str, Any]]:
        """The first `count` events of a watch; `begun` is set when the first is there."""
        events: list[dict[str, Any]] = []
        timeout = aiohttp.ClientTimeout(total=20)
        async with self._session.get(self._server + path, ssl=self._ssl, timeout=timeout) as response:
            assert response.status == 200
            async for line in response.content:
                events.append(json.loads(line))
                if begun is not None:
                    begun.set()
                if len(events) == count:
                    break
        return events


async def connect(kubeconfig: str, folder: Any) -> tuple[aiohttp.ClientSession, Api]:
    config = yaml.safe_load(kubeconfig)
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    ca = base64.b64decode(cluster["certificate-authority-data"]).decode()
    context = ssl.create_default_context(cadata=ca)
    headers = {}
    if "token" in user:
        headers["Authorization"] = f"Bearer {user['token']}"
    else:
        pem = folder / "client.pem"
        parts = (user["client-certificate-data"], user["client-key-data"])
        pem.write_bytes(b"".join(base64.b64decode(part) for part in parts))
        context.load_cert_chain(pem)
    session = aiohttp.ClientSession(headers=headers)
    return session, Api(session, cluster["server"], context, ca)


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def deployment(name: str, replicas: int = 2) -> dict[str, Any]:
    labels = {"app": name}
    containers = [{"name": "main", "image": "main:1"}, {"name": "side", "image": "side:1"}]
    template = {"metadata": {"labels": labels}, "spec": {"containers": containers}}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    # Paused and unscheduled: no controller of a real cluster gets in between.
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {**spec, "paused": True},
    }


def names(answer: Answer) -> list[str]:
    return [item["metadata"]["name"] for item in answer.body["items"]]


async def until(api: Api, path: str, code: int) -> None:
    async def answered() -> bool:
        return (await api("GET", path)).code == code

    await wait_for(answered, f"{path} to answer {code}", 30.0)


class ApiServerContract:
    """Every test has a namespace of its own, `ns`; `maps` is the path of its ConfigMaps."""

    @pytest_asyncio.fixture(loop_scope="session")
    async def ns(self, api: Api) -> AsyncIterator[str]:
        name = f"contract-{uuid.uuid4().hex[:8]}"
        created = await api(
            "POST",
            "/api/v1/namespaces",
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}},
        )
        assert created.code == 201
        yield name
        await api("DELETE", f"/api/v1/namespaces/{name}")

    @pytest.fixture
    def maps(self, ns: str) -> str:
        return f"/api/v1/namespaces/{ns}/configmaps"

    # Who may come in, and what is there

    async def test_health_and_version_are_there(self, api: Api) -> None:
        assert (await api("GET", "/readyz")).body == "ok"
        assert (await api("GET", "/livez")).body == "ok"
        assert (await api("GET", "/version")).body["major"] == "1"

    async def test_a_wrong_token_is_unauthorized(self, api: Api) -> None:
        answer = await api.as_stranger("/api/v1/nodes", "wrong")
        assert answer.refusal == (401, "Unauthorized")

    async def test_discovery_says_the_same_in_both_forms(self, api: Api) -> None:
        classic = (await api("GET", "/apis/apps/v1")).body
        aggregated = (await api("GET", "/apis", accept=AGGREGATED)).body
        listed = next(entry for entry in classic["resources"] if entry["name"] == "deployments")
        group = next(item for item in aggregated["items"] if item["metadata"]["name"] == "apps")
        other = next(
            entry for entry in group["versions"][0]["resources"] if entry["resource"] == "deployments"
        )
        assert classic["groupVersion"] == "apps/v1"
        assert listed["kind"] == other["responseKind"]["kind"] == "Deployment"
        assert listed["shortNames"] == other["shortNames"] == ["deploy"]
        assert listed["singularName"] == other["singularResource"] == "deployment"
        assert sorted(listed["verbs"]) == sorted(other["verbs"])
        assert other["scope"] == "Namespaced"
        assert {"status", "scale"} <= {below["subresource"] for below in other["subresources"]}
        assert listed["storageVersionHash"]

    async def test_what_is_not_served_is_not_found(self, api: Api) -> None:
        assert (await api("GET", "/api/v1/nothings")).code == 404
        assert (await api("GET", "/apis/no.such/v1/things")).code == 404

    # Create, read, write, delete

    async def test_what_was_created_is_read_back(self, api: Api, maps: str) -> None:
        created = await api("POST", maps, config_map("a", x="1"))
        assert created.code == 201
        meta = created.body["metadata"]
        assert meta["uid"]
        assert meta["creationTimestamp"].endswith("Z")
        assert int(meta["resourceVersion"]) > 0
        assert (await api("GET", f"{maps}/a")).body == created.body

    async def test_a_name_twice_already_exists(self, api: Api, maps: str) -> None:
        await api("POST", maps, config_map("a"))
        again = await api("POST", maps, config_map("a"))
        assert again.refusal == (409, "AlreadyExists")
        assert again.body["message"] == 'configmaps "a" already exists'
        assert again.body["details"] == {"name": "a", "kind": "configmaps"}

    async def test_what_is_not_there_is_not_found(self, api: Api, ns: str, maps: str) -> None:
        missing = await api("GET", f"{maps}/missing")
        assert missing.refusal == (404, "NotFound")
        assert missing.body["message"] == 'configmaps "missing" not found'
        other = await api("GET", f"/apis/apps/v1/namespaces/{ns}/deployments/missing")
        assert other.body["message"] == 'deployments.apps "missing" not found'
        assert other.body["details"] == {"name": "missing", "group": "apps", "kind": "deployments"}

    async def test_nothing_is_created_in_a_namespace_that_is_not_there(self, api: Api) -> None:
        answer = await api("POST", "/api/v1/namespaces/not-there/configmaps", config_map("a"))
        assert answer.refusal == (404, "NotFound")
        assert answer.body["message"] == 'namespaces "not-there" not found'

    async def test_generate_name_makes_names(self, api: Api, maps: str) -> None:
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "made-"}}
        made = {(await api("POST", maps, body)).body["metadata"]["name"] for _ in range(3)}
        assert len(made) == 3
        assert all(name.startswith("made-") and len(name) == len("made-") + 5 for name in made)

    async def test_a_new_object_with_a_version_is_refused(self, api: Api, maps: str) -> None:
        body = config_map("a")
        body["metadata"]["resourceVersion"] = "1"
        answer = await api("POST", maps, body)
        assert answer.code == 500  # so it is: an error without reason
        assert answer.body["message"] == "resourceVersion should not be set on objects to be created"

    @pytest.mark.parametrize("name", ["Upper", "under_score", "-dash", "a/b", "x" * 254])
    async def test_a_name_against_the_rule_is_invalid(self, api: Api, maps: str, name: str) -> None:
        assert (await api("POST", maps, config_map(name))).refusal == (422, "Invalid")

    async def test_a_body_of_another_type_is_a_bad_request(self, api: Api, maps: str) -> None:
        body = config_map("a") | {"kind": "Secret"}
        assert (await api("POST", maps, body)).refusal == (400, "BadRequest")

    async def test_a_body_over_the_limit_is_too_large(self, api: Api, maps: str) -> None:
        answer = await api("POST", maps, config_map("a", x="x" * (3 * 1024 * 1024)))
        assert answer.refusal == (413, "RequestEntityTooLarge")

    async def test_dry_run_changes_nothing(self, api: Api, maps: str) -> None:
        assert (await api("POST", f"{maps}?dryRun=All", config_map("a"))).code == 201
        assert (await api("GET", f"{maps}/a")).code == 404

    async def test_plain_secret_strings_are_stored_as_data(self, api: Api, ns: str) -> None:
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"k": "v"}}
        created = await api("POST", f"/api/v1/namespaces/{ns}/secrets", secret)
        assert created.body["data"] == {"k": "dg=="}
        assert created.body["type"] == "Opaque"
        assert "stringData" not in created.body

    async def test_an_update_with_an_old_version_conflicts(self, api: Api, maps: str) -> None:
        first = (await api("POST", maps, config_map("a", x="1"))).body
        second = await api("PUT", f"{maps}/a", {**first, "data": {"x": "2"}})
        assert second.code == 200
        assert int(second.body["metadata"]["resourceVersion"]) > int(first["metadata"]["resourceVersion"])
        third = await api("PUT", f"{maps}/a", {**first, "data": {"x": "3"}})
        assert third.refusal == (409, "Conflict")
        assert "the object has been modified" in third.body["message"]

    async def test_an_update_that_changes_nothing_keeps_the_version(self, api: Api, maps: str) -> None:
        first = (await api("POST", maps, config_map("a", x="1"))).body
        again = (await api("PUT", f"{maps}/a", first)).body
        assert again["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]

    async def test_merge_patch(self, api: Api, maps: str) -> None:
        await api("POST", maps, config_map("a", x="1", y="2"))
        patched = await api("PATCH", f"{maps}/a", {"data": {"x": None, "z": "3"}}, type=MERGE_PATCH)
        assert patched.body["data"] == {"y": "2", "z": "3"}

    async def test_json_patch_applies_or_refuses_as_a_whole(self, api: Api, maps: str) -> None:
        await api("POST", maps, config_map("a", x="1"))
        good = [
            {"op": "test", "path": "/data/x", "value": "1"},
            {"op": "add", "path": "/data/y", "value": "2"},
        ]
        bad = [
            {"op": "add", "path": "/data/z", "value": "3"},
            {"op": "test", "path": "/data/x", "value": "9"},
        ]
        assert (await api("PATCH", f"{maps}/a", good, type=JSON_PATCH)).body["data"] == {"x": "1", "y": "2"}
        assert (await api("PATCH", f"{maps}/a", bad, type=JSON_PATCH)).refusal == (422, "Invalid")
        assert (await api("GET", f"{maps}/a")).body["data"] == {"x": "1", "y": "2"}

    async def test_strategic_merge_goes_by_the_names_of_containers(self, api: Api, ns: str) -> None:
        path = f"/apis/apps/v1/namespaces/{ns}/deployments"
        await api("POST", path, deployment("d"))
        containers = [
            {"name": "side", "image": "side:2"},
            {"name": "main", "$patch": "delete"},
            {"name": "new", "image": "new:1"},
        ]
        patch = {"spec": {"template": {"spec": {"containers": containers}}}}
        patched = await api("PATCH", f"{path}/d", patch, type=STRATEGIC_PATCH)
        left = {c["name"]: c["image"] for c in patched.body["spec"]["template"]["spec"]["containers"]}
        assert left == {"side": "side:2", "new": "new:1"}

    async def test_an_unknown_patch_type_is_unsupported(self, api: Api, maps: str) -> None:
        await api("POST", maps, config_map("a"))
        answer = await api("PATCH", f"{maps}/a", {}, type="application/json")
        assert answer.refusal == (415, "UnsupportedMediaType")

    async def test_delete_answers_success_and_then_nothing_is_there(self, api: Api, maps: str) -> None:
        uid = (await api("POST", maps, config_map("a"))).body["metadata"]["uid"]
        deleted = await api("DELETE", f"{maps}/a")
        assert (deleted.body["kind"], deleted.body["status"]) == ("Status", "Success")
        assert deleted.body["details"] == {"name": "a", "kind": "configmaps", "uid": uid}
        assert (await api("DELETE", f"{maps}/a")).refusal == (404, "NotFound")

    async def test_delete_of_another_uid_conflicts(self, api: Api, maps: str) -> None:
        await api("POST", maps, config_map("a"))
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": str(uuid.uuid4())}}
        assert (await api("DELETE", f"{maps}/a", options)).refusal == (409, "Conflict")
        assert (await api("GET", f"{maps}/a")).code == 200

    async def test_a_finalizer_holds_what_is_deleted(self, api: Api, maps: str) -> None:
        body = config_map("a")
        body["metadata"]["finalizers"] = ["example.com/hold"]
        await api("POST", maps, body)
        assert (await api("DELETE", f"{maps}/a")).body["kind"] == "ConfigMap"
        assert (await api("GET", f"{maps}/a")).body["metadata"]["deletionTimestamp"]
        await api("PATCH", f"{maps}/a", {"metadata": {"finalizers": None}}, type=MERGE_PATCH)
        assert (await api("GET", f"{maps}/a")).code == 404

    async def test_delete_collection_takes_what_is_selected(self, api: Api, maps: str) -> None:
        for name in ("a", "b", "c"):
            body = config_map(name)
            body["metadata"]["labels"] = {"keep": "yes" if name == "b" else "no"}
            await api("POST", maps, body)
        assert (await api("DELETE", f"{maps}?labelSelector=keep%3Dno")).code == 200
        assert names(await api("GET", f"{maps}?labelSelector=keep")) == ["b"]

    async def test_a_deleted_namespace_takes_its_content_along(self, api: Api, ns: str, maps: str) -> None:
        await api("POST", maps, config_map("a"))
        answer = await api("DELETE", f"/api/v1/namespaces/{ns}")
        assert answer.body["status"]["phase"] == "Terminating"
        await until(api, f"/api/v1/namespaces/{ns}", 404)
        assert (await api("GET", f"{maps}/a")).code == 404

    # Lists

    async def test_items_of_built_in_lists_carry_no_type(self, api: Api, maps: str) -> None:
        await api("POST", maps, config_map("a"))
        listed = (await api("GET", maps)).body
        assert (listed["kind"], listed["apiVersion"]) == ("ConfigMapList", "v1")
        assert all("kind" not in item and "apiVersion" not in item for item in listed["items"])

    async def test_pages_show_one_moment(self, api: Api, maps: str) -> None:
        for number in range(5):
            await api("POST", maps, config_map(f"m{number}"))
        first = await api("GET", f"{maps}?limit=2&fieldSelector=metadata.name!%3Dkube-root-ca.crt")
        await api("DELETE", f"{maps}/m3")
        await api("POST", maps, config_map("m9"))
        seen, token = names(first), first.body["metadata"]["continue"]
        while token:
            page = await api(
                "GET", f"{maps}?limit=2&continue={token}&fieldSelector=metadata.name!%3Dkube-root-ca.crt"
            )
            assert page.body["metadata"]["resourceVersion"] == first.body["metadata"]["resourceVersion"]
            seen += names(page)
            token = page.body["metadata"].get("continue")
        assert seen == ["m0", "m1", "m2", "m3", "m4"]

    async def test_a_page_says_how_many_remain(self, api: Api, maps: str) -> None:
        for number in range(4):
            await api("POST", maps, config_map(f"m{number}"))
        total = len((await api("GET", maps)).body["items"])
        page = await api("GET", f"{maps}?limit=3")
        assert page.body["metadata"]["remainingItemCount"] == total - 3

    async def test_an_exact_list_shows_the_past(self, api: Api, maps: str) -> None:
        rv = (await api("POST", maps, config_map("a"))).body["metadata"]["resourceVersion"]
        await api("DELETE", f"{maps}/a")
        past = await api("GET", f"{maps}?resourceVersion={rv}&resourceVersionMatch=Exact&limit=100")
        assert "a" in names(past)
        assert past.body["metadata"]["resourceVersion"] == rv

    async def test_a_broken_continue_token_is_a_bad_request(self, api: Api, maps: str) -> None:
        assert (await api("GET", f"{maps}?limit=1&continue=nonsense")).refusal == (400, "BadRequest")

    async def test_a_version_match_without_version_is_invalid(self, api: Api, maps: str) -> None:
        assert (await api("GET", f"{maps}?resourceVersionMatch=Exact")).refusal == (422, "Invalid")

    async def test_a_version_from_the_future_times_out(self, api: Api, maps: str) -> None:
        answer = await api("GET", f"{maps}?resourceVersion=9000000000000000")
        assert answer.refusal == (504, "Timeout")
        assert answer.body["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"

    @pytest.mark.parametrize(
        ("selector", "expected"),
        [
            ("tier", ["a", "b"]),
            ("!tier", ["c"]),
            ("tier=web", ["a"]),
            ("tier!=web", ["b", "c"]),
            ("tier in (web,db)", ["a", "b"]),
            ("tier notin (web)", ["b", "c"]),
            ("tier=db,env=prod", ["b"]),
        ],
    )
    async def test_label_selectors(self, api: Api, maps: str, selector: str, expected: list[str]) -> None:
        for name, labels in (
            ("a", {"tier": "web"}),
            ("b", {"tier": "db", "env": "prod"}),
            ("c", {"env": "dev"}),
        ):
            body = config_map(name)
            body["metadata"]["labels"] = labels
            await api("POST", maps, body)
        quoted = selector.replace("=", "%3D").replace(" ", "%20").replace("!", "%21")
        listed = names(await api("GET", f"{maps}?labelSelector={quoted}"))
        assert [name for name in listed if name != "kube-root-ca.crt"] == expected

    async def test_selectors_that_mean_nothing_are_bad_requests(self, api: Api, maps: str) -> None:
        assert (await api("GET", f"{maps}?labelSelector=a%20b%20c")).refusal == (400, "BadRequest")
        assert (await api("GET", f"{maps}?fieldSelector=data.x%3D1")).refusal == (400, "BadRequest")

    async def test_pods_are_selected_by_fields(self, api: Api, ns: str) -> None:
        path = f"/api/v1/namespaces/{ns}/pods"
        # The real server admits no pod before the namespace has its service account.
        await until(api, f"/api/v1/namespaces/{ns}/serviceaccounts/default", 200)
        for name, node in (("on", "somewhere"), ("off", "")):
            spec = {"containers": [{"name": "c", "image": "i"}], **({"nodeName": node} if node else {})}
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
            assert (await api("POST", path, pod)).code == 201
        assert names(await api("GET", f"{path}?fieldSelector=spec.nodeName%3Dsomewhere")) == ["on"]
        assert names(await api("GET", f"{path}?fieldSelector=status.phase%3DPending,spec.nodeName%3D")) == [
            "off"
        ]

    # Views

    async def test_tables_have_the_columns_of_kubectl(self, api: Api, maps: str) -> None:
        await api("POST", maps, config_map("a", x="1", y="2"))
        table = (await api("GET", f"{maps}/a", accept=TABLE)).body
        assert (table["kind"], table["apiVersion"]) == ("Table", "meta.k8s.io/v1")
        assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Data", "Age"]
        assert table["rows"][0]["cells"][:2] == ["a", 2]
        assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"

    async def test_partial_metadata_carries_no_content(self, api: Api, maps: str) -> None:
        await api("POST", maps, config_map("a", x="1"))
        one = (await api("GET", f"{maps}/a", accept=PARTIAL)).body
        many = (await api("GET", maps, accept=PARTIAL_LIST)).body
        assert (one["kind"], many["kind"]) == ("PartialObjectMetadata", "PartialObjectMetadataList")
        assert one["apiVersion"] == many["apiVersion"] == "meta.k8s.io/v1"
        assert "data" not in one
        assert all(item["kind"] == "PartialObjectMetadata" and "data" not in item for item in many["items"])

    async def test_an_unknown_media_type_is_not_acceptable(self, api: Api, maps: str) -> None:
        assert (await api("GET", maps, accept="text/csv")).refusal == (406, "NotAcceptable")

    # Watches

    async def test_a_watch_continues_where_a_list_ended(self, api: Api, maps: str) -> None:
        rv = (await api("GET", maps)).body["metadata"]["resourceVersion"]
        await api("POST", maps, config_map("a", x="1"))
        await api("PATCH", f"{maps}/a", {"data": {"x": "2"}}, type=MERGE_PATCH)
        await api("DELETE", f"{maps}/a")
        path = f"{maps}?watch=1&resourceVersion={rv}&fieldSelector=metadata.name%3Da"
        events = await api.events(path, 3)
        assert [event["type"] for event in events] == ["ADDED", "MODIFIED", "DELETED"]
        assert [event["object"]["data"]["x"] for event in events] == ["1", "2", "2"]
        assert all(event["object"]["kind"] == "ConfigMap" for event in events)
        versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in events]
        assert versions == sorted(set(versions))

    async def test_a_watch_resumes_after_the_last_event_seen(self, api: Api, maps: str) -> None:
        rv = (await api("GET", maps)).body["metadata"]["resourceVersion"]
        for name in ("a", "b"):
            await api("POST", maps, config_map(name))
        selector = "fieldSelector=metadata.name!%3Dkube-root-ca.crt"
        (first,) = await api.events(f"{maps}?watch=1&resourceVersion={rv}&{selector}", 1)
        seen = first["object"]["metadata"]["resourceVersion"]
        (second,) = await api.events(f"{maps}?watch=1&resourceVersion={seen}&{selector}", 1)
        assert [first["object"]["metadata"]["name"], second["object"]["metadata"]["name"]] == ["a", "b"]

    async def test_an_object_that_leaves_the_selection_is_deleted_from_it(self, api: Api, maps: str) -> None:
        rv = (await api("GET", maps)).body["metadata"]["resourceVersion"]
        body = config_map("a")
        body["metadata"]["labels"] = {"chosen": "yes"}
        await api("POST", maps, body)
        for value in ("no", "yes"):
            await api("PATCH", f"{maps}/a", {"metadata": {"labels": {"chosen": value}}}, type=MERGE_PATCH)
        events = await api.events(f"{maps}?watch=1&resourceVersion={rv}&labelSelector=chosen%3Dyes", 3)
        assert [event["type"] for event in events] == ["ADDED", "DELETED", "ADDED"]

    async def test_a_watch_without_a_version_starts_with_what_is_there(self, api: Api, maps: str) -> None:
        await api("POST", maps, config_map("a"))
        (event,) = await api.events(f"{maps}?watch=1&fieldSelector=metadata.name%3Da", 1)
        assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "a")

    async def test_initial_events_end_with_a_marked_bookmark(self, api: Api, maps: str) -> None:
        await api("POST", maps, config_map("a"))
        path = (
            f"{maps}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
            "&allowWatchBookmarks=true&fieldSelector=metadata.name%3Da"
        )
        added, bookmark = await api.events(path, 2)
        assert added["type"] == "ADDED"
        assert bookmark["type"] == "BOOKMARK"
        assert bookmark["object"]["kind"] == "ConfigMap"
        meta = bookmark["object"]["metadata"]
        assert meta["annotations"] == {"k8s.io/initial-events-end": "true"}
        assert int(meta["resourceVersion"]) >= int(added["object"]["metadata"]["resourceVersion"])

    async def test_initial_events_need_a_version_match(self, api: Api, maps: str) -> None:
        assert (await api("GET", f"{maps}?watch=1&sendInitialEvents=true")).refusal == (422, "Invalid")

    async def test_forgotten_history_is_expired(self, api: Api, maps: str, forget: Forget) -> None:
        for name in ("a", "b", "c"):
            await api("POST", maps, config_map(name))
        page = (await api("GET", f"{maps}?limit=1")).body["metadata"]
        await api("POST", maps, config_map("later"))
        await forget()
        (event,) = await api.events(f"{maps}?watch=1&resourceVersion={page['resourceVersion']}", 1)
        assert event["type"] == "ERROR"
        assert (event["object"]["code"], event["object"]["reason"]) == (410, "Expired")
        rest = await api("GET", f"{maps}?limit=9&continue={page['continue']}")
        assert rest.refusal == (410, "Expired")
        onward = await api("GET", f"{maps}?limit=9&continue={rest.body['metadata']['continue']}")
        assert set(names(onward)) >= {"b", "c", "later"}

    async def test_a_watch_ends_in_its_time(self, api: Api, maps: str) -> None:
        rv = (await api("GET", maps)).body["metadata"]["resourceVersion"]
        path = f"{maps}?watch=1&resourceVersion={rv}&timeoutSeconds=1&fieldSelector=metadata.name%3Dnone"
        assert await api.events(path, 1) == []

    async def test_watched_metadata_carries_no_content(self, api: Api, maps: str) -> None:
        await api("POST", maps, config_map("a", x="1"))
        answer = await api(
            "GET",
            f"{maps}?watch=1&timeoutSeconds=1&fieldSelector=metadata.name%3Da",
            accept="application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
        )
        assert answer.body["object"]["kind"] == "PartialObjectMetadata"
        assert "data" not in answer.body["object"]

    # Subresources

    async def test_status_and_the_rest_are_written_apart(self, api: Api, ns: str) -> None:
        path = f"/apis/apps/v1/namespaces/{ns}/deployments/d"
        await api("POST", path.removesuffix("/d"), deployment("d"))
        both = {"spec": {"minReadySeconds": 5}, "status": {"observedGeneration": 7}}
        main = await api("PATCH", path, both, type=MERGE_PATCH)
        assert main.body["spec"]["minReadySeconds"] == 5
        assert main.body["status"].get("observedGeneration") != 7
        both["spec"]["minReadySeconds"] = 9
        status = await api("PATCH", f"{path}/status", both, type=MERGE_PATCH)
        assert status.body["spec"]["minReadySeconds"] == 5
        assert status.body["status"]["observedGeneration"] == 7

    async def test_generation_counts_changes_of_the_spec_only(self, api: Api, ns: str) -> None:
        path = f"/apis/apps/v1/namespaces/{ns}/deployments/d"
        created = await api("POST", path.removesuffix("/d"), deployment("d"))
        assert created.body["metadata"]["generation"] == 1
        labelled = await api("PATCH", path, {"metadata": {"labels": {"a": "b"}}}, type=MERGE_PATCH)
        assert labelled.body["metadata"]["generation"] == 1
        changed = await api("PATCH", path, {"spec": {"minReadySeconds": 5}}, type=MERGE_PATCH)
        assert changed.body["metadata"]["generation"] == 2

    async def test_scale_is_read_and_written(self, api: Api, ns: str) -> None:
        path = f"/apis/apps/v1/namespaces/{ns}/deployments/d"
        await api("POST", path.removesuffix("/d"), deployment("d", replicas=2))
        scale = (await api("GET", f"{path}/scale")).body
        assert (scale["kind"], scale["apiVersion"]) == ("Scale", "autoscaling/v1")
        assert scale["spec"]["replicas"] == 2
        assert scale["status"]["selector"] == "app=d"
        scale["spec"]["replicas"] = 4
        del scale["metadata"]["resourceVersion"]  # a controller may have been there
        assert (await api("PUT", f"{path}/scale", scale)).body["spec"]["replicas"] == 4
        assert (await api("GET", path)).body["spec"]["replicas"] == 4
        patched = await api("PATCH", f"{path}/scale", {"spec": {"replicas": 1}}, type=MERGE_PATCH)
        assert patched.body["spec"]["replicas"] == 1

    async def test_access_reviews_are_answered(self, api: Api, ns: str) -> None:
        attributes = {"verb": "delete", "resource": "pods", "namespace": ns}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        path = "/apis/authorization.k8s.io/v1"
        assert (await api("POST", f"{path}/selfsubjectaccessreviews", review)).body["status"][
            "allowed"
        ] is True
        rules = review | {"kind": "SelfSubjectRulesReview", "spec": {"namespace": ns}}
        answer = await api("POST", f"{path}/selfsubjectrulesreviews", rules)
        assert answer.body["status"]["resourceRules"]

    # Server-side apply

    async def apply(self, api: Api, path: str, body: Any, manager: str, *, force: bool = False) -> Answer:
        query = f"fieldManager={manager}" + ("&force=true" if force else "")
        return await api("PATCH", f"{path}?{query}", body, type=APPLY_PATCH)

    async def test_apply_creates_updates_and_leaves_what_is_the_same(self, api: Api, maps: str) -> None:
        created = await self.apply(api, f"{maps}/a", config_map("a", x="1"), "one")
        changed = await self.apply(api, f"{maps}/a", config_map("a", x="2"), "one")
        same = await self.apply(api, f"{maps}/a", config_map("a", x="2"), "one")
        assert (created.code, changed.code, same.code) == (201, 200, 200)
        assert changed.body["data"] == {"x": "2"}
        assert same.body["metadata"]["resourceVersion"] == changed.body["metadata"]["resourceVersion"]
        (entry,) = changed.body["metadata"]["managedFields"]
        assert (entry["manager"], entry["operation"], entry["fieldsType"]) == ("one", "Apply", "FieldsV1")
        assert entry["fieldsV1"] == {"f:data": {"f:x": {}}}

    async def test_apply_needs_a_field_manager(self, api: Api, maps: str) -> None:
        answer = await api("PATCH", f"{maps}/a", config_map("a"), type=APPLY_PATCH)
        assert answer.code in (400, 422)

    async def test_what_another_applied_conflicts_and_can_be_forced(self, api: Api, maps: str) -> None:
        await self.apply(api, f"{maps}/a", config_map("a", x="1", y="1"), "one")
        fought = await self.apply(api, f"{maps}/a", config_map("a", x="2"), "two")
        assert fought.refusal == (409, "Conflict")
        (cause,) = fought.body["details"]["causes"]
        assert (cause["reason"], cause["field"]) == ("FieldManagerConflict", ".data.x")
        assert 'conflict with "one"' in cause["message"]
        forced = await self.apply(api, f"{maps}/a", config_map("a", x="2"), "two", force=True)
        assert forced.body["data"] == {"x": "2", "y": "1"}
        owned = {entry["manager"]: entry["fieldsV1"] for entry in forced.body["metadata"]["managedFields"]}
        assert owned == {"one": {"f:data": {"f:y": {}}}, "two": {"f:data": {"f:x": {}}}}

    async def test_the_same_value_is_owned_together(self, api: Api, maps: str) -> None:
        await self.apply(api, f"{maps}/a", config_map("a", x="1"), "one")
        await self.apply(api, f"{maps}/a", config_map("a", x="1"), "two")
        left = await self.apply(api, f"{maps}/a", config_map("a"), "one")
        assert left.body["data"] == {"x": "1"}
        gone = await self.apply(api, f"{maps}/a", config_map("a"), "two")
        assert not gone.body.get("data")

    async def test_what_is_no_longer_applied_is_removed(self, api: Api, maps: str) -> None:
        await self.apply(api, f"{maps}/a", config_map("a", x="1", y="1"), "one")
        await api("PATCH", f"{maps}/a?fieldManager=two", {"data": {"z": "1"}}, type=MERGE_PATCH)
        left = await self.apply(api, f"{maps}/a", config_map("a", x="1"), "one")
        assert left.body["data"] == {"x": "1", "z": "1"}

    async def test_an_update_takes_the_fields_that_it_changes(self, api: Api, maps: str) -> None:
        await self.apply(api, f"{maps}/a", config_map("a", x="1", y="1"), "one")
        await api("PATCH", f"{maps}/a?fieldManager=hand", {"data": {"x": "9"}}, type=MERGE_PATCH)
        fought = await self.apply(api, f"{maps}/a", config_map("a", x="1", y="1"), "one")
        assert fought.refusal == (409, "Conflict")
        assert 'conflict with "hand"' in fought.body["details"]["causes"][0]["message"]

    async def test_two_managers_share_a_list_by_its_keys(self, api: Api, ns: str) -> None:
        path = f"/apis/apps/v1/namespaces/{ns}/deployments/d"
        await self.apply(api, path, deployment("d"), "one")
        containers = [{"name": "side", "env": [{"name": "A", "value": "1"}]}]
        patch = {"spec": {"template": {"spec": {"containers": containers}}}}
        body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, **patch}
        both = await self.apply(api, path, body, "two")
        side = next(c for c in both.body["spec"]["template"]["spec"]["containers"] if c["name"] == "side")
        assert (side["image"], side["env"]) == ("side:1", [{"name": "A", "value": "1"}])
        owned = {entry["manager"]: entry["fieldsV1"] for entry in both.body["metadata"]["managedFields"]}
        of_two = owned["two"]["f:spec"]["f:template"]["f:spec"]["f:containers"]
        env = {".": {}, "f:name": {}, "f:value": {}}
        item = {".": {}, "f:env": {'k:{"name":"A"}': env}, "f:name": {}}
        assert of_two == {'k:{"name":"side"}': item}

    # Custom types

    @pytest_asyncio.fixture(loop_scope="session")
    async def widgets(self, api: Api, ns: str) -> AsyncIterator[str]:
        """A custom type of this test's own; the path of its objects."""
        group = f"{ns}.example"
        schema = {
            "type": "object",
            "properties": {
                "spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            },
        }
        column = {"name": "Size", "type": "integer", "jsonPath": ".spec.size"}
        version = {"served": True, "schema": {"openAPIV3Schema": schema}, "subresources": {"status": {}}}
        versions = [
            {**version, "name": "v1", "storage": True, "additionalPrinterColumns": [column]},
            {**version, "name": "v1beta1", "storage": False},
        ]
        plural = {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"}
        spec = {"group": group, "scope": "Namespaced", "names": plural, "versions": versions}
        definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        crd = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "spec": spec}
        crd["metadata"] = {"name": f"widgets.{group}"}
        assert (await api("POST", definitions, crd)).code == 201
        path = f"/apis/{group}/v1/namespaces/{ns}/widgets"
        await until(api, path, 200)
        yield path
        await api("DELETE", f"{definitions}/widgets.{group}")

    @staticmethod
    def widget(path: str, name: str, **spec: Any) -> dict[str, Any]:
        group = path.split("/")[2]
        return {"apiVersion": f"{group}/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec}

    async def test_custom_objects_are_served_in_every_version(self, api: Api, widgets: str) -> None:
        created = await api("POST", widgets, self.widget(widgets, "w", size=3))
        assert created.code == 201
        beta = (await api("GET", widgets.replace("/v1/", "/v1beta1/") + "/w")).body
        assert beta["apiVersion"].endswith("/v1beta1")
        assert beta["spec"] == {"size": 3}
        assert beta["metadata"]["uid"] == created.body["metadata"]["uid"]

    async def test_items_of_custom_lists_carry_their_type(self, api: Api, widgets: str) -> None:
        await api("POST", widgets, self.widget(widgets, "w"))
        listed = (await api("GET", widgets)).body
        assert listed["kind"] == "WidgetList"
        assert listed["items"][0]["kind"] == "Widget"

    async def test_custom_tables_have_the_declared_columns(self, api: Api, widgets: str) -> None:
        await api("POST", widgets, self.widget(widgets, "w", size=3))
        table = (await api("GET", widgets, accept=TABLE)).body
        assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Size"]
        assert table["rows"][0]["cells"] == ["w", 3]

    async def test_custom_objects_take_no_strategic_patch(self, api: Api, widgets: str) -> None:
        await api("POST", widgets, self.widget(widgets, "w"))
        answer = await api("PATCH", f"{widgets}/w", {"spec": {"size": 1}}, type=STRATEGIC_PATCH)
        assert answer.refusal == (415, "UnsupportedMediaType")

    async def test_a_custom_status_is_written_apart(self, api: Api, widgets: str) -> None:
        await api("POST", widgets, self.widget(widgets, "w", size=3))
        ignored = await api("PATCH", f"{widgets}/w", {"status": {"ok": True}}, type=MERGE_PATCH)
        assert "status" not in ignored.body
        written = await api("PATCH", f"{widgets}/w/status", {"status": {"ok": True}}, type=MERGE_PATCH)
        assert written.body["status"] == {"ok": True}

    async def test_versions_of_one_type_share_a_storage_hash(self, api: Api, widgets: str) -> None:
        group = widgets.split("/")[2]

        async def hashes() -> set[str]:
            found = [await api("GET", f"/apis/{group}/{version}") for version in ("v1", "v1beta1")]
            assert all(answer.code == 200 for answer in found)
            return {
                entry["storageVersionHash"]
                for answer in found
                for entry in answer.body["resources"]
                if entry["name"] == "widgets"
            }

        assert len(await hashes()) == 1

    async def test_a_deleted_definition_takes_its_objects_along(self, api: Api, widgets: str) -> None:
        await api("POST", widgets, self.widget(widgets, "w"))
        begun = asyncio.Event()
        watched = asyncio.create_task(api.events(f"{widgets}?watch=1", 2, begun))
        await asyncio.wait_for(begun.wait(), 20)
        group = widgets.split("/")[2]
        await api("DELETE", f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.{group}")
        await until(api, widgets, 404)
        assert [event["type"] for event in await watched] == ["ADDED", "DELETED"]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def simulated() -> AsyncIterator[SimulatedCluster]:
    async with SimulatedFleet(clusters=1) as fleet:
        yield fleet[0]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def simulated_api(
    simulated: SimulatedCluster, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Api]:
    session, api = await connect(simulated.kubeconfig, tmp_path_factory.mktemp("kubesim"))
    async with session:
        yield api


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def real_api(lab_pair: LabPair, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    session, api = await connect(lab_pair.first.kubeconfig(), tmp_path_factory.mktemp("real"))
    async with session:
        yield api


class TestKubesim(ApiServerContract):
    @pytest.fixture
    def api(self, simulated_api: Api) -> Api:
        return simulated_api

    @pytest.fixture
    def forget(self, simulated: SimulatedCluster) -> Forget:
        async def compact() -> None:
            simulated.compact()

        return compact


@pytest.mark.lab
class TestRealApiServer(ApiServerContract):
    @pytest.fixture
    def api(self, real_api: Api) -> Api:
        return real_api

    @pytest.fixture
    def forget(self, lab_pair: LabPair) -> Forget:
        return lab_pair.first.expire_history
