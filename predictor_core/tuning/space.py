"""What a search may change: knobs with their ranges, each in the scale that it acts in.

    float            evenly in [low, high]                 int          whole numbers in [low, high]
    log_uniform      evenly in the logarithm               categorical  any of `range`
    log_complement   evenly in the logarithm of 1 - x, for what forgets: .99 .999 .9999

FAST holds the knobs that moved the CRPS of any synthetic series by a thousandth (`python -m loadtests.tuning --knobs`);
DEEP adds weaker ones, and the two shapes that matter. A new shape costs a compilation.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..config import PredictorConfig

TYPES = ("float", "int", "categorical", "log_uniform", "log_complement")
POWERS = "must be power of 2"
STEP_MAX = 0.5  # of a knob's range, in its own scale: how far one tuning may go

LOCKED = frozenset({
    "schema_version", "float_precision", "quantile_levels", "confidence_level", "jax_platform",
    "snapshot_path", "telemetry_buffer_maxlen", "credentials_vault_path",
    "telemetry_hash_interval_steps", "snapshot_integrity_hash_algorithm",
    "max_deep_tuning_iterations", "checkpoint_path", "allowed_mutation_rate_per_hour", "mutation_protocol_version",
})  # fmt: skip


@dataclass(frozen=True)
class SearchSpace:
    """One knob."""

    name: str
    param_type: str
    range: tuple[Any, ...]  # (low, high), or the choices
    locked: bool = False
    constraint: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "range", tuple(self.range))
        if self.param_type not in TYPES:
            raise ValueError(f"{self.name}: param_type must be one of {list(TYPES)}, got {self.param_type!r}.")
        if self.constraint not in (None, POWERS):
            raise ValueError(f"{self.name}: constraint must be None or {POWERS!r}, got {self.constraint!r}.")
        if self.param_type == "categorical":
            if not self.range:
                raise ValueError(f"{self.name}: a categorical knob needs at least one choice.")
        elif len(self.range) != 2 or not self.range[0] < self.range[1]:
            raise ValueError(f"{self.name}: range must be (low, high) with low < high, got {self.range!r}.")
        elif self.param_type == "log_uniform" and self.range[0] <= 0:
            raise ValueError(f"{self.name}: a log_uniform range must begin above 0, got {self.range!r}.")
        elif self.param_type == "log_complement" and self.range[1] >= 1:
            raise ValueError(f"{self.name}: a log_complement range must end below 1, got {self.range!r}.")

    def choices(self) -> tuple[Any, ...] | None:
        """The values of a knob that has a few; None for a range."""
        if self.param_type == "categorical":
            return self.range
        if self.constraint != POWERS:
            return None
        powers = (2**k for k in range(64))
        return tuple(power for power in powers if self.range[0] <= power <= self.range[1])

    def __contains__(self, value: Any) -> bool:
        choices = self.choices()
        return value in choices if choices else self.range[0] <= value <= self.range[1]

    def scaled(self, value: float) -> float:
        """The value where the knob's range is even."""
        if self.param_type == "log_complement":
            return -math.log(1 - value)
        return math.log(value) if self.param_type == "log_uniform" else float(value)

    def unscaled(self, place: float) -> float:
        if self.param_type == "log_complement":
            return 1 - math.exp(-place)
        return math.exp(place) if self.param_type == "log_uniform" else place

    def nearest(self, value: Any) -> Any:
        """The value itself, or what comes nearest to it in the range."""
        choices = self.choices()
        if choices:
            return value if value in choices else choices[0]
        return min(max(value, self.range[0]), self.range[1])

    def beside(self, value: Any) -> list[Any]:
        """Half of the way from a value to the ends of the range, or the choices next to it."""
        if choices := self.choices():
            at = choices.index(value)
            return [choices[place] for place in (at - 1, at + 1) if 0 <= place < len(choices)]
        halves = [self.unscaled((self.scaled(end) + self.scaled(value)) / 2) for end in self.range]
        halves = [round(half) if self.param_type == "int" else half for half in halves]
        return [half for half in map(self.nearest, halves) if half != value]

    def around(self, value: Any, step: float = STEP_MAX) -> "SearchSpace":
        """The part of this knob that one change may reach from `value`: a share of the range, or the next choice."""
        choices = self.choices()
        if choices:
            at = choices.index(self.nearest(value))
            near = choices[max(0, at - 1) : at + 2]
            return SearchSpace(self.name, "categorical", near, self.locked)
        low, high = map(self.scaled, self.range)
        value = self.nearest(value)
        at, reach = self.scaled(value), step * (high - low)
        ends = [self.unscaled(max(low, at - reach)), self.unscaled(min(high, at + reach))]
        if self.param_type == "int":
            ends = [math.floor(ends[0]), math.ceil(ends[1])]
        inside = max(self.range[0], min(ends[0], value)), min(self.range[1], max(ends[1], value))
        return replace(self, range=inside)


def _knobs(*knobs: SearchSpace) -> dict[str, SearchSpace]:
    return {knob.name: knob for knob in knobs}


FAST = _knobs(
    SearchSpace("readout_forgetting", "log_complement", (0.99, 0.9999)),
    SearchSpace("scale_rate", "log_uniform", (2e-4, 0.02)),
    SearchSpace("calibration_rate", "log_uniform", (1e-4, 0.01)),
    SearchSpace("learning_rate", "log_uniform", (1e-3, 0.1)),
    SearchSpace("sinkhorn_epsilon_0", "log_uniform", (1e-2, 1.0)),
    SearchSpace("cusum_k", "float", (0.1, 1.0)),
)
DEEP = FAST | _knobs(
    SearchSpace("sinkhorn_alpha", "float", (0.0, 2.0)),
    SearchSpace("cusum_h", "float", (2.0, 10.0)),
    SearchSpace("volatility_alpha", "log_uniform", (0.01, 0.6)),
    SearchSpace("grace_period_steps", "int", (5, 50)),
    SearchSpace("log_sig_depth", "categorical", (2, 3, 5)),
    SearchSpace("memory_size", "categorical", (256, 384, 512)),
)
TIERS = {"fast": (FAST, 50), "deep": (DEEP, 500)}
SHAPES = frozenset({"log_sig_depth", "memory_size"})  # what a running fleet cannot take without a restart


def around(space: Mapping[str, SearchSpace], config: PredictorConfig) -> dict[str, SearchSpace]:
    """Every knob within reach of its present value."""
    return {name: knob.around(getattr(config, name)) for name, knob in space.items()}


def start(space: Mapping[str, SearchSpace], config: PredictorConfig) -> list[dict[str, Any]]:
    """What a search tries first: the present values, then each knob alone, half of the way down and up."""
    present = {name: knob.nearest(getattr(config, name)) for name, knob in space.items()}
    moved = [{name: value} for name, knob in space.items() for value in knob.beside(present[name])]
    return [present, *({**present, **one} for one in moved)]


def check_unlocked(space: Mapping[str, SearchSpace]) -> None:
    """Refuses a search over what must not change."""
    locked = sorted(name for name, knob in space.items() if knob.locked or name in LOCKED)
    if locked:
        raise ValueError(f"cannot optimize locked parameters: {locked}. Remove them from the search space.")
    if not space:
        raise ValueError("the search space is empty: name at least one parameter.")
