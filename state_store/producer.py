"""`TickProducer`: sends ticks once each and in order, through lost replies, failovers and full partitions.

Ticks wait in one outbox for each partition; a lane for each node carries them over, so a server that is alone has one.
Every limit is in `ProducerLimits`: a full outbox makes `send` wait, and nothing is dropped. When the fleet gets another
number of partitions, a closed one says what it has taken; all else waits here until the next ones are there. Each is
asked once more then, and where a failover takes the fleet back to the partitions before, so do the ticks go.
"""

import asyncio
import math
import time
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from dataclasses import replace
from operator import index
from secrets import token_hex
from types import TracebackType
from typing import Any, SupportsFloat, SupportsIndex

from state_store.client import Address, Timeouts
from state_store.contract import Meta
from state_store.errors import BadTick, StateStoreError, StoreUnavailable
from state_store.ingest import asset_of
from state_store.keys import Keys, asset_fault
from state_store.lane import Lane, ProducerLimits, Sender
from state_store.meta import look_at_fleet
from state_store.outbox import Outbox
from state_store.outboxes import Outboxes
from state_store.route import Route
from state_store.ticks import REQUEST_ID_BYTES_MAX

_TEXT = (str, bytes)
_ASSETS_KNOWN_MAX = 65_536
_LAST_FLUSH_S = 1.0
_FOLLOW_EVERY_S = 0.2


