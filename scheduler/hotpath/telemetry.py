"""A digest is what the tuner learns about one window of one configuration, in 88 bytes.

    +-----------+-----------+---------+-----------+------------+--------------------------------+--------+-------+
    | window us | objective | samples | timestamp | generation | p99 us, rate, errors, margin   | source | since |
    | u64       | f64       | u64     | u64       | u64        | f64 x 4, NaN where not known   | u64    | i64   |
    +-----------+-----------+---------+-----------+------------+--------------------------------+--------+-------+

Integers and floats are little endian.
"""

import enum
import math
import struct
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from scheduler.hotpath.checks import require

_FORMAT = struct.Struct("<QdQQQddddQq")
DIGEST_BYTES = _FORMAT.size


@dataclass(frozen=True)
class TelemetryDigest:
    """One window of observations; `timestamp_us` is its end, a positive margin means all constraints hold."""

    window_us: int
    objective_value: float
    sample_count: int
    timestamp_us: int
    config_generation: int
    latency_p99_us: float | None = None
    throughput_rps: float | None = None
    error_rate: float | None = None
    constraint_margin: float | None = None
    source_id: int = 0
    since_apply_us: int | None = None  # By the source's own clock; decides settling where clocks differ.

    def pack(self) -> bytes:
        optional = (self.latency_p99_us, self.throughput_rps, self.error_rate, self.constraint_margin)
        since = -1 if self.since_apply_us is None else self.since_apply_us
        return _FORMAT.pack(
            self.window_us, self.objective_value, self.sample_count, self.timestamp_us, self.config_generation,
            *(math.nan if value is None else value for value in optional), self.source_id, since,
        )  # fmt: skip

    @staticmethod
    def unpack(packed: bytes) -> "TelemetryDigest":
        numbers = _FORMAT.unpack(packed)
        p99, rate, errors, margin = (None if math.isnan(value) else value for value in numbers[5:9])
        source, since = numbers[9], None if numbers[10] < 0 else numbers[10]
        window, objective, samples, timestamp, generation = numbers[:5]
        return TelemetryDigest(
            window, objective, samples, timestamp, generation, p99, rate, errors, margin, source, since
        )


class DigestValidity(enum.Enum):
    VALID = "valid"
    INVALID = "invalid"
    WRONG_GENERATION = "wrong_generation"
    SETTLING = "settling"
    TOO_OLD = "too_old"
    FUTURE = "future"


@dataclass(frozen=True)
class DigestRules:
    """When a digest may be believed."""

    settle_time_us: int = 10_000
    max_age_us: int = 1_000_000
    max_skew_us: int = 100_000


def validate(
    digest: TelemetryDigest, generation: int, applied_us: int | None, now_us: int, rules: DigestRules
) -> DigestValidity:
    """Says whether a digest speaks of this generation, settled and fresh; the first objection wins."""
    if not _sound(digest):
        return DigestValidity.INVALID
    if digest.config_generation != generation:
        return DigestValidity.WRONG_GENERATION
    if _settling(digest, applied_us, rules):
        return DigestValidity.SETTLING
    if now_us - digest.timestamp_us > rules.max_age_us:
        return DigestValidity.TOO_OLD
    if digest.timestamp_us - now_us > rules.max_skew_us:
        return DigestValidity.FUTURE
    return DigestValidity.VALID


def _sound(digest: TelemetryDigest) -> bool:
    optional = (digest.latency_p99_us, digest.throughput_rps, digest.error_rate, digest.constraint_margin)
    numbers = (digest.objective_value, *(value for value in optional if value is not None))
    return digest.sample_count >= 1 and all(map(math.isfinite, numbers))


def _settling(digest: TelemetryDigest, applied_us: int | None, rules: DigestRules) -> bool:
    if digest.since_apply_us is not None:
        return digest.since_apply_us < rules.settle_time_us
    return applied_us is not None and digest.timestamp_us < applied_us + rules.settle_time_us


class TelemetryRing:
    """The last digests; when full the oldest goes and is counted."""

    def __init__(self, capacity: int = 1024):
        require(capacity >= 1, "capacity", "at least 1", capacity)
        self.drop_count = 0
        self._digests: deque[TelemetryDigest] = deque(maxlen=capacity)

    def __len__(self) -> int:
        return len(self._digests)

    def __iter__(self) -> Iterator[TelemetryDigest]:
        return iter(tuple(self._digests))

    def push(self, digest: TelemetryDigest) -> None:
        self.drop_count += len(self._digests) == self._digests.maxlen
        self._digests.append(digest)

    def clear(self) -> None:
        self._digests.clear()

    def collect_valid(self, judge: Callable[[TelemetryDigest], DigestValidity]) -> list[TelemetryDigest]:
        return [digest for digest in self._digests if judge(digest) is DigestValidity.VALID]
