"""Who sends ticks: a numbered producer that sends again until it knows, and a plain client that may send anything."""

import asyncio
from random import Random
from typing import Any

from state_store.keys import partition_of
from state_store.outbox import Outbox
from tests.simulation.server import EPOCH_MS, Server
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
    """Carries ticks over as `TickProducer` does, with the product's own outbox."""

    def __init__(self, name: str, feed: Feed, partitions: int, server: Server, loss: float, random: Random) -> None:
        self.name, self.feed, self.server, self.loss = name, feed, server, loss
        self.sent: dict[bytes, list[dict]] = {asset: [] for asset in feed.assets}
        self._partitions, self._random = partitions, random
        self._late: list[asyncio.Task] = []
        self._outboxes = {partition_of(asset, partitions): Outbox(10_000) for asset in feed.assets}

    async def send(self, count: int, span_s: float) -> None:
        for _ in range(count):
            if self._random.random() < 0.3:  # else it comes at once with the one before
                await asyncio.sleep(self._random.random() * 6 * span_s / count)
            self._add(self.feed.tick())
            if self._random.random() < 0.3:
                await self._round()
        await self.flush()

    async def send_last(self) -> None:
        """One more tick for each asset: so the producer learns what a failover took."""
        for asset in self.feed.assets:
            self._add(self.feed.tick(asset))
        self.loss = 0.0
        await self.flush()

    async def flush(self) -> None:
        while any(outbox.waiting for outbox in self._outboxes.values()):
            await asyncio.sleep(0.01 + self._random.random() * 0.1)
            await self._round()

    def _add(self, tick: dict[bytes, bytes]) -> None:
        self.sent[tick[b"a"]].append(tick)
        self._outboxes[partition_of(tick[b"a"], self._partitions)].waiting.append(tick)

    async def _round(self) -> None:
        for partition, outbox in self._outboxes.items():
            if not outbox.waiting or self._fails():
                continue
            ticks, first, resume = outbox.head(SENT_MAX), outbox.acknowledged + 1, outbox.resume
            await asyncio.sleep(self._random.random() * 0.003)
            if self._fails():
                continue
            call = partition, self.name, first, resume, ticks
            code, last = self.server.ingest(*call)
            if self._fails():  # the reply is lost, and the call may have been doubled on its way
                self._late.append(asyncio.create_task(self._arrive_late(self.server.primary, *call)))
                continue
            if code == "GAP":
                outbox.rewind(last)
            else:
                outbox.acknowledge(last)

    async def _arrive_late(self, primary: int, *call: Any) -> None:
        await asyncio.sleep(self._random.random() * 2)
        if self.server.primary == primary and not self.server.down:
            self.server.ingest(*call)

    def _fails(self) -> bool:
        return self.server.down or self.server.memory.full or self._random.random() < self.loss


class PlainClient:
    """Sends each tick with one XADD, does not look back, and makes every mistake there is."""

    def __init__(self, feed: Feed, partitions: int, server: Server, random: Random) -> None:
        self.feed, self.server = feed, server
        self._partitions, self._random = partitions, random
        self._before: dict[bytes, dict] = {}

    async def send(self, count: int, span_s: float) -> None:
        for _ in range(count):
            await asyncio.sleep(self._random.random() * 2 * span_s / count)
            if not (self.server.down or self.server.memory.full):
                self._append(self.feed.tick())

    def _append(self, tick: dict[bytes, bytes]) -> None:
        home = partition_of(tick[b"a"], self._partitions)
        mistake = self._random.choice(("none", "none", "none", "twice", "late", "no value", "no number", "misplaced"))
        if mistake == "late":
            tick[b"t"] = b"%d" % (int(tick[b"t"]) - self._random.randrange(10**9))
        if mistake == "no value":
            del tick[b"y"]
        if mistake == "no number":
            tick[b"y"] = self._random.choice((b"nan", b"1e999", b"abc", b""))
        if mistake == "misplaced":
            home = (home + 1) % self._partitions
        for _ in range(2 if mistake == "twice" else 1):
            self.server.append(home, dict(tick))
