"""How good the alarms and exponents are: python -m loadtests.detectors [--json]

    alarms      ARL0: mean ticks to the first alarm where nothing changes, from tick 250 on; a run that ends quiet
                counts as its length. Delay: ticks from the first changed one to the alarm, after a change at tick 500,
                over the runs that were quiet until then; power: the share of them that alarm within 400 ticks.
    exponents   root mean square error over fractional Brownian motions of H = .2 .35 .5 .7 .85
    gates       share of ticks taken for outliers where every value is real
    cost        bytes of state for each asset, and processor time in microseconds for one tick of one asset of a block

Seeded, so two runs on one machine print the same. Takes about a minute on one core.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from predictor_core import cusum, entropy, gates, roughness, spectrum, wtmm
from predictor_core.config import PredictorConfig
from predictor_core.observation import Observation

CONFIG = PredictorConfig()
HURSTS = (0.2, 0.35, 0.5, 0.7, 0.85)
LAWS = ("normal", "t4", "ar1", "garch")
CHANGES = {"+2s": (2.0, 1.0), "+1s": (1.0, 1.0), "+0.5s": (0.5, 1.0), "sd x2": (0.0, 2.0), "sd x1.5": (0.0, 1.5)}
SETTLED, CHANGED_AT = 250, 500
SECOND = 1_000_000_000


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtests.detectors", description="Measures alarms and exponents.")
    parser.add_argument("--json", action="store_true")
    found = measure()
    if parser.parse_args().json:
        print(json.dumps(found, indent=2))
    else:
        _print(found)


def measure() -> dict[str, Any]:
    """All tables."""
    return {
        "arl0": {law: arl0(law) for law in LAWS},
        "delay": {name: dict(zip(("ticks", "power"), delay(*change), strict=True)) for name, change in CHANGES.items()},
        "holder_rmse": {
            "as reported": {str(n): rmse(reported_holder, n, 300) for n in (128, 256, 512, 1024)},
            "WTMM, whole signal": {str(n): rmse(whole_wtmm, n, 150) for n in (128, 512)},
            "WTMM, online": {str(n): rmse(online_wtmm, n, 300) for n in (512, 2048)},
        },
        "gated": {name: gated_share(make(np.random.default_rng(5), 4000, 64)) for name, make in SERIES.items()},
        "state_bytes": {part.__name__.split(".")[-1]: state_bytes(part) for part in PARTS},
        "microseconds": {name: microseconds(run) for name, run in RUNS.items()},
    }


def state_bytes(part: Any) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(part.cold(CONFIG.static(), ())))


def microseconds(run: Callable[[np.ndarray], Any], ticks: int = 2000, lanes: int = 64) -> float:
    """The least of five runs, the first (which compiles) left out."""
    series = np.random.default_rng(4).standard_normal((ticks, lanes))
    spent = []
    for _ in range(6):
        start = time.process_time()
        run(series)
        spent.append(time.process_time() - start)
    return 1e6 * min(spent[1:]) / (ticks * lanes)


def arl0(law: str, lanes: int = 512, ticks: int = 6000) -> float:
    alarms = run_cusum(residuals(law, SETTLED + ticks, lanes, np.random.default_rng(1))).alarm[SETTLED:]
    fired = alarms.any(0)
    waited = np.where(fired, alarms.argmax(0) + 1, ticks)
    return float(waited.sum() / max(fired.sum(), 1))


def delay(shift: float, deviation: float, lanes: int = 2048, law: str = "normal") -> tuple[float, float]:
    series = residuals(law, CHANGED_AT + 400, lanes, np.random.default_rng(2))
    series[CHANGED_AT:] = series[CHANGED_AT:] * deviation + shift
    alarms = run_cusum(series).alarm
    quiet = ~alarms[:CHANGED_AT].any(0)
    after = alarms[CHANGED_AT:, quiet]
    fired = after.any(0)
    return float(after.argmax(0)[fired].mean()), float(fired.mean())


def residuals(law: str, ticks: int, lanes: int, rng: np.random.Generator) -> np.ndarray:
    """[ticks, lanes] of a law that does not change."""
    if law == "normal":
        return rng.standard_normal((ticks, lanes))
    if law == "t4":
        return rng.standard_t(4, (ticks, lanes))
    noise = rng.standard_normal((ticks, lanes)) if law == "ar1" else rng.standard_t(5, (ticks, lanes)) * 0.6**0.5
    variance, values = np.ones(lanes), np.empty((ticks, lanes))
    for tick in range(ticks):
        before = values[tick - 1] if tick else np.zeros(lanes)
        if law == "garch":
            variance = 0.02 + 0.10 * before**2 + 0.88 * variance
            values[tick] = np.sqrt(variance) * noise[tick]
        else:
            values[tick] = 0.3 * before + noise[tick]
    return values


def fractional_noise(hurst: float, ticks: int, lanes: int, rng: np.random.Generator) -> np.ndarray:
    """[ticks, lanes] of increments of fractional Brownian motion, exact, by embedding their covariance in a circle."""
    lags = np.arange(ticks + 1.0)
    covariance = ((lags + 1) ** (2 * hurst) - 2 * lags ** (2 * hurst) + abs(lags - 1) ** (2 * hurst)) / 2
    spectrum = np.fft.fft(np.concatenate([covariance, covariance[-2:0:-1]])).real.clip(0)
    noise = rng.standard_normal((lanes, len(spectrum))) + 1j * rng.standard_normal((lanes, len(spectrum)))
    return np.fft.fft(np.sqrt(spectrum / len(spectrum)) * noise).real[:, :ticks].T


def rmse(estimate: Callable[[np.ndarray], np.ndarray], ticks: int, lanes: int) -> float:
    moves = [fractional_noise(hurst, ticks, lanes, np.random.default_rng(int(1000 * hurst))) for hurst in HURSTS]
    errors = [estimate(path) - hurst for path, hurst in zip(moves, HURSTS, strict=True)]
    return float(np.sqrt(np.mean(np.square(errors))))


def reported_holder(moves: np.ndarray) -> np.ndarray:
    return run_roughness(moves).raw[-1]


def online_wtmm(moves: np.ndarray) -> np.ndarray:
    return run_wtmm(moves).holder[-1]


def whole_wtmm(moves: np.ndarray) -> np.ndarray:
    return np.array([wtmm.analyse(np.cumsum(path)).holder for path in moves.T])


def _pulses(rng: np.random.Generator, ticks: int, lanes: int) -> np.ndarray:
    phase = np.arange(ticks)[:, None] % rng.integers(20, 80, lanes)
    beat = 20 * np.exp(-0.5 * (phase - 5.0) ** 2) - 5 * np.exp(-0.5 * (phase - 8.0) ** 2)
    return beat + 0.05 * rng.standard_normal((ticks, lanes))


def _outages(rng: np.random.Generator, ticks: int, lanes: int) -> np.ndarray:
    levels = 10 + 5 * np.sin(2 * np.pi * np.arange(ticks)[:, None] / 288) + 0.1 * rng.standard_normal((ticks, lanes))
    for lane in range(lanes):
        for start in rng.integers(100, ticks - 50, 8):
            levels[start : start + rng.integers(2, 30), lane] = 0.0
    return levels


def _ties(rng: np.random.Generator, ticks: int, lanes: int) -> np.ndarray:
    moves = rng.choice([-1.0, 1.0], (ticks, lanes))
    return np.cumsum(np.where(rng.random((ticks, lanes)) < 0.75, 0.0, moves), 0)


SERIES: dict[str, Callable[[np.random.Generator, int, int], np.ndarray]] = {
    "normal walk": lambda rng, ticks, lanes: np.cumsum(rng.standard_normal((ticks, lanes)), 0),
    "t3 walk": lambda rng, ticks, lanes: np.cumsum(rng.standard_t(3, (ticks, lanes)), 0),
    "t3 levels": lambda rng, ticks, lanes: rng.standard_t(3, (ticks, lanes)),
    "pulses": _pulses,
    "outages": _outages,
    "75 % ties": _ties,
}


def gated_share(levels: np.ndarray) -> float:
    verdicts = run_gates(levels)
    return float((verdicts.outlier | verdicts.domain_error).mean())


def run_cusum(series: np.ndarray, params: Any = None) -> cusum.Alarm:
    return _scan(_cusum, series, params)


def run_roughness(moves: np.ndarray, params: Any = None) -> roughness.Reading:
    return _scan(_roughness, moves, params)


def run_wtmm(moves: np.ndarray) -> wtmm.Spectrum:
    return _scan(_wtmm, moves, None)


def run_gates(levels: np.ndarray, times_ns: Any = None, arrivals_ns: Any = None, params: Any = None) -> gates.Verdict:
    """[ticks, lanes], the level kept as a tick keeps it; a second between ticks and no delay unless told."""
    seconds = (1 + np.arange(len(levels), dtype=np.int64)) * SECOND
    times_ns = np.broadcast_to(seconds[:, None] if times_ns is None else times_ns, levels.shape)
    arrivals_ns = np.broadcast_to(times_ns if arrivals_ns is None else arrivals_ns, levels.shape)
    return _scan(_gates, Observation(np.asarray(levels, np.float64), times_ns, arrivals_ns), params)


PARTS = (gates, cusum, roughness, wtmm, spectrum, entropy)
RUNS: dict[str, Callable[[np.ndarray], Any]] = {
    "gates": run_gates,
    "cusum": run_cusum,
    "roughness": run_roughness,
    "wtmm": run_wtmm,
}


def _scan(run: Any, series: Any, params: Any) -> Any:
    series = series if isinstance(series, tuple) else np.asarray(series, np.float32)
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, run(series, CONFIG.params() if params is None else params))


def _lanes(series: Any) -> tuple[int, ...]:
    return jax.tree.leaves(series)[0].shape[1:]


@jax.jit
def _cusum(series: Any, params: Any) -> Any:
    cold = cusum.cold(CONFIG.static(), _lanes(series))
    return jax.lax.scan(partial(_keep, cusum.update, params), cold, series)[1]


@jax.jit
def _roughness(series: Any, params: Any) -> Any:
    cold = roughness.cold(CONFIG.static(), _lanes(series))
    return jax.lax.scan(partial(_keep, roughness.update, params), cold, series)[1]


def _keep(update: Any, params: Any, state: Any, value: Any) -> Any:
    return update(state, value, params)


@jax.jit
def _wtmm(series: Any, params: Any) -> Any:
    return jax.lax.scan(wtmm.update, wtmm.cold(CONFIG.static(), _lanes(series)), series)[1]


@jax.jit
def _gates(observations: Any, params: Any) -> Any:
    def step(carry: Any, observation: Observation) -> Any:
        state, level = carry
        new, verdict = gates.update(state, observation, (observation.value - level).astype(jnp.float32), params)
        taken = verdict.rejected == 0
        follows = taken & (verdict.learn | (state.clock.last_ns == gates.NEVER))
        state = jax.tree.map(lambda old, young: jnp.where(taken, young, old), state, new)
        return (state, jnp.where(follows, observation.value, level)), verdict

    cold = gates.cold(CONFIG.static(), _lanes(observations))
    return jax.lax.scan(step, (cold, jnp.zeros(_lanes(observations), jnp.float64)), observations)[1]


def _print(found: dict[str, Any]) -> None:
    print("ARL0, ticks        ", "   ".join(f"{law} {value:,.0f}" for law, value in found["arl0"].items()))
    delays = (f"{name} {value['ticks']:.1f} ({value['power']:.2f})" for name, value in found["delay"].items())
    print("delay (power)      ", "   ".join(delays))
    for name, row in found["holder_rmse"].items():
        print(f"H rmse, {name:<19}", "   ".join(f"{ticks}: {value:.4f}" for ticks, value in row.items()))
    print("gated              ", "   ".join(f"{name} {100 * value:.3f} %" for name, value in found["gated"].items()))
    print("bytes of state     ", "   ".join(f"{name} {value}" for name, value in found["state_bytes"].items()))
    print("microseconds       ", "   ".join(f"{name} {value:.2f}" for name, value in found["microseconds"].items()))


if __name__ == "__main__":
    main()
