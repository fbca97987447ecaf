"""The naive way: one jitted step for one asset, called by the host once a tick.

It is the same model, compiled for a single lane; state and tick go in as flat arrays, which is the kindest way to call
it (as a tree of a hundred leaves each call costs several times as much).
"""

from pathlib import Path

import numpy as np

from predictor_core import PredictorConfig, Program
from predictor_core.canonical import MODEL, Canon, lower
from predictor_core.executables import executable
from predictor_core.graph import _Buffers, _words_of


class SingleLane:
    """`step` takes one row and one tick and gives the new row; `result` is the tick's result as words."""

    def __init__(self, config: PredictorConfig, cache_dir: Path | None) -> None:
        dtypes = tuple(value.dtype for value in config.params())
        canon = Canon(MODEL, config.static(), 1, 1, 1, dtypes)
        program = Program(config, cache_dir=cache_dir)
        key = ("single lane", config.static())
        self._run, _ = executable(key, program.fingerprint, cache_dir, lambda: lower(canon))
        self._settings = _words_of(config.params(), dtypes)
        self._buffers = _Buffers(canon)
        to = self._buffers.sections
        to.counts[:], to.first_steps[:], to.blocks[:] = 1, (0, 1), 1
        self.cold = program.cold(1)[0]

    def step(self, row: np.ndarray, value: float, time_ns: int, arrival_ns: int) -> np.ndarray:
        buffers = self._buffers
        buffers.rows[0] = row
        to = buffers.sections
        to.values[0], to.times_ns[0], to.arrivals_ns[0] = value, time_ns, arrival_ns
        buffers.execute(self._run, self._settings)
        return np.asarray(buffers.outputs[0])[0].copy()

    def result(self) -> np.ndarray:
        """Of the last step."""
        return np.asarray(self._buffers.outputs[1])[0]
