"""Kernel D: rough paths. A linear readout of the log-signature of the fading path (time, value).

Before each increment the level k of the signature is damped by decay^k, which is exactly the signature of the path
whose past has shrunk; then Chen's identity appends the increment. The fast path is kept to level 3 and the slow one to
level 5. Every depth runs on the same state: a shallower one leaves the words beyond it at nought, and the levels go on.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..lanes import real_of, spread
from .base import LOCAL, NULL, QUICK, Expert, Forecast, Readout, View, cold_readout, forecast

NAME = "D"
EXPERTS = (Expert(NAME, QUICK), Expert(NAME, LOCAL), NULL)

FAST, SLOW = 0.7, 0.93
TIME_STEP, VALUE_STEP = 0.2, 0.4
DEPTH_FAST, DEPTH_SLOW = 3, 5
SIZE = 13


class Signature(eqx.Module):
    readout: Readout
    fast: Array  # levels 1 .. 3 in turn, 2 + 4 + 8 numbers
    slow: Array  # levels 1 .. 5 in turn, 2 + 4 + 8 + 16 + 32 numbers


def cold(shapes: Any, lanes: tuple[int, ...]) -> Signature:
    real = real_of(shapes)
    fast, slow = (spread(np.zeros(2 ** (depth + 1) - 2), lanes, real) for depth in (DEPTH_FAST, DEPTH_SLOW))
    return Signature(cold_readout(SIZE, lanes, real), fast, slow)


def predict(state: Signature, view: View, depth: int) -> tuple[Signature, Forecast]:
    step = jnp.stack([jnp.full_like(view.moves[0], TIME_STEP), VALUE_STEP * view.moves[0]])
    fast, slow = append(split(state.fast), step, FAST), append(split(state.slow), step, SLOW)
    one = jnp.ones_like(view.moves[:1])
    words = [*_words(logarithm(fast), min(depth, 3)), *_words(logarithm(slow[:3]), min(depth, 3)), *_deep(slow, depth)]
    features = jnp.concatenate([one, view.moves[:1], view.heights[:1], jnp.stack(words)], 0)
    readout, answer = forecast(state.readout, features)
    return Signature(readout, jnp.concatenate(fast, 0), jnp.concatenate(slow, 0)), answer


def split(signature: Array) -> list[Array]:
    """The levels of a signature over two letters: level k has 2^k words in lexical order."""
    levels, start = [], 0
    while start < signature.shape[0]:
        levels.append(signature[start : 2 * start + 2])
        start = 2 * start + 2
    return levels


def outer(left: Array, right: Array) -> Array:
    """All words of the left followed by all words of the right."""
    product = left[:, None] * right[None]
    return product.reshape((-1, *product.shape[2:]))


def append(levels: list[Array], step: Array, decay: float = 1.0) -> list[Array]:
    """Chen's identity: the path shrunk by `decay`, then one straight step; by Horner, level by level."""
    faded = [decay ** (k + 1) * level for k, level in enumerate(levels)]
    appended = []
    for k in range(len(levels)):
        tail = step / (k + 1)
        for j in range(k):
            tail = outer(faded[j] + tail, step / (k - j))
        appended.append(faded[k] + tail)
    return appended


def logarithm(levels: list[Array]) -> list[Array]:
    """The first three levels of the logarithm, which is a polynomial in a truncated signature."""
    one, two, three = levels[:3]
    square = outer(one, one)
    cross = outer(one, two) + outer(two, one)
    return [one, two - square / 2, three - cross / 2 + outer(one, square) / 3]


def _words(levels: list[Array], depth: int) -> list[Array]:
    """Lyndon words v, tv, ttv, tvv, weighed to like sizes."""
    shallow = [levels[0][1], 2 * levels[1][1]]
    deep = [4 * levels[2][1], 4 * levels[2][3]]
    return [*shallow, *(deep if depth >= 3 else [jnp.zeros_like(word) for word in deep])]


def _deep(slow: list[Array], depth: int) -> list[Array]:
    """One word of each of the levels 4 and 5: tvvv and tvvvv of the signature itself."""
    deep = [4 * slow[3][7], 8 * slow[4][15]]
    return deep if depth >= 5 else [jnp.zeros_like(word) for word in deep]
