"""One trial of a candidate: a round without it, then rounds in which each group of partitions has it in turn.

    before --> round 0 --> round 1 --> ... --> verdict       better | no_better     a watch: taken_back | kept
       |          |           |
       +----------+-----------+------------------------->    harmful | too_few      taken_back | kept | too_few

The number of rounds is fixed before the first, so the verdict is one look at all of them; only harm ends a trial
early, and never in the candidate's favour. A round lasts until every group has told enough. Pure.

A watch is the same in the mirror, after a promotion: everyone has the new numbers and the groups get the former ones
back in turn, as a candidate. If those are better, the promotion was a mistake, or has become one.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import numpy as np

from scheduler.hotpath.checks import require, require_count, require_positive
from scheduler.hotpath.crossover import effect_of, order_of, rotations_needed
from scheduler.hotpath.objective import model_objective

BEFORE = -1  # the round in which nobody has the candidate
HARM_SIGMAS = 3.0  # of the other groups' scatter: below it a round as bad is not rare
TINY = 1e-12


@dataclass(frozen=True)
class TrialRules:
    """How long, how many, and how sure."""

    groups: int = 8
    rotations: int = 2
    scored_min: int = 500  # forecasts of each group in each round
    round_us: int = 120_000_000
    patience_us: int = 1_800_000_000
    level: float = 0.01
    gain_min: float = 0.0005
    harm_max: float = 0.1
    nominal: float = 0.95
    tolerance: float = 0.05
    missed_max: float = 0.15  # of the coverage, to either side
    alarms_max: float = 0.05  # of the ticks

    def __post_init__(self) -> None:
        require_count(rotations=self.rotations, scored_min=self.scored_min, round_us=self.round_us)
        require(2 <= self.groups <= 64, "groups", "2 to 64, one of them the canary", self.groups)
        require(0 < self.level < 0.5, "level", "in (0, 0.5)", self.level)
        require_positive(harm_max=self.harm_max, tolerance=self.tolerance, patience_us=self.patience_us)
        require(self.gain_min >= 0, "gain_min", "not negative", self.gain_min)

    @property
    def rounds(self) -> int:
        """In all; a fleet of few groups needs more rotations than were asked for."""
        return self.groups * max(self.rotations, rotations_needed(self.groups, self.level))

    def beyond(self, sums: "Sums") -> str:
        """The limit that forecasts are beyond; empty if none is."""
        coverage, alarms = (count / max(sums.scored, 1) for count in (sums.covered, sums.alarms))
        if abs(coverage - self.nominal) > self.missed_max:
            return f"coverage {coverage:.3g}, allowed is {self.nominal:g} +- {self.missed_max:g}"
        if alarms > self.alarms_max:
            return f"alarms at {alarms:.3g} of the ticks, allowed is {self.alarms_max:g}"
        return ""


@dataclass(frozen=True)
class Sums:
    """Of one group's forecasts: how many, their loss, that of "as before", values within the band, alarms raised."""

    scored: int = 0
    loss: float = 0.0
    naive: float = 0.0
    covered: int = 0
    alarms: int = 0

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(*(a + b for a, b in zip(asdict(self).values(), asdict(other).values(), strict=True)))

    @property
    def ratio(self) -> float:
        return self.loss / max(self.naive, TINY)


@dataclass(frozen=True)
class Verdict:
    """How a trial ended; `difference` is the candidate's objective less the control's, `p` the chance of as good."""

    kind: str
    rounds: int
    difference: float | None = None
    p: float | None = None
    told: str = ""

    @property
    def promotes(self) -> bool:
        return self.kind == "better"

    @property
    def takes_back(self) -> bool:
        return self.kind == "taken_back"


