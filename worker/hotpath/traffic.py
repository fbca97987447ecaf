"""Whether the traffic changed while a probe was measured: then its two sides cannot be compared. Pure."""

from collections import deque
from statistics import median

WINDOWS = 2  # in a row; one alone is a burst, which the trimmed mean of a side leaves out
KEPT = 64


class Traffic:
    """The rates of the windows of one cycle."""

    def __init__(self, factor: float) -> None:
        self._factor = factor
        self._cycle: object = None
        self._rates: deque[float] = deque(maxlen=KEPT)

    def shifted(self, cycle: object, rate: float) -> bool:
        """Takes a window; True when the newest ones are all that much above, or below, those of the cycle before."""
        if cycle != self._cycle:
            self._cycle = cycle
            self._rates.clear()
        self._rates.append(rate)
        rates = list(self._rates)
        before, newest = rates[:-WINDOWS], rates[-WINDOWS:]
        if not before:
            return False
        usual = median(before)
        return min(newest) > self._factor * usual or self._factor * max(newest) < usual
