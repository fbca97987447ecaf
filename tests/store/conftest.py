"""Real servers of two versions, the double, and one way to look into all of them."""

import asyncio
import itertools
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path

import msgpack
import numpy as np
import pytest
from redis.asyncio import Redis, RedisCluster

from state_store import (
    Commit,
    EmbeddedRedis,
    Lease,
    Memory,
    MemoryStateStore,
    RedisStateStore,
    Rejected,
    Ticks,
    Timeouts,
)
from state_store.cluster import EmbeddedCluster
from state_store.keys import Keys, partition_of
from state_store.server import _packaged, version_of

PARTITIONS = 4
LAYOUT = bytes(range(8))
FIELDS = {"telemetry": ["one", "two"], "quantile_levels": [0.1, 0.5, 0.9]}
RECORD_BYTES = 32
PATIENCE_S = 10.0
SHORT_TIMEOUTS = Timeouts(connect_s=1.0, reply_s=2.0, resolve_s=3.0)


def executables() -> dict[str, str | None]:
    """An old and a newer server, where this machine has them."""
    newer = [path for path in map(shutil.which, ("redis-server", "valkey-server", "/usr/bin/redis-server")) if path]
    return {"redis-6.2": _packaged(), "newer": next((path for path in newer if version_of(path) >= (7, 0)), None)}


@pytest.fixture(scope="session")
def servers(tmp_path_factory):
    """Starts each server once, when first asked for."""
    running: dict[str, EmbeddedRedis] = {}

    def serve(version: str) -> EmbeddedRedis:
        executable = executables()[version]
        if executable is None:
            pytest.skip(f"no {version} server on this machine")
        if version not in running:
            running[version] = EmbeddedRedis(tmp_path_factory.mktemp("redis"), 0, executable=executable)
            running[version].start()
        return running[version]

    yield serve
    for server in running.values():
        server.stop()


@pytest.fixture(scope="session")
def clusters(tmp_path_factory):
    """Starts a cluster of three of each server once, when first asked for."""
    running: dict[str, EmbeddedCluster] = {}
    with ExitStack() as stack:

        def serve(version: str) -> EmbeddedCluster:
            executable = executables()[version]
            if executable is None:
                pytest.skip(f"no {version} server on this machine")
            if version not in running:
                made = EmbeddedCluster(tmp_path_factory.mktemp("cluster"), executable=executable)
                running[version] = stack.enter_context(made)
            return running[version]

        yield serve


@pytest.fixture(scope="session")
def executable_of() -> Callable[[str], str | None]:
    return executables().get


@pytest.fixture(params=["redis-6.2", "newer"])
def server(request, servers) -> EmbeddedRedis:
    return servers(request.param)


_namespaces = itertools.count()


@pytest.fixture
def namespace() -> str:
    return f"test{next(_namespaces)}"


class Fleet:
    """What a test needs beside the store itself: ticks in, time passing, a look at what was written."""

    partition = 3
    assets = [asset for asset in (b"asset-%d" % n for n in range(100)) if partition_of(asset, PARTITIONS) == 3]

    def __init__(self):
        self.clock_ns = itertools.count(1_700_000_000_000_000_000, 1_000_000)

    async def feed(self, count: int, assets: list[bytes] | None = None) -> list[bytes]:
        """Appends good ticks, the assets in turn; gives their ids."""
        turn = itertools.cycle(assets or self.assets[:3])
        numbers = zip(range(count), turn, self.clock_ns)  # noqa: B905
        return await self.append_all([{b"a": asset, b"y": b"%d.5" % n, b"t": b"%d" % t} for n, asset, t in numbers])

    async def append_all(self, ticks: list[dict[bytes, bytes]]) -> list[bytes]:
        return [await self.append(fields) for fields in ticks]

    async def append(self, fields: dict[bytes, bytes], partition: int = 3) -> bytes:
        raise NotImplementedError


