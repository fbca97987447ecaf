"""Decides which states are stored with which commits.

A state is many times its tick's size, so one write of it should serve several ticks; and whoever takes the partition
over makes again what was not stored, so there must not be too much of it. Where a partition's states are many they go
with several commits, some with each: that is a sweep, and once it is through, all reflect the tick it began with.

    a sweep begins        with a partition's `every`-th commit since the last one, or later, when its turn comes,
    at an even pace       of one state for `every` / 2 ticks, all partitions together: none comes in a heap,
    late                  after `late_s`, or with memory scarce: up to `rows_at_once` with one micro-batch,
    whatever comes        no more than `ticks_max` ticks of a partition are left unstored.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from scheduler.errors import BadRules


@dataclass(frozen=True)
class StoringRules:
    """How much may be unstored."""

    every: int = 16  # Commits; 1: states go with each.
    ticks_max: int = 65_536
    late_s: float = 30.0
    rows_at_once: int = 4_096

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if getattr(self, name) <= 0:
                raise BadRules(f"{name} must be positive, got {getattr(self, name)}")


@dataclass(frozen=True)
class Unstored:
    """What a partition's stored states do not reflect yet."""

    batches: int
    ticks: int
    rows: int  # of its sweep, where one is under way
    age_s: float
    sweeping: bool


class Storing:
    """Keeps count of the rows that the ticks have earned."""

    def __init__(self, rules: StoringRules) -> None:
        self.rules = rules
        self._earned = 0.0

    def shares(self, parts: Sequence[Unstored], ticks: int, scarce: bool) -> dict[int, int]:
        """Which partitions of a micro-batch of so many ticks store states with it, and how many rows each."""
        rules = self.rules
        self._earned = min(self._earned + 2 * ticks / rules.every, rules.rows_at_once)
        given: dict[int, int] = {}
        for place in sorted(range(len(parts)), key=lambda place: _worth(parts[place]), reverse=True):
            part = parts[place]
            if part.ticks >= rules.ticks_max:
                most = part.rows
            elif scarce or (self._may(part) and part.age_s >= rules.late_s):
                most = max(0, rules.rows_at_once - sum(given.values()))
            elif self._may(part):
                most = int(self._earned)
            else:
                continue
            if most or not part.rows:
                given[place] = min(part.rows, most)
                self._earned = max(0.0, self._earned - given[place])
        return given

    def _may(self, part: Unstored) -> bool:
        return part.sweeping or part.batches >= self.rules.every


def _worth(part: Unstored) -> tuple[bool, float]:
    """What has begun is brought to its end; then those where one write serves most ticks."""
    return part.sweeping, part.ticks / max(1, part.rows)
