"""One trace from the HTTP request through the bus to the call of a cluster's API server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
import pytest_asyncio
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from kubelore.kubesim.app import SimulatedFleet
from kubelore.kubesim.faults import FaultInjector
from kubelore.lab.waiting import wait_for

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = f"00-{TRACE}-b7ad6b7169203331-01"


@dataclass
class Collector:
    """An OTLP/HTTP endpoint: the spans that came, as (service, name, trace id, attributes)."""

    url: str = ""
    spans: list[tuple[str, str, str, dict[str, str]]] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        if request.path == "/v1/traces":
            for resource in ExportTraceServiceRequest.FromString(await request.read()).resource_spans:
                service = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        attributes = {pair.key: str(pair.value) for pair in span.attributes}
                        self.spans.append(
                            (service["service.name"], span.name, span.trace_id.hex(), attributes)
                        )
        return web.Response()

    def of_trace(self, trace: str) -> set[tuple[str, str]]:
        return {(service, name) for service, name, found, _ in self.spans if found == trace}


class Listening(FaultInjector):
    """A cluster without faults that notes which trace each request belongs to."""

    def __init__(self) -> None:
        super().__init__("listening")
        self.traces: list[tuple[str, str]] = []

    async def before(self, request: web.BaseRequest) -> None:
        parent = request.headers.get("traceparent", "")
        self.traces.append((request.path, parent.split("-")[1] if parent else ""))
        await super().before(request)


@pytest_asyncio.fixture(loop_scope="session")
async def collector(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Collector]:
    """Must be asked for before the stack, whose processes read the environment when they start."""
    made = Collector()
    application = web.Application()
    application.router.add_route("POST", "/{path:.*}", made.take)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    monkeypatch.setenv("KUBELORE_OTLP_ENDPOINT", made.url)
    yield made
    await runner.cleanup()


async def test_a_trace_goes_from_the_request_through_the_bus_to_the_api_server(
    collector, own_kubelore
) -> None:
    listening = Listening()
    async with SimulatedFleet(clusters=1, pods=3) as fleet:
        fleet[0].api.injector = listening
        await own_kubelore.onboard("traced", fleet[0].kubeconfig)
        answer = await own_kubelore.http.post(
            "/api/k8s/clusters/traced/test", headers={"traceparent": CALLER}
        )
        assert answer.status_code == 200
        assert answer.headers["trace-id"] == TRACE
        assert ("/version", TRACE) in listening.traces

        expected = {
            ("kubelore-gateway", "POST /api/k8s/clusters/{cluster}/test"),
            ("kubelore-gateway", "request cluster-registry.test"),
            ("kubelore-cluster-registry", "serve cluster-registry.test"),
        }

        async def exported() -> bool:
            return expected <= collector.of_trace(TRACE)

        await wait_for(exported, f"{expected} to be exported", 30)

        query = {"type": "pods", "search": "words-of-a-person"}
        trace = (await own_kubelore.http.get("/api/k8s/unified/resources", params=query)).headers["trace-id"]
        assert trace != TRACE

        async def listed() -> bool:
            return {
                ("kubelore-gateway", "GET /api/k8s/unified/resources"),
                ("kubelore-resource-ops", "serve resource-ops.query"),
            } <= collector.of_trace(trace)

        await wait_for(listed, "the list to be exported", 30)

    said = repr(collector.spans)
    for secret in (own_kubelore.token, fleet[0].identity.token, query["search"]):
        assert secret not in said
