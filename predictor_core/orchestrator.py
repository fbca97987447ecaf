"""The orchestrator: a gradient flow of weights on the simplex of the four kernels, one JKO step a tick.

The step is split as in Hellinger-Kantorovich space:

    rho'   = the replicator: weights of the realised, band-normalised loss, by second-order aggregation
    P_ij   = softmax_j(-C_ij / eps_t), the plan of the entropic transport with a free end, in closed form
    rho+   = rho' P                 F = <g, rho+> + (<C, pi> + eps_t KL(pi | rho' x u)) / 2 tau,   pi = diag(rho') P

P is the fixed share of expert aggregation, so eps_t is how fast the weights forget; it rises with the turbulence. C is
how far apart the kernels' forecasts are, slowly averaged. With a free end the plan is exact; with both ends fixed it is
Sinkhorn's (sinkhorn.py), which serves to check it. The loss grows linearly far out and is clipped at one band, so it is
robust in an emergency as at any time.

First every kernel weighs its own experts by the same aggregation.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array

from . import aggregation
from .experts import Laws, quantiles
from .kernels import SIZES
from .lanes import column, real_of, running_mean, settled, spread, summed, total
from .levels import HIGH, LEVELS, LOW, MIDDLE

EXPERTS = sum(SIZES)
EXPERT_SHARE = 0.001  # what each expert keeps of its uniform share
PAIRS = ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))
APART_RATE, COST_MIN, COST_MAX = 0.01, 0.5, 2.0
EPSILON_SAFE, MARGINAL_ERROR_MAX = 1e-4, 1e-6
RATE_UNIT = 100.0  # a learning_rate of 0.01 takes the aggregation's own rate
FORCED = 1e-8  # what the others keep when one kernel is forced
AFTER_ALARM = 0.5  # share of the evidence that an alarm leaves
LEADS = 0.5  # weight from which a kernel carries the forecast


class Orchestrator(eqx.Module):
    weights: Array  # (4,) of the kernels
    expert_weights: Array  # (experts,) one in each kernel
    energy: aggregation.Regrets
    expert_energy: aggregation.Regrets
    apart: Array  # (6,) mean squared distance of the kernels' medians, in bands
    width: Array  # mean |error| of the median


class Judgement(NamedTuple):
    """What the last tick said about the forecasts that were out."""

    losses: Any  # (4,) of the kernels against the whole, in bands
    fused: Any  # (levels,)


class Step(NamedTuple):
    """What one JKO step reports."""

    free_energy: Any
    transport_cost: Any
    epsilon: Any
    converged: Any  # bool


def cold(shapes: Any, lanes: tuple[int, ...]) -> Orchestrator:
    real = real_of(shapes)
    return Orchestrator(
        weights=spread([0.25] * 4, lanes, real),
        expert_weights=spread(_uniform(), lanes, real),
        energy=aggregation.cold(4, lanes, real),
        expert_energy=aggregation.cold(EXPERTS, lanes, real),
        apart=spread([0.0] * 6, lanes, real),
        width=spread(0.0, lanes, real),
    )


def _uniform() -> np.ndarray:
    return np.repeat(1 / np.array(SIZES), SIZES)


def fuse(weights: Array, laws: Laws) -> Array:
    return total(weights[:, None] * laws.kernels)


def judge(state: Orchestrator, laws: Laws, move: Array, tolerance: Array, age: Array) -> tuple[Orchestrator, Judgement]:
    """Scores the laws that were out by what came, and lets every kernel weigh its experts."""
    fused = settled(fuse(state.weights, laws))
    width = running_mean(state.width, abs(move - fused[MIDDLE]), 0.01, age)
    band = settled(jnp.maximum(jnp.maximum(fused[HIGH] - fused[LOW], 4 * width), 1e-9))
    inner = [
        regret(laws.kernels[kernel], quantiles(laws, kernel), move, tolerance, band) for kernel in range(len(SIZES))
    ]
    expert_energy = aggregation.update(state.expert_energy, jnp.concatenate(inner, 0), SIZES)
    learnt = aggregation.weights(expert_energy, SIZES)
    against = regret(fused, laws.kernels, move, tolerance, band)
    medians = laws.kernels[:, MIDDLE] / band
    apart = jnp.stack([(medians[i] - medians[j]) ** 2 for i, j in PAIRS])
    state = Orchestrator(
        weights=state.weights,
        expert_weights=(1 - EXPERT_SHARE) * learnt + EXPERT_SHARE * column(_uniform(), move),
        energy=aggregation.update(state.energy, against, (4,)),
        expert_energy=expert_energy,
        apart=running_mean(state.apart, apart, APART_RATE, age),
        width=width,
    )
    return state, Judgement(-against, fused)


def step(
    state: Orchestrator, judgement: Judgement, turbulence: Array, params: Any, cost_type: str
) -> tuple[Orchestrator, Step]:
    """One JKO step of the kernels' weights."""
    real = turbulence.dtype
    tau = _tau(params, real)
    epsilon = temperature(turbulence, params)
    cost = _costs(state.apart, params, cost_type)
    replicated = aggregation.weights(state.energy, (4,), tau)
    plan = settled(transport(cost, epsilon))
    moved = replicated[:, None] * plan
    weights = total(moved)
    weights = settled(weights / total(weights))
    transported = total(total(cost * moved))
    entropy = total(total(moved * jnp.log(jnp.maximum(4 * plan, 1e-30))))
    error = total(abs(total(moved, 1) - replicated))
    report = Step(
        free_energy=total(judgement.losses * weights) + (transported + epsilon * entropy) / (2 * tau),
        transport_cost=transported,
        epsilon=epsilon,
        converged=(error < MARGINAL_ERROR_MAX) & (epsilon >= EPSILON_SAFE),
    )
    return eqx.tree_at(lambda s: s.weights, state, weights), report


