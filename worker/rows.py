"""The table of state rows that this worker keeps while its leases hold.

Slots are handed out as assets appear. A slot that a micro-batch in flight uses is *busy* and is never given away; when
the table is full, rows that are not busy make room: what they hold is in Redis already.
"""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from worker.holding import Holding

EVICTED_AT_ONCE = 1024


class RowTable:
    """`rows[slot]` is the state of one asset of one holding."""

    def __init__(self, cold: np.ndarray, capacity: int) -> None:
        self.cold = cold
        self.rows = np.empty((capacity + 1, cold.shape[-1]), cold.dtype)  # untouched pages cost no memory
        self.spare = capacity  # the last row is nobody's
        self.busy = np.zeros(capacity, np.int32)
        self.tenancy = np.zeros(capacity, np.int64)  # how often each slot was given away
        self._free = list(range(capacity - 1, -1, -1))
        self._tenant: list[tuple[Holding, int] | None] = [None] * capacity
        self._hand = 0

    def __len__(self) -> int:
        return len(self._tenant) - len(self._free)

    def place(self, holding: "Holding", code: int, row: np.ndarray) -> None:
        """Gives an asset a busy slot and puts its row there."""
        if not self._free:
            self._evict()
        slot = self._free.pop()
        self._tenant[slot] = (holding, code)
        holding.slots[code] = slot
        self.busy[slot] = 1
        self.tenancy[slot] += 1
        self.rows[slot] = row

    def forget(self, holding: "Holding") -> None:
        """Frees every slot of a holding of which nothing is in flight any more."""
        for slot in holding.slots[holding.slots >= 0].tolist():
            self.busy[slot] = 0  # what was in flight has been thrown away
            self._vacate(slot)

    def _vacate(self, slot: int) -> None:
        tenant = self._tenant[slot]
        assert tenant is not None and self.busy[slot] == 0
        holding, code = tenant
        holding.slots[code] = -1
        self._tenant[slot] = None
        self._free.append(slot)

    def _evict(self) -> None:
        """Takes idle slots in turn, like the hand of a clock."""
        order = np.roll(np.arange(len(self._tenant)), -self._hand)
        idle = order[self.busy[order] == 0][:EVICTED_AT_ONCE]
        assert len(idle), "the table must be larger than the micro-batches in flight"
        self._hand = int(idle[-1]) + 1
        for slot in idle:
            self._vacate(int(slot))
