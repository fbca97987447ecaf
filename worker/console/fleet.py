"""One moment of a fleet as a value, and what has changed since the moment before. Pure; page and terminal share it."""

from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from state_store.glances import ServerFacts
from worker.lag import totals
from worker.pace import together
from worker.watch import NOBODY, PartitionView, WorkerView

MOVES_KEPT = 40
MOMENTS_KEPT = 180


class Move(NamedTuple):
    """A partition that changed hands."""

    at_ms: int
    partition: int
    before: str
    after: str


class Moment(NamedTuple):
    """What a small chart of the past shows."""

    at_ms: int
    rate: float | None
    backlog: int
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Fleet:
    """Who holds what, how much waits, how fast it goes, and how the server is."""

    at_ms: int
    partitions: list[PartitionView]
    workers: list[WorkerView]
    assets: int = 0
    rejected: int = 0
    server: ServerFacts = field(default_factory=ServerFacts)

    @property
    def latency_ms(self) -> dict[str, float]:
        """From a tick's arrival to its commit, over the last seconds."""
        return together([worker.strides for worker in self.workers]).latency_ms

    @property
    def moment(self) -> Moment:
        sums, latency = totals(self.partitions), self.latency_ms
        return Moment(self.at_ms, sums["rate"], int(sums["backlog"] or 0), latency["p50"], latency["p99"])

    def told(self) -> dict[str, Any]:
        """Plain values for the page; of a partition a short row, since there may be thousands."""
        strides = together([worker.strides for worker in self.workers])
        names = [worker.name for worker in self.workers]
        place = {name: index for index, name in enumerate(names)} | {NOBODY: -1}
        sums = totals(self.partitions) | {"assets": self.assets, "rejected": self.rejected}
        return {
            "at_ms": self.at_ms,
            "totals": sums | {"latency_ms": strides.latency_ms, "batch_ticks": strides.batch_ticks},
            "workers": [_worker(worker) for worker in self.workers],
            "partitions": [_partition(view, place[view.owner]) for view in self.partitions],
            "server": asdict(self.server),
        }


def _partition(view: PartitionView, owner: int) -> list[Any]:
    return [owner, view.backlog, view.rate and round(view.rate, 1), round(view.oldest_s, 2), view.sealed]


def _worker(worker: WorkerView) -> dict[str, Any]:
    return {
        "name": worker.name,
        "gone": worker.gone,
        "silent_s": worker.silent_s,
        "held": len(worker.partitions),
        "backlog": worker.backlog,
        "rate": worker.rate,
        "batch_ticks": worker.strides.batch_ticks,
        "latency_ms": worker.strides.latency_ms,
        "depth": worker.depth,
    }


class Past:
    """What happened lately: totals for a small chart, and partitions that changed hands."""

    def __init__(self) -> None:
        self.moments: deque[Moment] = deque(maxlen=MOMENTS_KEPT)
        self.moves: deque[Move] = deque(maxlen=MOVES_KEPT)
        self._owners: dict[int, str] = {}  # The last that had one: a pause between two owners is no move.

    def note(self, fleet: Fleet) -> None:
        self.moments.append(fleet.moment)
        for view in fleet.partitions:
            before = self._owners.get(view.partition)
            if view.owner == NOBODY or view.owner == before:
                continue
            if before is not None:
                self.moves.append(Move(fleet.at_ms, view.partition, before, view.owner))
            self._owners[view.partition] = view.owner
