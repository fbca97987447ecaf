"""What the leader knows of itself, told twice: to the metrics, and as a report for `predictor hotpath status`."""

import json
from collections import Counter
from dataclasses import asdict
from typing import Any

from scheduler.hotpath import EventType, NoChange, SafeModeReason, TelemetryDigest, Violation
from scheduler.hotpath.proposal import Proposal
from state_store.hotpath.commit import HotpathCommit, HotpathOutcome
from state_store.hotpath.replicas import Replicated
from state_store.hotpath.store import Seen
from worker.hotpath.fleet import Facts
from worker.hotpath.knobs import REGISTRY, at_bound
from worker.hotpath.metrics import CAUSES, PHASES, HotpathMetrics
from worker.hotpath.term import Term

LAGGING_GENERATIONS = 3


class Report:
    """Filled in as things happen; `encode` is what operators read."""

    def __init__(self, metrics: HotpathMetrics) -> None:
        self.metrics = metrics
        self.gate = ""
        self.told_s = -1e9
        self.diagnostics: list[bytes] = []
        self._replicated: dict[str, Any] = {}
        self._waiting = ""
        self._refused: dict[str, Any] = {}
        self._measured: dict[str, Any] = {}
        self._workers: dict[str, Any] = {}
        self._counted: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()

    def hear(self, seen: Seen, term: Term, live: dict[str, tuple[int, int]]) -> None:
        """Who follows what; and where the engine stands."""
        behind = {name: max(0, term.committed_generation - pair[1]) for name, pair in live.items()}
        lagging = sorted(name for name, lag in behind.items() if lag >= LAGGING_GENERATIONS)
        following = sum(pair == term.pair for pair in live.values())
        self._workers = {"live": len(live), "following": following, "lagging": lagging}
        metrics = self.metrics
        metrics.worker_lag.set(max(behind.values(), default=0))
        metrics.audit_depth.set(seen.audit_length)
        self._count(term)
        self._show(term)

    def measured(self, facts: Facts, terms: dict[str, float], digest: TelemetryDigest) -> None:
        self._measured = {**asdict(facts), "terms": terms, "objective": digest.objective_value}
        self._measured["margin"] = digest.constraint_margin
        self.metrics.objective.set(digest.objective_value)
        self.metrics.margin.set(digest.constraint_margin or 0.0)

    def heard(self, proposal: Proposal, now_us: int) -> None:
        """What the engine proposed last, or why it waits."""
        if isinstance(proposal, NoChange):
            if proposal.reason.value != self._waiting:
                self.metrics.proposals.add(proposal.reason.value)
            self._waiting = proposal.reason.value
        else:
            self._waiting, self._refused = "", {}

    def replicated(self, found: Replicated) -> None:
        """Whether the replicas that must have the last decision do."""
        self._replicated = {"have": found.have, "wanted": found.wanted}
        self.metrics.replicas_lacking.set(max(0, found.wanted - found.have))

    def refused(self, violation: Violation) -> None:
        self._refused = {"kind": violation.kind, "told": str(violation), **_earliest(violation)}
        self.metrics.violations.add(violation.kind)

    def committed(self, commit: HotpathCommit, outcome: HotpathOutcome) -> None:
        if not outcome.took_effect:
            return
        if commit.kind in ("plus", "minus", "update"):
            self.metrics.proposals.add(commit.kind)
        for event in map(json.loads, commit.events):
            if event["event_type"] == EventType.ROLLBACK.value:
                cause = event["cause"] if event["actor"] == "engine" else "operator"
                self.metrics.rollbacks.add(cause if cause in CAUSES else "operator")
            elif event["event_type"] == EventType.CANARY_ENDED.value:
                self.metrics.canary_verdicts.add(event["cause"])

    def encode(self, term: Term) -> bytes:
        executor = term.engine.executor
        config = term.engine.settings
        told = {
            "at_us": term.now_us(),
            "mode": "frozen" if term.frozen else term.mode,
            "waiting": self._waiting,
            "gate": self.gate,
            "refused": self._refused,
            "replicas": self._replicated,
            "measured": self._measured,
            "workers": self._workers,
            "sides_digests": [_collected(term), config.spsa.eval_window_digests],
            "cooldown_end_us": executor.cooldown_end_us(),
            "rate_end_us": executor.rate.earliest_us(),
            "settle_us": config.spsa.settle_time_us,
            "deadline_us": term.engine.proposer.deadline_us if term.engine.proposer.measuring else None,
            "digests": dict(term.merger.counts),
            "dead_probes": {REGISTRY.names[i]: n for i, n in term.engine.proposer.dead_probes.items()},
        }
        if term.rehearsal is not None and term.observing:
            told["dry_run"] = term.rehearsal.facts()
        return json.dumps(told).encode()

    def _count(self, term: Term) -> None:
        """Counters grow by what is new since the last time; a new term begins at nothing."""
        for name, count in term.merger.counts.items():
            before = self._counted[name] if count >= self._counted[name] else 0
            self.metrics.digests.add(name, count - before)
            self._counted[name] = count
        for kind, count in term.engine.executor.audit_queue.drops.items():
            before = self._dropped[kind.value] if count >= self._dropped[kind.value] else 0
            self.metrics.audit_dropped.add(kind.value, count - before)
            self._dropped[kind.value] = count

    def _show(self, term: Term) -> None:
        metrics, engine, executor = self.metrics, term.engine, term.engine.executor
        k, spsa = engine.proposer.iteration(), engine.proposer.spsa
        metrics.fence.set(term.token)
        metrics.phase.set(PHASES.index(executor.phase))
        metrics.iteration.set(k)
        metrics.gain_a.set(spsa.learning_rate(k))
        metrics.perturbation_c.set(spsa.perturbation_scale(k))
        metrics.objective_ref.set(executor.control_safety.regression.reference or 0.0)
        metrics.sigma_y.set((executor.control_safety.regression.variance or 0.0) ** 0.5)
        vectors = {"centre": executor.centre, "live": engine.snapshot().params}
        if executor.baseline is not None:
            vectors["baseline"] = executor.baseline.params
        for kind, vec in vectors.items():
            for name, value in REGISTRY.to_natives(vec).items():
                metrics.knob.labels(name, kind).set(value)
        for name, unit in zip(REGISTRY.names, executor.centre, strict=True):
            metrics.at_bound.labels(name).set(at_bound(unit))
        trial = term.canary.trial
        metrics.canary_round.set(0 if trial is None else trial.round + 2)
        latch = executor.safe_mode
        for reason in SafeModeReason:
            metrics.safe_mode.labels(reason.value).set(latch is not None and latch.reason is reason)


def _collected(term: Term) -> int:
    state = term.engine.spsa_state()
    return len(getattr(state, "accumulated", ()))


def _earliest(violation: Violation) -> dict[str, int]:
    earliest_us = violation.details.get("earliest_us")
    return {} if earliest_us is None else {"earliest_us": earliest_us}
