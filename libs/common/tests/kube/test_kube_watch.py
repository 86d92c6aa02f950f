"""How a watch is cut into events, and every way in which it can end."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from kubelore.common.errors import Gone, TooLarge, Unauthenticated, Unavailable, UpstreamError
from kubelore.common.kube import AddressPolicy, KubeClient, WatchSilent
from kubelore.common.kube.nesting import UNREADABLE, without_depths
from kubelore.common.kube.resource_type import PODS
from kubelore.common.kube.watch import LineSplitter, parse_event


def event(kind: str, rv: str, **metadata: Any) -> bytes:
    pod = {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a", "resourceVersion": rv} | metadata}
    return json.dumps({"type": kind, "object": pod}).encode() + b"\n"


def failure(code: int, reason: str, message: str = "no") -> bytes:
    status = {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}
    return json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"


def streaming(*chunks: bytes, then_hang: bool = False, abort: bool = False) -> Any:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
        if then_hang:
            await asyncio.Event().wait()
        if abort and request.transport is not None:
            request.transport.abort()
        return response

    return answer


@given(lines=st.lists(st.binary(min_size=1).filter(lambda each: b"\n" not in each)), data=st.data())
def test_lines_come_out_whole_however_they_are_cut(lines: list[bytes], data: st.DataObject) -> None:
    text = b"".join(line + b"\n" for line in lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=20)))
    splitter, found = LineSplitter(), []
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        found += splitter.feed(text[start:end])
    assert found == lines
    assert not splitter.unfinished


def nested(levels: int, leaf: str = "1") -> str:
    return '{"a":' * levels + leaf + "}" * levels


@pytest.mark.parametrize("levels", [1_000, 5_000, 9_990])
def test_an_event_whose_object_is_nested_too_deep_still_says_where_to_go_on(levels: int) -> None:
    managed = f'[{{"manager":"x","fieldsV1":{nested(levels)}}}]'
    metadata = f'{{"name":"a","managedFields":{managed},"resourceVersion":"7"}}'
    line = f'{{"type":"MODIFIED","object":{{"kind":"Deep","metadata":{metadata},"spec":{nested(levels)}}}}}'
    found = parse_event(line.encode())
    assert (found.kind, found.rv, found.object) == ("MODIFIED", "7", UNREADABLE)


def test_an_event_that_opens_more_than_it_closes_is_an_error_of_the_server() -> None:
    with pytest.raises(UpstreamError):
        parse_event(b'{"type":"ADDED","object":' + b"[" * 5_000)


def test_a_string_that_does_not_end_is_looked_through_once() -> None:
    started = time.monotonic()
    with pytest.raises(UpstreamError):
        parse_event(b'{"type":"ADDED","object":' + b"[" * 5_000 + b'\\"' * 50_000)
    assert time.monotonic() - started < 2


def test_brackets_in_strings_nest_nothing() -> None:
    text = '"\\"]}' + "[{" * 600 + '\\\\"'
    document = f'{{"a":{{"b":{text},"c":[{nested(600)}]}}}}'
    assert without_depths(document.encode(), 1) == b'{"a":null}'
    assert without_depths(document.encode(), 2) == f'{{"a":{{"b":{text},"c":null}}}}'.encode()


def test_a_line_over_the_limit_is_refused_before_it_is_whole() -> None:
    splitter = LineSplitter(max_bytes=10)
    splitter.feed(b"123456")
    with pytest.raises(TooLarge):
        splitter.feed(b"789012")


async def test_events_are_raw_bytes_with_their_version(start_api: Any, lenient: AddressPolicy) -> None:
    api = await start_api(streaming(event("ADDED", "5"), event("MODIFIED", "6") + event("DELETED", "7")))
    async with KubeClient(api.access, lenient) as client:
        events = [each async for each in client.watch(PODS, rv="4")]
    assert [(each.kind, each.rv) for each in events] == [("ADDED", "5"), ("MODIFIED", "6"), ("DELETED", "7")]
    assert json.loads(events[0].object)["metadata"] == {"name": "a", "resourceVersion": "5"}
    asked = api.requests[0].query
    assert (asked["watch"], asked["resourceVersion"], asked["allowWatchBookmarks"]) == ("true", "4", "true")


async def test_an_object_of_many_megabytes_arrives_whole(start_api: Any, lenient: AddressPolicy) -> None:
    api = await start_api(streaming(event("ADDED", "5", annotations={"big": "x" * 8_000_000})))
    async with KubeClient(api.access, lenient) as client:
        (only,) = [each async for each in client.watch(PODS, rv="4")]
    assert len(only.object) > 8_000_000


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (failure(410, "Expired", "too old resource version: 1 (9)"), Gone),
        (failure(410, "Gone"), Gone),
        (failure(401, "Unauthorized"), Unauthenticated),
        (failure(500, "InternalError"), UpstreamError),
        (b'{"type":"ERROR","object":{}}\n', UpstreamError),
        (b'{"type":"NOVELTY","object":{}}\n', UpstreamError),
        (b"<html>\n", UpstreamError),
    ],
)
async def test_an_error_event_is_raised_behind_the_events_before_it(
    start_api: Any, lenient: AddressPolicy, line: bytes, error: type[Exception]
) -> None:
    api = await start_api(streaming(event("ADDED", "5"), line))
    async with KubeClient(api.access, lenient) as client:
        watch = client.watch(PODS, rv="4")
        assert (await anext(watch)).rv == "5"
        with pytest.raises(error):
            await anext(watch)


async def test_a_silent_watch_is_an_error(start_api: Any, lenient: AddressPolicy) -> None:
    api = await start_api(streaming(event("BOOKMARK", "5"), then_hang=True))
    async with KubeClient(api.access, lenient) as client:
        watch = client.watch(PODS, rv="4", idle_s=0.2)
        assert (await anext(watch)).kind == "BOOKMARK"
        with pytest.raises(WatchSilent):
            await anext(watch)


@pytest.mark.parametrize(
    "answer", [streaming(event("ADDED", "5"), abort=True), streaming(event("ADDED", "5")[:-9])]
)
async def test_a_watch_that_is_cut_off_is_told_from_one_that_ended(
    start_api: Any, lenient: AddressPolicy, answer: Callable[..., Any]
) -> None:
    api = await start_api(answer)
    async with KubeClient(api.access, lenient) as client:
        with pytest.raises(Unavailable):
            [each async for each in client.watch(PODS, rv="4")]


async def test_leaving_a_watch_closes_its_connection(start_api: Any, lenient: AddressPolicy) -> None:
    gone = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(event("ADDED", "5"))
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()
        return response

    api = await start_api(answer)
    async with KubeClient(api.access, lenient) as client:
        async with aclosing(client.watch(PODS, rv="4")) as events:
            await anext(events)
        await asyncio.wait_for(gone.wait(), 5)


INITIAL_END = event("BOOKMARK", "9", annotations={"k8s.io/initial-events-end": "true"})


async def test_the_end_of_a_streamed_list_is_marked(start_api: Any, lenient: AddressPolicy) -> None:
    api = await start_api(streaming(event("ADDED", "5"), INITIAL_END, event("MODIFIED", "10")))
    async with KubeClient(api.access, lenient) as client:
        events = [each async for each in client.watch(PODS, send_initial=True)]
    assert [(each.rv, each.initial_end) for each in events] == [("5", False), ("9", True), ("10", False)]
    assert api.requests[0].query["sendInitialEvents"] == "true"


@pytest.mark.parametrize(
    "refusal",
    [
        failure(500, "InternalError", "etcd: RequestWatchProgress is disabled"),
        (
            422,
            "Invalid",
            "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled",
        ),
        (422, "Invalid", "resourceVersionMatch is forbidden for watch"),
        (501, "NotImplemented", "no streamed lists"),
    ],
)
async def test_a_server_that_cannot_stream_a_list_is_asked_for_pages(
    start_api: Any, lenient: AddressPolicy, refusal: Any
) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if "sendInitialEvents" in request.query:
            if isinstance(refusal, bytes):
                return await streaming(refusal)(request)
            code, reason, message = refusal
            status = {"kind": "Status", "code": code, "reason": reason, "message": message}
            return web.json_response(status, status=code)
        if "watch" in request.query:
            return await streaming(event("MODIFIED", "10"))(request)
        last = "continue" in request.query
        items = [{"metadata": {"name": "b" if last else "a", "resourceVersion": "6" if last else "5"}}]
        meta = {"resourceVersion": "9"} | ({} if last else {"continue": "more"})
        return web.json_response({"kind": "PodList", "apiVersion": "v1", "metadata": meta, "items": items})

    api = await start_api(answer)
    async with KubeClient(api.access, lenient) as client:
        for _ in range(2):
            events = [each async for each in client.watch(PODS, send_initial=True)]
            assert [(each.kind, each.rv, each.initial_end) for each in events] == [
                ("ADDED", "5", False),
                ("ADDED", "6", False),
                ("BOOKMARK", "9", True),
                ("MODIFIED", "10", False),
            ]
            assert json.loads(events[0].object)["kind"] == "Pod"
    tried = [request for request in api.requests if "sendInitialEvents" in request.query]
    assert len(tried) == 1, "what a server cannot do is remembered"
    assert api.requests[-1].query["resourceVersion"] == "9"
