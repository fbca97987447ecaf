"""Latencies of many workers in one distribution: counts in fixed logarithmic buckets, which add up exactly.

Sixteen buckets an octave from 1 microsecond to about 18 minutes: a quantile is right within 2.2 per cent. Percentiles
of workers cannot be averaged; their histograms can be added.

    encoded: for each bucket that is not empty, its index (u16) and its count (u64), little endian, ascending
"""

import numpy as np

from scheduler.hotpath.checks import require

_BUCKETS_PER_OCTAVE = 16
_OCTAVES = 30
_BUCKETS = _BUCKETS_PER_OCTAVE * _OCTAVES
_LOWEST_NS = 1_000.0
_ENTRY = np.dtype([("bucket", "<u2"), ("count", "<u8")])


class LatencyHistogram:
    """Counts of latencies; `record` changes it, `merge` makes a new one."""

    def __init__(self, counts: np.ndarray | None = None):
        self.counts = np.zeros(_BUCKETS, dtype=np.int64) if counts is None else counts

    @property
    def count(self) -> int:
        return int(self.counts.sum())

    def record(self, latencies_ns: np.ndarray) -> None:
        """Counts a batch of latencies; what is below or above the range goes to the outermost bucket."""
        ratio = np.maximum(np.asarray(latencies_ns, dtype=np.float64), _LOWEST_NS) / _LOWEST_NS
        buckets = np.minimum((np.log2(ratio) * _BUCKETS_PER_OCTAVE).astype(np.int64), _BUCKETS - 1)
        self.counts += np.bincount(buckets, minlength=_BUCKETS)

    def merge(self, other: "LatencyHistogram") -> "LatencyHistogram":
        return LatencyHistogram(self.counts + other.counts)

    def quantile(self, level: float) -> float:
        """The latency in nanoseconds below which that share of the counts lies; the middle of its bucket."""
        require(0 <= level <= 1, "level", "in 0..1", level)
        require(self.count > 0, "histogram", "not empty to have quantiles", "no latencies")
        rank = max(1, int(np.ceil(level * self.count)))
        bucket = int(np.searchsorted(np.cumsum(self.counts), rank))
        return _LOWEST_NS * 2.0 ** ((bucket + 0.5) / _BUCKETS_PER_OCTAVE)

    def encode(self) -> bytes:
        filled = np.flatnonzero(self.counts)
        entries = np.empty(len(filled), dtype=_ENTRY)
        entries["bucket"], entries["count"] = filled, self.counts[filled]
        return entries.tobytes()

    @staticmethod
    def decode(encoded: bytes) -> "LatencyHistogram":
        require(len(encoded) % _ENTRY.itemsize == 0, "encoded histogram", "whole entries", f"{len(encoded)} bytes")
        entries = np.frombuffer(encoded, dtype=_ENTRY)
        require(bool((entries["bucket"] < _BUCKETS).all()), "buckets", f"below {_BUCKETS}", entries["bucket"])
        counts = np.zeros(_BUCKETS, dtype=np.int64)
        counts[entries["bucket"]] = entries["count"]
        return LatencyHistogram(counts)
