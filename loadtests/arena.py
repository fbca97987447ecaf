"""A real fleet to be hurt: a Redis server behind a proxy, worker processes, and a feed that never rests.

    feed --> proxy --> Redis, or its promoted replica <-- proxy <-- worker-1, worker-2, ...

Everything ends with the arena; workers are tied to this process and die with it.
"""

import asyncio
import json
import math
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from loadtests.judge import Judge, Reference, ends_of_logs
from loadtests.proxy import Proxy
from predictor_core import payload_fields
from state_store import EmbeddedRedis, Probe, RedisStateStore, StoreUnavailable, TickProducer
from state_store.cluster import EmbeddedCluster
from state_store.keys import Keys, PartitionKeys, partition_of
from state_store.logs import Looking

PATIENCE_S = 90.0
NUMBERS = (2, 3, 4, 6)  # of partitions, that a fleet may get
START_S_MAX = 300.0  # the first start of all compiles the graph
POLL_S = 0.02
T = TypeVar("T")


class Failed(Exception):
    """The fleet did something that it must not, or did not do something in time."""


@dataclass(frozen=True)
class Shape:
    """How large the fleet is."""

    partitions: int = 4
    workers: int = 2
    lease_ms: int = 1000
    assets: int = 24
    rate: float = 300.0
    executable: str | None = None  # of the server; None: the first that is found
    kept: int = 10_000_000  # ticks and predictions of a partition; the judge reads everything
    cluster: bool = False  # three primaries with a replica each instead of one server
    options: tuple[tuple[str, str], ...] = ()  # of one server


@dataclass
class Member:
    """One worker process and its log."""

    name: str
    process: asyncio.subprocess.Process
    log: Path

    @property
    def alive(self) -> bool:
        return self.process.returncode is None

    def lines(self, event: str) -> list[dict[str, Any]]:
        """What it has logged of one kind."""
        said = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in said if line.get("event") == event]

    def said(self) -> str:
        """The end of its log, for who asks why."""
        return self.log.read_text()[-2000:]

    def signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            self.process.send_signal(number)


async def until(ask: Callable[[], Awaitable[T]], what: str, seconds: float = PATIENCE_S, every_s: float = POLL_S) -> T:
    """Asks again and again until the answer is true; a server that is away has not answered."""
    deadline = time.monotonic() + seconds
    while True:
        answer = None
        with suppress(StoreUnavailable):
            answer = await ask()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise Failed(f"{what} did not come about within {seconds:.0f} s")
        await asyncio.sleep(every_s)


