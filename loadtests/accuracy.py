"""How good the forecasts are on synthetic processes, and what each part adds: python -m loadtests.accuracy [--json]

CRPS, from the 23 quantiles, over that of a random walk with EWMA(.94) volatility, and over the law itself where it is
known. The first 250 ticks of a series teach and are not scored. `--parts` takes the parts out one by one and prints the
table of docs/predictor.md; `--sizes` draws CRPS against the bytes of a row.
"""

import argparse
import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest.mock import patch

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from predictor_core import aggregation, bands, orchestrator, state, tick
from predictor_core.config import PredictorConfig
from predictor_core.kernels import NAMES, base, hilbert
from predictor_core.levels import HIGH, LEVELS, LOW, NORMAL
from predictor_core.observation import Observation

from .processes import Process, suite

BURN = 250
SECOND = 1_000_000_000


def forecasts(series: dict[str, np.ndarray], config: PredictorConfig | None = None) -> dict[str, np.ndarray]:
    """Quantiles [n, levels] of every value, made from the values before it. One compilation, the series as lanes."""
    config = config or PredictorConfig()
    shapes, lanes = config.static(), (len(series),)
    values = np.full((max(map(len, series.values())), *lanes), np.nan)
    for lane, levels in enumerate(series.values()):
        values[: len(levels), lane] = levels

    def step(carried: tuple[Any, Any], value: Any) -> tuple[Any, Any]:
        now, at = carried
        times = jnp.full(lanes, at)
        new, output = tick.tick(now, Observation(value, times, times), config.params(), shapes)
        return (new, at + SECOND), output.quantiles

    with jax.enable_x64(True):
        cold = jax.tree.map(jnp.asarray, state.cold(shapes, lanes))
        begin = (cold, jnp.asarray(10**9 * SECOND, jnp.int64))
        quantiles = np.asarray(jax.jit(lambda v: jax.lax.scan(step, begin, v)[1])(jnp.asarray(values)))
    nothing = np.full((1, len(LEVELS)), np.nan)
    return {
        name: np.concatenate([nothing, quantiles[: len(levels) - 1, :, lane]])
        for lane, (name, levels) in enumerate(series.items())
    }


def crps(quantiles: np.ndarray, values: np.ndarray) -> float:
    """Twice the pinball losses, each weighed by its cell of levels."""
    cells = np.diff(np.concatenate([[0.0], (LEVELS[1:] + LEVELS[:-1]) / 2, [1.0]]))
    error = values[BURN:, None] - quantiles[BURN:]
    return float(2 * (cells * np.maximum(LEVELS * error, (LEVELS - 1) * error)).sum(1).mean())


