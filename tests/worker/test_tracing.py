"""Traces reach a collector that speaks OTLP; without one they cost nothing, and a broken one costs no tick."""

import asyncio
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from state_store import TickProducer
from tests.fleet import conftest as fleets
from worker.errors import SettingsError
from worker.settings import load
from worker.wiring import make_tracing

fleet = fleets.fleet
START_NS = 1_600_000_000_000_000_000
EXTRA = "opentelemetry.proto.collector.trace.v1.trace_service_pb2"


class Collector(ThreadingHTTPServer):
    """Takes what is posted to it, decoded, and answers as it is told to."""

    def __init__(self) -> None:
        self.requests, self.paths, self.status = [], set(), 200
        super().__init__(("127.0.0.1", 0), Taking)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def spans(self) -> list:
        scopes = [scope for request in self.requests for each in request.resource_spans for scope in each.scope_spans]
        return [span for scope in scopes for span in scope.spans]


class Taking(BaseHTTPRequestHandler):
    def do_POST(self):
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.paths.add(self.path)
        if self.server.status == 200:
            self.server.requests.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def collector():
    pytest.importorskip(EXTRA, reason="the extra `otel` is not installed")
    with Collector() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def plain(span) -> dict:
    values = {each.key: each.value for each in span.attributes}
    parts = [each.int_value for each in values["predictor.partitions"].array_value.values]
    numbers = {key.removeprefix("predictor."): value.int_value for key, value in values.items()}
    return {**numbers, "partitions": parts}


async def send(url: str, rounds: int, first: int = 0) -> None:
    async with TickProducer(url) as producer:
        for k in range(first, first + rounds):
            for asset in ("EURUSD", "gold", "oil"):
                await producer.send(asset, 100.0 + k % 7, START_NS + k)


def test_each_micro_batch_is_a_span_whose_children_are_its_stages(fleet, collector, monkeypatch):
    monkeypatch.setenv("USP_TELEMETRY__OTLP_ENDPOINT", collector.url)
    worker = fleet.start_worker(name="traced")
    asyncio.run(send(fleet.url, 40))
    fleet.wait_until_idle()
    worker.terminate()
    assert worker.wait(20) == 0  # what is left is sent at the end

    assert collector.paths == {"/v1/traces"}
    attributes = collector.requests[0].resource_spans[0].resource.attributes
    resource = {each.key: each.value.string_value for each in attributes}
    assert (resource["service.instance.id"], resource["service.namespace"]) == ("traced", "usp")
    roots = [span for span in collector.spans if not span.parent_span_id]
    assert sum(plain(root)["ticks"] for root in roots) == 120
    for root in roots:
        told = plain(root)
        children = {span.name: span for span in collector.spans if span.parent_span_id == root.span_id}
        assert root.name == "micro-batch" and children.keys() == {"read", "compute", "commit"}
        assert told["depth"] == 3 and told["refused"] == 0 and 1 <= told["assets"] <= 3
        assert told["partitions"] and set(told["partitions"]) <= set(range(fleet.partitions))
        inside = [children[name] for name in ("read", "compute", "commit")]
        edges = [moment for span in inside for moment in (span.start_time_unix_nano, span.end_time_unix_nano)]
        assert edges == sorted(edges)
        assert (root.start_time_unix_nano, root.end_time_unix_nano) == (edges[0], edges[-1])
        assert {span.trace_id for span in inside} == {root.trace_id}


@pytest.mark.parametrize("broken", ["nobody listens", "it is busy"])
def test_a_collector_that_does_not_take_spans_costs_no_tick_and_no_stop(fleet, collector, monkeypatch, broken):
    url = "http://127.0.0.1:1" if broken == "nobody listens" else collector.url
    collector.status = 503
    monkeypatch.setenv("USP_TELEMETRY__OTLP_ENDPOINT", url)
    worker = fleet.start_worker()
    asyncio.run(send(fleet.url, 20))
    fleet.wait_until_idle()
    worker.terminate()
    began = time.monotonic()
    assert worker.wait(20) == 0
    assert time.monotonic() - began < 8
    assert b"Failed to export" in worker.stderr.read()


def test_without_a_collector_no_exporter_is_loaded():
    look = "import sys, worker.service; print([name for name in sys.modules if 'opentelemetry.exporter' in name])"
    told = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, timeout=60)
    assert told.stdout.strip() == "[]", told
    assert make_tracing(load()) is None


def test_asking_for_traces_without_the_extra_is_one_clear_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(SettingsError, match=r"(?s)^telemetry.otlp_endpoint is set.*pip install.*\[otel\]") as refused:
        make_tracing(load({"telemetry": {"otlp_endpoint": "http://127.0.0.1:4318"}}))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["collector:4318", "grpc://collector:4317", "http://", "http://x/?y"])
def test_an_endpoint_that_is_no_address_is_refused(text):
    with pytest.raises(SettingsError, match="--otlp-endpoint: must be the address of a collector"):
        load({"telemetry": {"otlp_endpoint": text}})


def test_a_password_in_the_endpoint_is_not_shown():
    settings = load({"telemetry": {"otlp_endpoint": "https://me:secret@collector"}})
    assert "secret" not in str(settings.shown())
