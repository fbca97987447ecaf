"""Work on single partitions that may go on beside a worker's beats: one whose node hangs holds up no other.

A partition has one such work at a time. What the store refuses is told once, and tried again by a later beat.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from state_store import StoreFull, StoreUnavailable
from worker.metrics import Metrics

END_S_MAX = 2.0

log = logging.getLogger(__name__)


class Beside:
    """What was begun and is not done yet, by partition."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._begun: dict[int, asyncio.Task[None]] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._away: dict[int, str] = {}  # Partitions that the store refused last, and why.
        self._told: set[int] = set()

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """All of it ends with the group, and a fault in it ends the group."""
        self._tasks = tasks

    async def each(self, works: Mapping[int, Callable[[], Coroutine[Any, Any, None]]], wait_s: float) -> None:
        """Begins all of them at once, except where something is still under way, and waits a little for their end."""
        assert self._tasks is not None
        begun = {p: self._tasks.create_task(self._do(p, work)) for p, work in works.items() if p not in self._begun}
        self._begun |= begun
        for partition, task in begun.items():
            task.add_done_callback(lambda _, partition=partition: self._begun.pop(partition))
        if begun:
            await asyncio.wait(begun.values(), timeout=wait_s)
        self._tell()

    async def end(self) -> None:
        """Waits for what is under way, and gives up what hangs."""
        if self._begun:
            _, hanging = await asyncio.wait(list(self._begun.values()), timeout=END_S_MAX)
            for task in hanging:
                task.cancel()
            await asyncio.gather(*hanging, return_exceptions=True)

    async def _do(self, partition: int, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await work()
            self._away.pop(partition, None)
        except (StoreUnavailable, StoreFull) as error:
            self._metrics.store_refusals.labels("full" if isinstance(error, StoreFull) else "unavailable").inc()
            self._away[partition] = str(error)

    def _tell(self) -> None:
        """One line for all that became unreachable since the last."""
        new = self._away.keys() - self._told
        if new:
            log.warning("partitions_unreachable", extra={"partitions": sorted(new), "why": self._away[min(new)]})
        self._told = set(self._away)