class RedisFleet(Fleet):
    def __init__(self, url: str, namespace: str):
        super().__init__()
        self.url = url
        self.namespace = namespace
        self.client = Redis.from_url(url)
        self.stores: list[RedisStateStore] = []

    def store(self, url: str | None = None, **options) -> RedisStateStore:
        options = {"timeouts": SHORT_TIMEOUTS} | options
        self.stores.append(RedisStateStore(url or self.url, self.namespace, **options))
        return self.stores[-1]

    def key(self, name: str, partition: int = 3) -> bytes:
        return getattr(Keys(self.namespace).of(partition), name)

    async def append(self, fields, partition=3):
        return await self.client.xadd(self.key("ticks", partition), fields)

    async def append_next(self, fields, partition):
        """Into a partition of the generation after the first."""
        return await self.client.xadd(Keys(self.namespace, 1).of(partition).ticks, fields)

    async def append_all(self, ticks):
        async with self.client.pipeline(transaction=False) as pipeline:
            for fields in ticks:
                pipeline.xadd(self.key("ticks"), fields)
            return await pipeline.execute()

    async def predictions(self):
        return await self.client.xrange(self.key("predictions"))

    async def rejected(self):
        return await self.client.xrange(self.key("rejected"))

    async def latest(self):
        return await self.client.hgetall(self.key("latest"))

    async def tick_ids(self):
        return [entry_id for entry_id, _ in await self.client.xrange(self.key("ticks"))]

    async def until_expired(self):
        store = self.stores[0]
        await until(lambda: store.probe(self.partition), lambda probe: probe.lease_left_ms == 0)

    async def close(self):
        for store in self.stores:
            await store.close()
        await self.client.aclose()


class ClusterFleet(RedisFleet):
    """The same over a cluster; its own client is the library's."""

    def __init__(self, url: str, namespace: str):
        super().__init__(url, namespace)
        self.client = RedisCluster.from_url(url)


class MemoryFleet(Fleet):
    def __init__(self):
        super().__init__()
        self.now_ms = 1_700_000_000_000
        self.memory = Memory(lambda: self.now_ms)

    def store(self, **options) -> MemoryStateStore:
        options.pop("timeouts", None)
        return MemoryStateStore(self.memory, **options)

    async def append(self, fields, partition=3):
        entry_id = self.memory.append(partition, fields)
        await self.memory.wake()
        return entry_id

    async def append_next(self, fields, partition):
        return self.memory.append(partition, fields, generation=1)

    async def predictions(self):
        return self.memory.partition(3).predictions.entries

    async def rejected(self):
        return self.memory.partition(3).rejected.entries

    async def latest(self):
        return self.memory.partition(3).latest

    async def tick_ids(self):
        return [entry_id for entry_id, _ in self.memory.partition(3).ticks.entries]

    async def until_expired(self):
        self.now_ms = max(self.now_ms, self.memory.partition(3).until_ms)

    async def close(self):
        pass


@asynccontextmanager
async def opened(fleet: Fleet) -> AsyncIterator[Fleet]:
    """With a fleet made in its namespace; closed in the end."""
    try:
        await fleet.store().open_fleet(PARTITIONS, LAYOUT, FIELDS)
        yield fleet
    finally:
        await fleet.close()


@pytest.fixture(params=["memory", "redis-6.2", "newer", "cluster"])
def open_fleet(request, servers, clusters, namespace):
    """Opens a fresh fleet over each kind of store."""

    def make() -> Fleet:
        if request.param == "memory":
            return MemoryFleet()
        if request.param == "cluster":
            return ClusterFleet(clusters("redis-6.2").url, namespace)
        return RedisFleet(servers(request.param).url, namespace)

    return lambda: opened(make())


@pytest.fixture
def open_redis(server, namespace):
    """Opens a fresh fleet over each real server."""
    return lambda: opened(RedisFleet(server.url, namespace))


@pytest.fixture(params=["redis-6.2", "newer"])
def cluster(request, clusters) -> EmbeddedCluster:
    return clusters(request.param)


@pytest.fixture
def open_cluster(cluster, namespace):
    """Opens a fresh fleet over a cluster of each real server."""
    return lambda: opened(ClusterFleet(cluster.url, namespace))


@pytest.fixture
def fleet_over(namespace) -> Callable[[str], RedisFleet]:
    """Opens nothing yet; for clusters that a test makes itself."""
    return lambda url: ClusterFleet(url, namespace)


@pytest.fixture
def certificate(tmp_path):
    """A certificate for localhost that nobody else vouches for, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl on this machine")
    made, key = tmp_path / "made.pem", tmp_path / "key.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*command, "-keyout", key, "-out", made], check=True, capture_output=True)
    return made, key


async def until(ask: Callable, holds: Callable[[object], object]):
    """Asks again and again until the answer is as wanted."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds(answer := await ask()):
        assert time.monotonic() < deadline, f"still {answer!r} after {PATIENCE_S} s"
        await asyncio.sleep(0.01)
    return answer


