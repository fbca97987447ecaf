"""PredictorState: all that one asset remembers between two ticks.

Leaves have their features first and their lanes last: () for one asset, (64,) for a block. Numbers are of the chosen
precision, except the level and the times, which need every digit they have.
"""

import equinox as eqx
import numpy as np
from jax import Array

from . import bands, cusum, entropy, gates, lattice, memory, orchestrator, residuals, roughness, scale, spectrum, wtmm
from .config import Shapes
from .kernels import galerkin, hilbert, levy, signature
from .lanes import spread


class PredictorState(eqx.Module):
    """A value: a new one at every tick."""

    level: Array  # float64, the last value
    ticks: Array  # int32, values taken in
    gates: gates.Gates
    cusum: cusum.Cusum
    roughness: roughness.Roughness
    wtmm: wtmm.Wtmm
    spectrum: spectrum.Spectrum
    entropy: entropy.Entropy
    memory: Array  # int32, see memory.py
    scale: scale.Scale
    lattice: lattice.Lattice
    hilbert: hilbert.Hilbert
    galerkin: galerkin.Galerkin
    levy: levy.Levy
    signature: signature.Signature
    residuals: residuals.Residuals
    orchestrator: orchestrator.Orchestrator
    bands: bands.Bands


PARTS = (
    gates, cusum, roughness, wtmm, spectrum, entropy,
    memory, scale, lattice, hilbert, galerkin, levy, signature, residuals, orchestrator, bands,
)  # fmt: skip


def cold(shapes: Shapes, lanes: tuple[int, ...] = ()) -> PredictorState:
    """The state of an asset that has seen nothing."""
    return PredictorState(
        level=spread(0.0, lanes, np.float64),
        ticks=spread(0, lanes, np.int32),
        **{part.__name__.rpartition(".")[2]: part.cold(shapes, lanes) for part in PARTS},
    )
