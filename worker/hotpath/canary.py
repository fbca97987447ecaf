"""The canary's part of a term: what is tried, in which round, and what the fleet's numbers should be. Pure.

    order --> trial --> `wants` --> published --> losses --> next round --> ... --> verdict --> `wants` --> published
                                                                                                              |
              `former` numbers again <-- taken back <-- the same rounds in the mirror: a watch <-- what was promoted

`wants` are the values of the generation to be published over generation `base`. Whoever leads publishes them until they
are; if somebody else publishes first, the trial is over, and what they published stays. Until its watch is over, what
was promoted is on probation, and the former numbers are where everything goes back to.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from scheduler.hotpath import EventType, SafetyExecutor
from scheduler.hotpath.candidates import Search
from scheduler.hotpath.trial import Sums, Trial, TrialRules, Verdict
from worker.generations import CANARY, EVERYONE
from worker.hotpath.model_knobs import MODEL, PROPOSED, Model
from worker.settings import HotpathSettings

PROMOTION = "promotion"  # the cause of a rollback


class Canary:
    """At most one trial at a time."""

    def __init__(self, settings: HotpathSettings, model: Model, executor: SafetyExecutor, state: Mapping[str, Any]):
        self.settings, self.model = settings, model
        self._executor = executor
        self.trial = Trial.restore(state["trial"]) if state.get("trial") else None
        self.search = Search(**state.get("search", {}))
        self.knobs: list[str] = list(state.get("knobs", ()))  # of which candidates are proposed; none: only one trial
        self.values: dict[str, Any] = state.get("values", {})  # of the fleet, without a canary
        self.base: int = state.get("base", 0)
        self.wants: dict[str, Any] | None = state.get("wants")
        self.former: dict[str, Any] | None = state.get("former")  # values before a promotion that is not proven yet
        self.pins: list[str] = list(state.get("pins", ()))  # numbers that are not to be tried
        self.last: dict[str, Any] = state.get("last", {})
        self.trials: int = state.get("trials", 0)
        self._rules: dict[str, Any] = state.get("rules", {})

    def checkpoint(self) -> dict[str, Any]:
        return {
            "trial": self.trial and self.trial.checkpoint(),
            "search": asdict(self.search),
            "knobs": self.knobs,
            "values": self.values,
            "base": self.base,
            "wants": self.wants,
            "former": self.former,
            "pins": self.pins,
            "last": self.last,
            "trials": self.trials,
            "rules": self._rules,
        }

    def begin(
        self,
        now_us: int,
        newest: tuple[int, Mapping[str, Any]],
        candidate: Mapping[str, float],
        knobs: list[str],
        rules: Mapping[str, Any],
        actor: str = "engine",
        cause: str = "",
    ) -> Trial:
        """Starts a trial of a candidate, or with knobs instead trial after trial of proposed ones."""
        self.base, self.values = newest[0], _without_canary(newest[1])
        self.knobs, self._rules = knobs, dict(rules)
        control = self.control()
        candidate = dict(candidate) or self._proposed(control)
        own = {name: control[name] for name in candidate}
        trial = self._try(f"canary:{self.trials}", 2 * self.trials, candidate, own)
        self.trials += 1
        self._record(now_us, "started", actor, cause, rounds=trial.rules.rounds)
        self._want_round()
        return trial

    def control(self) -> dict[str, float]:
        """What everyone's numbers are now."""
        everyone = self.values.get(EVERYONE, {})
        return {name: float(everyone.get(name, own)) for name, own in self.model.numbers.items()}

    def take(self, number: int, told: Mapping[int, Sums]) -> None:
        """Losses of a round; those of another generation do not count."""
        if self.trial is not None and self.wants is None and number == self.base:
            self.trial.take(told)

    def step(self, now_us: int) -> None:
        """Lets time pass: the next round, or the verdict; after that the next candidate."""
        if self.wants is not None:
            return
        if self.trial is None:
            if self.knobs and now_us >= self._executor.cooldown_end_us():
                self.begin(now_us, (self.base, self.values), {}, self.knobs, self._rules)
            return
        if not self._executor.audit_queue.has_room():
            return self.stop(now_us, "aborted", "engine", "there is no room in the audit")
        before = self.trial.round
        verdict = self.trial.step(now_us)
        if verdict is not None:
            self.end(now_us, verdict)
        elif self.trial.round != before:
            self._record(now_us, "round", "engine", "", turn=self.trial.turn)
            self._want_round()

    def published(self, number: int, now_us: int) -> None:
        """The fleet has what was wanted."""
        assert self.wants is not None
        self.base = number
        self.values, self.wants = _without_canary(self.wants), None
        self._record(now_us, "published", "engine", "", number=number)
        if self.trial is not None:
            self.trial.begin(now_us)
        elif self.former is not None:
            self._watch(now_us)

    def superseded(self, number: int, values: Mapping[str, Any], now_us: int) -> None:
        """Somebody else has published: that holds, and no canary goes on beside it."""
        ours = self.trial is None and CANARY in values and values[CANARY].get("trial") == self.last.get("trial")
        if ours and self.wants is not None:
            self.base = number  # a round whose answer was lost: what is wanted since then goes over it
            return
        self.base, self.values, self.wants, self.former = number, _without_canary(values), None, None
        if self.trial is not None:
            self.end(now_us, Verdict("superseded", self.trial.round, told=f"somebody published generation {number}"))
        self.wants = self.values if CANARY in values else None

    def stop(self, now_us: int, kind: str, actor: str, cause: str, back: bool = False) -> None:
        """Ends a trial on an operator's word, or because of what matters more; `better` promotes it.

        With `back` what was promoted and is still watched goes too; without, it stays.
        """
        self.knobs = []
        if self.trial is not None:
            kind = "taken_back" if back and self.trial.watch else kind
            self.end(now_us, Verdict(kind, self.trial.round, told=cause), actor)

    def end(self, now_us: int, verdict: Verdict, actor: str = "engine") -> None:
        """The candidate's numbers become everyone's, or nobody's; the former ones come back, or are history."""
        trial = self.trial
        assert trial is not None
        told = {"trial": trial.name, "candidate": trial.candidate, "control": trial.control, "watch": trial.watch}
        self.last = asdict(verdict) | told | {"at_us": now_us, "actor": actor}
        if self.knobs and (verdict.takes_back or not trial.watch):  # what was kept is no news for the search
            self.search = self.search.after(verdict.promotes)
        if verdict.kind in ("superseded", "too_few"):
            self.knobs = []
        details = {"what": "ended", **self.last}
        self._executor.record(EventType.CANARY_ENDED, now_us, actor=actor, cause=verdict.kind, details=details)
        self.trial, self.wants, former, self.former = None, self.values, self.former, None
        if verdict.promotes:
            self.former = self.values
            self.wants = {**self.values, EVERYONE: {**self.values.get(EVERYONE, {}), **trial.candidate}}
        elif verdict.takes_back:
            assert former is not None
            self.wants = former
            self._tell_back(now_us, trial, verdict, actor)

    def pin(self, now_us: int, newest: tuple[int, Mapping[str, Any]], name: str, value: float, actor: str) -> None:
        """Gives everyone a number and tries no other any more; a trial under way ends."""
        self.stop(now_us, "aborted", actor, f"{name} is pinned")
        self.base, self.values, self.former = newest[0], _without_canary(newest[1]), None
        changed = self.control()[name] != value
        wanted = {**self.values, EVERYONE: {**self.values.get(EVERYONE, {}), name: value}} if changed else self.values
        self.wants = wanted if changed or CANARY in newest[1] else None
        self.pins = sorted({*self.pins, name})

    def unpin(self, name: str) -> None:
        self.pins.remove(name)

    def worse_by(self) -> float | None:
        return None if self.trial is None else self.trial.worse_by()

    def _watch(self, now_us: int) -> None:
        """Gives the former numbers back to one group after the other."""
        promoted = self.last
        name = promoted["trial"].removeprefix(f"{self._executor.run_id}:") + ":watch"
        trial = self._try(name, 2 * self.trials + 1, promoted["control"], promoted["candidate"], watch=True)
        self._record(now_us, "watched", "engine", "", rounds=trial.rules.rounds)
        self._want_round()

    def _try(
        self, name: str, draw: int, candidate: Mapping[str, float], control: Mapping[str, float], watch: bool = False
    ) -> Trial:
        self.trial = Trial(
            name=f"{self._executor.run_id}:{name}",
            seed=self.settings.seed + draw,
            candidate=dict(candidate),
            control=dict(control),
            rules=self._trial_rules(),
            watch=watch,
        )
        return self.trial

    def _tell_back(self, now_us: int, trial: Trial, verdict: Verdict, actor: str) -> None:
        measured = verdict.difference is not None
        cause = PROMOTION if actor == "engine" else verdict.told
        details = {"what": "promotion", "numbers": trial.candidate, "instead_of": trial.control}
        details |= {"told": verdict.told, "difference": verdict.difference, "p": verdict.p}
        self._executor.tell_rollback(now_us, actor, cause, measured, details)

    def _want_round(self) -> None:
        trial = self.trial
        assert trial is not None
        told = {"trial": trial.name, "numbers": trial.candidate, "of": trial.rules.groups, "turn": trial.turn}
        self.wants = {**self.values, CANARY: told}

    def _proposed(self, control: dict[str, float]) -> dict[str, float]:
        """A candidate beside the control; one whose range does not hold the control starts from its nearest end."""
        free = {MODEL.get_id(name) for name in self.knobs}
        inside = {knob.name: min(max(control[knob.name], knob.lo), knob.hi) for knob in MODEL.knobs}
        found = MODEL.to_natives(self.search.candidate(self.settings.seed, MODEL.to_vec(inside), free))
        return {name: float(found[name]) for name in self.knobs}

    def _trial_rules(self) -> TrialRules:
        own = self.settings
        return TrialRules(
            groups=self._rules["groups"],
            rotations=self._rules["rotations"],
            scored_min=own.canary_scored_min,
            round_us=int(own.canary_round_s * 1e6),
            patience_us=int(own.canary_patience_s * 1e6),
            level=own.canary_level,
            harm_max=own.canary_harm,
            nominal=self.model.nominal,
            missed_max=own.canary_missed_max,
            alarms_max=own.canary_alarms_max,
        )

    def _record(self, now_us: int, what: str, actor: str, cause: str, **details: Any) -> None:
        trial = self.trial
        if trial is not None:
            details |= {"trial": trial.name, "round": trial.round, "candidate": trial.candidate}
        self._executor.record(EventType.CANARY, now_us, actor=actor, cause=cause, details={"what": what, **details})


def proposed_knobs(names: list[str], pins: list[str]) -> list[str]:
    """The knobs that candidates are proposed of, in their order."""
    return [name for name in MODEL.names if name in (names or PROPOSED) and name not in pins]


def _without_canary(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != CANARY}
