"""The laws that the kernels offer for the next move, and their first mixing: the experts of one kernel."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from . import lattice, residuals, scale
from .kernels import SIZES, SOURCES, levy
from .lanes import column, total
from .levels import STUDENT


class Laws(NamedTuple):
    """Quantiles at LEVELS."""

    experts: tuple[Array, ...]  # of each kernel: (experts, levels)
    kernels: Array  # (4, levels)


def laws(
    errors: residuals.Residuals, tracker: levy.Levy, scales: scale.Scale, grid: lattice.Lattice, weights: Array
) -> Laws:
    """What every expert and every kernel says now; made twice a tick, for it is cheaper to make than to keep."""
    deviations = residuals.deviations(errors)
    unit = scale.unit(scales)
    shape = column(STUDENT, unit)
    offered = []
    for kernel, sources in enumerate(SOURCES):
        own = [errors.means[centre][None] + deviations[rung] * shape for centre, rung in sources]
        if len(own) < SIZES[kernel]:
            own.append(lattice.snap(grid, levy.tracked_quantiles(tracker) * unit, unit))
        offered.append(jnp.stack(own))
    return Laws(tuple(offered), jnp.stack(_mix(offered, weights)))


def _mix(offered: list[Array], weights: Array) -> list[Array]:
    mixed, start = [], 0
    for group in offered:
        share = weights[start : start + group.shape[0]]
        mixed.append(total(share[:, None] * group))
        start += group.shape[0]
    return mixed