class TickProducer:
    """Use as `async with TickProducer(url) as producer: await producer.send(asset, value, timestamp_ns)`."""

    def __init__(
        self,
        url: str,
        namespace: str = "usp",
        name: str | None = None,
        *,
        frames: bool = False,
        limits: ProducerLimits | None = None,
        timeouts: Timeouts | None = None,
    ):
        """With `frames`, ticks of a partition that go together are one entry of its log, which is cheaper for all."""
        self.name = name or f"producer-{token_hex(6)}"
        self.frames = frames
        self.limits = limits or ProducerLimits()
        self.sent = 0
        self._address = Address.parse(url)
        self._keys = Keys(namespace)
        self._route = Route(self._address, timeouts or Timeouts())
        self._sender: Sender | None = None
        self._lanes: dict[Address, Lane] = {}
        self._outboxes: Outboxes | None = None
        self._homes: dict[str | bytes, tuple[bytes, Outbox]] = {}
        self._last_ns = 0
        self._moved = asyncio.Condition()
        self._failure: BaseException | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._following: asyncio.Task[None] | None = None

    @property
    def accepted(self) -> int:
        """Ticks that the server has taken, each counted once."""
        return self._outboxes.accepted if self._outboxes is not None else 0

    @property
    def lost(self) -> int:
        """Ticks that the server had taken, lost in a failover, and that were no longer here to send again."""
        return self._outboxes.lost if self._outboxes is not None else 0

    @property
    def rewinds(self) -> int:
        """How often a server had lost ticks that it had taken."""
        return sum(lane.rewinds for lane in self._lanes.values())

    async def __aenter__(self) -> "TickProducer":
        meta, (seconds, microseconds) = await look_at_fleet(self._route, self._keys)
        self._keys = replace(self._keys, generation=meta.generation)
        session = int(seconds) * 1_000_000 + int(microseconds)
        self._outboxes = Outboxes(meta, self.limits.rewind_max, asset_of, session)
        shared = (self.name, session, meta.opening, self._keys, self.limits, self._route)
        self._sender = Sender(*shared, self._relocate, self._announce, self._follow, self.frames)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                await self.flush()
            else:
                with suppress(StateStoreError, TimeoutError):
                    async with asyncio.timeout(_LAST_FLUSH_S):
                        await self.flush()
        finally:
            self._failure = self._failure or StateStoreError(f"{self.name} is closed: no tick can be sent.")
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

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
        tick = (name, _value(asset, value), _time(asset, time_ns), _request_text(request_id))
        if len(outbox.waiting) >= self.limits.waiting_max or self._failure is not None:
            outbox = await self._with_room(asset)
        outbox.waiting.append(tick)
        self.sent += 1
        outbox.lane.waiting.set()
        if len(outbox.waiting) % self.limits.batch_size_max == 0:
            outbox.lane.hurry.set()
            await asyncio.sleep(0)

    async def _with_room(self, asset: str | bytes) -> Outbox:
        """The outbox of an asset; while one waits for room, the fleet may get other partitions."""
        while True:
            _, outbox = self._homes.get(asset) or self._home(asset)
            if len(outbox.waiting) < self.limits.waiting_max and self._failure is None:
                return outbox
            await self._wait_until(lambda outbox=outbox: len(outbox.waiting) < self.limits.waiting_max)

    async def flush(self) -> None:
        """Waits until the server has taken all sent so far; raises what stands in the way if nothing moves for long."""
        moved = True
        while moved:
            outboxes = self._outboxes
            for lane in self._lanes.values():
                lane.hurry.set()
            goals = [(outbox, outbox.acknowledged + len(outbox.waiting)) for outbox in self._all()]
            await self._wait_until(lambda outboxes=outboxes, goals=goals: self._outboxes is not outboxes or _met(goals))
            moved = self._outboxes is not outboxes

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
        obstacles = [outbox.obstacle for outbox in self._all() if outbox.waiting and outbox.obstacle]
        return obstacles[0] if obstacles else StoreUnavailable(f"{self._address} does not take ticks.")

    def _all(self) -> list[Outbox]:
        return list(self._outboxes.by_partition.values()) if self._outboxes is not None else []

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _home(self, asset: str | bytes) -> tuple[bytes, Outbox]:
        if self._outboxes is None:
            raise StateStoreError("This producer is not connected: use `async with TickProducer(...) as producer`.")
        # Half a surrogate pair passes here, to be refused below as not UTF-8.
        name = asset.encode(errors="surrogatepass") if isinstance(asset, str) else asset
        if fault := asset_fault(name):
            raise BadTick(f"{asset[:40]!r}: {fault}.")
        known = len(self._outboxes.by_partition)
        partition, outbox = self._outboxes.home(name)
        if len(self._outboxes.by_partition) > known:
            self._relocate(partition, outbox)
        if len(self._homes) >= _ASSETS_KNOWN_MAX:
            self._homes.clear()
        self._homes[asset] = name, outbox
        return name, outbox

    def _now_ns(self) -> int:
        self._last_ns = max(time.time_ns(), self._last_ns + 1)
        return self._last_ns

    def _relocate(self, partition: int, outbox: Outbox) -> None:
        """Gives an outbox to the lane of the node that has its partition, as far as is known."""
        assert self._sender is not None
        address = self._route.guess(self._keys.of(partition).ticks)
        if address not in self._lanes:
            self._lanes[address] = lane = Lane(address, self._sender)
            self._tasks.append(asyncio.create_task(self._run(lane), name=f"{self.name} sends to {address}"))
        self._lanes[address].take(partition, outbox)

    async def _run(self, lane: Lane) -> None:
        """An error that waiting cannot cure is raised by `send` and `flush`."""
        await self._watched(lane.run())

    async def _watched(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:
            self._failure = self._failure or error
            await self._announce()

    def _follow(self) -> None:
        """A partition takes no ticks: looks out for where the fleet is."""
        if self._following is None or self._following.done():
            following = self._watched(self._follow_fleet())
            self._following = asyncio.create_task(following, name=f"{self.name} follows its fleet")
            self._tasks.append(self._following)

    async def _follow_fleet(self) -> None:
        """Until no partition is closed; once all are, and the fleet is elsewhere, it is known what none of them has."""
        while self._outboxes is not None and self._outboxes.closed:
            await asyncio.sleep(_FOLLOW_EVERY_S)
            try:
                meta, _ = await look_at_fleet(self._route, self._keys)
            except StoreUnavailable as error:
                self._route.heed(error)
                continue
            if self._outboxes.may_move(meta):
                self._move_to(meta)
                await self._announce()
            else:
                self._wake(self._lanes.values())

    def _wake(self, lanes: Iterable[Lane]) -> None:
        for lane in lanes:
            lane.waiting.set()
            lane.hurry.set()

    def _move_to(self, meta: Meta) -> None:
        """Takes what waits to the partitions of another generation, in one go."""
        assert self._sender is not None and self._outboxes is not None
        self._homes = {}
        for lane in self._lanes.values():
            lane.outboxes.clear()
        self._outboxes = self._outboxes.moved_to(meta)
        self._keys = self._sender.keys = replace(self._keys, generation=self._outboxes.generation)
        self._sender.session, self._sender.opening = self._outboxes.session, self._outboxes.opening
        for partition, outbox in self._outboxes.by_partition.items():
            self._relocate(partition, outbox)

    async def _announce(self) -> None:
        async with self._moved:
            self._moved.notify_all()


def _met(goals: list[tuple[Outbox, int]]) -> bool:
    return all(outbox.acknowledged >= goal for outbox, goal in goals)


def _value(asset: str | bytes, value: SupportsFloat) -> float:
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
    return number


def _time(asset: str | bytes, time_ns: SupportsIndex) -> int:
    try:
        number = index(time_ns)
    except TypeError:
        raise BadTick(f"{asset!r}: the timestamp {str(time_ns)[:40]!r} is not an integer of nanoseconds.") from None
    if not -(2**63) <= number < 2**63:
        raise BadTick(f"{asset!r}: the timestamp does not fit 64 bits.")
    return number


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
