"""Runs many candidates over the same histories at once: trials x assets are the lanes of one compiled scan.

    lanes   trial 0: asset 0 1 2 ... | trial 1: asset 0 1 2 ... | ...     each lane has numbers of its own
    ticks   PORTION at a time, the state carried on                       scored as they come, kept by the bin

The tick is the one that a fleet runs, with an array where that has one number, and with 32 lanes instead of 64: the
last bits of a forecast may differ from the fleet's. Here a lane's result depends on nobody beside it.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from .. import executables, state, tick
from ..config import Params, PredictorConfig, Shapes
from ..executables import Executable
from ..levels import HIGH, LEVELS, LOW
from ..observation import Observation
from ..result import RejectReason
from .history import BIN, History, bins_of

LANES = 32
PORTION = 10 * BIN
CELLS = np.diff(np.concatenate([[0.0], (LEVELS[1:] + LEVELS[:-1]) / 2, [1.0]]))  # of LEVELS, as weights of the CRPS


class Tallies(NamedTuple):
    """Sums over the ticks of each bin: [trials, assets, bins]."""

    crps: np.ndarray
    squares: np.ndarray  # of the errors
    shares: np.ndarray  # |error| over |value|, or over the asset's mean move where that is larger
    inside: np.ndarray  # values inside the 90 % band
    ticks: np.ndarray  # that were scored

    def of(self, trials: Any) -> "Tallies":
        return Tallies(*(part[trials] for part in self))


class Runner:
    """Runs candidates, on all cores; compiled programs are kept by shape."""

    def __init__(self, cache_dir: Path | str | None = None) -> None:
        self._cache_dir = Path(cache_dir) if cache_dir else None
        self.threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    def run(self, configs: Sequence[PredictorConfig], history: History) -> Tallies:
        """The scores of every config on every asset."""
        parts: list[Tallies | None] = [None] * len(configs)
        by_shapes: dict[Shapes, list[int]] = {}
        for at, config in enumerate(configs):
            by_shapes.setdefault(config.static(), []).append(at)
        for shapes, places in by_shapes.items():
            tallies = self._run_alike(shapes, [configs[at].params() for at in places], history)
            for row, at in enumerate(places):
                parts[at] = tallies.of(row)
        return Tallies(*(np.stack(column) for column in zip(*(part for part in parts if part), strict=True)))

    def _run_alike(self, shapes: Shapes, params: Sequence[Params], history: History) -> Tallies:
        """Lane l is trial l // assets and asset l % assets."""
        program, assets = self._program(shapes), len(history.assets)
        blocks = np.array_split(np.arange(len(params) * assets), range(LANES, len(params) * assets, LANES))
        with ThreadPoolExecutor(self.threads) as pool:
            columns = [np.array(column) for column in zip(*params, strict=True)]
            jobs = [
                pool.submit(_run_block, program, shapes, [c[lanes // assets] for c in columns], history, lanes % assets)
                for lanes in blocks
            ]
            try:
                tallied = np.concatenate([job.result() for job in jobs], -1)  # [5, bins, lanes]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return Tallies(*np.moveaxis(tallied.reshape(*tallied.shape[:2], len(params), assets), 1, -1))

    def _program(self, shapes: Shapes) -> Executable:
        sources = executables.sources(__file__, tick.__file__, state.__file__)
        made, _ = executables.executable(
            ("tuning", shapes, LANES, PORTION),
            executables.fingerprint("tuning", LANES, sources),
            self._cache_dir,
            lambda: _lower(shapes),
        )
        return made


def _run_block(
    program: Executable, shapes: Shapes, numbers: list[np.ndarray], history: History, assets: np.ndarray
) -> np.ndarray:
    """The bins of up to LANES lanes: [5, bins, lanes]. Lanes that are left over repeat the last one."""
    lanes = np.minimum(np.arange(LANES), len(assets) - 1)
    assets, numbers = assets[lanes], [np.ascontiguousarray(number[lanes]) for number in numbers]
    leaves, tallied = jax.tree.leaves(state.cold(shapes, (LANES,))), []
    with jax.enable_x64(True):
        for start in range(0, len(history.values), PORTION):
            ticks = [_portion(part, start, assets) for part in (history.values, history.times_ns, history.arrivals_ns)]
            *leaves, scores = program(*leaves, *ticks, *numbers)
            tallied.append(_tally(np.asarray(scores, np.float64)))
    bins = -(-len(history.values) // BIN)
    used = np.count_nonzero(np.diff(lanes)) + 1
    return np.concatenate(tallied, 1)[:, :bins, :used]


def _portion(column: np.ndarray, start: int, assets: np.ndarray) -> np.ndarray:
    """PORTION ticks; after the end NaN, which is no tick."""
    part = column[start : start + PORTION][:, assets]
    filler = np.full((PORTION - len(part), len(assets)), np.nan if part.dtype == np.float64 else 0, part.dtype)
    return np.concatenate([part, filler])


def _tally(scores: np.ndarray) -> np.ndarray:
    """Scores [ticks, 4, lanes] summed by the bin, with their count: [5, bins, lanes]."""
    known = np.isfinite(scores[:, 0])
    sums = [np.where(known, scores[:, kind], 0.0) for kind in range(4)]
    return np.stack([bins_of(part).sum(0) for part in (*sums, known.astype(float))])


def _lower(shapes: Shapes) -> Any:
    cold = state.cold(shapes, (LANES,))
    tree = jax.tree.structure(cold)
    leaves = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(cold)]
    numbers = [jax.ShapeDtypeStruct((LANES,), number.dtype) for number in PredictorConfig().params()]
    columns = [jax.ShapeDtypeStruct((PORTION, LANES), dtype) for dtype in (np.float64, np.int64, np.int64)]

    def program(*arguments: Array) -> list[Array]:
        begin = jax.tree.unflatten(tree, arguments[: len(leaves)])
        values, times_ns, arrivals_ns, *numbers = arguments[len(leaves) :]

        def step(now: Any, ticked: tuple[Array, Array, Array]) -> tuple[Any, Array]:
            new, output = tick.tick(now, Observation(*ticked), Params(*numbers), shapes)
            scored = (output.rejected == RejectReason.accepted) & (now.ticks > 1)
            return new, jnp.where(scored[None], _scores(now, ticked[0]), jnp.nan)

        end, scores = jax.lax.scan(step, begin, (values, times_ns, arrivals_ns))
        return [*jax.tree.leaves(end), scores]

    with jax.enable_x64(True):
        return jax.jit(program, keep_unused=True).lower(*leaves, *columns, *numbers)


def _scores(before: Any, value: Array) -> Array:
    """How good the forecast was that stood before a value came: the four numbers that are tallied."""
    move = value - before.level
    law = before.bands.quantiles.astype(jnp.float64)
    levels, cells = jnp.asarray(LEVELS)[:, None], jnp.asarray(CELLS)[:, None]
    apart = move - law
    crps = 2 * (cells * jnp.maximum(levels * apart, (levels - 1) * apart)).sum(0)
    error = move - law[len(LEVELS) // 2]
    floor = jnp.maximum(before.scale.pace.astype(jnp.float64), 1e-300)
    inside = (law[LOW] <= move) & (move <= law[HIGH])
    return jnp.stack([crps, error * error, abs(error) / jnp.maximum(abs(value), floor), inside.astype(jnp.float64)])
