"""Which rows are in the table, and which of them are ahead of the states that Redis has.

A row is loaded when its asset appears, is busy while a micro-batch in flight uses it, and stays busy as long as it is
ahead: evicted, it would be lost. In all that is counted here an asset may come several times and counts once: that is
what an array does to an index that is repeated.
"""

import logging

import numpy as np

from predictor_core import CorruptRecord, decode_record
from state_store import StateStore
from worker.holding import Holding
from worker.metrics import Metrics
from worker.rows import RowTable

log = logging.getLogger(__name__)


class Keeping:
    """The rows of all holdings of one worker."""

    def __init__(self, store: StateStore, table: RowTable, layout_fingerprint: bytes, metrics: Metrics) -> None:
        self.store, self.table, self.metrics = store, table, metrics
        self._layout_fingerprint = layout_fingerprint

    def use(self, holding: Holding, codes: np.ndarray) -> list[int]:
        """From here to `done` these rows are busy; gives those that are not in the table and have to be loaded."""
        slots = holding.slots[codes]
        there = slots >= 0
        self.table.busy[slots[there]] += 1
        missing = np.unique(codes[~there]).tolist() if not there.all() else []
        return [code for code in missing if code not in holding.quarantined]

    async def load(self, holding: Holding, missing: list[int]) -> None:
        """Brings them; a corrupt one is quarantined, and has no slot. Raises StoreUnavailable."""
        records = await self.store.load(holding.partition, [holding.assets[code] for code in missing])
        for code, record in zip(missing, records, strict=True):
            row = self._row(holding, code, record)
            if row is not None:
                self.table.place(holding, code, row)

    def done(self, slots: np.ndarray) -> None:
        """A micro-batch no longer uses them."""
        self.table.busy[slots] -= 1

    def ahead(self, holding: Holding, codes: np.ndarray) -> None:
        """The rows of these ticks are changed before their states are stored."""
        self.table.busy[holding.slots[holding.ahead.changed(codes)]] += 1

    def stored(self, holding: Holding, codes: np.ndarray, reflected: bytes | None) -> None:
        """These rows are stored; the last ones of a sweep tell the tick that all stored states reflect by now."""
        holding.state_cursor = reflected or holding.state_cursor
        self.table.busy[holding.slots[codes]] -= 1

    def crowded(self, rows_in_flight: int) -> bool:
        """Whether so many rows are busy that what will be in flight may find no room."""
        most = len(self.table.busy) - rows_in_flight
        return len(self.table) > most and int(np.count_nonzero(self.table.busy)) > most

    def _row(self, holding: Holding, code: int, record: bytes | None) -> np.ndarray | None:
        if record is None:
            return self.table.cold
        try:
            return decode_record(record, self._layout_fingerprint)
        except CorruptRecord as error:
            holding.quarantined.add(code)
            self.metrics.corrupt_states.inc()
            log.error("state_corrupt", extra={"asset": holding.assets[code].decode(), "why": str(error)})
            return None
