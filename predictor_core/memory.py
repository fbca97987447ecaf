"""The asset's recent past: its last moves in units, as 16-bit numbers, two to a word.

    word k   =   move k (low half)  |  move k + size / 2 (high half)        move 0 is the newest

A move is kept in steps of 1/256 unit and within 127 units: enough to recognise a pattern by, at half the bytes.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from .lanes import spread

STEPS, FAR = 256.0, 127.0


def cold(shapes: Any, lanes: tuple[int, ...]) -> Array:
    return spread(np.zeros(shapes.memory_size // 2), lanes, np.int32)


def push(memory: Array, move: Array) -> Array:
    """Remembers one move and forgets the oldest."""
    step = jnp.round(jnp.clip(move, -FAR, FAR) * STEPS).astype(jnp.int32)
    low, high = _halves(memory)
    low, high = jnp.concatenate([step[None], low[:-1]], 0), jnp.concatenate([low[-1:], high[:-1]], 0)
    return (low & 0xFFFF) | (high << 16)


def moves(memory: Array, real: type) -> Array:
    """All moves, newest first."""
    return jnp.concatenate(_halves(memory), 0).astype(real) / STEPS


def _halves(memory: Array) -> tuple[Array, Array]:
    return (memory << 16) >> 16, memory >> 16
