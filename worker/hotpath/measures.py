"""What a worker measures for the tuner, once for each committed micro-batch, all its ticks at once or a sample of them.

A window belongs to one configuration. It is cut when another one comes; a micro-batch that was formed under the old
one and commits later is in no window at all.
"""

import logging
import time
from collections import deque
from collections.abc import Callable

import numpy as np

from scheduler.hotpath import LatencyHistogram
from worker.device import Answer
from worker.hotpath.digest import WorkerDigest
from worker.hotpath.knobs import Knobs
from worker.hotpath.losses import Losses
from worker.hotpath.machine import machine_seconds
from worker.microbatch import MicroBatch
from worker.rows import RowTable

DIGESTS_KEPT_MAX = 64  # not yet sent
CLOCK_STEP_NS = 250_000_000  # beyond what the two answers leave open
SAMPLED_MAX = 256  # latencies of one micro-batch
WATCHED = 64  # rows whose forecasts are followed: the first that this worker has had, all their ticks


log = logging.getLogger(__name__)


class Measures:
    """The open window, and the digests of those that were cut."""

    def __init__(
        self,
        table: RowTable,
        knobs: Knobs,
        digest_s: float,
        settle_s: float,
        clock: Callable[[], float] = time.monotonic,
        cpu: Callable[[], float] = time.process_time,
        losses: Losses | None = None,
        machine: Callable[[], tuple[float, float]] = machine_seconds,
    ) -> None:
        self.digest_s, self.settle_s = digest_s, settle_s
        self.offset_ns: int | None = None  # from this worker's monotonic clock to the server's
        self._offset_open_ns = 0  # how far it may be off
        self.digests: deque[WorkerDigest] = deque(maxlen=DIGESTS_KEPT_MAX)
        self._clock, self._cpu, self._machine, self._losses = clock, cpu, machine, losses
        self._forecasts = _Forecasts(table)
        self._counted = (0, 0)
        self._knobs, self._swapped_s = knobs, clock()
        self._open(self._swapped_s)

    def swap(self, knobs: Knobs, now_s: float) -> None:
        """From now on another configuration is in force."""
        self._cut(now_s)
        self._knobs, self._swapped_s = knobs, now_s
        self._open(now_s)

    def look(self, now_s: float) -> None:
        """Cuts a window that is long enough; the first one lasts as long as the change needs to settle."""
        settling = self._began_s == self._swapped_s and self.settle_s > 0
        if now_s - self._began_s >= (self.settle_s if settling else self.digest_s):
            self._cut(now_s)
            self._open(now_s)

    def set_server_clock(self, now_us: int, asked_s: float, answered_s: float) -> None:
        """Learns how far the server's clock is from ours; the answer was made half-way.

        Latencies across a step of that clock are of the step: what was not sent yet is thrown away, and all settles.
        """
        known_ns, known_open_ns = self.offset_ns, self._offset_open_ns
        self.offset_ns = now_us * 1000 - int((asked_s + answered_s) / 2 * 1e9)
        self._offset_open_ns = int((answered_s - asked_s) / 2 * 1e9)
        open_ns = CLOCK_STEP_NS + known_open_ns + self._offset_open_ns
        if known_ns is not None and abs(self.offset_ns - known_ns) > open_ns:
            log.warning("hotpath_clock_step", extra={"seconds": (self.offset_ns - known_ns) / 1e9})
            self.digests.clear()
            self._swapped_s = answered_s
            self._open(answered_s)

    def count(self, predictions: int, rejected: int) -> None:
        """Takes what one partition's commit held, before its micro-batch as a whole."""
        self._counted = self._counted[0] + predictions, self._counted[1] + rejected

    def committed(self, batch: MicroBatch, answer: Answer) -> None:
        """Takes a micro-batch whose effects are stored."""
        work, results = batch.work, answer.results
        if self._losses is not None:
            self._losses.committed(batch, answer, self._clock())
        watched = np.flatnonzero(work.slots < WATCHED)
        watched = watched[results["rejected"][watched] == 0]
        forecasts = results["reference_prediction"][watched]
        error, naive = self._forecasts.follow(work.slots[watched], work.values[watched], forecasts)
        count, (predictions, rejected) = len(work.slots), self._counted
        self._counted = (0, 0)
        if batch.knobs is not self._knobs or self.offset_ns is None or not count:
            return
        now_ns = int(self._clock() * 1e9) + self.offset_ns
        self._latency.record(now_ns - work.arrivals_ns[:: -(-count // SAMPLED_MAX)])
        age_s = max(0.0, (now_ns - int(work.arrivals_ns.min())) / 1e9)
        self._ages_s += age_s
        self._age_max_s = max(self._age_max_s, age_s)
        self._batches += 1
        self._busy_s += answer.seconds
        self._predictions += predictions
        self._rejected += rejected
        self._error += error
        self._naive += naive

    def _open(self, now_s: float) -> None:
        self._began_s, self._began_cpu_s, self._began_machine = now_s, self._cpu(), self._machine()
        self._latency = LatencyHistogram()
        self._ages_s = self._age_max_s = self._error = self._naive = self._busy_s = 0.0
        self._batches = self._predictions = self._rejected = 0

    def _cut(self, now_s: float) -> None:
        window_us = int((now_s - self._began_s) * 1e6)
        if window_us < 1:
            return
        numbers, losses = self._losses.take() if self._losses is not None else (0, {})
        busy_s, spent_s = (now - then for now, then in zip(self._machine(), self._began_machine, strict=True))
        self.digests.append(
            WorkerDigest(
                fence=self._knobs.fence,
                generation=self._knobs.generation,
                since_us=int((self._began_s - self._swapped_s) * 1e6),
                window_us=window_us,
                latency=self._latency,
                ages_s=self._ages_s,
                age_max_s=self._age_max_s,
                batches=self._batches,
                cpu_s=max(0.0, self._cpu() - self._began_cpu_s),
                predictions=self._predictions,
                rejected=self._rejected,
                error=self._error,
                naive=self._naive,
                busy_s=self._busy_s,
                machine_busy_s=max(0.0, busy_s),
                machine_s=max(0.0, spent_s),
                numbers=numbers,
                losses=losses,
            )
        )


class _Forecasts:
    """The last value of each watched row and the forecast that was made after it."""

    def __init__(self, table: RowTable) -> None:
        self._table = table
        self._tenancy = np.full(WATCHED, -1, np.int64)
        self._values = np.zeros(WATCHED)
        self._forecasts = np.zeros(WATCHED)

    def follow(self, slots: np.ndarray, values: np.ndarray, forecasts: np.ndarray) -> tuple[float, float]:
        """Adds ticks in their order; the sums of what the forecasts before them missed, and of what "as before" did."""
        if not len(slots):
            return 0.0, 0.0
        order = np.argsort(slots, kind="stable")
        slots, values, forecasts = slots[order], values[order], forecasts[order]
        first = np.empty(len(slots), bool)
        first[0] = True
        np.not_equal(slots[1:], slots[:-1], out=first[1:])
        heads, before, forecast = slots[first], np.roll(values, 1), np.roll(forecasts, 1)
        before[first], forecast[first] = self._values[heads], self._forecasts[heads]
        known = np.isfinite(forecast)
        known[first] &= self._tenancy[heads] == self._table.tenancy[heads]
        error = float(np.abs(values - forecast)[known].sum())
        naive = float(np.abs(values - before)[known].sum())
        last = np.roll(first, -1)
        tails = slots[last]
        self._values[tails], self._forecasts[tails] = values[last], forecasts[last]
        self._tenancy[tails] = self._table.tenancy[tails]
        return error, naive
