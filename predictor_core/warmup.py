"""A history that is taken in at once: what of it can be used, and whether its end is one to go on from."""

from collections.abc import Sequence

import numpy as np

from .config import PredictorConfig
from .errors import Diverged, WrongShape
from .graph import Program


def usable(
    history: Sequence[float], timestamps_ns: Sequence[int] | None, config: PredictorConfig
) -> tuple[np.ndarray, np.ndarray]:
    """The finite values, and their times; without times they are one `signal_sampling_interval` apart."""
    values = np.asarray(history, np.float64)
    if values.ndim != 1:
        raise WrongShape(f"a history is a list of numbers, got an array of shape {values.shape}.")
    interval_ns = max(1, round(config.signal_sampling_interval * 1e9))
    regular = np.arange(1, len(values) + 1) * interval_ns
    times_ns = regular if timestamps_ns is None else np.asarray(timestamps_ns, np.int64).reshape(-1)
    if times_ns.shape != values.shape:
        raise WrongShape(f"the history has {len(values)} values and {len(times_ns)} timestamps.")
    finite = np.isfinite(values)
    check_enough(int(finite.sum()), config)
    return values[finite], times_ns[finite]


def check_enough(count: int, config: PredictorConfig) -> None:
    if count < config.wtmm_buffer_size:
        raise ValueError(
            f"the history has {count} usable values (finite, and in order of time), at least wtmm_buffer_size = "
            f"{config.wtmm_buffer_size} are required. Give more, or choose a smaller buffer."
        )


def check_finite(program: Program, rows: np.ndarray, last: np.ndarray) -> None:
    """Refuses a state with numbers that are not finite, by their names."""
    fields = program.fields(rows)
    bad = [name for name, field in fields.items() if field.dtype.kind == "f" and not np.isfinite(field).all()]
    if not np.isfinite(last["reference_prediction"]):
        bad.append("the forecast")
    if bad:
        raise Diverged(
            f"the history led to numbers that are not finite in {', '.join(bad[:5])}. "
            "The state before it is kept; look for absurd values in the history."
        )


def without_clock(program: Program, rows: np.ndarray) -> np.ndarray:
    """The state as if its ticks had had no times."""
    rows = rows.copy()
    fields, cold = program.fields(rows), program.fields(program.cold(1))
    for name, field in fields.items():
        if field.dtype == np.int64 or name.endswith("clock.interval"):
            field[...] = cold[name]
    return rows


def is_stable(record: np.ndarray, cusum_h: float) -> bool:
    """Whether Sinkhorn converged at this tick and neither sum has drifted `cusum_h` deviations of the errors."""
    drift = max(float(record["cusum_drift"]), float(record["cusum_drift_down"]))
    return bool(record["sinkhorn_converged"]) and drift < cusum_h * float(record["sigma"])
