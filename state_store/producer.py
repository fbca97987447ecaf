"""`TickProducer`: sends ticks once each and in order, through lost replies, failovers and full partitions.

Ticks wait in one outbox for each partition; a single task carries them over in rounds, one script call for each
partition that has some. Every limit is in `ProducerLimits`: a full outbox makes `send` wait, and nothing is dropped.
"""

import asyncio
import math
import time
from contextlib import suppress
from dataclasses import dataclass
from operator import index
from secrets import token_hex
from types import TracebackType
from typing import Any, SupportsFloat, SupportsIndex

from state_store.client import Address, Timeouts
from state_store.errors import (
    BadTick,
    FleetMissing,
    PartitionFull,
    ProducerFenced,
    StateStoreError,
    StoreFull,
    StoreUnavailable,
)
from state_store.ingest import LOAD_SCRIPT, encode_tick, ingest_call
from state_store.keys import Keys, asset_fault, partition_of
from state_store.lease import sealed
from state_store.meta import decode_meta
from state_store.outbox import Outbox
from state_store.refusals import refusal
from state_store.room import crowded, memory_share
from state_store.ticks import REQUEST_ID_BYTES_MAX
from state_store.wire import Connection, ServerError, encode

_TEXT = (str, bytes)
_ASSETS_KNOWN_MAX = 65_536
_FIRST_PAUSE_S, _PAUSE_S_MAX = 0.02, 1.0
_LAST_FLUSH_S = 1.0
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


