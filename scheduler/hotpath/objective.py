"""What is minimised: each term is 1.0 when at its target, and constraints push from the outside.

J = sum of weight * phi(value / target) + 5 * max(0, -margin)
phi(x) = x up to 2, then 2 + 2 ln(x / 2): one bad window has limited leverage

Objectives of different versions are never compared: the version is a hash of all that makes the number what it is.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from scheduler.hotpath.checks import require, require_positive

PENALTY = 5.0
KNEE = 2.0
TRANSPORT = {"p95": 0.35, "p99": 0.15, "lag": 0.25, "cost": 0.15, "loss": 0.10}
MODEL = {"loss": 0.70, "coverage": 0.15, "p95": 0.15}


@dataclass(frozen=True)
class Term:
    """One measured quantity against its target."""

    value: float
    target: float
    weight: float


def objective(terms: Iterable[Term], margin: float | None = None) -> float:
    """Adds up the saturated terms and the penalty; the weights must add up to 1."""
    terms = tuple(terms)
    total = math.fsum(term.weight for term in terms)
    require(abs(total - 1) < 1e-9, "sum of weights", "1", total)
    parts = [term.weight * saturated(term.value / term.target) for term in terms]
    return math.fsum([*parts, PENALTY * max(0.0, -margin) if margin is not None else 0.0])


def saturated(x: float) -> float:
    return x if x <= KNEE else KNEE + KNEE * math.log(x / KNEE)


def version_of(targets: Mapping[str, float | None]) -> str:
    """Names the objective: the weights, the form, and what each quantity is held against."""
    parts = {"transport": TRANSPORT, "model": MODEL, "penalty": PENALTY, "knee": KNEE, "targets": dict(targets)}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def constraint_margin(used: Iterable[tuple[float, float]]) -> float:
    """The smallest share of a limit that is left over (value, limit); negative when one is passed."""
    margins = []
    for value, limit in used:
        require_positive(limit=limit)
        margins.append((limit - value) / limit)
    require(bool(margins), "constraints", "at least one", margins)
    return min(margins)


def transport_objective(
    *, p95: float, p99: float, lag: float, cost: float, loss: float, margin: float | None = None
) -> float:
    """The transport group's objective; every argument is already a ratio to its target."""
    ratios = {"p95": p95, "p99": p99, "lag": lag, "cost": cost, "loss": loss}
    return objective((Term(ratio, 1.0, TRANSPORT[name]) for name, ratio in ratios.items()), margin)


def model_objective(*, loss: float, coverage: float, p95: float, margin: float | None = None) -> float:
    """The model group's objective; `coverage` is the distance from nominal over the tolerance."""
    ratios = {"loss": loss, "coverage": coverage, "p95": p95}
    return objective((Term(ratio, 1.0, MODEL[name]) for name, ratio in ratios.items()), margin)
