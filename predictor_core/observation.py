"""What goes in: ProcessState, and MarketObservation, which is the same thing under its older names.

The graph itself sees an `Observation`: three numbers, no names, no calendar.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

import numpy as np

from .errors import BadObservation

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Observation(NamedTuple):
    """One tick as the graph sees it; every leaf has the shape of the lanes."""

    value: Any  # float64
    time_ns: Any  # int64, when it happened
    arrival_ns: Any  # int64, when it reached us


class Observed(Protocol):
    """What every kind of observation offers to the predictor."""

    @property
    def value(self) -> float: ...
    @property
    def timestamp_ns(self) -> int: ...


@dataclass(frozen=True)
class ProcessState:
    """One value of one series at one moment.

    `timestamp_utc` is a datetime (one without a zone counts as UTC) or whole nanoseconds since 1970.
    `state_tag` and `dispersion_proxy` travel with the tick; the forecast does not depend on them.
    """

    magnitude: Any
    timestamp_utc: datetime | int
    state_tag: str | None = None
    dispersion_proxy: Any = None

    @property
    def value(self) -> float:
        return _scalar(self.magnitude)

    @property
    def timestamp_ns(self) -> int:
        """Whole nanoseconds since 1970, exact."""
        return nanoseconds(self.timestamp_utc)

    def validate_domain(self, sigma_bound: float = 20.0, sigma_val: float = 1.0) -> bool:
        """Says whether |magnitude| <= sigma_bound * sigma_val.

        This looks at the raw magnitude, so it only means something for a standardised one. The gate that decides is
        inside the graph: it measures the distance from the last forecast in the asset's own scale.
        """
        return _in_domain(self.value, sigma_bound, sigma_val)


@dataclass(frozen=True)
class MarketObservation:
    """A ProcessState under its older names; `target`, where given, is what the value is compared with by its sender."""

    price: Any
    target: Any = None
    timestamp_ns: int = 0

    @property
    def value(self) -> float:
        return _scalar(self.price)

    def validate_domain(self, sigma_bound: float = 20.0, sigma_val: float = 1.0) -> bool:
        """As ProcessState.validate_domain."""
        return _in_domain(self.value, sigma_bound, sigma_val)


def numbers(observation: Observed) -> tuple[float, int]:
    """The value and the time of one observation, or BadObservation."""
    try:
        return observation.value, nanoseconds(observation.timestamp_ns)
    except AttributeError:
        kinds = "a ProcessState or a MarketObservation"
        raise BadObservation(f"an observation is {kinds}, got {_shown(observation)}.") from None


def columns(observations: Sequence[Observed] | ProcessState | MarketObservation) -> tuple[np.ndarray, np.ndarray]:
    """Values and times of a batch: of a sequence of observations, or of one whose numbers are arrays."""
    if isinstance(observations, ProcessState):
        number, moment = observations.magnitude, observations.timestamp_utc
    elif isinstance(observations, MarketObservation):
        number, moment = observations.price, observations.timestamp_ns
    else:
        pairs = [numbers(observation) for observation in observations]
        number, moment = [value for value, _ in pairs], [time_ns for _, time_ns in pairs]
    values = np.asarray(number, np.float64).reshape(-1)
    times_ns = np.asarray(nanoseconds(moment) if isinstance(moment, datetime) else moment, np.int64)
    return values, np.broadcast_to(times_ns, values.shape)


def nanoseconds(moment: datetime | int) -> int:
    """Whole nanoseconds since 1970 of a datetime, by integer arithmetic: a float would lose the last 200 of them."""
    if not isinstance(moment, datetime):
        return _whole(moment)
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    since = aware - _EPOCH
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1_000


def _whole(moment: Any) -> int:
    try:
        whole = int(moment)
        if -(2**63) <= whole < 2**63:
            return whole
    except (TypeError, ValueError, OverflowError):
        pass
    raise BadObservation(f"a time is a datetime or whole nanoseconds since 1970 in 64 bits, got {_shown(moment)}.")


def _scalar(number: Any) -> float:
    try:
        return float(np.asarray(number, np.float64).reshape(()))
    except (TypeError, ValueError):
        raise BadObservation(f"a value is one number, got {_shown(number)}.") from None


def _shown(thing: Any) -> str:
    text = repr(thing).replace("\n", " ")
    return text if len(text) < 80 else f"{text[:77]}..."


def _in_domain(value: float, sigma_bound: float, sigma_val: float) -> bool:
    return abs(value) <= sigma_bound * sigma_val
