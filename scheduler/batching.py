"""Forms micro-batches: which ticks go through the graph together.

What is taken from a partition is always a prefix of its backlog, so its cursor can follow. Work-conserving: whenever
a partition has a tick, something is taken, and nobody waits for a batch to fill. Fair: partitions come in the order in
which they were last taken from, some at a time; each of those is offered an equal share first, and what is left goes in
the same order. A hot asset ends the prefix of its own partition, and of no other.

Some at a time, since a tick waits for its whole micro-batch three times over: before the graph, in it, and behind it.

Pure, and no Python per tick: a backlog is an array of asset codes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scheduler.errors import BadRules


@dataclass(frozen=True)
class BatchLimits:
    """What one micro-batch may hold, and what may wait in memory for the next ones."""

    partitions_max: int = 8
    ticks_max: int = 8_192
    rows_max: int = 4_096  # Distinct assets.
    ticks_per_asset_max: int = 16
    bytes_max: int = 800_000  # Of one partition's commit.
    tick_bytes: int = 512  # What one prediction adds to it; states that find no room follow in commits of their own.
    buffered_max: int = 65_536  # Ticks read and not yet taken, all partitions together.
    read_max: int = 4_096  # Ticks of one read.
    read_below: int = 1_024  # With as many at hand the next read waits, so that it brings many.

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if getattr(self, name) < 1:
                raise BadRules(f"{name} is too small: {getattr(self, name)}")
        if self.bytes_max < self.tick_bytes:
            raise BadRules(f"bytes_max ({self.bytes_max}) must hold one tick ({self.tick_bytes})")


@dataclass(frozen=True)
class Backlog:
    """Ticks of one partition that were read and not yet taken, the oldest first."""

    partition: int
    turn: int  # Grows from take to take: when the partition was taken from last.
    oldest_ns: int
    asset_codes: np.ndarray  # One small integer (0 to 2**31 - 1) per tick; equal codes mean the same asset.


def room(buffered: int, limits: BatchLimits) -> int:
    """Says how many ticks the next read may bring; 0 means do not read."""
    if buffered >= limits.read_below:
        return 0
    return max(0, min(limits.read_max, limits.buffered_max - buffered))


def take(backlogs: Sequence[Backlog], limits: BatchLimits) -> dict[int, int]:
    """Says how many ticks to take from the front of each partition; partitions that give none are left out."""
    able = (backlog for backlog in backlogs if len(backlog.asset_codes))
    waiting = sorted(able, key=lambda b: (b.turn, b.oldest_ns, b.partition))[: limits.partitions_max]
    taken = {b.partition: _Prefix(0, 0, False) for b in waiting}
    ticks_left, rows_left = limits.ticks_max, limits.rows_max
    for share in (len(waiting), 1):
        for backlog in waiting:
            before = taken[backlog.partition]
            if before.ended or not (ticks_left and rows_left):
                continue
            ticks_max = min(before.ticks + ticks_left, -(-limits.ticks_max // share))
            rows_max = min(before.rows + rows_left, -(-limits.rows_max // share))
            after = _prefix(backlog.asset_codes, ticks_max, rows_max, limits)
            taken[backlog.partition] = after
            ticks_left -= after.ticks - before.ticks
            rows_left -= after.rows - before.rows
    return {partition: prefix.ticks for partition, prefix in taken.items() if prefix.ticks}


@dataclass(frozen=True)
class _Prefix:
    ticks: int
    rows: int
    ended: bool  # More ticks or rows would not make it longer.


def _prefix(asset_codes: np.ndarray, ticks_max: int, rows_max: int, limits: BatchLimits) -> _Prefix:
    """Finds the longest prefix within all caps.

    Sorting code and position as one integer groups the ticks of an asset and keeps them in order: the entry `cap`
    places further is a tick too many where it still has the same code, and the first entry of a group is a new row.
    """
    codes = asset_codes[: min(ticks_max, limits.bytes_max // limits.tick_bytes)]
    cap, rows = limits.ticks_per_asset_max, len(set(codes.tolist()))
    if rows <= rows_max and not _too_many_of_one(codes, rows, cap):  # as nearly always: all of them
        return _Prefix(len(codes), rows, len(codes) == len(asset_codes))
    codes = codes.astype(np.int64)
    keys = np.sort((codes << 32) | np.arange(len(codes)))
    grouped, position = keys >> 32, keys & 0xFFFFFFFF
    too_many = position[cap:][grouped[cap:] == grouped[:-cap]]
    reach = int(too_many.min()) if len(too_many) else len(codes)
    rows_so_far = _rows_so_far(grouped, position)
    ticks = min(reach, int(np.searchsorted(rows_so_far, rows_max, side="right")))
    ended = ticks == reach and (reach < len(codes) or len(codes) == len(asset_codes))
    return _Prefix(ticks, int(rows_so_far[ticks - 1]) if ticks else 0, ended)


def _too_many_of_one(codes: np.ndarray, rows: int, cap: int) -> bool:
    """Whether an asset has more than `cap` ticks; mostly there are too few repetitions for that."""
    if len(codes) - rows < cap:
        return False
    grouped = np.sort(codes)
    return bool((grouped[cap:] == grouped[:-cap]).any())


def _rows_so_far(grouped: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Counts the distinct assets in the prefix that ends with each tick."""
    first = np.empty(len(grouped), dtype=bool)
    first[:1] = True
    np.not_equal(grouped[1:], grouped[:-1], out=first[1:])
    rows = np.empty(len(grouped), dtype=np.int64)
    rows[position] = first
    return np.cumsum(rows, out=rows)
