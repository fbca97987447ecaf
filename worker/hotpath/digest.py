"""What one worker tells of one window of one configuration: counts and sums that add up over the fleet.

    latency, from arrival to commit   a histogram; percentiles of workers cannot be averaged
    age                               of the oldest tick of each micro-batch when it was committed
    CPU, predictions, rejected
    error, naive                      of the forecasts and of "as before", on the same ticks
    busy, machine                     how long the graph ran; how long the machine's processors were busy, and could be
    numbers, losses                   while a canary is tried: the generation, and what each group's forecasts lost

MessagePack of the fields in their order, the schema first.
"""

import math
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field, fields, replace

import msgpack

from scheduler.errors import BadRules
from scheduler.hotpath import LatencyHistogram
from scheduler.hotpath.trial import Sums

SCHEMA = 2
BYTES_MAX = 32_768
GROUPS_MAX = 64
WINDOW_US_MAX = 3_600_000_000


class RefusedDigest(Exception):
    """A digest that says what cannot be."""


@dataclass(frozen=True)
class WorkerDigest:
    """One window; `since_us` is how long the configuration was in force when the window began."""

    fence: int
    generation: int
    since_us: int
    window_us: int
    latency: LatencyHistogram = field(compare=False)
    ages_s: float = 0.0
    age_max_s: float = 0.0
    batches: int = 0
    cpu_s: float = 0.0
    predictions: int = 0
    rejected: int = 0
    error: float = 0.0
    naive: float = 0.0
    busy_s: float = 0.0
    machine_busy_s: float = 0.0
    machine_s: float = 0.0
    numbers: int = 0
    losses: Mapping[int, Sums] = field(default_factory=dict)

    @property
    def pair(self) -> tuple[int, int]:
        return self.fence, self.generation

    def encode(self) -> bytes:
        plain = astuple(replace(self, latency=None, losses={}))[:-1]  # type: ignore[arg-type]
        losses = [(group, *astuple(sums)) for group, sums in sorted(self.losses.items())]
        return bytes(msgpack.packb([SCHEMA, *plain, losses, self.latency.encode()]) or b"")


COUNTS = tuple(item.name for item in fields(WorkerDigest) if item.type is int)
SUMS = tuple(item.name for item in fields(WorkerDigest) if item.type is float)


def decode(payload: bytes) -> WorkerDigest:
    """Reads a digest; raises RefusedDigest for what no worker can have measured."""
    try:
        if len(payload) > BYTES_MAX:
            raise ValueError(f"{len(payload)} bytes")
        schema, *values, losses, latency = msgpack.unpackb(payload)
        if schema != SCHEMA:
            raise ValueError(f"schema {schema}")
        told = {group: Sums(*sums) for group, *sums in losses}
        digest = replace(WorkerDigest(*values), losses=told, latency=LatencyHistogram.decode(latency))
    except (ValueError, TypeError, msgpack.UnpackException, BadRules) as error:
        raise RefusedDigest(f"it cannot be read: {error}") from None
    _check(digest)
    return digest


def _check(digest: WorkerDigest) -> None:
    for name in COUNTS:
        value = getattr(digest, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise RefusedDigest(f"{name} is {value}")
    for name in SUMS:
        value = getattr(digest, name)
        if not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
            raise RefusedDigest(f"{name} is {value}")
    for group, sums in digest.losses.items():
        _check_losses(group, sums)
    if not 0 < digest.window_us <= WINDOW_US_MAX:
        raise RefusedDigest(f"window_us is {digest.window_us}")
    if (digest.latency.counts < 0).any() or digest.latency.count > 10**12:
        raise RefusedDigest("its histogram has counts that cannot be")


def _check_losses(group: object, sums: Sums) -> None:
    counts = (sums.scored, sums.covered, sums.alarms)
    whole = all(isinstance(value, int) and not isinstance(value, bool) for value in (group, *counts))
    if not whole or not 0 <= group < GROUPS_MAX or not 0 <= min(counts) <= max(counts) <= sums.scored:  # type: ignore[operator]
        raise RefusedDigest(f"group {group} scored {sums.scored}, covered {sums.covered}, alarmed {sums.alarms}")
    if not all(isinstance(value, float) and math.isfinite(value) and value >= 0 for value in (sums.loss, sums.naive)):
        raise RefusedDigest(f"group {group} lost {sums.loss} against {sums.naive}")
