"""Watches the live loss after a change, and says when it must be taken back.

    change taken at tick 0     mean loss of the WINDOW ticks before it: the baseline
    while <= WINDOW ticks      worse by more than TOLERANCE over at least LEAST ticks: roll back, once
    after them                 the change has stood

Pure: losses come in, a word comes out; `mutation.roll_back` then restores the file.
"""

from collections import deque
from enum import Enum

TOLERANCE, WINDOW, LEAST = 0.3, 500, 50


class Watch(Enum):
    """How a change stands."""

    WATCHING = "watching"
    STOOD = "stood"
    WORSE = "worse"


class LossWatch:
    """Keeps the last losses; after `changed` it compares what follows with what was."""

    def __init__(self, tolerance: float = TOLERANCE, window: int = WINDOW, least: int = LEAST) -> None:
        if tolerance <= 0 or not 1 <= least <= window:
            found = f"{tolerance}, {least} and {window}"
            raise ValueError(f"tolerance must be positive and 1 <= least <= window, got {found}.")
        self._tolerance, self._window, self._least = tolerance, window, least
        self._before: deque[float] = deque(maxlen=window)
        self._baseline: float | None = None
        self._sum, self._count = 0.0, 0
        self.state = Watch.STOOD

    def changed(self) -> None:
        """A new configuration is in force from here; watched only if enough ticks came before it."""
        enough = len(self._before) >= self._least
        self._baseline = sum(self._before) / len(self._before) if enough else None
        self._sum, self._count = 0.0, 0
        self.state = Watch.WATCHING if enough else Watch.STOOD

    def observe(self, loss: float) -> Watch:
        """Takes one loss in; WORSE is said once."""
        if not loss >= 0:  # a tick without a forecast
            return self.state
        self._before.append(loss)
        if self.state is Watch.WATCHING and self._baseline is not None:
            self._sum, self._count = self._sum + loss, self._count + 1
            if self._count >= self._least and self._sum / self._count > (1 + self._tolerance) * self._baseline:
                self.state = Watch.STOOD
                return Watch.WORSE
            if self._count >= self._window:
                self.state = Watch.STOOD
        return self.state
