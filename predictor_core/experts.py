"""The laws that the kernels offer for the next move, and their first mixing: the experts of one kernel.

All experts but the tracker have one shape, so their mixture, level by level, has it too: its centre and its deviation
are the mixtures of theirs.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from . import lattice, residuals, scale
from .kernels import SIZES, SOURCES, levy
from .lanes import column, settled, total
from .levels import STUDENT


class Laws(NamedTuple):
    """What every expert says, kernel by kernel, and what the kernels make of it."""

    centres: tuple[Array, ...]  # of each kernel: (experts but the tracker,)
    deviations: tuple[Array, ...]
    tracked: Array  # (levels,)
    kernels: Array  # (4, levels)


def laws(
    errors: residuals.Residuals, tracker: levy.Levy, scales: scale.Scale, grid: lattice.Lattice, weights: Array
) -> Laws:
    """The laws as the state has them; made twice a tick, for they are cheaper to make than to keep."""
    spreads, means, weights = settled((residuals.deviations(errors), errors.means, weights))
    unit = scale.unit(scales)
    tracked = settled(lattice.snap(grid, levy.tracked_quantiles(tracker) * unit, unit))
    centres = tuple(jnp.stack([means[centre] for centre, _ in sources]) for sources in SOURCES)
    deviations = tuple(jnp.stack([spreads[rung] for _, rung in sources]) for sources in SOURCES)
    shape, mixed, start = column(STUDENT, unit), [], 0
    for size, centre, deviation in zip(SIZES, centres, deviations, strict=True):
        share, count = weights[start : start + size], centre.shape[0]
        law = settled(total(share[:count] * centre)) + settled(total(share[:count] * deviation)) * shape
        mixed.append(law + share[count] * tracked if size > count else law)
        start += size
    return Laws(centres, deviations, tracked, settled(jnp.stack(mixed)))


def quantiles(laws: Laws, kernel: int) -> Array:
    """Of each expert of a kernel: (experts, levels)."""
    shape = column(STUDENT, laws.tracked[0])
    own = laws.centres[kernel][:, None] + laws.deviations[kernel][:, None] * shape
    whole = SIZES[kernel] > own.shape[0]
    return jnp.concatenate([own, laws.tracked[None]], 0) if whole else own
