"""Says which knobs seem to have no influence: their gradients are zero as far as their scatter can tell.

Such a knob wanders inside its range, since all it is moved by is noise. It is reported; nobody acts on that. Mean and
scatter forget at the pace of CYCLES, so they take a few numbers, whatever the time. Pure.
"""

import math
from collections.abc import Sequence

from scheduler.hotpath.knobs import Vec

CYCLES = 200  # before anything is said; and the memory
SIGMAS = 2.0


class Influence:
    """What the gradients of finished cycles have been like."""

    def __init__(self, knobs: int) -> None:
        self.cycles = 0
        self.means = [0.0] * knobs
        self.variances = [0.0] * knobs

    def take(self, gradient: Vec) -> None:
        """Takes the gradient of one finished cycle."""
        self.cycles += 1
        share = 1 / min(self.cycles, CYCLES)
        for knob, slope in enumerate(gradient):
            apart = slope - self.means[knob]
            self.means[knob] += share * apart
            self.variances[knob] = (1 - share) * (self.variances[knob] + share * apart * apart)

    def without(self) -> list[int]:
        """The knobs whose mean gradient is within twice its standard error; none before there were enough cycles."""
        if self.cycles < CYCLES:
            return []
        weighing = min(self.cycles, 2 * CYCLES - 1)  # so many equal ones would give as steady a mean
        errors = (math.sqrt(variance / weighing) for variance in self.variances)
        pairs = zip(self.means, errors, strict=True)
        return [knob for knob, (mean, error) in enumerate(pairs) if abs(mean) < SIGMAS * error]

    def checkpoint(self) -> list:
        return [self.cycles, self.means, self.variances]

    def restore(self, state: Sequence) -> None:
        self.cycles, means, variances = state
        self.means, self.variances = list(means), list(variances)
