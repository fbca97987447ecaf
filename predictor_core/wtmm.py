"""WTMM: modulus maxima of the wavelet transform, their suprema in the cone, Z(q, a), tau(q) and D(h). Telemetry only.

    W(a, b)    Mexican hat at scale a and place b          maximum: |W| above both neighbours
    L          largest |W| of the maxima within the Besov cone, |b - b'| <= C (a - a'), over all finer scales a'
    Z(q, a) = sum of L^q over the maxima ~ a^tau(q)        D(h) = min over q of (q h - tau(q))

`analyse` does this to a whole signal: 16 scales, each maximum line weighted into the regression by how many there are.

The tick cannot afford that: 16 hats on a window of 128 cost 4 kFLOP, 512 bytes of window and 1.2 KiB of rings and sums
for each asset, a quarter of everything it has. So the state keeps a dyadic cascade instead, O(1) per tick and free of
windows, in 248 bytes: level j holds means over blocks of 2^j ticks, and the second difference of three neighbours is
the wavelet (a hat made of boxes). A maximum is declared one block late and takes over the suprema that the next finer
level declared inside its block, a cone of C = 1; all levels do their work in one vector, masked by the tick count.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array

from .lanes import column, real_of, spread

LEVELS = 5  # blocks of 1, 2, 4, 8, 16 ticks
MOMENTS = (-1, 1, 2, 3)
MEMORY = 1024
STEP_MAX = 50.0
SMALLEST = 1e-6  # a maximum below it, in units of the pace, is rounding
UNKNOWN = 0.5
CONE_LIFT = 0.03  # what the supremum in the cone adds to an exponent, measured on fractional Brownian motion

SCALES, CONE = 16, 1.5
STRETCH = 1.06  # a finite range of scales draws exponents towards one half by so much


class Wtmm(eqx.Module):
    """Arrays over levels; one, two: as of the last block and of the one before."""

    age: Array  # int32
    position: Array  # the level, measured from the last time that all blocks ended together
    sums: Array  # over the running block
    mean_one: Array
    mean_two: Array
    modulus_one: Array
    modulus_two: Array
    crest: Array  # largest supremum that the finer level declared in the running block
    crest_one: Array
    counts: Array  # fading number of maxima
    moments: Array  # (moments, levels) fading sums of L^q


class Spectrum(NamedTuple):
    holder: Any  # (tau(2) + 1) / 2
    width: Any  # of D(h): local exponent at q = -1/2 less the one at q = 5/2


def cold(shapes: object, lanes: tuple[int, ...]) -> Wtmm:
    real = real_of(shapes)
    empty = spread(np.zeros(LEVELS), lanes, real)
    return Wtmm(
        age=spread(0, lanes, np.int32),
        position=spread(0.0, lanes, real),
        sums=empty,
        mean_one=empty,
        mean_two=empty,
        modulus_one=empty,
        modulus_two=empty,
        crest=empty,
        crest_one=empty,
        counts=empty,
        moments=spread(np.zeros((len(MOMENTS), LEVELS)), lanes, real),
    )


def update(wtmm: Wtmm, move: Array) -> tuple[Wtmm, Spectrum]:
    """Takes one move in, measured in the asset's own pace."""
    age = jnp.where(wtmm.age >= 1 << 20, wtmm.age - (1 << 19), wtmm.age) + 1
    blocks = 2 ** np.arange(LEVELS).reshape((LEVELS,) + (1,) * move.ndim).astype(np.int32)
    due = (age[None] & (blocks - 1)) == 0

    position = wtmm.position + jnp.clip(move, -STEP_MAX, STEP_MAX)
    sums = wtmm.sums + position[None]
    mean = sums / jnp.asarray(blocks, move.dtype)
    modulus = abs(mean - 2 * wtmm.mean_one + wtmm.mean_two) * column(1 / _gains(), move)
    highest = (wtmm.modulus_one >= wtmm.modulus_two) & (wtmm.modulus_one > modulus) & (wtmm.modulus_one > SMALLEST)
    declared = due & highest & (age[None] >= 5 * blocks)
    supremum = jnp.maximum(wtmm.modulus_one, wtmm.crest_one)
    handed_on = jnp.where(declared, supremum, 0.0)
    crest = jnp.maximum(wtmm.crest, jnp.concatenate([jnp.zeros_like(handed_on[:1]), handed_on[:-1]], 0))

    fade = jnp.where(due, column((1 - 1 / MEMORY) ** 2.0 ** np.arange(LEVELS), move), 1.0)
    counts = fade * wtmm.counts + declared
    safe = jnp.where(declared, supremum, 1.0)
    powers = jnp.stack([1 / safe, safe, safe * safe, safe * safe * safe])
    moments = fade[None] * wtmm.moments + jnp.where(declared[None], powers, 0.0)

    # Every block ends with the longest: the level is measured anew from here, and keeps its digits.
    anew = due[-1]
    origin = jnp.where(anew, position, 0.0)[None]
    new = Wtmm(
        age=age,
        position=jnp.where(anew, 0.0, position),
        sums=jnp.where(due, 0.0, sums),
        mean_one=jnp.where(due, mean, wtmm.mean_one) - origin,
        mean_two=jnp.where(due, wtmm.mean_one, wtmm.mean_two) - origin,
        modulus_one=jnp.where(due, modulus, wtmm.modulus_one),
        modulus_two=jnp.where(due, wtmm.modulus_one, wtmm.modulus_two),
        crest=jnp.where(due, 0.0, crest),
        crest_one=jnp.where(due, crest, wtmm.crest_one),
        counts=counts,
        moments=moments,
    )
    return new, read(counts, moments)