@dataclass
class Trial:
    """Goes from round to round as losses come in; `began_us` is None while the round waits to be in force."""

    name: str
    seed: int
    candidate: dict[str, float]
    control: dict[str, float]
    rules: TrialRules
    watch: bool = False  # the candidate's are the former numbers, the control's were promoted
    round: int = BEFORE
    began_us: int | None = None
    sums: list[Sums] = field(default_factory=list)
    finished: list[list[Sums]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sums = self.sums or [Sums()] * self.rules.groups

    @property
    def turn(self) -> int:
        """The group that has the candidate's numbers; -1 in the round before."""
        groups = self.rules.groups
        return -1 if self.round == BEFORE else order_of(self.seed, self.round // groups, groups)[self.round % groups]

    def begin(self, now_us: int) -> None:
        """The workers have been told of this round."""
        self.began_us = now_us

    def take(self, told: Mapping[int, Sums]) -> None:
        """Adds what a worker measured in this round."""
        if self.began_us is not None:
            self.sums = [sums + told.get(group, Sums()) for group, sums in enumerate(self.sums)]

    def step(self, now_us: int) -> Verdict | None:
        """Goes on to the next round when this one is complete; a verdict ends the trial."""
        if self.began_us is None:
            return None
        lasted_us = now_us - self.began_us
        harm = self._beyond() or self._harm()
        if harm is not None:
            return harm
        poorest = min(range(self.rules.groups), key=lambda group: self.sums[group].scored)
        if self.sums[poorest].scored < self.rules.scored_min:
            told = f"group {poorest} had {self.sums[poorest].scored} of {self.rules.scored_min} forecasts in a round"
            return Verdict("too_few", self.round, told=told) if lasted_us >= self.rules.patience_us else None
        if lasted_us < self.rules.round_us:
            return None
        self.finished.append(self.sums)
        self.round, self.began_us, self.sums = self.round + 1, None, [Sums()] * self.rules.groups
        return self._verdict() if self.round == self.rules.rounds else None

    def worse_by(self) -> float | None:
        """How much worse the canary is than the rest in this round, less the same in the round before it all."""
        turn, enough = self.turn, self.rules.scored_min
        if turn < 0 or min(sums.scored for sums in self.sums) < enough:
            return None
        shifts = self._shifts()
        return shifts[turn] - float(np.mean(np.delete(shifts, turn)))

    def _harm(self) -> Verdict | None:
        """Ends it within a round: a candidate that harms; in a watch also numbers that the former ones put to shame."""
        worse = self.worse_by()
        if worse is None or abs(worse) <= max(self.rules.harm_max, HARM_SIGMAS * self._noise()):
            return None
        told = f"{abs(worse):.3g} {'worse' if worse > 0 else 'better'} than the control in round {self.round}"
        if self.watch:
            kind = "kept" if worse > 0 else "taken_back"
            return Verdict(kind, self.round, worse, told=f"the former numbers were {told}")
        return Verdict("harmful", self.round, worse, told=told) if worse > 0 else None

    def _beyond(self) -> Verdict | None:
        """Ends it within a round too: a limit that only the candidate passes, and its group did not without it."""
        turn = self.turn
        if self.worse_by() is None:
            return None
        rest = sum((sums for group, sums in enumerate(self.sums) if group != turn), Sums())
        here, before, others = map(self.rules.beyond, (self.sums[turn], self.finished[0][turn], rest))
        if here and not before and not others:
            kind, told = ("kept", "the former numbers: ") if self.watch else ("harmful", "")
            return Verdict(kind, self.round, self.worse_by(), told=f"{told}{here}")
        if self.watch and before and others and not here:
            return Verdict("taken_back", self.round, self.worse_by(), told=f"the promoted numbers: {others}")
        return None

    def _noise(self) -> float:
        """How far a group strays from the others in this round though it has the control's numbers."""
        others = np.delete(self._shifts(), self.turn)
        return float(others.std(ddof=1) * math.sqrt(1 + 1 / len(others))) if len(others) > 1 else 0.0

    def _shifts(self) -> np.ndarray:
        """Each group's objective in this round, less its own in the round before it all."""
        rounds = (self.sums, self.finished[0])
        here, before = ([self._objective(each) for each in sums] for sums in rounds)
        return np.array(here) - np.array(before)

    def _objective(self, sums: Sums) -> float:
        """The model's; its latency is at its target, since no number changes what the graph does."""
        reference = sum(self.finished[0], Sums()).ratio
        missed = abs(sums.covered / max(sums.scored, 1) - self.rules.nominal) / self.rules.tolerance
        return model_objective(loss=sums.ratio / max(reference, TINY), coverage=missed, p95=1.0)

    def _verdict(self) -> Verdict:
        groups = self.rules.groups
        cells = np.array([[self._objective(sums) for sums in row] for row in self.finished[1:]])
        rotations = np.split(cells, len(cells) // groups)
        orders = [order_of(self.seed, rotation, groups) for rotation in range(len(rotations))]
        effect = effect_of(rotations, orders, self.seed)
        sure = effect.p <= self.rules.level and effect.difference <= -self.rules.gain_min
        told = f"objective {effect.difference:+.4g}, by chance with p = {effect.p:.2g}"
        if self.watch:
            kind, told = "taken_back" if sure else "kept", f"the former numbers: {told}"
        else:
            kind = "better" if sure else "no_better"
        return Verdict(kind, self.round, effect.difference, effect.p, told)

    def checkpoint(self) -> dict:
        return asdict(self)

    @classmethod
    def restore(cls, state: dict) -> "Trial":
        rules, sums = TrialRules(**state["rules"]), [Sums(**each) for each in state["sums"]]
        finished = [[Sums(**each) for each in row] for row in state["finished"]]
        return cls(**state | {"rules": rules, "sums": sums, "finished": finished})
