"""Makes the states again that a predecessor had not stored: from ticks after the stored ones whose predictions exist.

What was decided in the moment, the depth and the numbers, is taken from each prediction, so the rows are the very ones
that the predecessor had. No prediction is sent. The next commit stores the rows, or one on the way if they are many.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import numpy as np

from state_store import StateStore, Ticks
from state_store.contract import id_order
from worker.device import Answer, Device
from worker.errors import TicksGone
from worker.generations import Generations, Numbers
from worker.holding import Holding
from worker.keeping import Keeping
from worker.microbatch import Part, work_of
from worker.recall import alike, depth_of, made_by, ways_of

TICKS_AT_ONCE = 1024
HOLDINGS_AT_ONCE = 2  # in the table's slack beside the micro-batches in flight

log = logging.getLogger(__name__)


class Succession:
    """What has to be done for a holding before its first new tick is read."""

    def __init__(
        self, store: StateStore, device: Device, rows: Keeping, generations: Generations, full_depth: int
    ) -> None:
        self.store, self.device, self.rows, self.generations = store, device, rows, generations
        self.full_depth = full_depth
        self._places = asyncio.Semaphore(HOLDINGS_AT_ONCE)

    async def take_over(
        self, holding: Holding, rows_max: int, made_again: Callable[[Holding], Awaitable[None]]
    ) -> None:
        """Brings at most so many rows at once, and tells of each time. Raises StoreUnavailable, and TicksGone.

        Ends early for a worker that leaves: it stores what it has, and the next one goes on from there.
        """
        while holding.read_to != holding.cursor and not (holding.lost or holding.leaving):
            count = min(TICKS_AT_ONCE, rows_max)
            ticks = await self.store.read(holding.partition, holding.read_to, count, 0)
            ticks = ticks[: sum(id_order(id) <= id_order(holding.cursor) for id in ticks.ids)]
            if not ticks.ids:
                raise TicksGone(
                    f"partition {holding.partition}: ticks after its stored states, whose predictions exist, are gone "
                    "from its log: somebody trimmed it by hand. Put a backup back (predictor state import)"
                )
            made = await self.store.predictions(holding.partition, holding.read_to, ticks.ids[-1])
            async with self._places:
                await self._take_again(holding, ticks, made)
                holding.ahead.ticks += len(ticks)
                holding.read_to = ticks.ids[-1]
                await made_again(holding)

    async def _take_again(self, holding: Holding, ticks: Ticks, made: dict[bytes, bytes]) -> None:
        """Those without a prediction were put aside before, and changed nothing."""
        places = np.array([i for i, id in enumerate(ticks.ids) if id in made], np.int64)
        codes = holding.codes_of(ticks.assets)[places]
        await self.rows.load(holding, self.rows.use(holding, codes))
        whole = holding.slots[codes] >= 0  # without the quarantined
        places, codes = places[whole], codes[whole]
        self.rows.ahead(holding, codes)
        payloads = [made[ticks.ids[i]] for i in places.tolist()]
        ways, way_of = await self._ways(payloads, [ticks.assets[i] for i in places.tolist()])
        for group in alike(codes, way_of):
            part = Part(holding, ticks, {}, places[group], holding.slots[codes[group]])
            depth, numbers = ways[way_of[group[0]]]
            answer = await self.device.run(work_of([part], depth, [numbers]))
            _compare(holding, answer, [payloads[i] for i in group.tolist()], numbers)
        self.rows.done(holding.slots[codes])

    async def _ways(self, payloads: list[bytes], assets: list[bytes]) -> tuple[list[tuple[int, Numbers]], np.ndarray]:
        marks = list(map(made_by, payloads))
        if not self.generations.know(marks):
            self.generations.learn(await self.store.config_history())
        depths = [depth_of(payload, self.full_depth) for payload in payloads]
        return ways_of(depths, map(self.generations.numbers_of, assets, marks))


def _compare(holding: Holding, answer: Answer, made: list[bytes], numbers: Numbers) -> None:
    """The same build makes the same bytes again; anything else has to be looked into."""
    again = zip(answer.payloads.tolist(), answer.results["rejected"].tolist(), made, strict=True)
    differing = sum(not rejected and new != old and made_by(old) == numbers.made_by for new, rejected, old in again)
    if differing:
        log.error("recall_differs", extra={"partition": holding.partition, "predictions": differing})
