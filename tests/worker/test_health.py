"""The endpoints over a real socket."""

import asyncio
import json
import socket
import urllib.error
import urllib.request

import pytest

from worker.errors import PortInUse
from worker.health import COMPUTE_MAX_S, LOOP_LAG_MAX_S, STORE_SILENCE_MAX_S, Endpoints, health_server
from worker.metrics import Metrics
from worker.settings import Settings


def get(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def asked(metrics, *paths):
    async def run():
        async with health_server(Settings(), metrics) as port:
            return [await asyncio.to_thread(get, port, path) for path in paths]

    return asyncio.run(run())


def test_a_worker_is_alive_before_it_is_ready():
    metrics = Metrics()
    metrics.vitals.phase = "compiling the graph"
    (live, _), (ready, why) = asked(metrics, "/livez", "/readyz")
    assert (live, ready) == (200, 503)
    assert "worker: compiling the graph" in why


def test_a_worker_that_serves_is_ready():
    metrics = Metrics()
    metrics.vitals.ready = True
    assert asked(metrics, "/readyz")[0][0] == 200


def test_metrics_and_status_say_the_same():
    metrics = Metrics()
    metrics.ticks.inc(42)
    (_, page), (_, status) = asked(metrics, "/metrics", "/status?pretty")
    assert "predictor_ticks_total 42.0" in page
    assert json.loads(status)["metrics"]["predictor_ticks_total"] == 42


def test_an_unknown_path_names_the_known_ones():
    (code, text) = asked(Metrics(), "/nothing")[0]
    assert code == 404
    assert "/livez" in text


def test_only_reading_is_allowed():
    async def run():
        async with health_server(Settings(), Metrics()) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST /livez HTTP/1.1\r\nHost: a\r\n\r\n")
            line = await reader.readline()
            writer.close()
            return line

    assert b" 405 " in asyncio.run(run())


@pytest.mark.parametrize("noise", [b"\r\n", b"\x00\xff" * 50 + b"\r\n", b"GET\r\n\r\n", b"A" * 100_000])
def test_noise_does_not_end_the_server(noise):
    async def run():
        async with health_server(Settings(), Metrics()) as port:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(noise)
            writer.close()
            return await asyncio.to_thread(get, port, "/livez")

    assert asyncio.run(run())[0] == 200


def test_a_port_in_use_is_one_line_with_the_remedy():
    async def run(port):
        settings = Settings(worker={"http_port": port})
        async with health_server(settings, Metrics()):
            pass

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse, match=f"127.0.0.1:{port} is in use .* --http-port, or 0"):
            asyncio.run(run(port))


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def endpoints():
    clock, metrics = Clock(), Metrics()
    return clock, metrics, Endpoints(Settings(), metrics, clock)


def test_a_computation_without_end_is_not_life():
    clock, metrics, pages = endpoints()
    metrics.vitals.computing_since = clock.now - COMPUTE_MAX_S - 1
    status, _, text = pages.livez()
    assert status == 503
    assert b"one run of the graph takes 61 s" in text


def test_a_loop_without_heartbeat_is_not_life():
    clock, _, pages = endpoints()
    clock.now += LOOP_LAG_MAX_S + 1
    assert pages.livez()[0] == 503


def test_a_silent_redis_makes_a_worker_unready_and_lets_it_live():
    clock, metrics, pages = endpoints()
    metrics.vitals.ready, metrics.vitals.store_seen = True, clock.now - STORE_SILENCE_MAX_S - 1
    assert pages.readyz()[0] == 503
    assert pages.livez()[0] == 200
