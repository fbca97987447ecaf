"""Proposes candidates: all knobs are moved together, first to one side of the centre, then to the other.

The signs are those of the perturbations, a function of (seed, k, knob) alone. What was taken over is tried again from
the new centre; what was not is tried on the other side, and then the next signs are.
"""

from collections.abc import Collection
from dataclasses import dataclass

from scheduler.hotpath.knobs import Vec
from scheduler.hotpath.random_signs import signs

STEP = 0.1  # of a knob's range: on a logarithmic scale of one decade a factor of 1.26


@dataclass(frozen=True)
class Search:
    """Where the search stands."""

    k: int = 0
    side: int = 1

    def candidate(self, seed: int, centre: Vec, free: Collection[int]) -> Vec:
        """The next candidate; only the free knobs move."""
        ways = signs(seed, self.k, len(centre))
        steps = (self.side * way * STEP * (index in free) for index, way in enumerate(ways))
        moved = (unit + step for unit, step in zip(centre, steps, strict=True))
        return tuple(min(max(unit, 0.0), 1.0) for unit in moved)

    def after(self, promoted: bool) -> "Search":
        """Goes on after a verdict."""
        if promoted:
            return self
        return Search(self.k, -1) if self.side > 0 else Search(self.k + 1, 1)
