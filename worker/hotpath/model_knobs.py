"""The numbers of the model that a canary may try, and those that the fleet's settings begin with.

    sinkhorn_epsilon_0   the temperature of the transport between kernels; `epsilon` is only a floor far below it
    volatility_alpha     how fast the volatility forgets
    learning_rate        how fast the kernels' weights move; only by name, since what was learned with it stays

All are arguments of the compiled graph. Those of the alarms (`cusum_...`) are not here and never will be: an optimiser
that sees only losses learns to silence them.
"""

from dataclasses import dataclass

from predictor_core import PredictorConfig
from scheduler.hotpath import Knob, KnobRegistry

MODEL = KnobRegistry(
    [
        Knob("sinkhorn_epsilon_0", 0.01, 1.0, 0.1, scale="log", group="model"),
        Knob("volatility_alpha", 0.02, 0.3, 0.1, scale="log", group="model"),
        Knob("learning_rate", 0.003, 0.03, 0.01, scale="log", group="model", online=False),
    ]
)
PROPOSED = tuple(knob.name for knob in MODEL.knobs if knob.online)  # unless others are named


@dataclass(frozen=True)
class Model:
    """What the settings say: each number, and the share of values that should fall between the outermost quantiles."""

    numbers: dict[str, float]
    nominal: float


def model_of(config: PredictorConfig) -> Model:
    levels = config.quantile_levels
    return Model({name: float(getattr(config, name)) for name in MODEL.names}, levels[-1] - levels[0])