def _gains() -> np.ndarray:
    """What boxes of 1, 2, 4 … ticks make of a random walk, over 2^(j/2): boxes are no true hats."""
    gains = []
    for length in 2 ** np.arange(LEVELS):
        on_levels = np.repeat([1.0, -2.0, 1.0], length) / length
        on_moves = np.cumsum(on_levels[::-1])
        gains.append(np.sqrt((on_moves**2).sum() / length))
    return np.array(gains)


def read(counts: Array, moments: Array) -> Spectrum:
    """tau(q) = q h(q) - 1 from the slopes of the mean L^q, finer levels counting as their maxima do."""
    means = jnp.log(jnp.maximum(moments, 1e-30) / jnp.maximum(counts, 1e-9)[None])
    weighted = (float(weight) * means[:, level] for level, weight in enumerate(_slope_weights()))
    slopes = sum(weighted, start=jnp.zeros_like(means[:, 0]))
    known = counts[-1] >= 2
    width = -slopes[0] - (slopes[3] - slopes[2])
    holder = slopes[2] / 2 - CONE_LIFT
    return Spectrum(jnp.where(known, jnp.clip(holder, 0, 1), UNKNOWN), jnp.where(known, jnp.maximum(width, 0.0), 0.0))


def _slope_weights() -> np.ndarray:
    x = np.log(2.0) * np.arange(LEVELS)
    trust = 2.0 ** -np.arange(LEVELS)
    centred = x - (trust * x).sum() / trust.sum()
    return trust * centred / (trust * centred**2).sum()


class Analysis(NamedTuple):
    """WTMM of a whole signal, in NumPy."""

    holder: float
    scales: np.ndarray
    maxima: list[np.ndarray]  # places of the maxima at each scale
    moments: np.ndarray  # q
    partition: np.ndarray  # Z(q, a)
    tau: np.ndarray
    exponents: np.ndarray  # h
    dimensions: np.ndarray  # D(h)


def analyse(signal: Any, cone: float = CONE, scales: int = SCALES) -> Analysis:
    """Analyses one signal of at least 64 values."""
    signal = np.asarray(signal, np.float64)
    if signal.ndim != 1 or len(signal) < 64:
        raise ValueError(f"WTMM needs one series of at least 64 values, got shape {signal.shape}.")
    widths = np.geomspace(1, len(signal) / 10, scales)
    moduli = np.array([abs(_transform(signal, width)) for width in widths])
    peaks = np.array([_maxima(row, int(width)) for row, width in zip(moduli, widths, strict=True)])
    suprema = _in_cone(np.where(peaks, moduli, 0.0), widths, cone)

    counts = peaks.sum(1).astype(float)
    used = counts >= 2
    places = np.log(widths[used])
    q = np.linspace(-2, 4, 25)
    lines = [row[peak] for row, peak in zip(suprema, peaks, strict=True)]
    partition = np.array([[np.sum(line**power) for line in lines] for power in q])
    means = np.log(partition[:, used] / counts[used])
    tau = np.array([_slope(places, row, counts[used] ** 1.5) for row in means]) - 1
    h = np.linspace(0, 1.5, 151)
    dimensions = np.min(q[:, None] * h - tau[:, None], axis=0)
    two = (np.interp(2.0, q, tau) + 1) / 2
    holder = float(0.5 + STRETCH * (two - 0.5))
    return Analysis(holder, widths, [np.flatnonzero(row) for row in peaks], q, partition, tau, h, dimensions)


def _transform(signal: np.ndarray, width: float) -> np.ndarray:
    """The Mexican hat of one scale, the signal continued by its point reflection."""
    reach = min(int(np.ceil(5 * width)), len(signal) - 1)
    t = np.arange(-reach, reach + 1) / width
    hat = (1 - t * t) * np.exp(-t * t / 2) / width
    longer = np.pad(signal, reach, "reflect", reflect_type="odd")
    size = 1 << (len(longer) + len(hat) - 1).bit_length()
    product = np.fft.rfft(longer, size) * np.fft.rfft(hat - hat.mean(), size)
    return np.fft.irfft(product, size)[2 * reach : 2 * reach + len(signal)]


def _maxima(modulus: np.ndarray, border: int) -> np.ndarray:
    peak = np.zeros(len(modulus), bool)
    peak[1:-1] = (modulus[1:-1] >= modulus[:-2]) & (modulus[1:-1] > modulus[2:])
    peak &= modulus > 1e-12 * max(float(modulus.max()), 1e-300)
    peak[: border + 1] = peak[len(peak) - border - 1 :] = False
    return peak


def _in_cone(modulus: np.ndarray, widths: np.ndarray, cone: float) -> np.ndarray:
    """The running supremum from fine to coarse: a place takes the largest value that the cone links to it."""
    suprema = modulus.copy()
    for level in range(1, len(widths)):
        reach = int(cone * (widths[level] - widths[level - 1]))
        finer = np.pad(suprema[level - 1], reach)
        windows = np.lib.stride_tricks.sliding_window_view(finer, 2 * reach + 1)
        suprema[level] = np.maximum(suprema[level], windows.max(1))
    return suprema


def _slope(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> float:
    centred = x - (weights * x).sum() / weights.sum()
    return float((weights * centred * y).sum() / (weights * centred**2).sum())
