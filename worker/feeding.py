"""Sends ticks at their time, whether or not the fleet keeps up: the load does not wait for the loaded."""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from state_store import TickProducer
from worker.synthetic import Tick

PACE_S = 0.005  # ticks due within this time go out together


@dataclass
class Sent:
    """How far a feed is."""

    ticks: int = 0
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        return self.ticks / self.seconds if self.seconds else 0.0


async def feed_live(
    producer: TickProducer,
    ticks: Iterable[Tick],
    sent: Sent,
    stop: asyncio.Event,
    seconds: float | None,
    on_tick: Callable[[Tick], None] | None = None,
) -> None:
    """Sends ticks when their event time comes, until `stop` or for `seconds`."""
    started = time.monotonic()
    for tick in ticks:
        ahead_s = tick.timestamp_ns / 1e9 - time.time()
        if ahead_s > 0:
            sent.seconds = time.monotonic() - started
            await asyncio.sleep(max(ahead_s, PACE_S))
        if stop.is_set() or (seconds is not None and time.monotonic() - started >= seconds):
            break
        await producer.send(tick.asset, tick.value, tick.timestamp_ns)
        sent.ticks += 1
        if on_tick:
            on_tick(tick)
    await producer.flush()
    sent.seconds = time.monotonic() - started


async def feed_all(
    producer: TickProducer, ticks: Iterable[Tick], sent: Sent, stop: asyncio.Event, rate: float | None
) -> None:
    """Sends ticks of any event time, as fast as the log takes them or at a rate."""
    started = time.monotonic()
    for tick in ticks:
        if rate is not None and (ahead_s := sent.ticks / rate - (time.monotonic() - started)) > 0:
            await asyncio.sleep(max(ahead_s, PACE_S))
        if stop.is_set():
            break
        await producer.send(tick.asset, tick.value, tick.timestamp_ns)
        sent.ticks += 1
        sent.seconds = time.monotonic() - started
    await producer.flush()
    sent.seconds = time.monotonic() - started
