"""Feeds a fleet from a synthetic market or a file, and says what became of it."""

import asyncio
import signal
import time
from dataclasses import dataclass

from state_store import TickProducer
from worker.feeding import Sent, feed_all, feed_live
from worker.settings import Settings
from worker.synthetic import Tick, ticks
from worker.ticksfile import TicksFile


@dataclass(frozen=True)
class Market:
    """What to make up."""

    assets: int
    rate: float
    seconds: float | None
    seed: int


async def feed_market(settings: Settings, market: Market, frames: bool = False) -> dict[str, float | int]:
    """Sends synthetic ticks, stamped with the moment at which they are due."""
    sent, stop = Sent(), _stop_on_signals()
    async with TickProducer(settings.redis.url, settings.redis.namespace, frames=frames) as producer:
        source = ticks(market.assets, market.rate, market.seed, time.time_ns())
        await feed_live(producer, source, sent, stop, market.seconds)
    return _summary(producer, sent)


async def feed_file(
    settings: Settings, file: TicksFile, rate: float | None, frames: bool = False
) -> dict[str, float | int]:
    """Sends a file's ticks with their own event times."""
    sent, stop = Sent(), _stop_on_signals()
    async with TickProducer(settings.redis.url, settings.redis.namespace, frames=frames) as producer:
        source = map(Tick, file.assets, file.values.tolist(), file.times_ns.tolist())
        await feed_all(producer, source, sent, stop, rate)
    return _summary(producer, sent)


def _summary(producer: TickProducer, sent: Sent) -> dict[str, float | int]:
    return {
        "ticks_sent": sent.ticks,
        "ticks_taken": producer.accepted,
        "ticks_lost": producer.lost,
        "rewinds": producer.rewinds,
        "seconds": round(sent.seconds, 3),
        "ticks_per_second": round(sent.rate, 1),
    }


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop
