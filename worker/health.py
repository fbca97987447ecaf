"""The HTTP endpoints of a worker: /livez, /readyz, /metrics and /status.

/livez is the event loop's heartbeat and the watchdog of the compute thread, and nothing else: a Redis that is away must
not restart the fleet. /readyz says whether this worker serves.
"""

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator, Callable

from worker.http import BadRequest, Response, listening, read_request
from worker.metrics import CONTENT_TYPE, Metrics, Vitals
from worker.settings import Settings
from worker.version import version

BEAT_S = 0.5
LOOP_LAG_MAX_S = 10.0
COMPUTE_MAX_S = 60.0
STORE_SILENCE_MAX_S = 30.0
REMEDY = "give another with --http-port, or 0 for any free port"

Answer = tuple[int, str, bytes]


@contextlib.asynccontextmanager
async def health_server(settings: Settings, metrics: Metrics) -> AsyncIterator[int]:
    """Serves the endpoints while the block runs; yields the port."""
    host, port = settings.worker.http_host, settings.worker.http_port
    endpoints = Endpoints(settings, metrics)
    async with listening(host, port, endpoints.serve, REMEDY) as found:
        beating = asyncio.create_task(endpoints.beat())
        try:
            yield found
        finally:
            beating.cancel()


class Endpoints:
    """Answers requests from what the metrics and their vitals say."""

    def __init__(self, settings: Settings, metrics: Metrics, now: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._metrics, self._now = settings, metrics, now
        self._started = self._last_beat = now()
        self._pages = {"/livez": self.livez, "/readyz": self.readyz, "/metrics": self.page, "/status": self.status}

    async def beat(self) -> None:
        """Measures how late the event loop is."""
        while True:
            await asyncio.sleep(BEAT_S)
            self._metrics.loop_lag_seconds.set(max(0.0, self._now() - self._last_beat - BEAT_S))
            self._last_beat = self._now()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request, one answer, one connection."""
        try:
            request = await read_request(reader)
        except BadRequest as error:
            writer.write(Response(error.status, "text/plain", f"{error}\n".encode()).encode())
            return
        answer = Response(*self._answer(request.method, request.path))
        writer.write(answer.encode(with_body=request.method != "HEAD"))

    def livez(self) -> Answer:
        now = self._now()
        return _checks({"event loop": _loop(now - self._last_beat), "compute": _compute(self._metrics.vitals, now)})

    def readyz(self) -> Answer:
        vitals = self._metrics.vitals
        return _checks({"worker": "" if vitals.ready else vitals.phase, "store": _store(vitals, self._now())})

    def page(self) -> Answer:
        return 200, CONTENT_TYPE, self._metrics.page()

    def status(self) -> Answer:
        status = {
            "worker": self._settings.worker.name,
            "namespace": self._settings.redis.namespace,
            "version": version(),
            "pid": os.getpid(),
            "phase": self._metrics.vitals.phase,
            "ready": self._metrics.vitals.ready,
            "uptime_s": round(self._now() - self._started, 1),
            "metrics": self._metrics.numbers(),
        }
        return 200, "application/json", json.dumps(status, indent=1).encode() + b"\n"

    def _answer(self, method: str, path: str) -> Answer:
        if method not in ("GET", "HEAD"):
            return 405, "text/plain", b"only GET and HEAD\n"
        page = self._pages.get(path)
        return page() if page else (404, "text/plain", f"try one of {', '.join(self._pages)}\n".encode())


def _loop(silence_s: float) -> str:
    return f"no heartbeat for {silence_s:.0f} s" if silence_s > LOOP_LAG_MAX_S else ""


def _compute(vitals: Vitals, now: float) -> str:
    since = vitals.computing_since
    return f"one run of the graph takes {now - since:.0f} s" if since and now - since > COMPUTE_MAX_S else ""


def _store(vitals: Vitals, now: float) -> str:
    silent_s = 0.0 if vitals.store_seen is None else now - vitals.store_seen
    return f"Redis has not answered for {silent_s:.0f} s" if silent_s > STORE_SILENCE_MAX_S else ""


def _checks(findings: dict[str, str]) -> Answer:
    lines = "".join(f"{name}: {finding or 'ok'}\n" for name, finding in findings.items())
    return (503 if any(findings.values()) else 200), "text/plain", lines.encode()
