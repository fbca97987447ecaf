"""A whole fleet on one machine, watched: embedded Redis, worker processes, a synthetic feed, a reader, an audit.

    feed --> Redis <--> worker-1, worker-2, ...
               |
               +--> reader (latency, live view)
               +--> audit  (every tick, prediction and dead letter read back and matched)
"""

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from state_store import EmbeddedRedis, PredictionReader, RedisStateStore, TickProducer
from state_store.logs import Logs, Looking
from worker.audit import Audit
from worker.auditor import Auditor
from worker.children import Child, Children
from worker.console.serve import any_console
from worker.feeding import Sent, feed_live
from worker.latencies import Latencies
from worker.picture import Picture, Series, band
from worker.reach import open_store, with_url
from worker.screen import Screen
from worker.settings import Settings
from worker.synthetic import KINDS, Tick, asset_names, ticks
from worker.watch import Watch, total_rate

HOME = Path(".predictor")
PARTITIONS = 16
SHOW_EVERY_S = 0.25
AUDIT_EVERY_S = 5.0
CATCH_UP_MAX_S = 30.0
READ_BLOCK_MS = 50


@dataclass(frozen=True)
class Options:
    """What the demo is made of."""

    assets: int
    rate: float
    seconds: float | None
    workers: int
    seed: int
    config: Path | None


@dataclass
class Seen:
    """What the reader and the feed have seen so far."""

    predictions: int = 0
    latencies: Latencies = field(default_factory=Latencies)
    series: dict[str, Series] = field(default_factory=dict)


async def run_demo(settings: Settings, options: Options, screen: Screen) -> dict[str, Any]:
    """Runs until the time is over or Ctrl-C; the summary is computed from what Redis holds at the end."""
    stop = _stop_on_signals()
    with _home() as home:
        screen.phase("starting Redis")
        with EmbeddedRedis(home / "redis", keep=False) as server:
            settings = with_url(settings, server.url)
            async with any_console(settings) as address:
                screen.say(f"watch it in a browser: {address}")
                return await _run(settings, options, screen, home, stop)


async def _run(settings: Settings, options: Options, screen: Screen, home: Path, stop: asyncio.Event) -> dict[str, Any]:
    async with _fleet(settings, options, screen, home, stop) as children:
        if stop.is_set():
            return summary(Sent(), Seen(), Audit(), options.workers)
        async with open_store(settings) as store, Looking(settings.redis.url) as looking:
            auditor = Auditor(Logs(looking, settings.redis.namespace), PARTITIONS)
            show = Show(settings, options, screen, children, store, auditor)
            return await show.run(stop)


class Show:
    """The demo once its workers serve."""

    def __init__(
        self,
        settings: Settings,
        options: Options,
        screen: Screen,
        children: Children,
        store: RedisStateStore,
        auditor: Auditor,
    ) -> None:
        self._settings, self._options, self._screen, self._children = settings, options, screen, children
        self._store, self._auditor = store, auditor
        self._sent = Sent()
        self._seen = Seen(series={name: Series(name) for name in asset_names(min(options.assets, len(KINDS)))})
        self._started = time.monotonic()

    async def run(self, stop: asyncio.Event) -> dict[str, Any]:
        async with asyncio.TaskGroup() as tasks:
            watching = [tasks.create_task(work()) for work in (self._read, self._draw, self._audit)]
            await self._feed(stop)
            await self._catch_up()
            for task in watching:
                task.cancel()
        self._screen.phase("stopping the workers, which commit what they have in hand")
        await self._children.stop()
        return summary(self._sent, self._seen, await self._auditor.advance(), self._options.workers)

    async def _feed(self, stop: asyncio.Event) -> None:
        options, place = self._options, self._settings.redis
        async with TickProducer(place.url, place.namespace) as producer:
            source = ticks(options.assets, options.rate, options.seed, time.time_ns())
            await feed_live(producer, source, self._sent, stop, options.seconds, self._note_tick)

    async def _read(self) -> None:
        place = self._settings.redis
        async with PredictionReader(place.url, place.namespace, start="0") as reader:
            while True:
                for prediction in await reader.read(READ_BLOCK_MS):
                    self._seen.predictions += 1
                    self._seen.latencies.add((time.time_ns() - prediction.timestamp_ns) / 1e6)
                    if series := self._seen.series.get(prediction.asset):
                        series.predict(*band(prediction))

    async def _draw(self) -> None:
        watch = Watch(self._store, PARTITIONS)
        while True:
            views = await watch.look()
            self._screen.show(
                Picture(
                    title=f"{self._options.workers} workers, {PARTITIONS} partitions",
                    elapsed_s=time.monotonic() - self._started,
                    assets=self._options.assets,
                    ticks=self._seen.predictions,
                    rate=total_rate(views),
                    backlog=sum(view.backlog for view in views),
                    oldest_s=max(view.oldest_s for view in views),
                    latency_ms=self._seen.latencies.percentiles(),
                    workers=await watch.workers(views),
                    series=list(self._seen.series.values()),
                    note=self._note(),
                )
            )
            await asyncio.sleep(SHOW_EVERY_S)

    async def _audit(self) -> None:
        while True:
            await asyncio.sleep(AUDIT_EVERY_S)
            await self._auditor.advance()

    async def _catch_up(self) -> None:
        """Waits until every tick has its answer and the reader has read them all, or nothing moves any more."""
        deadline = time.monotonic() + CATCH_UP_MAX_S
        while time.monotonic() < deadline:
            audit = await self._auditor.advance()
            if not audit.missing and self._seen.predictions >= audit.predictions:
                return
            if not any(child.alive for child in self._children.all):
                return
            await asyncio.sleep(0.05)

    def _note_tick(self, tick: Tick) -> None:
        if series := self._seen.series.get(tick.asset):
            series.value(tick.timestamp_ns, tick.value)

    def _note(self) -> str:
        pids = "  ".join(f"{c.name}: {'pid ' + str(c.process.pid) if c.alive else c.phase}" for c in self._children.all)
        ready = f"the first worker was ready after {self._children.ready_s:.1f} s"
        return f"{pids}\n{ready}; end with Ctrl-C\nend a worker with kill -9 PID and watch the others take over"


