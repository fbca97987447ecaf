"""Looks at a fleet from outside: per partition its owner, cursor, backlog, age and rate; per worker what it does."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from state_store import Probe, StateStore, WorkerInfo
from worker.pace import Pace, Strides

NOBODY = ""
AT_ONCE_MAX = 4  # the store has few connections for looking
SILENT_S = 2.0


@dataclass(frozen=True)
class PartitionView:
    """One partition at one moment."""

    partition: int
    owner: str
    cursor: str
    backlog: int
    oldest_s: float
    rate: float | None  # ticks applied per second since the look before; None at the first look
    applied: int
    trimmed: int
    lease_left_s: float
    sealed: str


@dataclass(frozen=True)
class WorkerView:
    """What one worker holds and does."""

    name: str
    partitions: tuple[int, ...]
    backlog: int
    rate: float | None
    silent_s: float | None  # since its last heartbeat; None: it holds leases but is not registered
    strides: Strides = Strides()  # of the last seconds
    depth: int | None = None

    @property
    def gone(self) -> bool:
        """It has not been heard of for longer than a worker is ever silent."""
        return self.silent_s is None or self.silent_s > SILENT_S


class Watch:
    """Remembers the last look, so that the next one has rates."""

    def __init__(self, store: StateStore, partitions: int, now: Callable[[], float] = time.monotonic) -> None:
        self._store, self._partitions, self._now = store, partitions, now
        self._before: dict[int, int] = {}
        self._room = asyncio.Semaphore(AT_ONCE_MAX)
        self._looked = 0.0
        self._paces: dict[str, Pace] = {}

    async def look(self) -> list[PartitionView]:
        """Every partition, now."""
        return self.views(await asyncio.gather(*(self._probe(p) for p in range(self._partitions))))

    def views(self, probes: Sequence[Probe]) -> list[PartitionView]:
        """Every partition, as these probes found it."""
        moment = self._now()
        views = [self._view(probe, moment - self._looked) for probe in probes]
        self._before, self._looked = {probe.partition: probe.applied for probe in probes}, moment
        return views

    async def workers(self, views: list[PartitionView]) -> list[WorkerView]:
        """Registered workers, and owners of leases that are not registered any more."""
        known = {info.name: info for info in await self._store.workers()}
        names = sorted({*known, *(view.owner for view in views if view.owner != NOBODY)})
        self._paces = {name: self._paces.get(name) or Pace() for name in known}
        return [self._worker(name, [v for v in views if v.owner == name], known.get(name)) for name in names]

    def _worker(self, name: str, held: list[PartitionView], known: WorkerInfo | None) -> WorkerView:
        backlog, partitions = sum(view.backlog for view in held), tuple(view.partition for view in held)
        view = WorkerView(name, partitions, backlog, total_rate(held), None)
        if known is None:
            return view
        did = known.info.get("did", {})
        strides = self._paces[name].note(self._now(), did)
        return replace(view, silent_s=known.age_ms / 1000, strides=strides, depth=did.get("depth"))

    async def _probe(self, partition: int) -> Probe:
        async with self._room:
            return await self._store.probe(partition)

    def _view(self, probe: Probe, seconds: float) -> PartitionView:
        before = self._before.get(probe.partition)
        return PartitionView(
            partition=probe.partition,
            owner=probe.owner if probe.lease_left_ms > 0 else NOBODY,
            cursor=probe.cursor.decode(),
            backlog=probe.backlog,
            oldest_s=probe.oldest_ms / 1000,
            rate=None if before is None else max(0.0, (probe.applied - before) / max(seconds, 1e-3)),
            applied=probe.applied,
            trimmed=probe.trimmed,
            lease_left_s=max(0, probe.lease_left_ms) / 1000,
            sealed=probe.seal,
        )


def total_rate(views: list[PartitionView]) -> float | None:
    """Ticks applied per second in all partitions; None at the first look."""
    rates = [view.rate for view in views if view.rate is not None]
    return sum(rates) if rates else None
