"""What lies between a worker and the server: delays, lost requests, lost replies, late repetitions.

Every call of the store passes named points, `commit.before` and `commit.after` among them. At each of them the network
may be slow or lose the call, and the worker may be paused or killed.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from state_store import (
    Carried,
    Commit,
    Held,
    Lease,
    MemoryStateStore,
    Meta,
    Outcome,
    Retention,
    StoreFull,
    StoreUnavailable,
    Ticks,
)
from state_store.commit import settle
from tests.simulation.server import Server
from tests.simulation.virtual import Process, VirtualLoop

_STEPS = ("acquire", "renew", "release", "commit", "compute")
POINTS = (
    *("register_worker", "deregister_worker", "workers", "want", "probe", "read", "read.after", "load", "load.after"),
    "read_meta",
    *(f"{step}.{when}" for step in _STEPS for when in ("before", "after")),
)
MOVING = ("begin_move", "close", "carry", "carry.write", "end.count", "end.open", "end.switch")
LASTING = MOVING[2:]  # over connections that none replaces
WRITES = {
    *("register_worker", "want", "acquire.before", "renew.before", "release.before"),
    *("begin_move", "carry.write", "end.open", "end.switch"),
}  # that a full server refuses; the commit sees to itself
Trace = Callable[[str], None]


class BrokenConnection(Exception):
    """The connection that came with the lease is no more; what was read over it may be gone from the server."""


@dataclass
class Weather:
    """How bad the network is; one for a whole history, calmed for its end."""

    loss: float = 0.0
    slow: float = 0.0  # share of the calls that take very long
    slow_s: float = 0.0
    late_copies: float = 0.0
    usual_s: float = 0.002
    fail_at: int = 0  # the number of the one call that fails
    calls: int = 0

    def calm(self) -> None:
        self.loss = self.slow = self.late_copies = 0.0


class Wire:
    """A process's way to the server."""

    def __init__(
        self, process: Process, server: Server, weather: Weather, loop: VirtualLoop, random: Random, trace: Trace
    ) -> None:
        self.process, self.server, self.weather = process, server, weather
        self.loop, self.trace = loop, trace
        self.random = random
        self.doom: dict[str, Callable[[Process], None]] = {}  # what happens at a point, once
        self.dooms = [self.doom]
        self.opened: dict[int, int] = {}  # the connection that came with each lease
        self.lasting = 0  # the one over which states are carried, or a move is ended
        self.visits: Counter[str] = Counter()

    async def pass_point(self, point: str, partition: int = -1) -> None:
        """Passes one named point, or does not."""
        self.visits[point] += 1
        await self._meet_doom(point)
        self.weather.calls += 1
        if self.weather.calls == self.weather.fail_at:
            self._lose(point, partition)
        if point.startswith("commit") and not self.unbroken(partition):
            raise BrokenConnection
        connection = self.lasting if point in LASTING else self.server.connection
        if self.random.random() < 0.5:  # else it takes no time at all: half of the events for the same faults
            await asyncio.sleep(self._delay_s())
        if self.server.down or connection != self.server.connection or self.random.random() < self.weather.loss:
            self._lose(point, partition)
        if self.server.memory.full and point in WRITES:
            raise StoreFull(f"The simulated server is full at {point}.")
        self.trace(f"{self.process.name}: {point} {partition}")

    def unbroken(self, partition: int) -> bool:
        """Tells whether the connections opened with the lease still stand."""
        return self.opened.get(partition) == self.server.connection

    async def compute(self, point: str) -> None:
        """Passes a point of the computation, where there is no network."""
        self.visits[point] += 1
        await self._meet_doom(point)
        await asyncio.sleep(self.random.random() * 4 * self.weather.usual_s)

    async def _meet_doom(self, point: str) -> None:
        for act in [doom.pop(point) for doom in self.dooms if point in doom]:
            self.trace(f"{self.process.name}: {act.__name__} at {point}")
            act(self.process)
            await asyncio.sleep(0)  # a process that is paused or dead goes on later, or never

    def _lose(self, point: str, partition: int) -> None:
        self.trace(f"{self.process.name}: {point} {partition} is lost")
        raise StoreUnavailable(f"The simulated network lost {point} of partition {partition}.")

    def _delay_s(self) -> float:
        if self.random.random() < self.weather.slow:
            return self.random.random() * self.weather.slow_s
        return self.random.random() * self.weather.usual_s


