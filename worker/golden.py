"""Known inputs in a lane that a micro-batch leaves empty: a machine that counts wrong is found before it commits.

A few states and one tick for each are made at the start. What they give at a depth with some numbers is computed once,
all of them together; from then on one of them goes with every micro-batch that has a lane to spare, among neighbours
that are never the same, and must give the same bytes. So one comparison watches the processor, the memory, and the
promise that a result does not depend on its company.
"""

import hashlib
from itertools import count

import numpy as np

from predictor_core import Program
from worker.errors import WrongBits
from worker.generations import Numbers
from worker.rows import RowTable

CASES = 8
TICKS_BETWEEN = 6  # of one asset, between a case and the next
SECOND_NS = 10**9
ANSWERS_KEPT = 32  # of depths and numbers
MARK_BYTES = 16

Ticks = tuple[np.ndarray, np.ndarray, np.ndarray]  # values, times_ns, arrivals_ns


class Golden:
    """The cases, and what each must give."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._rows, self._ticks = _cases(program)
        self._answers: dict[tuple[int, bytes], list[bytes]] = {}
        self._turn = count()

    def spare_lane(self, rows: int) -> bool:
        """Whether a block of lanes would run anyway with one of them idle."""
        return rows % self._program.lanes != 0

    def next_case(self) -> int:
        return next(self._turn) % CASES

    def beside(
        self, case: int, table: RowTable, slots: np.ndarray, columns: tuple[np.ndarray, ...]
    ) -> tuple[np.ndarray, ...]:
        """Puts a case into the spare row, and that row and its tick behind the slots and the columns of ticks."""
        table.rows[table.spare] = self._rows[case]
        last = table.spare, len(slots), *(column[case] for column in self._ticks)
        given = zip((slots, *columns), last, strict=True)
        return tuple(np.append(column, end).astype(column.dtype) for column, end in given)

    def check(self, case: int, row: np.ndarray, result: np.ndarray, depth: int, numbers: Numbers) -> None:
        """Refuses what is not, byte for byte, what this case gave before."""
        if _bytes(row, result) != self._answers_at(depth, numbers)[case]:
            raise WrongBits(
                f"this machine gave other bytes than before for known input {case} at depth {depth} (build "
                f"{self._program.fingerprint.hex()}). Nothing of this micro-batch is committed and the worker ends; "
                f"test the machine's memory and processor before it serves again"
            )

    def mark(self, depth: int, numbers: Numbers) -> bytes:
        """A digest of all answers: equal on every machine that makes predictions with the same mark."""
        return hashlib.blake2b(b"".join(self._answers_at(depth, numbers)), digest_size=MARK_BYTES).digest()

    def _answers_at(self, depth: int, numbers: Numbers) -> list[bytes]:
        key = depth, numbers.made_by
        if key not in self._answers:
            if len(self._answers) == ANSWERS_KEPT:
                self._answers.pop(next(iter(self._answers)))
            rows, results = self._program.run(
                self._rows, np.arange(CASES), *self._ticks, depth=depth, params=numbers.params
            )
            self._answers[key] = [_bytes(rows[case], results[case]) for case in range(CASES)]
        return self._answers[key]


def _cases(program: Program) -> tuple[np.ndarray, Ticks]:
    """States along the life of one asset, calm and wild in turn, and the tick that each meets next."""
    ticks = CASES * TICKS_BETWEEN
    at = np.arange(ticks + 1)
    values = 100 + np.sin(at / 3) + np.where(at // 10 % 2, 5 * np.cos(7 * at), 0.01 * at)
    times_ns = (at + 1) * SECOND_NS + at % 7 * SECOND_NS // 8
    row, rows = program.cold(1), []
    for start in range(0, ticks, TICKS_BETWEEN):
        share = slice(start, start + TICKS_BETWEEN)
        row, _ = program.run(row, np.zeros(TICKS_BETWEEN, int), values[share], times_ns[share], times_ns[share])
        rows.append(row[0])
    next_ticks = at[TICKS_BETWEEN::TICKS_BETWEEN]
    return np.stack(rows), (values[next_ticks], times_ns[next_ticks], times_ns[next_ticks])


def _bytes(row: np.ndarray, result: np.ndarray) -> bytes:
    return row.tobytes() + result.tobytes()
