"""Kernel A: ridge regression in a Hilbert space: random Fourier features, lags, analogs and damped resonators, jointly.

The resonators are Koopman modes of fixed periods driven by the moves; their real and imaginary parts are features.
The random table is one constant for all assets, so it costs no state.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..lanes import column, real_of, settled, spread, summed
from .base import LOCAL, NULL, QUICK, SMOOTH, STEADY, Expert, Forecast, Readout, View, cold_readout, forecast, silent

NAME = "A"
EXPERTS = (Expert(NAME, SMOOTH), Expert(NAME, QUICK), Expert(NAME, STEADY), Expert(NAME, LOCAL), NULL)

FOURIER, BANDWIDTH, TABLE_KEY = 8, 0.4, 0
PERIODS = np.geomspace(4.0, 48.0, 4).round(2)
SIZE = 7 + FOURIER + 2 * len(PERIODS)


class Hilbert(eqx.Module):
    readout: Readout
    modes: Array  # real parts, then imaginary parts


def cold(shapes: Any, lanes: tuple[int, ...]) -> Hilbert:
    real = real_of(shapes)
    return Hilbert(cold_readout(SIZE, lanes, real), spread(np.zeros((2, len(PERIODS))), lanes, real))


def table() -> tuple[np.ndarray, np.ndarray]:
    """Frequencies and phases of the random features."""
    generator = np.random.default_rng(TABLE_KEY)
    return BANDWIDTH * generator.standard_normal((FOURIER, 6)), 2 * np.pi * generator.random(FOURIER)


def predict(state: Hilbert, view: View, analogs: Array) -> tuple[Hilbert, Forecast]:
    """`analogs` are what followed moments like this one."""
    modes = turn(state.modes, view.moves[0])
    one = jnp.ones_like(view.moves[:1])
    features = jnp.concatenate([one, view.heights[:1], view.moves, analogs, _fourier(view), modes[0], modes[1]], 0)
    readout, answer = forecast(state.readout, features)
    return Hilbert(readout, modes), answer


def rest(state: Hilbert, view: View) -> tuple[Hilbert, Forecast]:
    """Stands still but for the resonators, which others look at."""
    readout, answer = silent(state.readout)
    return Hilbert(readout, turn(state.modes, view.moves[0])), answer


def _fourier(view: View) -> Array:
    frequencies, phases = table()
    point = jnp.concatenate([view.heights, view.moves], 0)
    angles = summed(column(frequencies, view.moves[0]) * point[None], 1) + column(phases, view.moves[0])
    return settled((2 / FOURIER) ** 0.5 * jnp.cos(settled(angles)))


def turn(modes: Array, move: Array) -> Array:
    """The resonators one tick on."""
    angle, damping = 2 * np.pi / PERIODS, np.exp(-1 / PERIODS)
    cosine, sine = column(damping * np.cos(angle), move), column(damping * np.sin(angle), move)
    push = column(np.sqrt(2 / PERIODS), move) * move[None]
    return jnp.stack([cosine * modes[0] - sine * modes[1] + push, sine * modes[0] + cosine * modes[1]])