class FaultyStore:
    """A worker's store behind such a wire; what is not written here goes straight to the double."""

    def __init__(self, wire: Wire, retention: Retention, make: Callable[..., MemoryStateStore]) -> None:
        self.wire = wire
        made = iter(range(1, 1_000_000))
        name = wire.process.name.encode()
        self._make = lambda: make(wire.server.memory, retention=retention)
        self.inner = make(
            wire.server.memory, retention=retention, fault=wire.pass_point, nonces=lambda: b"%b.%d" % (name, next(made))
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def acquire(self, partition: int, worker: str, ttl_ms: int) -> Lease | Held:
        connection = self.wire.server.connection
        granted = await self.inner.acquire(partition, worker, ttl_ms)
        self.wire.opened[partition] = connection
        return granted

    async def read(self, partition: int, after: bytes, count: int, block_ms: int) -> Ticks:
        """Looks again after a while instead of waiting inside the server, so that a cut is noticed."""
        ticks = await self.inner.read(partition, after, count, 0)
        if not ticks.ids and block_ms:
            await asyncio.sleep(self.wire.random.random() * block_ms / 1000)
            ticks = await self.inner.read(partition, after, count, 0)
        await self.wire.pass_point("read.after", partition)
        if not self.wire.unbroken(partition):
            raise StoreUnavailable("The simulated network cut the connection since the last read.")
        return ticks

    async def load(self, partition: int, assets: list[bytes]) -> list[bytes | None]:
        records = await self.inner.load(partition, assets)
        await self.wire.pass_point("load.after", partition)
        return records

    async def carry(self, partition: int) -> Carried:
        self.wire.lasting = self.wire.server.connection
        return await self.inner.carry(partition)

    async def end_move(self) -> Meta:
        self.wire.lasting = self.wire.server.connection
        return await self.inner.end_move()

    async def commit(self, lease: Lease, commit: Commit) -> Outcome:
        copied = self.wire.random.random() < self.wire.weather.late_copies
        if copied and self.wire.unbroken(lease.partition):  # behind another connection none is sent
            copies = self._make()
            copies.follow(replace(self.wire.server.meta, generation=self.inner.generation))
            self.wire.loop.spawn(self._arrive_late(copies, lease, commit), None)
        try:
            return await self.inner.commit(lease, commit)
        except BrokenConnection:
            return await self._resolve(lease, commit)

    async def _resolve(self, lease: Lease, commit: Commit) -> Outcome:
        """Finds out over a new connection what became of a commit; it is not sent again."""
        await self.wire.pass_point("resolve", lease.partition)
        control = self.wire.server.memory.partition(lease.partition, self.inner.generation).control()
        return settle(control, lease, commit) or Outcome.CONFLICT

    async def _arrive_late(self, copies: MemoryStateStore, lease: Lease, commit: Commit) -> None:
        """A copy of the commit that was on its way for a while, whatever became of its sender."""
        primary = self.wire.server.primary
        await asyncio.sleep(self.wire.random.random() * 2 * lease.ttl_ms / 1000)
        if self.wire.server.primary != primary:
            return  # what was on its way to a server ends with it
        try:
            outcome = await copies.commit(lease, commit)
        except StoreFull:
            return
        except AssertionError as error:
            self.wire.server.memory.fouls.append(f"a late copy of a commit broke the log: {error}")
            return
        self.wire.trace(f"{self.wire.process.name}: a late copy arrives: {outcome.value}")
