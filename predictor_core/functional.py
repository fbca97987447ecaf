"""FunctionalPredictor: a pure function of states and observations, for one asset, a batch or a history.

    predictor = FunctionalPredictor(PredictorConfig())
    state, result = predictor.step(predictor.init_state(), ProcessState(1.0, now))
    states, results = predictor.replay(predictor.init_states(3), values)       # values [3, t], NaN: no tick here

All three go through the same program as a fleet of workers, so the same ticks give the same bytes everywhere.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .config import PredictorConfig
from .errors import CorruptRecord, WrongLayout, WrongShape
from .graph import Program
from .observation import MarketObservation, Observed, ProcessState, columns
from .records import decode_record, encode_records
from .result import FLAGS, PredictionResult, RejectReason, Telemetry


@dataclass(frozen=True, eq=False)
class States:
    """What `len(states)` assets remember: a value, never changed in place."""

    rows: np.ndarray  # [n, words], read-only
    layout_fingerprint: bytes

    def __post_init__(self) -> None:
        self.rows.flags.writeable = False

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int | slice | Sequence[int] | np.ndarray) -> "States":
        """The states of some of the assets; one index gives one asset."""
        rows = self.rows[index]
        return States(rows if rows.ndim == 2 else rows[None], self.layout_fingerprint)

    def __iter__(self) -> Iterator["States"]:
        return (self[index] for index in range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, States):
            return NotImplemented
        return self.layout_fingerprint == other.layout_fingerprint and np.array_equal(self.rows, other.rows)

    def __hash__(self) -> int:
        return hash((self.rows.tobytes(), self.layout_fingerprint))

    def to_bytes(self) -> bytes:
        """A record for each asset, one after the other; FunctionalPredictor.states_from_bytes reads them."""
        return encode_records(self.rows, self.layout_fingerprint).tobytes()

    @staticmethod
    def join(parts: Sequence["States"]) -> "States":
        """The states of all the parts' assets in turn."""
        first, *others = parts
        if any(part.layout_fingerprint != first.layout_fingerprint for part in others):
            raise WrongLayout("states of different configs cannot be joined. Make them with the same predictor.")
        return States(np.concatenate([part.rows for part in parts]), first.layout_fingerprint)