def summary(sent: Sent, seen: Seen, audit: Audit, workers: int) -> dict[str, Any]:
    """What the demo says at its end; other programs rely on these names."""
    return {
        "ticks_sent": sent.ticks,
        "ticks_accepted": audit.accepted,
        "predictions_read": seen.predictions,
        "missing": audit.missing + max(0, sent.ticks - audit.ticks),
        "duplicated": audit.duplicated,
        "out_of_order": audit.out_of_order,
        "ticks_per_second": round(audit.accepted / sent.seconds, 1) if sent.seconds else 0.0,
        "latency_ms": seen.latencies.percentiles(),
        "workers": workers,
    }


def is_clean(result: dict[str, Any]) -> bool:
    """True when there were ticks and each accepted one has its one prediction, in order, and read."""
    faults = result["missing"] or result["duplicated"] or result["out_of_order"]
    return not faults and result["predictions_read"] == result["ticks_accepted"] > 0


@contextlib.asynccontextmanager
async def _fleet(
    settings: Settings, options: Options, screen: Screen, home: Path, stop: asyncio.Event
) -> AsyncIterator[Children]:
    """The worker processes, at least one of them serving; the others join when they are ready."""
    started = time.monotonic()

    def on_phase(_: Child) -> None:
        screen.phase("   ".join(f"{child.name}: {child.phase}" for child in children.all))

    children = Children(on_phase)
    try:
        screen.phase("starting the workers; the first start compiles the graph, later ones find it in .predictor/cache")
        await children.start(options.workers, settings, PARTITIONS, options.config, home)
        ready, stopped = asyncio.create_task(children.ready()), asyncio.create_task(stop.wait())
        await asyncio.wait({ready, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if ready.done():
            await ready
            children.ready_s = time.monotonic() - started
            screen.phase(f"the first worker is ready after {children.ready_s:.1f} s")
        else:
            ready.cancel()
        yield children
    finally:
        await children.stop()


@contextlib.contextmanager
def _home() -> Iterator[Path]:
    """A directory of this demo's own; those of demos that were killed are swept away."""
    HOME.mkdir(exist_ok=True)
    for old in HOME.glob("demo-*"):
        if _abandoned(old):
            shutil.rmtree(old, ignore_errors=True)
    home = Path(tempfile.mkdtemp(prefix="demo-", dir=HOME))
    lock = os.open(home / "alive", os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield home
    finally:
        os.close(lock)
        shutil.rmtree(home, ignore_errors=True)


def _abandoned(home: Path) -> bool:
    """True when the process that made it is gone: the lock goes with it."""
    try:
        lock = os.open(home / "alive", os.O_RDWR)
    except OSError:
        return False  # just being made, or being removed
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(lock)


def _stop_on_signals() -> asyncio.Event:
    """The first Ctrl-C ends the demo in order; the second ends it at once."""
    stop = asyncio.Event()

    def on_signal(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)  # redis and the workers end with us
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number)
    return stop
