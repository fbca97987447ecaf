"""The four kernels, and the experts that they bring to the orchestrator.

| kernel | file | learns |
|---|---|---|
| A | hilbert | the next move as a function of levels, moves and resonators |
| B | galerkin | the generator of the level's diffusion |
| C | levy | volatility, jumps and atoms around the last value |
| D | signature | a linear functional of the fading path |
"""

from . import galerkin, hilbert, levy, signature
from .base import Expert

KERNELS = (hilbert, galerkin, levy, signature)
NAMES = tuple(kernel.NAME for kernel in KERNELS)

# Centres: the random walk first, then the kernels' own means in turn.
CENTRES = tuple(dict.fromkeys([None, *(e.centre for k in KERNELS for e in k.EXPERTS)]))


def _rung(expert: Expert) -> tuple | None:
    return (CENTRES.index(expert.centre), expert.volatility) if expert.volatility else None


# One recursion for each distinct pair of a centre and a volatility, however many experts read it.
_RUNGS = dict.fromkeys(_rung(e) for k in KERNELS for e in k.EXPERTS)
RECURSIONS = tuple(rung for rung in _RUNGS if rung)


def _source(expert: Expert) -> tuple[int, int]:
    """Where an expert finds its centre, and its deviation: after the recursions come the centres' own."""
    centre, rung = CENTRES.index(expert.centre), _rung(expert)
    return centre, RECURSIONS.index(rung) if rung else len(RECURSIONS) + centre - 1


# Sources of the experts, kernel by kernel; the Levy kernel adds its tracked law as a last expert.
SOURCES = tuple(tuple(_source(e) for e in k.EXPERTS) for k in KERNELS)
SIZES = tuple(len(k.EXPERTS) + (k is levy) for k in KERNELS)