def _tau(params: Any, real: Any) -> Array:
    """Relative to the rate that the aggregation finds for itself."""
    low = RATE_UNIT * params.learning_rate_minimum
    high = RATE_UNIT * params.learning_rate_safety_factor * 2 * params.sinkhorn_epsilon_0
    return jnp.clip(RATE_UNIT * params.learning_rate, low, high).astype(real)


def temperature(turbulence: Array, params: Any) -> Array:
    """eps_t: the floor, or the base raised by the turbulence."""
    real = turbulence.dtype
    base, slope = jnp.asarray(params.sinkhorn_epsilon_0, real), jnp.asarray(params.sinkhorn_alpha, real)
    floor = jnp.maximum(params.sinkhorn_epsilon_min, params.epsilon).astype(real)
    return jnp.maximum(floor, base * (1 + slope * turbulence))


def _costs(apart: Array, params: Any, cost_type: str) -> Array:
    """(4, 4): nought on the diagonal, one on average beside it."""
    if cost_type == "huber":
        delta = jnp.asarray(params.sinkhorn_huber_delta, apart.dtype)
        distance = jnp.sqrt(apart)
        apart = jnp.where(distance <= delta, 0.5 * apart, delta * (distance - 0.5 * delta))
    mean = total(apart) / len(PAIRS)
    relative = jnp.clip(apart / jnp.maximum(mean, 1e-12), COST_MIN, COST_MAX)
    relative = jnp.where(mean > 1e-12, relative, 1.0)
    nothing = jnp.zeros_like(mean)
    rows = [[nothing if i == j else relative[PAIRS.index((min(i, j), max(i, j)))] for j in range(4)] for i in range(4)]
    return jnp.stack([jnp.stack(row) for row in rows])


def transport(cost: Array, epsilon: Array) -> Array:
    """P: rows sum to one."""
    raw = jnp.exp(-cost / epsilon)
    return raw / total(raw, 1)[:, None]


def reset(state: Orchestrator) -> Orchestrator:
    """After an alarm: uniform weights, and half of the evidence to learn them again from."""

    def lessened(regrets: aggregation.Regrets) -> aggregation.Regrets:
        return aggregation.Regrets(AFTER_ALARM * regrets.total, AFTER_ALARM * regrets.squares, regrets.largest)

    return eqx.tree_at(
        lambda s: (s.weights, s.energy), state, (jnp.full_like(state.weights, 0.25), lessened(state.energy))
    )


def forced(like: Array, kernel: int) -> Array:
    """Weights with one kernel forced."""
    weights = np.full(4, FORCED)
    weights[kernel] = 1.0
    return jnp.broadcast_to(column(weights / weights.sum(), like[0]), like.shape)


def drained(weights: Array, kernel: int, drain: Array) -> Array:
    """Weights without one kernel where it is to be drained, unless it carries the forecast."""
    kept = weights * column([FORCED if i == kernel else 1.0 for i in range(4)], weights[0])
    return jnp.where(drain & ~leads(weights, kernel), kept / total(kept), weights)


def leads(weights: Array, kernel: int) -> Array:
    return weights[kernel] > LEADS


def regret(parent: Array, members: Array, move: Array, tolerance: Array, band: Array) -> Array:
    """Mean pinball loss of the parent over that of each member, linear around the parent, in bands, within one.

    At a tie the slope of the loss is any number: there it is the true difference.
    """
    levels = column(LEVELS, move)
    slope = (move < parent) - levels
    linear = slope[None] * (parent[None] - members)
    exact = _pinball(move - parent, levels)[None] - _pinball(move - members, levels[None])
    tie = abs(move - parent) <= tolerance
    return settled(summed(jnp.clip(jnp.where(tie[None], exact, linear) / band, -1.0, 1.0), 1)) / len(LEVELS)


def _pinball(error: Array, levels: Array) -> Array:
    return jnp.maximum(levels * error, (levels - 1) * error)