class Feed:
    """Random walks through a `TickProducer`; remembers all that it sent."""

    def __init__(self, url: str, shape: Shape, name: str, random: Random) -> None:
        self.sent: dict[str, list[tuple[float, int]]] = {}
        self._url, self._rate, self._name, self._random = url, shape.rate, name, random
        self._assets = _assets(name, shape)
        self.strangers = [f"{asset}/plain" for asset in self._assets]  # for those who send without a `TickProducer`
        self._burst = 0
        self.over = asyncio.Event()
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Sends until `finish`, then one tick more of each asset: so a producer learns what a failover took."""
        async with TickProducer(self._url, name=self._name) as producer:
            started, sent = time.monotonic(), 0
            while not self._stop.is_set():
                due = int((time.monotonic() - started) * self._rate)
                for _ in range(max(0, due - sent) + self._burst):
                    await self._send(producer, self._random.choice(self._assets))
                sent, self._burst = due, 0
                await asyncio.sleep(POLL_S)
            for asset in self._assets:
                await self._send(producer, asset)
        self.over.set()

    def burst(self, ticks: int) -> None:
        """Sends many at once."""
        self._burst += ticks

    def finish(self) -> None:
        self._stop.set()

    def next_tick(self, asset: str) -> tuple[float, int]:
        """The next value of an asset, noted as sent."""
        past = self.sent.setdefault(asset, [])
        value = (past[-1][0] if past else 100.0) + self._random.gauss(0, 1)
        past.append((value, time.time_ns()))
        return past[-1]

    async def _send(self, producer: TickProducer, asset: str) -> None:
        value, time_ns = self.next_tick(asset)
        await producer.send(asset, value, time_ns)


def _assets(name: str, shape: Shape) -> list[str]:
    """As many for each partition as for any other, also where the fleet gets another of `NUMBERS`."""
    whole = math.lcm(shape.partitions, *NUMBERS)
    shares = whole if shape.assets >= whole else shape.partitions
    found: dict[int, list[str]] = {share: [] for share in range(shares)}
    for number in count():
        asset = f"{name}/{number}"
        home = found[partition_of(asset.encode(), shares)]
        if len(home) < -(-shape.assets // shares):
            home.append(asset)
        elif all(len(assets) >= shape.assets // shares for assets in found.values()):
            return [asset for assets in found.values() for asset in assets][: shape.assets]
    raise AssertionError("unreachable")


class Arena:
    """Use as an async context manager; then any number of histories, one after the other."""

    def __init__(self, home: Path, shape: Shape, reference: Reference, cache: Path) -> None:
        self.home, self.shape, self.reference, self.cache = home, shape, reference, cache
        self.members: list[Member] = []
        self._numbers = count(1)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> "Arena":
        async with AsyncExitStack() as stack:
            stack.callback(self._stop_server)
            await self.serve()
            self.proxy = await stack.enter_async_context(Proxy(self.port))
            stack.push_async_callback(self._end_members)
            await self._make_fleet()
            await asyncio.gather(*(self.start_worker() for _ in range(self.shape.workers)))
            await self.all_serve(START_S_MAX)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    # -- servers ------------------------------------------------------------------------------------------------------

    @property
    def port(self) -> int:
        assert self.server.port is not None
        return self.server.port

    def new_server(self) -> EmbeddedRedis | EmbeddedCluster:
        """Another one, with nothing in it, not started yet."""
        directory = self.home / f"redis-{next(self._numbers)}"
        if self.shape.cluster:
            return EmbeddedCluster(directory, replicas=1, executable=self.shape.executable)
        return EmbeddedRedis(
            directory, 0, executable=self.shape.executable, keep=True, options=dict(self.shape.options)
        )

    async def serve(self) -> None:
        self.server = self.new_server()
        await asyncio.to_thread(self.server.start)

    async def end_server(self, *, kill: bool) -> None:
        """Ends the server: in order, or as a power cut ends a process."""
        if kill:
            info = (await self.ask("INFO", "server")).decode()
            os.kill(int(info.partition("process_id:")[2].split()[0]), signal.SIGKILL)
        await asyncio.to_thread(self.server.stop)

    async def restart_server(self) -> None:
        await asyncio.to_thread(self.server.start)

    def aof(self) -> Path:
        """The file that grows; since Redis 7 it lies in a folder."""
        return max(self.server.directory.rglob("*.aof"), key=lambda path: path.stat().st_mtime_ns)

    def _stop_server(self) -> None:
        if hasattr(self, "server"):
            self.server.stop()

    async def ask(self, *words: bytes | str) -> Any:
        """One question to the server, past the proxy."""
        async with Looking(self.server.url) as looking:
            return await looking.ask(*words)

    async def probes(self) -> list[Probe]:
        """Of the partitions that the fleet has now."""
        store = RedisStateStore(self.server.url)
        try:
            self.meta = await store.read_meta()
            return [await store.probe(partition) for partition in range(self.meta.partitions)]
        finally:
            await store.close()

    def keys(self, partition: int) -> PartitionKeys:
        """Of a partition, in the generation that was seen last."""
        return Keys("usp", self.meta.generation).of(partition)

    async def _make_fleet(self) -> None:
        store, program = RedisStateStore(self.server.url), self.reference.program
        try:
            layout, fields = program.layout_fingerprint, payload_fields(program.config)
            self.meta = await store.open_fleet(self.shape.partitions, layout, fields)
        finally:
            await store.close()

    # -- workers ------------------------------------------------------------------------------------------------------

    @property
    def running(self) -> list[Member]:
        return [member for member in self.members if member.alive]

    async def start_worker(self) -> Member:
        name = f"worker-{next(self._numbers)}"
        log = self.home / f"{name}.log"
        command = [sys.executable, "-m", "worker", "worker", "--name", name, "--redis", self.proxy.url]
        kept = self.shape.kept
        given = {"lease_ms": self.shape.lease_ms, "cache_dir": self.cache, "ticks_kept": kept, "predictions_kept": kept}
        env = os.environ | {f"USP_WORKER__{key.upper()}": str(value) for key, value in given.items()}
        env |= {"USP_LOG__FORMAT": "json", "USP_LOG__LEVEL": "info"}
        with log.open("wb") as file:
            process = await asyncio.create_subprocess_exec(
                *command,
                *("--http-port", "0", "--parent", str(os.getpid())),
                env=env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                process_group=0,
            )
        self.members.append(Member(name, process, log))
        return self.members[-1]

    async def all_ready(self) -> None:
        """Waits until every worker that was started could take a partition."""

        async def ready() -> bool:
            self.check_alive()
            return all(any(line["phase"] == "ready" for line in member.lines("phase")) for member in self.running)

        await until(ready, "the start of all workers", START_S_MAX)

    async def all_serve(self, seconds: float = PATIENCE_S) -> None:
        """Waits until every worker holds something and every partition is held."""

        async def placed() -> bool:
            self.check_alive()
            owners = {probe.owner for probe in await self.probes() if probe.lease_left_ms}
            return owners == {member.name for member in self.running}

        await until(placed, "a placement on all workers", seconds)

    async def progress(self) -> None:
        """Waits until every partition has been committed to since now."""
        before = await until(self.probes, "a look at the partitions")

        async def moved() -> bool:
            self.check_alive()
            return all(now.cursor > then.cursor for now, then in zip(await self.probes(), before, strict=True))

        await until(moved, "a commit in every partition")

    async def idle(self) -> None:
        """Waits until nothing is left to do, and the states are stored."""

        async def drained() -> bool:
            self.check_alive()
            probes = await self.probes()
            return not any(probe.backlog or probe.state_cursor != probe.cursor for probe in probes)

        await until(drained, "an empty backlog")

    async def caught_up(self) -> None:
        """Waits until little is left to do."""

        async def nearly() -> bool:
            return sum(probe.backlog for probe in await self.probes()) < self.shape.rate

        await until(nearly, "a small backlog")

    async def owner(self, random: Random) -> Member:
        """A worker that holds something."""

        async def owners() -> list[Member]:
            names = {probe.owner for probe in await self.probes() if probe.lease_left_ms}
            return [member for member in self.running if member.name in names]

        return random.choice(await until(owners, "an owner"))

    def check_alive(self) -> None:
        """A worker ends only when it is told to."""
        for member in self.members:
            if member.process.returncode not in (None, 0, -signal.SIGKILL):
                raise Failed(f"{member.name} ended by itself: {member.said()}")

    async def _end_members(self) -> None:
        for member in self.members:
            member.signal(signal.SIGKILL)
        await asyncio.gather(*(member.process.wait() for member in self.members))

    # -- histories ----------------------------------------------------------------------------------------------------

    async def play(self, name: str, faults: "list[Fault]", random: Random) -> int:
        """Feeds while the faults happen, one after the other; raises Failed, else gives the number of ticks judged."""
        judge = Judge(self.reference, self.server.url, await ends_of_logs(self.server.url))
        history = History(self, Feed(self.proxy.url, self.shape, name, random), judge, random)
        feeding = asyncio.create_task(history.feed.run())
        try:
            await self.progress()
            for fault in faults:
                await self.all_ready()
                await fault(history)
            history.feed.finish()
            async with asyncio.timeout(PATIENCE_S):
                await feeding
        finally:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
        await self.idle()
        judge.move_to(self.server.url)
        if found := await judge.faults(history.feed.sent):
            raise Failed("; ".join(found))
        return sum(map(len, history.feed.sent.values()))


@dataclass(frozen=True)
class History:
    """What a fault may reach for."""

    arena: Arena
    feed: Feed
    judge: Judge
    random: Random


Fault = Callable[[History], Awaitable[None]]
