"""Who sends ticks: a numbered producer that sends again until it knows, and a plain client that may send anything."""

import asyncio
from collections import deque
from random import Random
from typing import Any

from state_store import Meta, PartitionMoved
from state_store.keys import partition_of
from state_store.outbox import Outbox
from state_store.outboxes import Outboxes
from tests.simulation.server import EPOCH_MS, Home, Server
from tests.simulation.virtual import VirtualLoop

SENT_MAX = 5  # ticks of one call


class Feed:
    """Makes the ticks of some assets; the event times of each rise."""

    def __init__(self, assets: list[bytes], loop: VirtualLoop, random: Random) -> None:
        self.assets, self._loop, self._random = assets, loop, random
        self._last_ns = 0

    def tick(self, asset: bytes | None = None) -> dict[bytes, bytes]:
        asset = asset or self._random.choice(self.assets)
        self._last_ns = max(self._last_ns + 1, EPOCH_MS * 1_000_000 + int(self._loop.time() * 1e9))
        fields = {b"a": asset, b"y": b"%d" % self._random.randrange(500), b"t": b"%d" % self._last_ns}
        if self._random.random() < 0.05:
            fields[b"r"] = b"request %d" % self._last_ns
        return fields


class NumberedProducer:
    """Carries ticks over as `TickProducer` does, with the product's own outboxes."""

    def __init__(self, name: str, feed: Feed, outboxes: Outboxes, server: Server, loss: float, random: Random) -> None:
        self.name, self.feed, self.server, self.loss = name, feed, server, loss
        self.sent: dict[bytes, list[dict]] = {asset: [] for asset in feed.assets}
        self._outboxes, self._random = outboxes, random
        self._late: list[asyncio.Task] = []
        self._turn = asyncio.Lock()

    async def send(self, count: int, span_s: float) -> None:
        for _ in range(count):
            if self._random.random() < 0.3:  # else it comes at once with the one before
                await asyncio.sleep(self._random.random() * 6 * span_s / count)
            self._add(self.feed.tick())
            if self._random.random() < 0.3:
                await self._round()

    async def send_last(self) -> None:
        """One more tick for each asset: so the producer learns what a failover took."""
        for asset in self.feed.assets:
            self._add(self.feed.tick(asset))
        self.loss = 0.0
        while any(outbox.waiting or outbox.unsure for outbox in self._outboxes.by_partition.values()):
            await asyncio.sleep(0.01 + self._random.random() * 0.1)
            await self._round()

    def _add(self, tick: dict[bytes, bytes]) -> None:
        self.sent[tick[b"a"]].append(tick)
        _, outbox = self._outboxes.home(tick[b"a"])
        outbox.waiting.append(tick)

    async def _round(self) -> None:
        async with self._turn:
            await self._exchange_all()
            self._follow()

    async def _exchange_all(self) -> None:
        for partition, outbox in list(self._outboxes.by_partition.items()):
            if outbox.has_to_ask and not self._fails():
                await self._exchange(self._outboxes, partition, outbox)

    def _follow(self) -> None:
        if self._outboxes.closed and not self._fails() and self._outboxes.may_move(self.server.meta):
            self._outboxes = self._outboxes.moved_to(self.server.meta)

    async def _exchange(self, to: Outboxes, partition: int, outbox: Outbox) -> None:
        home: Home = (to.generation, partition)
        call = (home, to.opening, self.name, to.session, outbox.acknowledged + 1, outbox.resume, outbox.head(SENT_MAX))
        await asyncio.sleep(self._random.random() * 0.003)
        if self._fails():
            return
        code, last = self.server.ingest(*call)
        if self._fails():  # the reply is lost, and what was taken may have been doubled on its way
            if code == "OK":
                self._late.append(asyncio.create_task(self._arrive_late(self.server.primary, *call)))
        elif code == "GAP":
            outbox.rewind(last)
        elif code == "STALE":
            raise AssertionError(f"{self.name} was fenced by itself at {home}")
        elif code == "MOVED":
            outbox.close(last)
        else:
            outbox.acknowledge(last)

    async def _arrive_late(self, primary: int, *call: Any) -> None:
        await asyncio.sleep(self._random.random() * 2)
        if self.server.primary == primary and not self.server.down:
            self.server.ingest(*call)

    def _fails(self) -> bool:
        return self.server.down or self.server.memory.full or self._random.random() < self.loss


class PlainClient:
    """Sends each tick with one XADD, makes every mistake there is, and looks back only when its partition is closed."""

    def __init__(self, feed: Feed, server: Server, meta: Meta, random: Random) -> None:
        self.feed, self.server = feed, server
        self._meta, self._random = meta, random
        self._waiting: deque[tuple[dict[bytes, bytes], int]] = deque()  # each with how far from its home it goes

    async def send(self, count: int, span_s: float) -> None:
        for _ in range(count):
            await asyncio.sleep(self._random.random() * 2 * span_s / count)
            if not (self.server.down or self.server.memory.full):
                self.add(self.feed.tick())

    def send_last(self) -> None:
        """All that was refused."""
        self._append_all()
        assert not self._waiting, "the fleet is whole and refuses ticks"

    def add(self, tick: dict[bytes, bytes]) -> None:
        """Sends a tick with some mistake."""
        mistake = self._random.choice(("none", "none", "none", "twice", "late", "no value", "no number", "misplaced"))
        if mistake == "late":
            tick[b"t"] = b"%d" % (int(tick[b"t"]) - self._random.randrange(10**9))
        if mistake == "no value":
            del tick[b"y"]
        if mistake == "no number":
            tick[b"y"] = self._random.choice((b"nan", b"1e999", b"abc", b""))
        for _ in range(2 if mistake == "twice" else 1):
            self.append(dict(tick), off=int(mistake == "misplaced"))

    def append(self, tick: dict[bytes, bytes], off: int = 0) -> None:
        """Sends a tick, behind those that were refused."""
        self._waiting.append((tick, off))
        self._append_all()

    def _append_all(self) -> None:
        """As docs/protocol.md says: what a closed partition refuses waits until the generation has grown."""
        while self._waiting:
            tick, off = self._waiting[0]
            partition = (partition_of(tick[b"a"], self._meta.partitions) + off) % self._meta.partitions
            try:
                self.server.append((self._meta.generation, partition), tick)
                self._waiting.popleft()
            except PartitionMoved:
                if self.server.meta.generation <= self._meta.generation:
                    return
                self._meta = self.server.meta
