"""The one thread that runs the compiled graph; the event loop hands it a micro-batch and never waits inside."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from predictor_core import Program, encode_payloads, encode_records
from worker.generations import Numbers
from worker.golden import Golden
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
    numbers: list[Numbers]  # that the predictor works with; more than one where groups of assets have their own
    numbers_of: np.ndarray | None  # which of them for each tick; None: the only one
    written: list[np.ndarray]  # for each part the slots whose states are stored after these ticks


@dataclass(frozen=True)
class Answer:
    """What the graph made: per tick a result and its bytes, per part the records to store."""

    results: np.ndarray
    payloads: np.ndarray
    records: list[np.ndarray]
    rows: int  # distinct assets
    rounds: int  # most ticks of one asset
    seconds: float = 0.0  # that the graph's thread was at it


class Device:
    """Owns the thread; everything that touches rows or the program goes through it, in order."""

    def __init__(self, program: Program, table: RowTable, depths: tuple[int, ...]) -> None:
        self.program, self.table, self.depths = program, table, depths
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="graph")

    async def compile(self) -> None:
        """Makes every executable and the known inputs ready; none is compiled later."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._compile)

    def _compile(self) -> None:
        self.program.compile(self.depths)
        self.golden = Golden(self.program)

    async def run(self, work: Work) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, work)

    async def records(self, slots: np.ndarray) -> np.ndarray:
        """The states of some rows as they are stored."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._records, slots)

    def close(self) -> None:
        self._thread.shutdown()

    def _run(self, work: Work) -> Answer:
        began_s = time.perf_counter()
        touched, row_of = distinct(work)
        results, payloads = self._compute(touched, row_of, work)
        records = self._records(np.concatenate(work.written))
        ends = np.cumsum([len(part) for part in work.written])
        rounds = int(np.bincount(row_of, minlength=1).max())
        seconds = time.perf_counter() - began_s
        return Answer(results, payloads, np.split(records, ends[:-1]), len(touched), rounds, seconds)

    def _compute(self, touched: np.ndarray, row_of: np.ndarray, work: Work) -> tuple[np.ndarray, np.ndarray]:
        """Each set of numbers on its own assets; usually there is one, for all. A known input goes with each."""
        case = self.golden.next_case() if self.golden.spare_lane(len(touched)) else None
        columns = row_of, work.values, work.times_ns, work.arrivals_ns
        if work.numbers_of is None:
            return self._run_share(touched, columns, work.depth, work.numbers[0], case)
        results = np.empty(len(row_of), self.program.result_dtype)
        payloads = np.empty(len(row_of), f"V{self.program.payload_bytes}")
        for place, numbers in enumerate(work.numbers):
            at = np.flatnonzero(work.numbers_of == place)
            share = tuple(column[at] for column in columns)
            results[at], payloads[at] = self._run_share(touched, share, work.depth, numbers, case)
        return results, payloads

    def _run_share(
        self, slots: np.ndarray, columns: tuple[np.ndarray, ...], depth: int, numbers: Numbers, case: int | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Results and their bytes."""
        rows, given = self.table.rows, (slots, *columns)
        if case is not None:
            given = self.golden.beside(case, self.table, slots, columns)
        results = self.program.run_within(rows, *given, depth=depth, params=numbers.params)
        if case is not None:
            self.golden.check(case, rows[self.table.spare], results[-1], depth, numbers)
            results = results[:-1]
        return results, encode_payloads(results, depth, numbers.made_by)

    def _records(self, slots: np.ndarray) -> np.ndarray:
        return encode_records(self.table.rows, self.program.layout_fingerprint, slots)


def distinct(work: Work) -> tuple[np.ndarray, np.ndarray]:
    """The slots in use, each once, and for each tick the place of its slot among them."""
    slots, places = np.unique(work.slots, return_inverse=True)
    return slots, places.astype(np.int32)