class FunctionalPredictor:
    """Holds the config and its compiled program, and nothing of any asset."""

    def __init__(self, config: PredictorConfig | None = None, *, cache_dir: Path | str | None = None) -> None:
        self.config = config if config is not None else PredictorConfig()
        self.program = Program(self.config, cache_dir=cache_dir)

    def init_state(self) -> States:
        """The state of one asset that has seen nothing."""
        return self.init_states(1)

    def init_states(self, n: int) -> States:
        """The states of n assets that have seen nothing."""
        return self._states(self.program.cold(n))

    def states_from_bytes(self, data: bytes) -> States:
        """Reads what States.to_bytes wrote; raises CorruptRecord or WrongLayout."""
        size = self.program.record_bytes
        if len(data) % size:
            raise CorruptRecord(f"states are records of {size} bytes each, and {len(data)} bytes are no whole number.")
        records = (data[at : at + size] for at in range(0, len(data), size))
        rows = [decode_record(record, self.program.layout_fingerprint) for record in records]
        return self._states(np.array(rows, self.program.dtype).reshape(len(rows), self.program.words))

    def step(self, state: States, obs: Observed, arrival_ns: int | None = None) -> tuple[States, PredictionResult]:
        """One tick of one asset: its new state, and the forecast of its next value.

        Without `arrival_ns` the tick counts as arrived the moment it happened. A tick that is late, not finite or from
        the future raises nothing: the state stays as it is, and the result says why in `rejected`, its numbers NaN.
        """
        if len(state) != 1:
            raise WrongShape(f"step takes the state of one asset, got {len(state)}. Use step_batch for several.")
        states, results = self.step_batch(state, [obs], arrival_ns)
        return states, results[0]

    def step_batch(
        self,
        states: States,
        observations: Sequence[Observed] | ProcessState | MarketObservation,
        arrival_ns: int | Sequence[int] | None = None,
    ) -> tuple[States, PredictionResult]:
        """One tick of each asset: a sequence of observations, or one whose numbers are arrays [n].

        A value of NaN means no tick for that asset. Results have shape [n].
        """
        values, times_ns = columns(observations)
        if len(values) != len(states):
            raise WrongShape(f"step_batch takes one observation for each of {len(states)} states, got {len(values)}.")
        rows, results = self._run(states, np.arange(len(states)), values, times_ns, arrival_ns)
        return self._states(rows), prediction_result(results)

    def replay(
        self,
        states: States,
        values: np.ndarray,
        timestamps_ns: np.ndarray | None = None,
        arrivals_ns: np.ndarray | None = None,
    ) -> tuple[States, PredictionResult]:
        """A history of every asset: values [n, t] give results [n, t].

        Entry t of a result is the forecast for the value after `values[:, t]`. NaN means that the asset has no tick
        here. `timestamps_ns` is [t] or [n, t]; without it every tick of an asset comes one `signal_sampling_interval`
        after the one before, so that no clock ever warns. `arrivals_ns` is like it, and equal to it by default.
        """
        values = np.asarray(values, np.float64)
        if values.ndim != 2 or len(values) != len(states):
            raise WrongShape(f"replay takes values [n, t] for n = {len(states)} states, got {values.shape}.")
        ticks = ~np.isnan(values)
        times_ns = self._regular(states, ticks) if timestamps_ns is None else np.asarray(timestamps_ns, np.int64)
        times_ns = np.broadcast_to(times_ns, values.shape)
        arrivals_ns = np.broadcast_to(times_ns if arrivals_ns is None else arrivals_ns, values.shape)
        row_of = np.repeat(np.arange(len(states)), np.count_nonzero(ticks, 1))
        rows, results = self._run(states, row_of, values[ticks], times_ns[ticks], arrivals_ns[ticks])
        return self._states(rows), prediction_result(_spread(results, ticks))

    def _run(self, states: States, row_of: np.ndarray, values: Any, times_ns: Any, arrivals_ns: Any) -> Any:
        if states.layout_fingerprint != self.program.layout_fingerprint:
            raise WrongLayout("these states are of another config. Make them with this predictor's init_states.")
        arrivals = np.broadcast_to(times_ns if arrivals_ns is None else arrivals_ns, times_ns.shape)
        return self.program.run(states.rows, row_of, values, times_ns, arrivals.astype(np.int64, copy=False))

    def _states(self, rows: np.ndarray) -> States:
        return States(rows, self.program.layout_fingerprint)

    def _regular(self, states: States, ticks: np.ndarray) -> np.ndarray:
        """Times at equal distances after the last time of each asset."""
        last_ns = self.program.last_times_ns(states.rows)
        interval_ns = max(1, round(self.config.signal_sampling_interval * 1e9))
        return np.maximum(last_ns, 0)[:, None] + np.cumsum(ticks, 1) * interval_ns


def _spread(results: np.ndarray, ticks: np.ndarray) -> np.ndarray:
    """Results where there is a tick, blanks elsewhere."""
    if ticks.all():
        return results.reshape(ticks.shape)
    everywhere = np.full(ticks.shape, blank_result(results.dtype))
    everywhere[ticks] = results
    return everywhere


def blank_result(dtype: np.dtype) -> np.ndarray:
    """The result of no tick."""
    blank = np.zeros((), dtype)
    for name in dtype.names or ():
        if np.issubdtype(dtype[name].base, np.floating):
            blank[name] = np.nan
    blank["rejected"] = RejectReason.not_finite
    return blank


def prediction_result(results: np.ndarray) -> PredictionResult:
    """A PredictionResult over the records of Program.run, of any shape; its arrays are views of them."""
    known = {name: results[name] for name in results.dtype.names or ()}
    telemetry = {name: known[name] == 1 if name in FLAGS else known[name] for name in Telemetry._fields}
    return PredictionResult(
        reference_prediction=known["reference_prediction"],
        confidence_lower=known["confidence_lower"],
        confidence_upper=known["confidence_upper"],
        operating_mode=known["operating_mode"],
        quantiles=known["quantiles"],
        telemetry=Telemetry(**telemetry),
        events=known["events"],
        rejected=known["rejected"],
    )
