"""Turns measurements into proposals, and advances only when a proposal was accepted.

It sees digests and a footing, holds no handle on the configuration, and is deterministic. A refused proposal stays
pending and is offered again; a complete window stays complete and takes no further sample.
"""

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from scheduler.hotpath.influence import Influence
from scheduler.hotpath.knobs import KnobRegistry, Vec
from scheduler.hotpath.proposal import ApplyMinus, ApplyPlus, Proposal, Update
from scheduler.hotpath.spsa import DEAD_PROBE, Ready, Spsa, WaitingMinus, WaitingPlus

TIMEOUTS_MAX = 3
_PROPOSALS = {kind.__name__: kind for kind in (ApplyPlus, ApplyMinus, Update)}
_STATES = {kind.__name__: kind for kind in (Ready, WaitingPlus, WaitingMinus)}


@dataclass(frozen=True)
class Footing:
    """What the executor lets the proposer know: where the centre is, and how far each knob may go from there."""

    centre: Vec
    bounds: tuple[tuple[float, float], ...] | None
    headroom: tuple[tuple[float, float], ...]
    max_deltas: Vec
    pinned: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Cycle:
    """A finished pair: the objective at the centre, and the variances of the two window means."""

    objective: float
    variance_plus: float
    variance_minus: float


class SpsaProposer:
    """The handshake around an optimiser."""

    def __init__(self, spsa: Spsa, registry: KnobRegistry | None = None):
        self.spsa = spsa
        self.pending: Proposal | None = None
        self.deadline_us = 0
        self.timeouts = 0
        self.dead_probes: Counter[int] = Counter()
        self.influence = Influence(spsa.num_params)
        self._registry = registry
        self._judged = False
        self._displacement: Vec = ()

    @property
    def measuring(self) -> bool:
        return not isinstance(self.spsa.state, Ready)

    def iteration(self) -> int:
        return self.spsa.iteration

    def current_perturbation(self) -> tuple[int, Vec] | None:
        """The live probe: its id and its signed way from the centre."""
        match self.spsa.state:
            case WaitingPlus(perturbation_id, delta):
                return perturbation_id, delta
            case WaitingMinus(perturbation_id, delta):
                return perturbation_id, tuple(-change for change in delta)
        return None

    def propose(self, footing: Footing) -> Proposal:
        """What comes next; asks for it only when ready, or when the window is complete."""
        if self.pending is None:
            self.pending = self._next(footing)
        return self.pending

    def finished_cycle(self) -> Cycle | None:
        """Hands out the result of a complete pair, once."""
        if self._judged or not isinstance(self.spsa.state, WaitingMinus) or not self.spsa.has_enough_samples():
            return None
        self._judged = True
        return Cycle(*self.spsa.centre())

    def accepted(self, proposal: Proposal, now_us: int) -> None:
        """Enters the state that an accepted proposal leads to."""
        if isinstance(proposal, ApplyPlus):
            self.spsa.start_plus_perturbation(proposal.delta, self._displacement)
        else:
            self.spsa.complete_eval_window()
        if isinstance(proposal, Update):
            self.influence.take(proposal.gradient_estimate)
        config = self.spsa.config
        self.deadline_us = now_us + config.settle_time_us + config.eval_window_us
        self.timeouts, self._judged, self.pending = 0, False, None

    def overdue(self, now_us: int) -> bool:
        """Counts a timeout when the window should be complete and is not; the samples stay."""
        if not self.measuring or self.spsa.has_enough_samples() or now_us < self.deadline_us:
            return False
        self.timeouts += 1
        self.deadline_us = now_us + self.spsa.config.eval_window_us
        return True

    def reset(self) -> None:
        """Leaves whatever was being measured; the iteration stays."""
        self.spsa.reset()
        self.pending, self.timeouts, self._judged = None, 0, False

    def begin_anew(self) -> None:
        """Forgets all cycles too, as if none had been."""
        self.reset()
        self.spsa.iteration = 0
        self.dead_probes.clear()
        self.influence = Influence(self.spsa.num_params)

    def _next(self, footing: Footing) -> Proposal:
        k = self.spsa.iteration
        match self.spsa.state:
            case Ready():
                plus = _project(self._perturbation(footing), footing)
                self._displacement = self._way_from_minus(plus, footing)
                dead = (i for i, moved in enumerate(self._displacement) if abs(moved) < DEAD_PROBE)
                self.dead_probes.update(i for i in dead if i not in footing.pinned)
                return ApplyPlus(k, plus)
            case WaitingPlus():
                return ApplyMinus(k, self._minus(footing))
            case WaitingMinus():
                gradient, step = self.spsa.estimate()
                room = zip(step, footing.headroom, strict=True)
                return Update(k, tuple(min(max(way, low), high) for way, (low, high) in room), gradient)

    def _perturbation(self, footing: Footing) -> Vec:
        """The signed probe of this iteration, at least as long as is useful, at most as long as is allowed."""
        delta = self.spsa.generate_perturbation()
        if self._registry is not None:
            knobs = zip(delta, footing.centre, footing.max_deltas, self._registry.knobs, strict=True)
            delta = tuple(
                (1 if change > 0 else -1) * max(abs(change), min(knob.probe(unit), largest / 2))
                for change, unit, largest, knob in knobs
            )
        return tuple(0.0 if index in footing.pinned else change for index, change in enumerate(delta))

    def _minus(self, footing: Footing) -> Vec:
        return _project(tuple(-change for change in self._perturbation(footing)), footing)

    def _way_from_minus(self, plus: Vec, footing: Footing) -> Vec:
        """The way from minus to plus that is really in force, after bounds and rounding."""
        sides = [
            tuple(unit + change for unit, change in zip(footing.centre, delta, strict=True))
            for delta in (plus, self._minus(footing))
        ]
        if self._registry is not None:
            sides = [self._registry.realised(side) for side in sides]
        return tuple(above - below for above, below in zip(*sides, strict=True))

    def checkpoint(self) -> dict:
        return {
            "iteration": self.spsa.iteration,
            "state": [type(self.spsa.state).__name__, asdict(self.spsa.state)],
            "pending": None if self.pending is None else [type(self.pending).__name__, asdict(self.pending)],
            "deadline_us": self.deadline_us,
            "timeouts": self.timeouts,
            "judged": self._judged,
            "displacement": self._displacement,
            "dead_probes": sorted(self.dead_probes.items()),
            "influence": self.influence.checkpoint(),
        }

    def restore(self, state: dict) -> None:
        self.spsa.iteration = state["iteration"]
        kind, fields = state["state"]
        self.spsa.state = _STATES[kind](**_frozen(fields))
        self.pending = None
        if state["pending"] is not None:
            kind, fields = state["pending"]
            self.pending = _PROPOSALS[kind](**_frozen(fields))
        self.deadline_us, self.timeouts, self._judged = state["deadline_us"], state["timeouts"], state["judged"]
        self._displacement = tuple(state["displacement"])
        self.dead_probes = Counter(dict(state["dead_probes"]))
        if "influence" in state:  # not in checkpoints of versions before
            self.influence.restore(state["influence"])


def _project(delta: Vec, footing: Footing) -> Vec:
    """Shortens a probe that would leave the bounds."""
    if footing.bounds is None:
        return delta
    ways = zip(delta, footing.centre, footing.bounds, strict=True)
    return tuple(min(max(change, low - unit), high - unit) for change, unit, (low, high) in ways)


def _frozen(value: Any) -> Any:
    """Turns the lists of JSON back into tuples."""
    if isinstance(value, dict):
        return {name: _frozen(inner) for name, inner in value.items()}
    return tuple(map(_frozen, value)) if isinstance(value, (list, tuple)) else value
