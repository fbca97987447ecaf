"""Programs for the tests, compiled once: the real model, and a toy whose numbers can be checked by hand."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from predictor_core import FunctionalPredictor, PredictorConfig, Program, RejectReason, UniversalPredictor
from predictor_core.canonical import Model
from predictor_core.config import Params, Shapes
from predictor_core.graph import LAST_TIME
from predictor_core.observation import Observation
from predictor_core.result import Output, output_shape

# Where the command keeps its compiled programs too: a second run of the tests starts in no time.
CACHE = Path(".predictor/cache")
SECOND = 1_000_000_000


@pytest.fixture(scope="session")
def predictor() -> FunctionalPredictor:
    return FunctionalPredictor(PredictorConfig(), cache_dir=CACHE)


@pytest.fixture(scope="session")
def program(predictor: FunctionalPredictor) -> Program:
    predictor.program.compile()
    return predictor.program


@pytest.fixture(scope="session")
def make_toy_program() -> Callable[..., Program]:
    """Small enough to need several executions for little work: 2 blocks of 64 lanes, 3 steps each."""

    def make(**settings: Any) -> Program:
        cache_dir = settings.pop("cache_dir", None)
        return Program(PredictorConfig(**settings), cache_dir=cache_dir, blocks=2, steps=3, model=TOY)

    return make


@pytest.fixture(scope="session", params=[32, 64])
def toy_program(request: pytest.FixtureRequest, make_toy_program: Callable[..., Program]) -> Program:
    made = make_toy_program(float_precision=request.param)
    made.compile()
    return made


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def run_ticks() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """Runs ticks whose n-th of a row happens at second n after `seconds[row]`, and arrives at once."""

    def run(program: Program, rows: np.ndarray, row_of: Any, values: Any, seconds: Any = 0, **how: Any) -> Any:
        row_of, values = np.asarray(row_of, np.int32), np.asarray(values, np.float64)
        nth = np.array([np.count_nonzero(row_of[:at] == row) for at, row in enumerate(row_of)], np.int64)
        times_ns = (np.broadcast_to(seconds, len(rows))[row_of] + nth + 1) * SECOND
        return program.run(rows, row_of, values, times_ns, times_ns, **how)

    return run


def _cold(shapes: Shapes, lanes: tuple[int, ...] = ()) -> dict[str, Any]:
    return {
        LAST_TIME: np.full(lanes, np.iinfo(np.int64).min),
        "level": np.zeros(lanes, np.float64),
        "ticks": np.zeros(lanes, np.int32),
        "memory": np.zeros((5, *lanes), np.float32 if shapes.float_precision == 32 else np.float64),
    }


def _tick(
    state: dict[str, Any],
    observation: Observation,
    params: Params,
    shapes: Shapes,
    pruned: jax.Array | bool,
    live: jax.Array,
) -> tuple[Any, Output]:
    """Forecasts the mean of the values so far plus `cusum_h`; `memory` fills with cosines, where rounding shows."""
    late = observation.time_ns <= state[LAST_TIME]
    rejected = jnp.where(late, RejectReason.late, RejectReason.accepted)
    rejected = jnp.where(jnp.isfinite(observation.value), rejected, RejectReason.not_finite).astype(jnp.int32)
    ticks = state["ticks"] + 1
    wave = jnp.cos(observation.value).astype(state["memory"].dtype)
    new = {
        LAST_TIME: observation.time_ns,
        "level": state["level"] + (observation.value - state["level"]) / ticks,
        "ticks": ticks,
        "memory": jnp.concatenate([wave[None], (state["memory"][:-1] + wave) / 3]),
    }
    new = jax.tree.map(lambda a, b: jnp.where(live & (rejected == RejectReason.accepted), a, b), new, state)
    return new, _output(new, rejected, params, shapes)


def _output(state: dict[str, Any], rejected: jax.Array, params: Params, shapes: Shapes) -> Output:
    def everywhere(leaf: np.ndarray) -> jax.Array:
        return jnp.broadcast_to(leaf.reshape(leaf.shape + (1,) * rejected.ndim), leaf.shape + rejected.shape)

    zeros = jax.tree.map(everywhere, output_shape(len(shapes.quantile_levels)))
    centre = state["level"] + params.cusum_h
    return zeros._replace(
        rejected=rejected,
        reference_prediction=centre,
        confidence_lower=centre - 1,
        confidence_upper=centre + 1,
        quantiles=centre + everywhere(np.array(shapes.quantile_levels)),
        operating_mode=state["ticks"] % 3,
        events=state["ticks"].astype(jnp.uint32),
        telemetry=zeros.telemetry._replace(
            sigma=state["memory"].sum(0).astype(jnp.float32),
            emergency_mode=(state["ticks"] % 2).astype(jnp.float32),
        ),
    )


TOY = Model(_cold, _tick)


@pytest.fixture(scope="session")
def cache_dir() -> Path:
    return CACHE.absolute()


@pytest.fixture
def make_universal(program: Program) -> Iterator[Callable[..., UniversalPredictor]]:
    """Predictors of one asset that share the session's program."""
    with ExitStack() as opened:

        def make(config: PredictorConfig | None = None, **options: Any) -> UniversalPredictor:
            return opened.enter_context(UniversalPredictor(config, cache_dir=CACHE, **options))

        yield make
