"""Koopman modes by their power, and the Paley-Wiener check on the spectrum that they draw. Telemetry only.

The damped resonators of kernel A are the modes: the mean square of each, over what white moves would give it, is the
spectral density f at its frequency. A process can be forecast from its past at all only if

    integral of |ln f(w)| / (1 + w^2) dw        over |w| <= pi, f measured in its own mean

is finite. From a handful of frequencies it always is, so what the figure tells is how far the spectrum is from flat.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array

from .kernels.hilbert import PERIODS
from .lanes import column, real_of, running_mean, spread

RATE = 0.01
SMALLEST = 1e-9  # of the mean power: a silent mode is not minus infinity


class Spectrum(eqx.Module):
    powers: Array  # (modes,)


class Modes(NamedTuple):
    frequency: Any  # of the strongest mode, cycles in the unit of signal_sampling_interval; 0 if nothing moves
    power: Any  # its share of all power
    frequencies: Any  # (top k,) strongest first
    powers: Any  # (top k,)
    paley_wiener: Any
    predictable: Any  # bool: the integral is within its bound


def cold(shapes: object, lanes: tuple[int, ...]) -> Spectrum:
    return Spectrum(spread(np.zeros(len(PERIODS)), lanes, real_of(shapes)))


def update(spectrum: Spectrum, modes: Array, age: Array, params: Any, shapes: Any) -> tuple[Spectrum, Modes]:
    """Takes in the resonators of kernel A as they stand now: real parts, then imaginary parts."""
    squares = (modes[0] ** 2 + modes[1] ** 2) * column(1 / _white_power(), age)
    powers = running_mean(spectrum.powers, squares, RATE, jnp.maximum(age, 1.0))
    return Spectrum(powers), _describe(powers, params, shapes)


def _describe(powers: Array, params: Any, shapes: Any) -> Modes:
    real = powers.dtype
    audible = jnp.where(powers > jnp.asarray(params.koopman_min_power, real), powers, 0.0)
    order = _ranks(audible)
    per_tick = column(1 / PERIODS, powers[0]) / jnp.asarray(params.signal_sampling_interval, real)
    top = range(min(shapes.koopman_top_k, len(PERIODS)))
    strongest = jnp.stack([jnp.where(order == k, audible, 0.0).sum(0) for k in top])
    where = jnp.stack([jnp.where((order == k) & (audible > 0), per_tick, 0.0).sum(0) for k in top])
    integral = _paley_wiener(powers)
    return Modes(
        frequency=where[0],
        power=strongest[0] / jnp.maximum(audible.sum(0), 1e-30),
        frequencies=where,
        powers=strongest,
        paley_wiener=integral,
        predictable=integral <= jnp.asarray(params.paley_wiener_integral_max, real),
    )


def _ranks(values: Array) -> Array:
    """0 for the largest; equal values in their order. No sort: a handful of comparisons."""
    ranks = []
    for i, value in enumerate(values):
        ahead = [other >= value if j < i else other > value for j, other in enumerate(values) if j != i]
        ranks.append(sum(yes.astype(jnp.int32) for yes in ahead))
    return jnp.stack(ranks)


def _paley_wiener(powers: Array) -> Array:
    total = powers.sum(0)
    density = jnp.maximum(powers * len(PERIODS) / jnp.maximum(total, 1e-30), SMALLEST)
    integral = (abs(jnp.log(density)) * column(_cells(), total)).sum(0)
    return jnp.where(total > 0, integral, 0.0)


def _cells() -> np.ndarray:
    """The integral of dw / (1 + w^2) over each mode's share of [-pi, pi]."""
    w = 2 * np.pi / PERIODS  # falling
    edges = np.concatenate([[np.pi], (w[1:] + w[:-1]) / 2, [0.0]])
    return 2 * -np.diff(np.arctan(edges))


def _white_power() -> np.ndarray:
    """What moves of unit power leave in each resonator."""
    return (2 / PERIODS) / (1 - np.exp(-2 / PERIODS))
