"""Sinkhorn's iteration in the log domain: the entropic plan between two fixed marginals, on a handful of points.

Minimises <C, pi> + epsilon KL(pi | a x b) by a fixed number of steps; the error of the marginals is reported, never
hidden. The orchestrator's own step leaves its end free, which has a closed form; this is its check and its measure.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax
from jax.scipy.special import logsumexp

STEPS = 200


class Transport(NamedTuple):
    plan: Array
    cost: Array
    error: Array  # of the marginals, in total variation


def sinkhorn(cost: Array, source: Array, target: Array, epsilon: float, steps: int = STEPS) -> Transport:
    log_source, log_target = jnp.log(source), jnp.log(target)

    def improve(_: Array, duals: tuple[Array, Array]) -> tuple[Array, Array]:
        f = -epsilon * logsumexp((duals[1][None] - cost) / epsilon + log_target[None], 1)
        return f, -epsilon * logsumexp((f[:, None] - cost) / epsilon + log_source[:, None], 0)

    f, g = lax.fori_loop(0, steps, improve, (jnp.zeros_like(source), jnp.zeros_like(target)))
    plan = jnp.exp((f[:, None] + g[None] - cost) / epsilon + log_source[:, None] + log_target[None])
    return Transport(plan, (plan * cost).sum(), abs(plan.sum(1) - source).sum())
