"""Kernels A and B put aside while there is no time for them: the dearest of the four.

Whether they are is one number for all lanes, so the program skips their work where it would otherwise do both and
choose. What is put aside keeps what it has learnt and forecasts no move. Its features are nought meanwhile, so the
first tick after it came back teaches it nothing.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array

from .kernels import NAMES
from .lanes import column, total

PUT_ASIDE = ("A", "B")
LEAST = 1e-8  # so that those that stay have weights, though they may have lost all of it


def remaining(weights: Array, pruned: Any) -> Array:
    """Weights on the simplex of the kernels that take part."""
    stays = column([float(name not in PUT_ASIDE) for name in NAMES], weights[0])
    kept = stays * jnp.maximum(weights, LEAST)
    return jnp.where(pruned, kept / total(kept), weights)