@pytest.fixture(name="until")
def _until():
    return until


def payload_of(value: float, time_ns: int) -> bytes:
    """A prediction as a worker would pack it: of one size, whatever the numbers."""
    return msgpack.packb(
        {
            "reference_prediction": float(value),
            "confidence_lower": float(value) - 1.0,
            "confidence_upper": float(value) + 1.0,
            "quantiles": [float(value)] * 3,
            "timestamp_ns": int(time_ns) | 1 << 60,
            "operating_mode": 1,
            "events": 0,
            "depth": 2,
            "made_by": b"12345678",
            "telemetry": [1.5, 2.5],
        }
    )


def commit_of(lease: Lease, ticks: Ticks, **changes) -> Commit:
    """What a worker would commit for these ticks: a prediction for each good one, a dead letter for the others."""
    good = [place for place in range(len(ticks)) if place not in ticks.malformed]
    payloads = [payload_of(ticks.values[place], ticks.times_ns[place]) for place in good]
    assets = [ticks.assets[place] for place in good]
    last = dict(zip(assets, good, strict=True))
    records = np.zeros((len(last), RECORD_BYTES), np.uint8)
    for row, place in enumerate(last.values()):
        records[row, : len(ticks.ids[place])] = np.frombuffer(ticks.ids[place], np.uint8)
    values = {
        "before": lease.cursor,
        "after": ticks.ids[-1],
        "ids": [ticks.ids[place] for place in good],
        "assets": assets,
        "times_ns": ticks.times_ns[good],
        "payloads": np.array(payloads, dtype=f"V{len(payloads[0]) if payloads else 1}"),
        "state_assets": list(last),
        "state_records": records,
        "rejected": [
            Rejected(ticks.ids[place], ticks.assets[place], reason, ticks.payload(place))
            for place, reason in ticks.malformed.items()
        ],
        "applied": ticks.count,
        "request_ids": ticks.request_ids and [ticks.request_ids[place] for place in good],
    }
    return Commit(**values | changes)


@pytest.fixture(name="commit_of")
def _commit_of():
    return commit_of


class Proxy:
    """Stands between a client and the server and can lose one request or one reply, or cut one in the middle."""

    def __init__(self, upstream: str, directory: Path):
        self.upstream = upstream
        self.path = str(directory / "proxy.sock")
        self.lose: str | None = None  # "request", "reply" or "half": what happens to the next one that matches.
        self.matches = b"XADD"
        self.lost = 0
        self._tasks: set[asyncio.Task] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self):
        self._listener = await asyncio.start_unix_server(self._serve, self.path, limit=2**24)
        return self

    async def __aexit__(self, *_):
        self._listener.close()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._listener.wait_closed()

    def cut(self):
        """Ends every connection."""
        for writer in self._writers:
            writer.close()

    async def _serve(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        up_reader, up_writer = await asyncio.open_unix_connection(self.upstream, limit=2**24)
        self._writers |= {writer, up_writer}
        with suppress(ConnectionError):
            async with asyncio.TaskGroup() as group:
                swallow = asyncio.Event()
                group.create_task(self._requests(reader, up_writer, writer, swallow))
                group.create_task(self._replies(up_reader, writer, up_writer, swallow))
        for end in (writer, up_writer):
            end.close()

    async def _requests(self, reader, up_writer, writer, swallow):
        while data := await reader.read(2**24):
            if self.lose and self.matches in data:
                mode, self.lose, self.lost = self.lose, None, self.lost + 1
                if mode == "reply":
                    swallow.set()
                else:
                    data = data[: len(data) // 2] if mode == "half" else b""
                    up_writer.write(data)
                    await up_writer.drain()
                    break
            up_writer.write(data)
        writer.close()
        up_writer.close()

    async def _replies(self, up_reader, writer, up_writer, swallow):
        while data := await up_reader.read(2**24):
            if swallow.is_set():
                break
            writer.write(data)
        writer.close()
        up_writer.close()


@pytest.fixture
def proxy(server, tmp_path) -> Proxy:
    return Proxy(server.socket_url.removeprefix("unix://"), tmp_path)