class TickProducer:
    """Use as `async with TickProducer(url) as producer: await producer.send(asset, value, timestamp_ns)`."""

    def __init__(
        self,
        url: str,
        namespace: str = "usp",
        name: str | None = None,
        *,
        limits: ProducerLimits | None = None,
        timeouts: Timeouts | None = None,
    ):
        self.name = name or f"producer-{token_hex(6)}"
        self.limits = limits or ProducerLimits()
        self.sent = 0
        self.rewinds = 0
        self._address = Address.parse(url)
        self._keys = Keys(namespace)
        self._timeouts = timeouts or Timeouts()
        self._wire: Connection | None = None
        self._session = 0
        self._partitions = 0
        self._outboxes: dict[int, Outbox] = {}
        self._homes: dict[str | bytes, tuple[bytes, Outbox]] = {}
        self._last_ns = 0
        self._looked_at = -_LOOK_EVERY_S
        self._crowded: StoreFull | None = None
        self._waiting = asyncio.Event()  # There is something to send.
        self._hurry = asyncio.Event()  # There is no point in lingering.
        self._moved = asyncio.Condition()
        self._failure: BaseException | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def accepted(self) -> int:
        """Ticks that the server has taken, each counted once."""
        return sum(outbox.acknowledged - outbox.lost for outbox in self._outboxes.values())

    @property
    def lost(self) -> int:
        """Ticks that the server had taken, lost in a failover, and that were no longer here to send again."""
        return sum(outbox.lost for outbox in self._outboxes.values())

    async def __aenter__(self) -> "TickProducer":
        wire = await self._connected()
        kept, now = await wire.ask(encode("HGETALL", self._keys.meta) + encode("TIME"), 2, self._timeouts.reply_s)
        fleet = f"The fleet '{self._keys.namespace}' at {self._address}"
        try:
            self._raise_error(kept)
            if not kept:
                raise FleetMissing(f"{fleet} does not exist yet: make it with `predictor init`.")
            self._partitions = decode_meta(dict(zip(kept[0::2], kept[1::2], strict=True)), fleet).partitions
        except BaseException:
            wire.abort()
            raise
        self._session = int(now[0]) * 1_000_000 + int(now[1])
        self._task = asyncio.create_task(self._run(), name=f"{self.name} sends")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        try:
            if kind is None:
                await self.flush()
            else:
                with suppress(StateStoreError, TimeoutError):
                    async with asyncio.timeout(_LAST_FLUSH_S):
                        await self.flush()
        finally:
            self._failure = self._failure or StateStoreError(f"{self.name} is closed: no tick can be sent.")
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            if self._wire is not None:
                self._wire.abort()

    async def send(
        self,
        asset: str | bytes,
        value: SupportsFloat,
        timestamp_ns: SupportsIndex | None = None,
        request_id: str | bytes | None = None,
    ) -> None:
        """Takes a tick over; waits while its partition has no room. Without a timestamp it happened now."""
        if not isinstance(asset, _TEXT):
            raise BadTick(f"An asset is text or bytes, not of type {type(asset).__name__}.")
        name, outbox = self._homes.get(asset) or self._home(asset)
        time_ns = self._now_ns() if timestamp_ns is None else timestamp_ns
        tick = encode_tick(name, _value_text(asset, value), _time_text(asset, time_ns), _request_text(request_id))
        if len(outbox.waiting) >= self.limits.waiting_max or self._failure is not None:
            await self._wait_until(lambda: len(outbox.waiting) < self.limits.waiting_max)
        outbox.waiting.append(tick)
        self.sent += 1
        self._waiting.set()
        if len(outbox.waiting) % self.limits.batch_size_max == 0:
            self._hurry.set()
            await asyncio.sleep(0)

    async def flush(self) -> None:
        """Waits until the server has taken all sent so far; raises what stands in the way if nothing moves for long."""
        self._hurry.set()
        goals = [(outbox, outbox.acknowledged + len(outbox.waiting)) for outbox in self._outboxes.values()]
        await self._wait_until(lambda: all(outbox.acknowledged >= goal for outbox, goal in goals))

    async def _wait_until(self, done: Any) -> None:
        while not done():
            self._raise_failure()
            before = self.accepted
            try:
                async with asyncio.timeout(self.limits.patience_s), self._moved:
                    await self._moved.wait_for(lambda: done() or self._failure or self.accepted != before)  # noqa: B023
            except TimeoutError:
                raise self._obstacle() from None
        self._raise_failure()

    def _obstacle(self) -> StateStoreError:
        obstacles = [outbox.obstacle for outbox in self._outboxes.values() if outbox.waiting and outbox.obstacle]
        return obstacles[0] if obstacles else StoreUnavailable(f"{self._address} does not take ticks.")

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _home(self, asset: str | bytes) -> tuple[bytes, Outbox]:
        if not self._partitions:
            raise StateStoreError("This producer is not connected: use `async with TickProducer(...) as producer`.")
        # Half a surrogate pair passes here, to be refused below as not UTF-8.
        name = asset.encode(errors="surrogatepass") if isinstance(asset, str) else asset
        if fault := asset_fault(name):
            raise BadTick(f"{asset[:40]!r}: {fault}.")
        partition = partition_of(name, self._partitions)
        outbox = self._outboxes.setdefault(partition, Outbox(self.limits.rewind_max))
        if len(self._homes) >= _ASSETS_KNOWN_MAX:
            self._homes.clear()
        self._homes[asset] = name, outbox
        return name, outbox

    def _now_ns(self) -> int:
        self._last_ns = max(time.time_ns(), self._last_ns + 1)
        return self._last_ns

    async def _run(self) -> None:
        """Carries ticks over until cancelled; an error that waiting cannot cure is raised by `send` and `flush`."""
        pause_s = _FIRST_PAUSE_S
        try:
            while True:
                await self._waiting.wait()
                await self._linger()
                try:
                    await self._round()
                    pause_s = _FIRST_PAUSE_S
                except StoreUnavailable as error:
                    self._drop_wire(error)
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, _PAUSE_S_MAX)
                await self._announce()
        except Exception as error:
            self._failure = error
            await self._announce()

    async def _linger(self) -> None:
        if any(len(outbox.waiting) >= self.limits.batch_size_max for outbox in self._outboxes.values()):
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(self.limits.linger_ms / 1000):
                await self._hurry.wait()

    async def _announce(self) -> None:
        if not any(outbox.waiting for outbox in self._outboxes.values()):
            self._waiting.clear()
            self._hurry.clear()
        async with self._moved:
            self._moved.notify_all()

    async def _round(self) -> None:
        """Sends the next batch of every partition that has one, all in one write."""
        now = time.monotonic()
        waiting = [(partition, outbox) for partition, outbox in self._outboxes.items() if outbox.waiting]
        due = [(partition, outbox) for partition, outbox in waiting if outbox.retry_at <= now]
        if not due:
            await asyncio.sleep(max(0.0, min(outbox.retry_at for _, outbox in waiting) - now))
            return
        wire = await self._connected()
        await self._look_at_memory(wire, now)
        if self._crowded:
            for _, outbox in due:
                self._hinder(outbox, self._crowded)
            return
        calls = [self._call(partition, outbox, now) for partition, outbox in due]
        replies = await wire.ask(b"".join(calls), len(calls), self._timeouts.reply_s)
        if any(str(reply).startswith("NOSCRIPT") for reply in replies if isinstance(reply, ServerError)):
            await wire.ask(LOAD_SCRIPT, 1, self._timeouts.reply_s)
        for (partition, outbox), reply in zip(due, replies, strict=True):
            self._settle(partition, outbox, reply)

    async def _look_at_memory(self, wire: Connection, now: float) -> None:
        """Leaves the last of the server's memory to the commits: ticks that nobody can work off help nobody."""
        if now - self._looked_at < _LOOK_EVERY_S:
            return
        self._looked_at = now
        reply = (await wire.ask(encode("INFO", "memory"), 1, self._timeouts.reply_s))[0]
        share = 0.0 if isinstance(reply, ServerError) else memory_share(reply)  # not every user may ask
        self._crowded = None if share <= self.limits.memory_share_max else crowded(share, str(self._address))

    def _call(self, partition: int, outbox: Outbox, now: float) -> bytes:
        if now - outbox.moved_at > self.limits.rewind_s:
            outbox.kept.clear()  # A server that has forgotten us since has not lost these.
        ticks = outbox.head(self.limits.batch_size_max)
        first, backlog_max = outbox.acknowledged + 1, self.limits.backlog_max
        return ingest_call(
            self._keys.of(partition), self.name, self._session, first, outbox.resume, backlog_max, ticks
        )

    def _settle(self, partition: int, outbox: Outbox, reply: Any) -> None:
        """Follows the server's answer for one partition."""
        outbox.obstacle, outbox.retry_at = None, 0.0
        if isinstance(reply, ServerError):
            return self._refused(outbox, reply)
        code, last, detail = reply
        match code:
            case b"GAP":
                self.rewinds += 1
                outbox.rewind(last)
            case b"STALE":
                raise ProducerFenced(f"A newer producer named '{self.name}' sends here: give each its own name.")
            case b"SEALED":
                why = detail.decode(errors="replace")
                self._hinder(outbox, sealed(partition, why, self._keys.of(partition).control))
            case _:
                if outbox.acknowledge(last):
                    outbox.moved_at = time.monotonic()
                if code == b"FULL":
                    self._hinder(outbox, self._full(partition))

    def _refused(self, outbox: Outbox, reply: ServerError) -> None:
        if str(reply).startswith("NOSCRIPT"):
            return
        error = refusal(str(reply), str(self._address))
        if not isinstance(error, StoreFull):
            raise error
        self._hinder(outbox, error)

    def _hinder(self, outbox: Outbox, obstacle: StateStoreError) -> None:
        outbox.obstacle, outbox.retry_at = obstacle, time.monotonic() + _FIRST_PAUSE_S

    def _full(self, partition: int) -> PartitionFull:
        return PartitionFull(
            f"Partition {partition} has {self.limits.backlog_max} unread ticks and takes no more: "
            "start workers (see `predictor lag`) or send more slowly."
        )

    async def _connected(self) -> Connection:
        if self._wire is None or self._wire.broken:
            self._wire = await self._address.connect(self._timeouts)
        return self._wire

    def _drop_wire(self, error: StoreUnavailable) -> None:
        if self._wire is not None:
            self._wire.abort()
        self._wire = None
        for outbox in self._outboxes.values():
            outbox.obstacle = error

    def _raise_error(self, reply: Any) -> None:
        if isinstance(reply, ServerError):
            raise refusal(str(reply), str(self._address))


