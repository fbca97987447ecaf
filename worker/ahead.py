"""Which rows of a partition are ahead of their stored states, and the sweep that stores them.

A sweep takes the rows that are ahead when it begins and hands them out a few at a time, each as it is by then. When the
last of them is stored, no stored state is older than the tick it began with. Rows that went further meanwhile are ahead
again: for whoever takes over, the ticks in between are late and change nothing.
"""

import math

import numpy as np

from scheduler.storing import Unstored


class Ahead:
    """Rows by the codes of their assets; ticks and micro-batches are counted that no stored state reflects for sure."""

    def __init__(self) -> None:
        self.batches = self.ticks = 0
        self._rows = np.zeros(256, bool)
        self._since_s = -math.inf  # what a worker has just taken over counts as late
        self._left: np.ndarray | None = None  # of the sweep
        self._begun = (0, 0, 0.0, b"")  # micro-batches, ticks, the time, and the tick it began with

    def took(self, ticks: int) -> None:
        """Counts a micro-batch, its ticks being taken."""
        self.batches += 1
        self.ticks += ticks

    def changed(self, codes: np.ndarray) -> np.ndarray:
        """Notes that these rows move on; gives those that were not ahead before."""
        if len(codes) and (most := int(codes.max())) >= len(self._rows):
            self._rows = np.concatenate([self._rows, np.zeros(max(len(self._rows), most), bool)])
        new = codes[~self._rows[codes]]
        self._rows[new] = True
        return new

    def unstored(self, now_s: float) -> Unstored:
        rows = int(np.count_nonzero(self._rows)) if self._left is None else len(self._left)
        return Unstored(self.batches, self.ticks, rows, now_s - self._since_s, self._left is not None)

    def sweep(self, count: int, newest: bytes, now_s: float) -> tuple[np.ndarray, bytes | None]:
        """The next rows to store, `newest` being the newest tick that they reflect.

        And where these are the last ones, the tick that all stored states reflect with them.
        """
        if self._left is None:
            self._left, self._begun = np.flatnonzero(self._rows), (self.batches, self.ticks, now_s, newest)
        codes, self._left = self._left[:count], self._left[count:]
        self._rows[codes] = False
        if len(self._left):
            return codes, None
        batches, ticks, self._since_s, reflected = self._begun
        self.batches, self.ticks, self._left = self.batches - batches, self.ticks - ticks, None
        return codes, reflected
