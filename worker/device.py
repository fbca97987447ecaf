"""The one thread that runs the compiled graph; the event loop hands it a micro-batch and never waits inside."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from predictor_core import Program, encode_payloads, encode_records
from worker.rows import RowTable


@dataclass(frozen=True)
class Work:
    """The ticks of a micro-batch, one part after the other; `bounds[i]:bounds[i + 1]` is part i."""

    slots: np.ndarray
    values: np.ndarray
    times_ns: np.ndarray
    arrivals_ns: np.ndarray
    bounds: list[int]
    depth: int


@dataclass(frozen=True)
class Answer:
    """What the graph made: per tick a result and its bytes, per part the touched slots and their records."""

    results: np.ndarray
    payloads: np.ndarray
    slots: list[np.ndarray]
    records: list[np.ndarray]
    rounds: int  # most ticks of one asset


class Device:
    """Owns the thread; everything that touches rows or the program goes through it, in order."""

    def __init__(self, program: Program, table: RowTable, depths: tuple[int, ...]) -> None:
        self.program, self.table, self.depths = program, table, depths
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="graph")

    async def compile(self) -> None:
        """Makes every executable ready; none is compiled later."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self.program.compile, self.depths)

    async def run(self, work: Work) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, work)

    def close(self) -> None:
        self._thread.shutdown()

    def _run(self, work: Work) -> Answer:
        slots, row_of = _distinct(work)
        touched = np.concatenate(slots)
        rows, results = self.program.run(
            self.table.rows[touched], row_of, work.values, work.times_ns, work.arrivals_ns, depth=work.depth
        )
        self.table.rows[touched] = rows
        records = encode_records(rows, self.program.layout_fingerprint)
        ends = np.cumsum([len(part) for part in slots])
        payloads = encode_payloads(results, work.depth, self.program.fingerprint)
        rounds = int(np.bincount(row_of, minlength=1).max())
        return Answer(results, payloads, slots, np.split(records, ends[:-1]), rounds)


def _distinct(work: Work) -> tuple[list[np.ndarray], np.ndarray]:
    """Each part's distinct slots, and for each tick the place of its slot among all of them."""
    slots, row_of, before = [], [], 0
    for start, end in zip(work.bounds, work.bounds[1:], strict=False):
        distinct, place = np.unique(work.slots[start:end], return_inverse=True)
        slots.append(distinct)
        row_of.append(place + before)
        before += len(distinct)
    return slots, np.concatenate(row_of).astype(np.int32)
