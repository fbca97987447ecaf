"""A running fleet in the terminal: the console's board, drawn instead of served; a few assets are followed."""

import asyncio
import time
from contextlib import ExitStack

from state_store.glances import Glances
from state_store.logs import Looking
from worker.console import names
from worker.console.asset import Trail
from worker.console.board import TIMEOUTS, Board
from worker.console.fleet import Fleet
from worker.lines import printable
from worker.picture import Picture, Series
from worker.reach import open_store
from worker.screen import Screen, open_screen
from worker.settings import Settings

SERIES_MAX = 8
SHOW_EVERY_S = 0.5
NOTE = "latency: from a tick's arrival to its commit, the oldest of each batch, over the last seconds"


async def watch_fleet(settings: Settings, seconds: float | None) -> None:
    """Draws until the time is over or Ctrl-C."""
    screen = open_screen(as_json=False)
    try:
        assets = await first_assets(settings)
        async with asyncio.timeout(seconds):
            await draw(settings, assets, screen)
    except (TimeoutError, asyncio.CancelledError):
        pass
    finally:
        screen.close()


async def first_assets(settings: Settings) -> list[str]:
    """A few assets; raises what there is to say about a fleet that cannot be looked at."""
    place = settings.redis
    async with open_store(settings) as store, Looking(place.url, TIMEOUTS) as looking:
        meta = await store.read_meta()
        glances = Glances(looking, place.namespace, meta.partitions, meta.generation)
        found = await names.search(glances, meta.partitions, "")
    return found.names[:SERIES_MAX]


async def draw(settings: Settings, assets: list[str], screen: Screen) -> None:
    """Until it is cancelled."""
    board, started = Board(settings), time.monotonic()
    with ExitStack() as looking:
        for asset in assets or [""]:
            looking.enter_context(board.looked_at(asset))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(board.run())
            while True:
                if board.waiting or board.fleet is None:
                    screen.phase(f"waiting: {board.waiting}")
                else:
                    title = f"fleet {settings.redis.namespace}, {len(board.fleet.partitions)} partitions"
                    screen.show(picture_of(board.fleet, _trails(board, assets), title, time.monotonic() - started))
                await asyncio.sleep(SHOW_EVERY_S)


def _trails(board: Board, assets: list[str]) -> dict[str, Trail]:
    return {asset: board.followers[asset].trail for asset in assets if asset in board.followers}


def picture_of(fleet: Fleet, trails: dict[str, Trail], title: str, elapsed_s: float) -> Picture:
    """The same moment that the page shows, for a terminal."""
    return Picture(
        title=title,
        elapsed_s=elapsed_s,
        assets=fleet.assets,
        ticks=sum(view.applied for view in fleet.partitions),
        rate=fleet.moment.rate,
        backlog=fleet.moment.backlog,
        oldest_s=max(view.oldest_s for view in fleet.partitions),
        latency_ms=fleet.latency_ms,
        workers=fleet.workers,
        series=[_series(asset, trail) for asset, trail in trails.items() if trail.points],
        note=NOTE,
    )


def _series(asset: str, trail: Trail) -> Series:
    last = trail.points[-1]
    series = Series(printable(asset), prediction=last.forecast, lower=last.lower, upper=last.upper)
    series.values.extend(point.value for point in trail.points if point.value is not None)
    series.covered, series.judged = trail.covered, trail.judged
    return series