def around(centers: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Quantiles [n, levels] of a forecast of one number: normal, EWMA(.94) variance of its errors so far."""
    errors, variance = levels - centers, 0.0
    quantiles = np.full((len(levels), len(LEVELS)), np.nan)
    first = int(np.isnan(centers).sum())
    for t in range(first + 1, len(levels)):
        variance += max(0.06, 1 / (t - first)) * (errors[t - 1] ** 2 - variance)
        quantiles[t] = centers[t] + np.sqrt(variance) * NORMAL
    return quantiles


def random_walk(levels: np.ndarray) -> np.ndarray:
    """The yardstick: the last value, and a band around it."""
    return around(np.concatenate([[np.nan], levels[:-1]]), levels)


def score(processes: dict[str, Process], config: PredictorConfig | None = None) -> dict[str, dict[str, float]]:
    ours = forecasts({name: process.levels for name, process in processes.items()}, config)
    rows = {}
    for name, (levels, oracle) in processes.items():
        own = crps(ours[name], levels)
        inside = (levels >= ours[name][:, LOW]) & (levels <= ours[name][:, HIGH])
        rows[name] = {
            "crps": own / crps(random_walk(levels), levels),
            "crps_over_oracle": own / crps(oracle, levels) if oracle is not None else float("nan"),
            "coverage90": float(inside[BURN:].mean()),
        }
    return rows


def mean_ratio(rows: dict[str, dict[str, float]], figure: str = "crps") -> float:
    """Geometric mean over the series that have the figure."""
    values = np.array([row[figure] for row in rows.values()])
    return geometric_mean(values[np.isfinite(values)])


def geometric_mean(values: Sequence[float] | np.ndarray) -> float:
    return float(np.exp(np.log(values).mean()))


def without_kernel(kernel: int) -> Any:
    """The orchestrator gives the kernel no weight."""
    taken = orchestrator.step

    def step(*args: Any) -> Any:
        new, report = taken(*args)
        kept = new.weights * jnp.asarray(np.arange(4) != kernel, new.weights.dtype)[:, None]
        return eqx.tree_at(lambda s: s.weights, new, kept / kept.sum(0)), report

    return patch.object(orchestrator, "step", step)


def uniform_weights() -> Any:
    """Every kernel, and every expert in its kernel, weighs the same for ever."""

    def weights(regrets: Any, sizes: tuple[int, ...], haste: Any = 1.0) -> Any:
        fixed = jnp.asarray(np.repeat(1 / np.array(sizes), sizes), regrets.total.dtype)
        return jnp.broadcast_to(fixed[:, None], regrets.total.shape)

    return patch.object(aggregation, "weights", weights)


def without_local_deviation() -> Any:
    """Kernels forecast no deviation of their own."""
    made = base.forecast

    def forecast(readout: Any, features: Any) -> Any:
        new, answer = made(readout, features)
        return new, answer._replace(deviation=jnp.full_like(answer.deviation, 1.0))

    modules = (tick.hilbert, tick.galerkin, tick.levy, tick.signature)
    return _all(*(patch.object(module, "forecast", forecast) for module in modules))


@contextlib.contextmanager
def _all(*patches: Any) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for each in patches:
            stack.enter_context(each)
        yield


PARTS: dict[str, Callable[[], Any]] = {
    "everything": contextlib.nullcontext,
    **{f"without kernel {name}": lambda k=k: without_kernel(k) for k, name in enumerate(NAMES)},
    "without analogs": lambda: patch.object(tick, "analogs", lambda moves: 0 * moves[:2]),
    "without local deviations": without_local_deviation,
    "without calibration": lambda: patch.object(bands, "learn", lambda band, *_: band),
    "without the lattice": lambda: patch.object(tick.lattice, "TIES_MIN", 2.0),
    "orchestrator uniform": uniform_weights,
}


def sized(features: int, resonators: int) -> Any:
    """Kernel A with other numbers of random features and resonators."""
    periods = np.geomspace(4.0, 48.0, resonators).round(2)
    size = 7 + features + 2 * resonators
    changes = {"FOURIER": features, "PERIODS": periods, "SIZE": size}
    return _all(
        *(patch.object(hilbert, name, value) for name, value in changes.items()),
        patch.object(tick.spectrum, "PERIODS", periods),
    )


def table(titles: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in [titles, ["---"] * len(titles), *rows]]
    return "\n".join(lines)


def ablation(processes: dict[str, Process]) -> dict[str, dict[str, dict[str, float]]]:
    rows = {}
    for name, changed in PARTS.items():
        with changed():
            rows[name] = score(processes)
    return rows


def sizes(processes: dict[str, Process]) -> list[dict[str, float]]:
    """CRPS against the bytes of a row, for several sizes of kernel A and of the memory."""
    points = []
    for features, resonators, memory in ((8, 4, 128), (8, 4, 384), (12, 6, 256), (12, 6, 384), (16, 8, 384)):
        config = PredictorConfig(memory_size=memory)
        with sized(features, resonators):
            leaves = jax.tree.leaves(state.cold(config.static()))
            rows = score(processes, config)
        points.append(
            {
                "features": features,
                "resonators": resonators,
                "memory": memory,
                "bytes": sum(leaf.nbytes for leaf in leaves),
                "crps": mean_ratio(rows),
                "crps_over_oracle": mean_ratio(rows, "crps_over_oracle"),
            }
        )
    return points


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--length", type=int, default=2500, help="ticks of each series")
    parser.add_argument("--parts", action="store_true", help="take the parts out one by one")
    parser.add_argument("--sizes", action="store_true", help="CRPS against the bytes of a row")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    processes, begin = suite(arguments.length), time.perf_counter()
    if arguments.parts:
        result = ablation(processes)
        shown = [[name, *_cells(rows)] for name, rows in result.items()]
        text = table(["", "CRPS / random walk", "CRPS / law", "worst series"], shown)
    elif arguments.sizes:
        result = sizes(processes)
        shown = [[f"{value:.4g}" for value in point.values()] for point in result]
        text = table(list(result[0]), shown)
    else:
        result = score(processes)
        shown = [[name, *(f"{value:.4f}" for value in row.values())] for name, row in result.items()]
        text = table(["", *next(iter(result.values()))], shown)
    print(json.dumps(result) if arguments.json else f"{text}\n\n{time.perf_counter() - begin:.0f} s")


def _cells(rows: dict[str, dict[str, float]]) -> list[str]:
    worst = max(row["crps"] for row in rows.values())
    return [f"{mean_ratio(rows):.4f}", f"{mean_ratio(rows, 'crps_over_oracle'):.4f}", f"{worst:.4f}"]


if __name__ == "__main__":
    main()
