"""A predictor whose every output depends on every tick before it, in order: a chain of digests.

The row of an asset holds the digest of all its ticks and the last event time; the prediction is the digest. A tick
lost, doubled, or taken in another order changes all that follows.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from hashlib import blake2b
from types import SimpleNamespace

import numpy as np

from predictor_core import RejectReason, encode_records
from worker.device import Answer, Work, distinct
from worker.generations import Generation, Numbers
from worker.rows import RowTable

DIGEST_BYTES = 32
WORDS = 12  # the digest, the last event time, the number of ticks
LAYOUT = b"toychain"
PAYLOAD = np.dtype(f"V{DIGEST_BYTES}")
RESULT = np.dtype([("rejected", np.int32)])
COLD = np.zeros(WORDS, np.uint32)
LATE = int(RejectReason.late)
DEADLY_VALUE = 666.0

Compute = Callable[[str], Awaitable[None]]


def step(row: np.ndarray, value: float, time_ns: int, arrival_ns: int) -> int:
    """Takes one tick into a row; a late one leaves it as it is."""
    numbers = row[DIGEST_BYTES // 4 :].view(np.int64)
    if time_ns <= numbers[0]:
        return LATE
    told = b"%b%r %d %d" % (row[: DIGEST_BYTES // 4].tobytes(), value, time_ns, arrival_ns)
    row[: DIGEST_BYTES // 4] = np.frombuffer(blake2b(told, digest_size=DIGEST_BYTES).digest(), np.uint32)
    numbers[:] = time_ns, numbers[1] + 1
    return 0


def payload_of(row: np.ndarray) -> bytes:
    return row[: DIGEST_BYTES // 4].tobytes()


class ToyGenerations:
    """Where `worker.generations.Generations` stands: a chain of digests has no numbers."""

    current = Generation(0, Numbers(None, LAYOUT), {})

    def know(self, marks: Iterable[bytes | None]) -> bool:
        return True

    def numbers_of(self, asset: bytes, made_by: bytes | None) -> Numbers:
        return self.current.everyone


TOY_GENERATIONS = ToyGenerations()


class ToyDevice:
    """Stands where `worker.device.Device` stands, and takes its time: rows are read first and written at the end."""

    def __init__(self, rows_kept: int, compute: Compute, killed: Callable[[], None]) -> None:
        self.table = RowTable(COLD, rows_kept)
        self.program = SimpleNamespace(layout_fingerprint=LAYOUT, compilations=0)
        self._compute, self._killed = compute, killed

    async def run(self, work: Work) -> Answer:
        touched, row_of = distinct(work)
        rows = self.table.rows[touched]
        await self._compute("compute.before")
        if DEADLY_VALUE in work.values:
            self._killed()
            await asyncio.get_running_loop().create_future()
        results, payloads = self._steps(rows, row_of, work)
        self.table.rows[touched] = rows
        await self._compute("compute.after")
        records = [encode_records(self.table.rows[part], LAYOUT) for part in work.written]
        rounds = int(np.bincount(row_of, minlength=1).max())
        return Answer(results, payloads, records, len(touched), rounds)

    async def records(self, slots: np.ndarray) -> np.ndarray:
        records = encode_records(self.table.rows[slots], LAYOUT)
        await self._compute("compute.after")
        return records

    def _steps(self, rows: np.ndarray, row_of: np.ndarray, work: Work) -> tuple[np.ndarray, np.ndarray]:
        results, payloads = np.zeros(len(row_of), RESULT), np.zeros(len(row_of), PAYLOAD)
        columns = (row_of.tolist(), work.values.tolist(), work.times_ns.tolist(), work.arrivals_ns.tolist())
        for i, (place, *tick) in enumerate(zip(*columns, strict=True)):
            results["rejected"][i] = step(rows[place], *tick)
            payloads[i] = np.void(payload_of(rows[place]))
        return results, payloads