def _value_text(asset: str | bytes, value: SupportsFloat) -> bytes:
    if isinstance(value, _TEXT):  # float() would take "1_5", " 1" and "nan" too
        raise BadTick(f"{asset!r}: the value {value[:40]!r} is text: give a number.")
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise BadTick(f"{asset!r}: the value {str(value)[:40]!r} is not a number.") from None
    except OverflowError:  # Its digits may be too many to show.
        raise BadTick(f"{asset!r}: the value is larger than any 64-bit float.") from None
    if not math.isfinite(number):
        raise BadTick(f"{asset!r}: the value {number} is not finite.")
    return repr(number).encode()


def _time_text(asset: str | bytes, time_ns: SupportsIndex) -> bytes:
    try:
        number = index(time_ns)
    except TypeError:
        raise BadTick(f"{asset!r}: the timestamp {str(time_ns)[:40]!r} is not an integer of nanoseconds.") from None
    if not -(2**63) <= number < 2**63:
        raise BadTick(f"{asset!r}: the timestamp does not fit 64 bits.")
    return b"%d" % number


def _request_text(request_id: str | bytes | None) -> bytes:
    if request_id is None:
        return b""
    try:
        text = request_id.encode() if isinstance(request_id, str) else request_id
    except UnicodeEncodeError:
        raise BadTick(f"The request id {request_id[:40]!r} is not UTF-8.") from None
    if not isinstance(text, bytes):
        raise BadTick(f"A request id is text or bytes, not of type {type(text).__name__}.")
    if len(text) > REQUEST_ID_BYTES_MAX:
        raise BadTick(f"A request id is longer than {REQUEST_ID_BYTES_MAX} bytes.")
    return text
