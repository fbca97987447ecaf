"""A running fleet in the live view: what `demo` shows, for a fleet that somebody else runs."""

import asyncio
import time

from state_store import PredictionReader, RedisStateStore
from worker.latencies import Latencies
from worker.lines import printable
from worker.picture import Picture, Series, band
from worker.reach import open_store
from worker.screen import open_screen
from worker.settings import Settings
from worker.watch import Watch, total_rate

SERIES_MAX = 8
SHOW_EVERY_S = 0.5
READ_BLOCK_MS = 100


async def watch_fleet(settings: Settings, seconds: float | None) -> None:
    """Draws until the time is over or Ctrl-C."""
    screen = open_screen(as_json=False)
    try:
        async with open_store(settings) as store, asyncio.timeout(seconds):
            await Top(settings, store).run(screen)
    except (TimeoutError, asyncio.CancelledError):
        pass
    finally:
        screen.close()


class Top:
    """Reads the newest predictions and looks at the partitions, in turn."""

    def __init__(self, settings: Settings, store: RedisStateStore) -> None:
        self._settings, self._store = settings, store
        self._series: dict[str, Series] = {}
        self._assets: set[str] = set()
        self._read = 0
        self._latencies = Latencies()

    async def run(self, screen) -> None:
        meta = await self._store.read_meta()
        watch, started = Watch(self._store, meta.partitions), time.monotonic()
        place = self._settings.redis
        async with PredictionReader(place.url, place.namespace, "latest") as reader:
            self._note(await reader.read(READ_BLOCK_MS), live=False)
            while True:
                shown = time.monotonic()
                views = await watch.look()
                screen.show(
                    Picture(
                        title=f"fleet {place.namespace}, {meta.partitions} partitions",
                        elapsed_s=time.monotonic() - started,
                        assets=len(self._assets),
                        ticks=sum(view.applied for view in views),
                        rate=total_rate(views),
                        backlog=sum(view.backlog for view in views),
                        oldest_s=max(view.oldest_s for view in views),
                        latency_ms=self._latencies.percentiles(),
                        workers=await watch.workers(views),
                        series=list(self._series.values()),
                        note="latency: from a tick's event time until its prediction was read here",
                    )
                )
                while time.monotonic() - shown < SHOW_EVERY_S:
                    self._note(await reader.read(READ_BLOCK_MS), live=True)

    def _note(self, predictions: list, live: bool) -> None:
        now_ns = time.time_ns()
        for prediction in predictions:
            self._assets.add(prediction.asset)
            if live:
                self._latencies.add((now_ns - prediction.timestamp_ns) / 1e6)
            if len(self._series) < SERIES_MAX:
                shown = printable(prediction.asset)
                self._series.setdefault(prediction.asset, Series(shown))
            if series := self._series.get(prediction.asset):
                series.predict(*band(prediction))
