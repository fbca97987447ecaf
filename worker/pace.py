"""How a worker goes: it tells running sums, and whoever looks takes differences over the last few seconds. Pure."""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from worker.metrics import SECONDS, Metrics

WINDOW_S = 5.0
PERCENTILES = (50, 95, 99)


def account(metrics: Metrics) -> dict[str, Any]:
    """The sums of a worker since its start, small enough to be told with every heartbeat."""
    sums = {sample.name: sample.value for sample in _samples(metrics.batch_ticks)}
    below = [sample.value for sample in _samples(metrics.tick_latency_seconds) if "le" in sample.labels]
    return {
        "batches": int(sums["predictor_batch_ticks_count"]),
        "ticks": int(sums["predictor_batch_ticks_sum"]),
        "latency": [int(many - fewer) for fewer, many in zip([0, *below], below, strict=False)],
        "depth": int(_samples(metrics.depth)[0].value),
    }


def _samples(metric: Any) -> list[Any]:
    return metric.collect()[0].samples


@dataclass(frozen=True)
class Strides:
    """What was done within a while."""

    batches: int = 0
    ticks: int = 0
    latency: tuple[int, ...] = ()  # Commits by how long their oldest tick had waited, a count for each of SECONDS.

    @property
    def batch_ticks(self) -> float | None:
        """Ticks in a micro-batch, on average."""
        return self.ticks / self.batches if self.batches else None

    @property
    def latency_ms(self) -> dict[str, float]:
        """From a tick's arrival to its commit, read off the buckets; NaN where nothing was committed."""
        return {f"p{percent}": 1e3 * _percentile(self.latency, percent / 100) for percent in PERCENTILES}


def together(strides: Sequence[Strides]) -> Strides:
    """All workers as one."""
    columns = zip(*(one.latency for one in strides if one.latency), strict=True)
    return Strides(
        sum(one.batches for one in strides), sum(one.ticks for one in strides), tuple(sum(column) for column in columns)
    )


class Pace:
    """The sums that one worker told lately."""

    def __init__(self) -> None:
        self._told: deque[tuple[float, Strides]] = deque()

    def note(self, now_s: float, told: Mapping[str, Any]) -> Strides:
        """Takes what the worker tells now; gives what it did in the window that ends here."""
        sums = _read(told)
        if sums is None or (self._told and sums.batches < self._told[-1][1].batches):
            self._told.clear()  # started anew, or it tells nothing
        if sums is None:
            return Strides()
        self._told.append((now_s, sums))
        while now_s - self._told[0][0] > WINDOW_S:
            self._told.popleft()
        first = self._told[0][1]
        latency = tuple(now - then for now, then in zip(sums.latency, first.latency, strict=True))
        return Strides(sums.batches - first.batches, sums.ticks - first.ticks, latency)


def _read(told: Mapping[str, Any]) -> Strides | None:
    """The sums; None from a worker of another build that tells none, or others."""
    try:
        sums = Strides(int(told["batches"]), int(told["ticks"]), tuple(map(int, told["latency"])))
    except (KeyError, TypeError, ValueError):
        return None
    return sums if len(sums.latency) == len(SECONDS) + 1 else None


def _percentile(counts: Sequence[int], share: float) -> float:
    """The place in seconds below which this share lies, as if each bucket were evenly filled."""
    wanted, below = share * sum(counts), 0
    if not wanted:
        return math.nan
    for index, count in enumerate(counts[:-1]):
        if below + count >= wanted:
            low = SECONDS[index - 1] if index else 0.0
            return low + (SECONDS[index] - low) * (wanted - below) / count
        below += count
    return SECONDS[-1]
