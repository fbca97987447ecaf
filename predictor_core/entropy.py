"""Entropy of kernel B's field and the alert when it collapses.

    H[V] = -sum p ln p  over 50 bins between the field's own ends  +  min(0, ln range)

The first term alone calls a constant field empty but not collapsed, the differential entropy alone calls a sine
collapsed; their sum does neither: it is never negative for a healthy field and falls without bound as the range closes.

Collapsed: H[V] < gamma H[g] for more than ten ticks in a row, g(x) = x on the same points, while kernel B has a say.
Well again: ten good ticks. gamma follows the volatility against its own slow mean: turbulence excuses a flat field,
calm does not.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array

from .lanes import real_of, settled, spread

BINS = 50
RANGE_MIN = 1e-9
COLLAPSE_TICKS, RECOVERY_TICKS = 10, 10
SAY_MIN = 0.05  # weight of kernel B below which its field is nobody's concern
BASELINE_RATE = 0.01
RATIO_MIN, RATIO_MAX, BASELINE_MIN = 0.1, 10.0, 1e-6


class Entropy(eqx.Module):
    baseline: Array  # slow mean of H while healthy, 0 before the first
    streak: Array  # int32, ticks in a row that speak against the present finding
    collapsed: Array  # int32, 0 or 1


class Finding(NamedTuple):
    entropy: Any
    ratio: Any  # to its own baseline
    gamma: Any
    collapsed: Any  # bool
    degraded: Any  # bool, at the tick of the collapse only
    wants_capacity: Any  # bool: the field has become richer than the readout was sized for


def cold(shapes: object, lanes: tuple[int, ...]) -> Entropy:
    none = spread(0, lanes, np.int32)
    return Entropy(spread(0.0, lanes, real_of(shapes)), none, none)


def update(
    entropy: Entropy, field: Array, terminal: Array, turbulence: Array, weight: Array, params: Any
) -> tuple[Entropy, Finding]:
    """Judges the field V at its points against the terminal values g there.

    `turbulence` is fast over slow volatility less one, `weight` what kernel B has in the forecast.
    """
    now, gamma = hybrid(field), _gamma(turbulence, params)
    flat = now < gamma * hybrid(terminal)
    was = entropy.collapsed > 0
    against = jnp.where(was, ~flat, flat & (weight > SAY_MIN))
    streak = jnp.where(against, entropy.streak + 1, 0)
    turned = streak >= jnp.where(was, RECOVERY_TICKS, COLLAPSE_TICKS + 1)
    collapsed = was ^ turned
    slow = entropy.baseline + BASELINE_RATE * (now - entropy.baseline)
    baseline = jnp.where(flat, entropy.baseline, jnp.where(entropy.baseline > 0, slow, now))
    ratio = jnp.clip(now / jnp.maximum(baseline, BASELINE_MIN), RATIO_MIN, RATIO_MAX)
    ratio = jnp.where(baseline > 0, ratio, 1.0)
    finding = Finding(
        entropy=now,
        ratio=ratio,
        gamma=gamma,
        collapsed=collapsed,
        degraded=turned & ~was,
        wants_capacity=ratio > jnp.asarray(params.entropy_scaling_trigger, now.dtype),
    )
    streak = jnp.where(turned, 0, streak).astype(jnp.int32)
    return Entropy(baseline, streak, collapsed.astype(jnp.int32)), finding


def hybrid(field: Array) -> Array:
    """H of values over the first axis."""
    low, high = field.min(0), field.max(0)
    reach = high - low
    scaled = (field - low) * (BINS / jnp.maximum(reach, RANGE_MIN))
    place = settled(jnp.minimum(jnp.floor(scaled), BINS - 1))
    # How many share each point's bin: every point is compared with one after the other.
    points = field.shape[0]
    company = sum((place == place[k]).astype(field.dtype) for k in range(points))
    shannon = -settled(jnp.log(company / points)).sum(0) / points
    return shannon + jnp.minimum(0.0, jnp.log(jnp.maximum(reach, RANGE_MIN)))


def _gamma(turbulence: Array, params: Any) -> Array:
    real = turbulence.dtype
    low, high = (jnp.asarray(getattr(params, f"entropy_gamma_{end}"), real) for end in ("min", "max"))
    between = jnp.asarray(params.entropy_gamma_default, real)
    calm = turbulence < jnp.asarray(params.entropy_volatility_low_threshold, real)
    wild = turbulence > jnp.asarray(params.entropy_volatility_high_threshold, real)
    return jnp.where(wild, low, jnp.where(calm, high, between))
