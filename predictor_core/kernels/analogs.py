"""Analogs: moments of the remembered past that looked like now, and what followed them.

A kernel regression on the Takens embedding of the recent moves. The distance of a moment adds the squared differences
of the moves before it and, lightly, of the level; its weight falls with the distance over that of the nearest moment.
It finds the same phase of a cycle whose period nobody has to know.
"""

import jax.numpy as jnp
from jax import Array, lax

from ..lanes import total

SHORT, LONG = (0, 1, 2, 3), (0, 1, 2, 3, 5, 7, 10, 14, 19)  # delays of the two embeddings
LEVEL_WEIGHT = 0.1
NEAREST, BACKGROUND = 0.5, 0.005  # the bandwidth: shares of the least and of the mean distance
ANSWER_MAX = 12.0


def analogs(moves: Array) -> Array:
    """The weighted mean follower, for the short and for the long embedding; `moves` newest first, in units."""
    moments = moves.shape[0] - LONG[-1] - 1  # moment j is followed by move j
    climb = _running_sum(moves[:moments])
    distance = LEVEL_WEIGHT * climb * climb
    answers = []
    for delays in (SHORT, LONG[len(SHORT) :]):
        for delay in delays:
            apart = moves[1 + delay : 1 + delay + moments] - moves[delay]
            distance = distance + apart * apart
        answers.append(_follower(distance, moves[:moments]))
    return jnp.stack(answers)


def _follower(distance: Array, followers: Array) -> Array:
    # The barriers keep the long arrays whole: fused into the sums, the exponentials are taken one by one and twice.
    distance = lax.optimization_barrier(distance)
    nearest = distance.min(0)
    bandwidth = NEAREST * nearest + BACKGROUND * total(distance) / distance.shape[0] + 1e-6
    weight = lax.optimization_barrier(jnp.exp((nearest - distance) / bandwidth))
    answer = total(weight * followers) / total(weight)
    return jnp.clip(answer, -ANSWER_MAX, ANSWER_MAX)


def _running_sum(values: Array) -> Array:
    step = 1
    while step < values.shape[0]:
        values = lax.optimization_barrier(jnp.concatenate([values[:step], values[step:] + values[:-step]], 0))
        step *= 2
    return values
