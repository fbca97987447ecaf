"""The HTTP endpoints of a worker: /livez, /readyz, /metrics and /status.

/livez is the event loop's heartbeat and the watchdog of the compute thread, and nothing else: a Redis that is away must
not restart the fleet. /readyz says whether this worker serves.
"""

import asyncio
import contextlib
import errno
import json
import os
import time
from collections.abc import AsyncIterator, Callable

from worker.errors import PortInUse
from worker.metrics import CONTENT_TYPE, Metrics, Vitals
from worker.settings import Settings
from worker.version import version

BEAT_S = 0.5
LOOP_LAG_MAX_S = 10.0
COMPUTE_MAX_S = 60.0
STORE_SILENCE_MAX_S = 30.0
REQUEST_MAX_S = 5.0
HEADERS_MAX = 100

Answer = tuple[int, str, bytes]
STATUS_TEXT = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}


@contextlib.asynccontextmanager
async def health_server(settings: Settings, metrics: Metrics) -> AsyncIterator[int]:
    """Serves the endpoints while the block runs; yields the port."""
    host, port = settings.worker.http_host, settings.worker.http_port
    endpoints = Endpoints(settings, metrics)
    try:
        server = await asyncio.start_server(endpoints.serve, host, port)
    except OSError as error:
        raise _refused(error, host, port) from None
    beating = asyncio.create_task(endpoints.beat())
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        beating.cancel()
        server.close()


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
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError, ValueError):
            async with asyncio.timeout(REQUEST_MAX_S):
                method, path = _request(await reader.readline())
                for _ in range(HEADERS_MAX):
                    if (await reader.readline()).strip() == b"":
                        break
                writer.write(_response(method, self._answer(method, path)))
                await writer.drain()
        writer.close()

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


def _request(line: bytes) -> tuple[str, str]:
    method, target, _ = line.decode("latin-1").split(" ", 2)
    return method, target.split("?")[0]


def _response(method: str, answer: Answer) -> bytes:
    status, content_type, body = answer
    head = f"HTTP/1.1 {status} {STATUS_TEXT[status]}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
    return (head + "Connection: close\r\n\r\n").encode() + (b"" if method == "HEAD" else body)


def _refused(error: OSError, host: str, port: int) -> PortInUse:
    if error.errno == errno.EADDRINUSE:
        why = "is in use by another process"
    else:
        why = f"cannot be opened ({os.strerror(error.errno or 0)})"
    return PortInUse(f"HTTP address {host}:{port} {why}: give another with --http-port, or 0 for any free port")

