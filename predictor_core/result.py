"""What comes out: PredictionResult with its telemetry, operating modes, events and reasons for rejection.

`Output` is the same inside the graph. All other places follow its fields: a new telemetry leaf needs one line here.
"""

from dataclasses import dataclass, fields
from enum import IntEnum, IntFlag
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from .charts import Page


class OperatingMode(IntEnum):
    """How far the predictor trusts itself at this tick."""

    INFERENCE = 0
    CALIBRATION = 1
    DIAGNOSTIC = 2

    @staticmethod
    def to_string(mode: int) -> str:
        """The lower-case name; an unknown code reads as inference."""
        return OperatingMode(mode).name.lower() if mode in (0, 1, 2) else "inference"


class RejectReason(IntEnum):
    """Why a tick changed nothing and got no forecast; the name is the dead letter's reason."""

    accepted = 0
    late = 1  # not after the asset's last event time
    not_finite = 2
    future = 3  # event time further ahead of arrival than max_future_drift_ns


class Event(IntFlag):
    """What happened at a tick. Bits are stored with predictions: never renumber them."""

    DomainError = 1 << 0
    OutlierDetected = 1 << 1
    StalenessWarning = 1 << 2
    FrequencyWarning = 1 << 3
    FrozenSignal = 1 << 4
    ModeDegradationAlert = 1 << 5
    KurtosisOutlierWarning = 1 << 6
    NormalOperationRestoredEvent = 1 << 7
    RegimeChangeDetected = 1 << 8
    EmergencyMode = 1 << 9
    IntegrityError = 1 << 10
    Reanchored = 1 << 11
    DegradedInference = 1 << 12
    ModeCollapseWarning = 1 << 13
    GracePeriod = 1 << 14

    @classmethod
    def names(cls, bits: int) -> list[str]:
        """The names of the set bits, lowest first; bits of a newer version are left out."""
        return [event.name for event in cls if event & int(bits) and event.name]


class Telemetry(NamedTuple):
    """Why the forecast is what it is. In the graph every leaf is float32; in a result the flags are bool."""

    holder_exponent: Any
    holder_raw: Any
    cusum_drift: Any  # G+
    cusum_drift_down: Any  # G-
    cusum_scale: Any
    adaptive_threshold: Any  # h_t
    distance_to_collapse: Any  # h_t - G+
    kurtosis: Any
    sigma: Any
    free_energy: Any
    transport_cost: Any
    sinkhorn_epsilon: Any
    sinkhorn_converged: Any
    dgm_entropy: Any
    entropy_ratio: Any
    viscosity_residual: Any
    stiffness: Any
    implicit_share: Any
    jump_probability: Any
    paley_wiener: Any
    koopman_frequency: Any
    koopman_power: Any
    spectrum_width: Any  # of D(h)
    wtmm_holder: Any
    variance_ratio: Any
    autocorrelation: Any
    grace_counter: Any
    degraded_inference_mode: Any
    emergency_mode: Any
    regime_change_detected: Any
    mode_collapse_warning: Any
    weights: Any  # (4, ...) in the graph, (..., 4) in a result: kernels A, B, C, D


# Telemetry that is yes or no.
FLAGS = frozenset(
    {
        "sinkhorn_converged",
        "degraded_inference_mode",
        "emergency_mode",
        "regime_change_detected",
        "mode_collapse_warning",
    }
)


class Output(NamedTuple):
    """What one tick yields inside the graph; leaves have the shape of the lanes, arrays have their own in front."""

    rejected: Any  # int32, a RejectReason
    reference_prediction: Any  # float64, as the three below
    confidence_lower: Any
    confidence_upper: Any
    quantiles: Any
    operating_mode: Any  # int32
    events: Any  # uint32, bits of Event
    telemetry: Telemetry


@dataclass(frozen=True, eq=False)
class PredictionResult:
    """The forecast of the next value, for one asset (), a batch [n] or a history [n, t].

    Made without a look at the numbers. Where a tick was rejected (or there was none) `rejected` says why, the numbers
    are NaN, the flags False, `operating_mode` and `events` 0.
    """

    reference_prediction: Any
    confidence_lower: Any
    confidence_upper: Any
    operating_mode: Any
    quantiles: Any = None  # [..., k] at PredictorConfig.quantile_levels
    telemetry: Telemetry | None = None
    request_id: str | None = None
    events: Any = 0
    rejected: Any = 0

    @property
    def predicted_next(self) -> Any:
        """The older name of `reference_prediction`."""
        return self.reference_prediction

    @property
    def mode(self) -> Any:
        """Emergency, Robust (weights frozen, or a kernel put aside) or Standard; an array of these for a batch."""
        if self.telemetry is None:
            return "Standard"
        careful = np.logical_or(self.telemetry.degraded_inference_mode, self.telemetry.mode_collapse_warning)
        names = np.where(self.telemetry.emergency_mode, "Emergency", np.where(careful, "Robust", "Standard"))
        return names if names.ndim else str(names)

    @property
    def event_names(self) -> list[str]:
        """Names of the events of one tick."""
        return Event.names(int(self.events))

    @property
    def reject_reason(self) -> RejectReason:
        """Why one tick was rejected, or `accepted`."""
        return RejectReason(int(self.rejected))

    def plot(self, values: Any, times_ns: Any, title: str = "") -> "Page":
        """The history of one asset, results [t] made after values[t], as a picture: a notebook shows it, or `save`."""
        from .charts import page

        return page(self, values, times_ns, title)

    def __getitem__(self, index: Any) -> "PredictionResult":
        """The part of a batch or a history."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        telemetry = Telemetry(*(leaf[index] for leaf in parts.pop("telemetry")))
        request_id = parts.pop("request_id")
        picked = {name: value[index] for name, value in parts.items()}
        return PredictionResult(**picked, telemetry=telemetry, request_id=request_id)


def output_shape(levels: int) -> Output:
    """An Output of zeros, for its shapes and dtypes."""
    wide = np.zeros((), np.float64)
    leaves = dict.fromkeys(Telemetry._fields, np.zeros((), np.float32))
    return Output(
        rejected=np.zeros((), np.int32),
        reference_prediction=wide,
        confidence_lower=wide,
        confidence_upper=wide,
        quantiles=np.zeros(levels, np.float64),
        operating_mode=np.zeros((), np.int32),
        events=np.zeros((), np.uint32),
        telemetry=Telemetry(**{**leaves, "weights": np.zeros(4, np.float32)}),
    )
