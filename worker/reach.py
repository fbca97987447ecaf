"""How a command reaches the fleet's Redis: by its URL, or through the embedded server in .predictor/redis.

Without a URL the first command starts the embedded server for as long as it runs; others find its socket there.
"""

import contextlib
import signal
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from state_store import RedisStateStore
from state_store.client import UNHURRIED
from state_store.server import EmbeddedRedis
from worker.errors import FleetFailed
from worker.exits import notice
from worker.settings import Settings

EMBEDDED = Path(".predictor/redis")
LOOK_EVERY_S = 1.0


@contextlib.contextmanager
def reachable(settings: Settings) -> Iterator[Settings]:
    """The settings with a URL that somebody serves while the block runs."""
    socket_path = (EMBEDDED / "redis.sock").absolute()
    if settings.redis.url:
        yield settings
    elif _answers(socket_path):
        yield with_url(settings, f"unix://{socket_path}")
    else:
        with EmbeddedRedis(EMBEDDED) as server:
            yield with_url(settings, server.url)


@contextlib.asynccontextmanager
async def open_store(settings: Settings) -> AsyncIterator[RedisStateStore]:
    """The store for looking; a worker has its own, with retention."""
    store = RedisStateStore(settings.redis.url, namespace=settings.redis.namespace, timeouts=UNHURRIED)
    try:
        yield store
    finally:
        await store.close()


def with_url(settings: Settings, url: str) -> Settings:
    return settings.model_copy(update={"redis": settings.redis.model_copy(update={"url": url})})


def serve_redis(directory: Path, port: int) -> None:
    """Runs the embedded server until SIGTERM or Ctrl-C."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with EmbeddedRedis(directory, port) as server:
        notice(f"serving {server.url}, data in {server.directory}; Ctrl-C ends it")
        while not stop.wait(LOOK_EVERY_S):
            if not _answers(Path(server.socket_url.removeprefix("unix://"))):
                raise FleetFailed(f"the server ended by itself: see redis.log in {server.directory}")


def _answers(socket_path: Path) -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1.0)
        client.connect(str(socket_path))
        return True
    return False
