"""One container's log through the door: pages either way, filters, files, and what is refused."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
import zstandard

from kubelore.kubesim.app import SimulatedFleet

CLUSTER = "logs-of-one"
ORDER = b"order="


class Log:
    """The log of a pod that writes orders, as the API shows it."""

    def __init__(self, kubelore: Any, pod: str) -> None:
        self.http = kubelore.http
        self.path = f"/api/k8s/containers/{pod}/logs"

    async def page(self, **query: Any) -> dict[str, Any]:
        answer = await self.http.get(self.path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def pages(self, **query: Any) -> list[dict[str, Any]]:
        """The lines of all pages."""
        page = await self.page(**query)
        items = page["items"]
        while page["continue"]:
            page = await self.page(**query, **{"continue": page["continue"]})
            items += page["items"]
        return items

    async def file(self, **query: Any) -> bytes:
        answer = await self.http.get(f"{self.path}/export", params=query)
        assert answer.status_code == 200, answer.text
        return answer.content


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def written(kubelore: Any) -> AsyncIterator[Log]:
    """A pod of kubesim, which has written for as long as the fleet says it runs."""
    async with SimulatedFleet(clusters=1, pods=30) as fleet:
        await kubelore.onboard(CLUSTER, fleet[0].kubeconfig)
        page = await kubelore.list(clusters=CLUSTER, type="pods", limit=100)
        pod = next(
            item["id"].replace(":pods:", ":", 1)
            for item in page["items"]
            if item["object"]["status"]["phase"] == "Running"
        )
        yield Log(kubelore, pod)
        await kubelore.remove(CLUSTER)


async def test_pages_forward_are_all_lines_in_order(written: Log) -> None:
    items = await written.pages(limit=7, tail=30)
    times = [item["timestamp"] for item in items]
    assert len(items) >= 30
    assert times == sorted(times)
    assert len(set(times)) == len(times)


async def test_pages_backward_are_the_same_the_latest_first(written: Log) -> None:
    backward = await written.pages(limit=7, tail=30, direction="backward")
    forward = await written.pages(limit=100)
    first = next(place for place, item in enumerate(forward) if item == backward[-1])
    assert backward[::-1] == forward[first : first + len(backward)]


async def test_a_line_says_where_it_is_from(written: Log) -> None:
    (item,) = (await written.page(tail=1))["items"]
    cluster, namespace, pod = written.path.split("/")[4].split(":")
    assert {key: item[key] for key in ("cluster", "namespace", "pod")} == {
        "cluster": cluster,
        "namespace": namespace,
        "pod": pod,
    }
    assert item["container"]
    assert item["message"]


async def test_a_search_turned_around_finds_the_other_lines(written: Log) -> None:
    everything = await written.page(limit=100)
    text = everything["items"][0]["message"][:12]
    found = await written.page(limit=100, search=text)
    others = await written.page(limit=100, search=text, inverse=True)
    assert found["items"]
    assert others["items"]
    assert all(text in item["message"] for item in found["items"])
    assert not any(text in item["message"] for item in others["items"])


async def test_an_export_is_the_log_in_each_form(written: Log) -> None:
    newest = (await written.page(limit=50, direction="backward"))["items"]
    # The oldest lines rotate away while this runs.
    query = {"since": newest[-1]["timestamp"], "until": newest[0]["timestamp"]}
    lines = [item["message"] for item in (await written.page(**query, limit=5000))["items"]]
    assert len(lines) == 49  # `until` is the first moment that is not meant
    text = await written.file(**query)
    assert text.decode().splitlines() == lines
    documents = (await written.file(**query, format="jsonl")).splitlines()
    assert [json.loads(one)["message"] for one in documents] == lines
    assert gzip.decompress(await written.file(**query, compression="gzip")) == text
    packed = await written.file(**query, compression="zstd")
    assert zstandard.ZstdDecompressor().decompressobj().decompress(packed) == text


@pytest.mark.parametrize("until", ["0437-02-07T23:42:26Z", "1969-12-31T23:59:59Z"])
async def test_before_any_log_could_be_written_there_is_nothing(written: Log, until: str) -> None:
    assert (await written.page(until=until))["items"] == []
    assert await written.file(until=until) == b""
    answer = await written.http.get("/api/k8s/logs/histogram", params={"until": until})
    assert (answer.status_code, answer.json()["total"]) == (200, 0)


async def test_an_export_of_a_run_that_is_not_there_is_refused_before_it_begins(written: Log) -> None:
    answer = await written.http.get(f"{written.path}/export", params={"previous": "true"})
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
    assert "previous" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ({"regex": "("}, "regular expression"),
        ({"regex": "(?=x)"}, "regular expression"),
        ({"field": "=="}, "condition"),
        ({"field": "a>b"}, "number"),
        ({"since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"}, "until"),
        ({"continue": "nonsense"}, "continue"),
    ],
)
async def test_what_cannot_be_asked_is_refused_by_name(
    written: Log, query: dict[str, str], word: str
) -> None:
    for path in (written.path, *([] if "continue" in query else [f"{written.path}/export"])):
        answer = await written.http.get(path, params=query)
        assert answer.status_code == 400, answer.text
        assert word in answer.text


async def test_a_container_that_is_not_there_is_named(written: Log) -> None:
    answer = await written.http.get(f"{written.path.removesuffix('/logs')}:no-such/logs")
    assert answer.status_code == 404
    assert "no-such" in answer.text
    answer = await written.http.get(f"/api/k8s/containers/{CLUSTER}:default:no-such-pod/logs/export")
    assert answer.status_code == 404


async def test_a_position_of_another_query_is_refused(written: Log) -> None:
    page = await written.page(limit=1)
    answer = await written.http.get(written.path, params={"continue": page["continue"], "search": "x"})
    assert answer.status_code == 400


async def test_reading_is_in_the_journal_once(written: Log) -> None:
    await written.pages(limit=20, tail=100)
    _, namespace, pod = written.path.split("/")[4].split(":")
    answer = await written.http.get(
        "/api/k8s/containers/operations", params={"type": "log", "namespace": namespace, "pod": pod}
    )
    assert answer.status_code == 200, answer.text
    readings = [one for one in answer.json()["items"] if "--tail=100" in one["command"]]
    assert len(readings) == 1
    assert readings[0]["status"] == "completed"
