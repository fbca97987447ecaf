"""Decides with which commits a partition's changed states are stored.

A state is many times its tick's size, so one write of it should serve several ticks; and whoever takes the partition
over makes again what was not stored, so there must not be too much of it.

    usually               with every `every`-th commit, if a write then serves `every` / 2 ticks on average,
    a feed that trickles  or after `late_s`,
    very many assets      and about `rows_at_once` with one micro-batch, all its partitions together: none gets slow;
    whatever comes        no more than `ticks_max` ticks of a partition are left unstored.
"""

from dataclasses import dataclass

from scheduler.errors import BadRules


@dataclass(frozen=True)
class StoringRules:
    """How much may be unstored."""

    every: int = 16  # Commits; 1: states go with each.
    ticks_max: int = 32_768
    late_s: float = 30.0
    rows_at_once: int = 2_048

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if getattr(self, name) <= 0:
                raise BadRules(f"{name} must be positive, got {getattr(self, name)}")


@dataclass(frozen=True)
class Unstored:
    """What a partition's stored states do not reflect yet."""

    batches: int
    ticks: int
    rows: int
    age_s: float


class Storing:
    """Holds what is left of one micro-batch's allowance."""

    def __init__(self, rules: StoringRules) -> None:
        self.rules = rules
        self._rows_left = rules.rows_at_once
        self._scarce = False

    def begin(self, scarce: bool) -> None:
        """A micro-batch is being formed; with memory scarce as much is stored with it as may be."""
        self._rows_left, self._scarce = self.rules.rows_at_once, scarce

    def due(self, unstored: Unstored) -> bool:
        """Whether the states of a partition go with its next commit."""
        rules = self.rules
        if unstored.ticks >= rules.ticks_max:
            return True
        serves_several = 2 * unstored.ticks >= rules.every * unstored.rows
        wanted = unstored.batches >= rules.every and (serves_several or unstored.age_s >= rules.late_s)
        if not (wanted or self._scarce) or self._rows_left <= 0:
            return False
        self._rows_left -= unstored.rows
        return True
