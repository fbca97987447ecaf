"""Observe-only: what the tuner would have to work with, and what it would have proposed. Nothing is changed.

A second engine proposes and applies to itself; its guardrails are real, its changes are not. Since nothing was
perturbed its gradients are noise, and no gradient is claimed: what counts is how much the objective scatters.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

from scheduler.errors import BadRules
from scheduler.hotpath import (
    AdaptiveEngine,
    AdaptiveEngineConfig,
    AuditEvent,
    EventType,
    NoChange,
    Observer,
    TelemetryDigest,
    Violation,
)
from scheduler.hotpath.knobs import KnobRegistry, Vec
from worker.hotpath.engine import Gains
from worker.hotpath.fleet import TINY, Facts, References

TOLD = (EventType.PROPOSAL, EventType.VIOLATION)


class Rehearsal:
    """One dry run from its beginning; it goes on through changes of the leader."""

    def __init__(self, config: AdaptiveEngineConfig, centre: Vec, registry: KnobRegistry, now_us: int) -> None:
        self._engine = AdaptiveEngine(config, centre, registry, "rehearsal")
        self._engine.set_baseline(now_us)
        self._engine.drain_audit()
        self._observer = Observer(config)
        self._digests = 0
        self._sums: dict[str, float] = {}

    def observe(self, digest: TelemetryDigest, facts: Facts, terms: dict[str, float], now_us: int) -> list[AuditEvent]:
        """Takes a window of the fleet; what would have been proposed, to be audited."""
        self._observer.observe(digest)
        self._digests += 1
        for name, value in (asdict(facts) | {f"J.{term}": ratio for term, ratio in terms.items()}).items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        believed = replace(digest, config_generation=self._engine.snapshot().generation, since_apply_us=None)
        self._act(believed, now_us)
        return list(self._told())

    def facts(self) -> dict[str, Any]:
        """What was measured so far, and what follows for the probes."""
        told: dict[str, Any] = {"dry_run": True, "windows": self._digests, "gradient_known": False}
        told |= {name: total / self._digests for name, total in self._sums.items()}
        estimate = self._estimate()
        if estimate is not None:
            told |= {name: value for name, value in asdict(estimate).items() if name != "windows"}
            told["sides"] = estimate.windows
        return told

    def gains(self) -> Gains | None:
        """Probe distance and gain for this noise; None while too little was seen."""
        estimate = self._estimate()
        return None if estimate is None else Gains(estimate.learning_rate, estimate.perturbation_scale)

    def references(self) -> References:
        """Mean cost and loss of the dry run."""
        cost, loss = (self._sums.get(name, 0.0) / max(self._digests, 1) for name in ("cost", "loss"))
        return References(max(cost, TINY), max(loss, TINY))

    def _act(self, digest: TelemetryDigest, now_us: int) -> None:
        proposal = self._engine.observe(digest, now_us)
        if isinstance(proposal, NoChange):
            return
        try:
            self._engine.apply(proposal, now_us)
        except Violation:
            pass  # it is in the engine's own audit

    def _told(self) -> Iterator[AuditEvent]:
        estimate = self._estimate()
        noise = {} if estimate is None else {"sigma_y": estimate.sigma_y, "windows": estimate.windows}
        for event in self._engine.drain_audit():
            if event.event_type in TOLD:
                details = json.loads(event.details) | noise | {"dry_run": True}
                yield event._replace(details=json.dumps(details, sort_keys=True))

    def _estimate(self):
        try:
            estimate = self._observer.estimate()
        except BadRules:  # not enough yet
            return None
        return estimate if math.isfinite(estimate.sigma_y) else None

    def checkpoint(self) -> dict:
        """The measurements; the rehearsed proposals begin anew with each leader."""
        return {"observer": self._observer.checkpoint(), "digests": self._digests, "sums": self._sums}

    def restore(self, state: dict) -> None:
        self._observer.restore(state["observer"])
        self._digests, self._sums = state["digests"], dict(state["sums"])
