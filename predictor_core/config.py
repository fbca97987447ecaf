"""PredictorConfig: every number that shapes a prediction, checked once when made.

Each field is one of two kinds. A *static* field chooses the shapes of the compiled program; changing it means another
program and other state rows. A *traced* field is an argument of that program: changing it costs nothing.
"""

import dataclasses
import difflib
from collections import namedtuple
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np

QUANTILE_LEVELS = (0.01, 0.025, 0.05, *(round(0.05 * k, 2) for k in range(2, 19)), 0.95, 0.975, 0.99)
DEPTHS = (2, 3, 5)
PRUNED = 1  # the least depth without kernels A and B


def _static(default: Any, allowed: Any = None) -> Any:
    return dataclasses.field(default=default, metadata={"static": True, "allowed": allowed})


def _traced(default: float | int | bool, low: float, high: float) -> Any:
    """A number with its closed range."""
    return dataclasses.field(default=default, metadata={"static": False, "allowed": (low, high)})


@dataclass(frozen=True)
class Shapes:
    """The static half of a config: equal shapes, one compiled program."""

    quantile_levels: tuple[float, ...]
    confidence_level: float
    float_precision: int
    sinkhorn_cost_type: str
    log_sig_depth: int
    wtmm_buffer_size: int
    koopman_top_k: int
    memory_size: int


