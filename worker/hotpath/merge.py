"""Collects the workers' digests until a window of the fleet is complete, and refuses those that cannot be true.

A window is complete when every worker has told of it, or when the rest is late by half a window. Who tells nonsense
more often than one time in ten is not listened to any more.
"""

from collections import Counter
from collections.abc import Collection

from scheduler.hotpath.trial import Sums
from worker.hotpath.digest import RefusedDigest, WorkerDigest, decode

LATE = 1.5  # windows
JUDGED_MIN = 10  # digests of a source before it can be sent away
INVALID_SHARE_MAX = 0.1
SOURCES_MAX = 4096
VALIDITIES = ("valid", "invalid", "wrong_generation", "settling", "too_old", "quarantined", "too_few", "saturated")


class Merger:
    """The digests of one configuration that wait for the others."""

    def __init__(self, digest_us: int, settle_us: int, samples_min: int) -> None:
        self.counts: Counter[str] = Counter()
        self.invalid_by: Counter[str] = Counter()
        self.total_by: Counter[str] = Counter()
        self._digest_us, self._settle_us, self._samples_min = digest_us, settle_us, samples_min
        self.losses: list[tuple[int, dict[int, Sums]]] = []  # with their generation of numbers, to be taken away
        self._waiting: dict[str, list[WorkerDigest]] = {}
        self._first_us = 0

    def take(self, source: str, payload: bytes, pair: tuple[int, int], now_us: int) -> None:
        """Keeps a digest of the present configuration; counts what it does not keep."""
        verdict = self._judge(source, payload, pair, now_us)
        self.counts[verdict] += 1

    def clear(self) -> None:
        """Another configuration is in force."""
        self._waiting.clear()

    def window(self, workers: Collection[str], now_us: int) -> list[WorkerDigest] | None:
        """The digests of a complete window; None while some are to come."""
        late = now_us - self._first_us >= LATE * self._digest_us
        if not self._waiting or not (late or all(worker in self._waiting for worker in workers)):
            return None
        digests = [digest for kept in self._waiting.values() for digest in kept]
        self._waiting.clear()
        if sum(digest.latency.count for digest in digests) < self._samples_min:
            self.counts["too_few"] += 1
            return None
        return digests

    def _judge(self, source: str, payload: bytes, pair: tuple[int, int], now_us: int) -> str:
        if self._is_sent_away(source):
            return "quarantined"
        self._count(self.total_by, source)
        try:
            digest = decode(payload)
        except RefusedDigest:
            self._count(self.invalid_by, source)
            return "invalid"
        if digest.losses:
            self.losses.append((digest.numbers, dict(digest.losses)))
        if digest.pair != pair:
            return "wrong_generation"
        if digest.since_us < self._settle_us:
            return "settling"
        if not self._waiting:
            self._first_us = now_us
        self._waiting.setdefault(source, []).append(digest)
        return "valid"

    def _is_sent_away(self, source: str) -> bool:
        total = self.total_by[source]
        return total >= JUDGED_MIN and self.invalid_by[source] > INVALID_SHARE_MAX * total

    def _count(self, counter: Counter[str], source: str) -> None:
        if len(counter) < SOURCES_MAX or source in counter:
            counter[source] += 1
