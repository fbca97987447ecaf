"""A producer's lane to one node: carries the ticks of the partitions that the node has, in rounds, until cancelled.

A round is one write: one script call for each partition that has ticks waiting. What a redirection or a lost connection
leaves undone stays in its outbox, numbered as before, and goes again over the lane of whoever has the partition then.
A node that does not answer holds up only its own lane.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from state_store.client import Address
from state_store.errors import (
    PartitionFull,
    PartitionMoved,
    ProducerFenced,
    SlotMoved,
    StateStoreError,
    StoreFull,
    StoreUnavailable,
)
from state_store.ingest import LOAD_SCRIPT, ingest_call
from state_store.keys import Keys
from state_store.lease import sealed
from state_store.outbox import Outbox
from state_store.refusals import refusal
from state_store.room import crowded, memory_share
from state_store.route import Route
from state_store.wire import Connection, ServerError, encode

_FIRST_PAUSE_S, _PAUSE_S_MAX = 0.02, 1.0
_LOOK_EVERY_S = 1.0  # At the server's memory.


@dataclass(frozen=True, slots=True)
class ProducerLimits:
    """How much waits, for how long, and how many ticks go at once; counts are per partition."""

    batch_size_max: int = 512
    linger_ms: float = 2.0  # How long an incomplete batch waits for company.
    waiting_max: int = 8192  # Ticks not yet taken by the server.
    rewind_max: int = 16_384  # Ticks taken by the server and kept, should it lose them in a failover.
    rewind_s: float = 60.0  # For how long they are kept when nothing follows.
    backlog_max: int = 100_000  # Unread ticks in the partition's log above which it counts as full.
    memory_share_max: float = 0.9  # Of the server's maxmemory; what is left is for the commits, which make room.
    patience_s: float = 30.0  # How long `send` and `flush` wait without any progress.


@dataclass(slots=True)
class Sender:
    """What all lanes of a producer have in common."""

    name: str
    session: int  # Of the generation of partitions to which it sends, as are these two:
    opening: int
    keys: Keys
    limits: ProducerLimits
    route: Route
    relocate: Callable[[int, Outbox], None]  # Gives an outbox to the lane of the node that has its partition now.
    announce: Callable[[], Awaitable[None]]  # Something moved, or cannot.
    follow: Callable[[], None]  # A partition is closed: the fleet goes on in another generation of partitions.
    frames: bool  # Many ticks travel as one entry.


class Lane:
    """One node's; `outboxes` change hands between lanes."""

    def __init__(self, address: Address, sender: Sender):
        self.address = address
        self.outboxes: dict[int, Outbox] = {}
        self.waiting = asyncio.Event()  # There is something to send.
        self.hurry = asyncio.Event()  # There is no point in lingering.
        self.rewinds = 0
        self._sender = sender
        self._limits = sender.limits
        self._reply_s = sender.route.timeouts.reply_s
        self._wire: Connection | None = None
        self._looked_at = -_LOOK_EVERY_S
        self._crowded: StoreFull | None = None

    def take(self, partition: int, outbox: Outbox) -> None:
        """From now on this partition's ticks go this way."""
        self.outboxes[partition] = outbox
        outbox.lane = self
        if outbox.has_to_ask:
            self.waiting.set()

    async def run(self) -> None:
        """Carries ticks over until cancelled; raises what waiting cannot cure."""
        pause_s = _FIRST_PAUSE_S
        try:
            while True:
                await self.waiting.wait()
                await self._linger()
                try:
                    await self._round()
                    pause_s = _FIRST_PAUSE_S
                except StoreUnavailable as error:
                    self._drop_wire(error)
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, _PAUSE_S_MAX)
                    await self._find_again()
                self._rest()
                await self._sender.announce()
        finally:
            if self._wire is not None:
                self._wire.abort()

    async def _linger(self) -> None:
        if any(len(outbox.waiting) >= self._limits.batch_size_max for _, outbox in self._sendable()):
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(self._limits.linger_ms / 1000):
                await self.hurry.wait()

    def _rest(self) -> None:
        if not self._sendable():
            self.waiting.clear()
            self.hurry.clear()

    def _sendable(self) -> list[tuple[int, Outbox]]:
        """The partitions that may take the ticks that wait, or have to be asked what they have."""
        return [(partition, outbox) for partition, outbox in self.outboxes.items() if outbox.has_to_ask]

    async def _round(self) -> None:
        """Sends the next batch of every partition that has one, all in one write."""
        now = time.monotonic()
        waiting = self._sendable()
        due = [(partition, outbox) for partition, outbox in waiting if outbox.retry_at <= now]
        if not due:
            await asyncio.sleep(max(0.0, min((outbox.retry_at for _, outbox in waiting), default=now) - now))
            return
        wire = await self._connected()
        await self._look_at_memory(wire, now)
        if self._crowded:
            for _, outbox in due:
                _hinder(outbox, self._crowded)
            return
        calls = [self._call(partition, outbox, now) for partition, outbox in due]
        replies = await wire.ask(b"".join(calls), len(calls), self._reply_s)
        if any(str(reply).startswith("NOSCRIPT") for reply in replies if isinstance(reply, ServerError)):
            await wire.ask(LOAD_SCRIPT, 1, self._reply_s)
        for (partition, outbox), reply in zip(due, replies, strict=True):
            self._settle(partition, outbox, reply)

    async def _look_at_memory(self, wire: Connection, now: float) -> None:
        """Leaves the last of the server's memory to the commits: ticks that nobody can work off help nobody."""
        if now - self._looked_at < _LOOK_EVERY_S:
            return
        self._looked_at = now
        reply = (await wire.ask(encode("INFO", "memory"), 1, self._reply_s))[0]
        share = 0.0 if isinstance(reply, ServerError) else memory_share(reply)  # not every user may ask
        self._crowded = None if share <= self._limits.memory_share_max else crowded(share, str(self.address))

    def _call(self, partition: int, outbox: Outbox, now: float) -> bytes:
        if now - outbox.moved_at > self._limits.rewind_s:
            outbox.kept.clear()  # A server that has forgotten us since has not lost these.
        ticks = outbox.head(outbox.fits or self._limits.batch_size_max)
        first, backlog_max = outbox.acknowledged + 1, self._limits.backlog_max
        to = self._sender
        who = to.keys.of(partition), to.name, to.session, to.opening
        return ingest_call(*who, first, outbox.resume, backlog_max, ticks, to.frames)

    def _settle(self, partition: int, outbox: Outbox, reply: Any) -> None:
        """Follows the server's answer for one partition."""
        outbox.obstacle, outbox.retry_at, outbox.fits = None, 0.0, 0
        if isinstance(reply, ServerError):
            return self._refused(partition, outbox, reply)
        code, last, detail = reply
        match code:
            case b"GAP":
                self.rewinds += 1
                outbox.rewind(last)
            case b"STALE":
                name = self._sender.name
                raise ProducerFenced(f"A newer producer named '{name}' sends here: give each its own name.")
            case b"MOVED":
                outbox.close(last)
                _hinder(outbox, _moving(partition))
                self._sender.follow()
            case b"SEALED":
                why = detail.decode(errors="replace")
                _hinder(outbox, sealed(partition, why, self._sender.keys.of(partition).control))
            case _:
                if outbox.acknowledge(last):
                    outbox.moved_at = time.monotonic()
                if code == b"FULL":
                    outbox.fits = int(detail or 0)
                    _hinder(outbox, self._full(partition))

    def _refused(self, partition: int, outbox: Outbox, reply: ServerError) -> None:
        if str(reply).startswith("NOSCRIPT"):
            return
        error = refusal(str(reply), str(self.address))
        if not isinstance(error, StoreFull | SlotMoved):
            raise error
        _hinder(outbox, error)
        if isinstance(error, SlotMoved):
            self._sender.route.heed(error)
            self._hand_over(partition)

    def _full(self, partition: int) -> PartitionFull:
        return PartitionFull(
            f"Partition {partition} has {self._limits.backlog_max} unread ticks and takes no more: "
            "start workers (see `predictor lag`) or send more slowly."
        )

    async def _find_again(self) -> None:
        """After a lost connection other nodes may have the partitions."""
        try:
            await self._sender.route.find(None)
        except StoreUnavailable as error:
            self._drop_wire(error)
            return
        for partition in list(self.outboxes):
            self._hand_over(partition)

    def _hand_over(self, partition: int) -> None:
        self._sender.relocate(partition, self.outboxes.pop(partition))

    async def _connected(self) -> Connection:
        if self._wire is None or self._wire.broken:
            self._wire = await self.address.connect(self._sender.route.timeouts)
        return self._wire

    def _drop_wire(self, error: StoreUnavailable) -> None:
        if self._wire is not None:
            self._wire.abort()
        self._wire = None
        self._sender.route.heed(error)
        for outbox in self.outboxes.values():
            outbox.obstacle = error


def _moving(partition: int) -> PartitionMoved:
    return PartitionMoved(
        f"Partition {partition} is closed while the fleet gets another number of partitions; its ticks wait here and "
        "follow then (see `predictor repartition --status`)."
    )


def _hinder(outbox: Outbox, obstacle: StateStoreError) -> None:
    outbox.obstacle, outbox.retry_at = obstacle, time.monotonic() + _FIRST_PAUSE_S