@dataclass(frozen=True)
class PredictorConfig:
    """The hyper-parameters of one predictor; immutable, hashable, safe to share."""

    schema_version: str = _static("1.0", ("1.0",))

    # What comes out.
    quantile_levels: tuple[float, ...] = _static(QUANTILE_LEVELS)
    confidence_level: float = _static(0.95)
    float_precision: int = _static(32, (32, 64))

    # Orchestrator: JKO step, Sinkhorn, entropy.
    epsilon: float = _traced(1e-3, 1e-9, 1.0)
    learning_rate: float = _traced(0.01, 1e-6, 1.0)
    jko_domain_length: float = _traced(1.0, 1e-3, 1e3)
    entropy_window_relaxation_factor: float = _traced(5.0, 0.1, 100.0)
    entropy_window_bounds_min: int = _traced(10, 1, 10_000)
    entropy_window_bounds_max: int = _traced(500, 1, 100_000)
    learning_rate_safety_factor: float = _traced(0.8, 1e-3, 1.0)
    learning_rate_minimum: float = _traced(1e-6, 0.0, 1.0)
    sinkhorn_cost_type: str = _static("squared", ("squared", "huber"))
    sinkhorn_huber_delta: float = _traced(1.0, 1e-3, 1e3)
    sinkhorn_epsilon_min: float = _traced(0.01, 1e-4, 1.0)
    sinkhorn_epsilon_0: float = _traced(0.1, 1e-3, 1.0)
    sinkhorn_alpha: float = _traced(0.5, 0.0, 10.0)

    # Kernels.
    log_sig_depth: int = _static(3, DEPTHS)
    memory_size: int = _static(384, (128, 256, 384, 512))  # moves that analogs are sought in
    wtmm_buffer_size: int = _static(128, (64, 128, 256, 512))
    besov_cone_c: float = _traced(1.5, 0.1, 10.0)
    koopman_top_k: int = _static(5, tuple(range(1, 17)))
    koopman_min_power: float = _traced(1e-10, 0.0, 1.0)
    paley_wiener_integral_max: float = _traced(100.0, 0.0, 1e6)
    kernel_c_jump_intensity: float = _traced(0.05, 0.0, 1.0)
    kernel_c_jump_mean: float = _traced(0.0, -100.0, 100.0)
    kernel_c_jump_scale: float = _traced(0.1, 0.0, 100.0)
    kernel_c_jump_max_events: int = _traced(16, 1, 1024)
    sde_fd_epsilon: float = _traced(1e-6, 1e-12, 1.0)
    signal_sampling_interval: float = _traced(1.0, 1e-9, 1e9)

    # How long things are remembered, per tick.
    readout_forgetting: float = _traced(0.9985, 0.9, 1.0)  # what the readouts of kernels A, B and D keep
    scale_rate: float = _traced(0.002, 1e-5, 0.1)
    calibration_rate: float = _traced(0.001, 0.0, 0.1)

    # Circuit breaker and alarms.
    holder_threshold: float = _traced(0.4, 0.0, 1.0)
    robustness_dimension_threshold: float = _traced(1.5, 1.0, 2.0)
    robustness_force_kernel_d: bool = _traced(True, 0, 1)
    entropy_scaling_trigger: float = _traced(2.0, 1.0, 100.0)
    entropy_gamma_min: float = _traced(0.5, 0.0, 1.0)
    entropy_gamma_default: float = _traced(0.8, 0.0, 1.0)
    entropy_gamma_max: float = _traced(0.9, 0.0, 1.0)  # 1 would call every field less even than g itself collapsed
    entropy_volatility_low_threshold: float = _traced(0.05, 0.0, 10.0)
    entropy_volatility_high_threshold: float = _traced(0.2, 0.0, 10.0)
    cusum_h: float = _traced(5.0, 2.0, 10.0)
    cusum_k: float = _traced(0.5, 0.1, 1.5)
    grace_period_steps: int = _traced(20, 1, 1000)
    degraded_recovery_min_steps: int = _traced(2, 1, 1000)
    volatility_alpha: float = _traced(0.1, 0.001, 1.0)
    residual_window_size: int = _traced(252, 20, 100_000)

    # Gates.
    sigma_bound: float = _traced(20.0, 1.0, 1e6)
    sigma_val: float = _traced(1.0, 1e-6, 1e6)
    staleness_ttl_ns: int = _traced(500_000_000, 0, 2**62)
    besov_nyquist_interval_ns: int = _traced(100_000_000, 0, 2**62)
    inference_recovery_hysteresis: float = _traced(0.8, 0.0, 1.0)
    max_future_drift_ns: int = _traced(1_000_000_000, 0, 2**62)
    max_past_drift_ns: int = _traced(86_400_000_000_000, 0, 2**62)
    frozen_signal_min_steps: int = _traced(5, 2, 100_000)
    frozen_signal_recovery_ratio: float = _traced(0.1, 0.0, 1.0)
    frozen_signal_recovery_steps: int = _traced(2, 1, 1000)
    outlier_bound: float = _traced(10.0, 1.0, 1e6)
    reanchor_after: int = _traced(5, 1, 1000)
    sparse_interval_factor: float = _traced(20.0, 1.0, 1e6)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check_allowed(field, getattr(self, field.name))
            # 5 and 5.0 are the same setting, and so are a list of levels and a tuple.
            object.__setattr__(self, field.name, type(field.default)(getattr(self, field.name)))
        _check_levels(self.quantile_levels)
        if not 0.5 <= self.confidence_level < 1:
            raise ValueError(f"confidence_level must be in [0.5, 1), got {self.confidence_level}.")
        if self.entropy_window_bounds_min > self.entropy_window_bounds_max:
            raise ValueError(
                f"entropy_window_bounds_min ({self.entropy_window_bounds_min}) must not exceed "
                f"entropy_window_bounds_max ({self.entropy_window_bounds_max})."
            )

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> "PredictorConfig":
        """Makes a config from names and values; an unknown name is refused with the nearest known one."""
        known = {field.name for field in dataclasses.fields(cls)}
        for name in values:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f"; did you mean {near[0]!r}?" if near else "."
                raise ValueError(f"unknown predictor setting {name!r}{hint}")
        return cls(**values)

    def static(self) -> "Shapes":
        """The half that chooses the compiled program."""
        return Shapes(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Shapes)})

    def params(self) -> "Params":
        """The half that the compiled program takes as arguments."""
        return Params(*(_number(getattr(self, name)) for name in Params._fields))


def _number(value: float | int | bool) -> np.generic:
    return np.float64(value) if isinstance(value, float) else np.int64(value)


def _check_allowed(field: dataclasses.Field, value: Any) -> None:
    allowed = field.metadata["allowed"]
    if field.metadata["static"]:
        if allowed is not None and value not in allowed:
            raise ValueError(f"{field.name} must be one of {list(allowed)}, got {value!r}.")
        return
    whole = isinstance(field.default, int)
    if not isinstance(value, Integral if whole else Real) or not allowed[0] <= value <= allowed[1]:
        name = "a whole number" if whole else "a number"
        raise ValueError(f"{field.name} must be {name} in [{allowed[0]}, {allowed[1]}], got {value!r}.")


def _check_levels(levels: tuple[float, ...]) -> None:
    rising = all(low < high for low, high in zip((0, *levels), (*levels, 1), strict=True))
    if len(levels) < 3 or not rising:
        raise ValueError(f"quantile_levels must be at least three rising numbers inside (0, 1), got {levels!r}.")


Params = namedtuple("Params", [f.name for f in dataclasses.fields(PredictorConfig) if not f.metadata["static"]])
