"""The metrics of the tuner: those of a worker that follows, and those of the leader, elsewhere as of its last term."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from scheduler.hotpath import NoChangeReason, SafeModeReason
from scheduler.hotpath import errors as violations
from scheduler.hotpath.audit import EventClass
from worker.hotpath.document import REFUSALS
from worker.hotpath.knobs import REGISTRY
from worker.hotpath.merge import VALIDITIES

PHASES = ("centre", "plus", "minus")
PROPOSALS = ("plus", "minus", "update", *(reason.value for reason in NoChangeReason))
CAUSES = ("objective_regression", "constraint_violation", "promotion", "operator")
VERDICTS = ("better", "no_better", "harmful", "too_few", "superseded", "aborted", "kept", "taken_back")
VIOLATIONS = tuple(
    name
    for name, kind in vars(violations).items()
    if isinstance(kind, type) and issubclass(kind, violations.Violation) and kind is not violations.Violation
)


class HotpathMetrics:
    """Every label is from a list that is closed when the process starts."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._registry = registry or CollectorRegistry()

        # The worker that follows.
        self.generation = self._gauge("generation", "Configuration that this worker runs with; 0: its own settings")
        self.frozen = self._gauge("frozen", "1 while an operator has frozen the fleet")
        self.refused = self._counter("documents_refused", "Documents not followed", "kind", REFUSALS)
        self.probe_expired = Counter(
            "hotpath_probe_expired", "Probes left without a word of a leader", registry=self._registry
        )

        # The worker that leads.
        self.lease_held = self._gauge("lease_held", "1 in the worker that leads the tuner")
        self.fence = self._gauge("fence", "Token of the leader")
        self.phase = self._gauge("phase", "0 centre, 1 plus, 2 minus")
        self.iteration = self._gauge("iteration", "Finished cycles")
        self.gain_a = self._gauge("gain_a", "Present gain")
        self.perturbation_c = self._gauge("perturbation_c", "Present probe distance, a share of the range")
        self.objective = self._gauge("objective", "Of the last window")
        self.objective_ref = self._gauge("objective_ref", "What it is held against")
        self.sigma_y = self._gauge("sigma_y", "Noise of one side's mean")
        self.margin = self._gauge("margin", "What is left of the nearest limit")
        self.audit_depth = self._gauge("audit_depth", "Audit events that wait for their archive")
        self.replicas_lacking = self._gauge("replicas_lacking", "Replicas that lack the last decision and must not")
        self.canary_round = self._gauge("canary_round", "Round of the trial or watch under way, from 1; 0: none")
        self.canary_verdicts = self._counter("canary_verdicts", "Trials by how they ended", "verdict", VERDICTS)
        self.worker_lag = self._gauge("worker_lag_generations", "Generations that the slowest live worker is behind")
        self.knob = Gauge("hotpath_knob", "Native units", ["knob", "kind"], registry=self._registry)
        self.at_bound = Gauge("hotpath_knob_at_bound", "1 at an end of its range", ["knob"], registry=self._registry)
        self.safe_mode = Gauge("hotpath_safe_mode", "1 while it holds", ["reason"], registry=self._registry)
        self.proposals = self._counter("proposals", "What the tuner proposed", "kind", PROPOSALS)
        self.violations = self._counter("violations", "Proposals refused", "kind", VIOLATIONS)
        self.digests = self._counter("digests", "Digests of workers", "validity", VALIDITIES)
        self.rollbacks = self._counter("rollbacks", "Returns to what was before", "cause", CAUSES)
        classes = tuple(kind.value for kind in EventClass)
        self.audit_dropped = self._counter("audit_dropped", "Events without a place", "class", classes)
        for knob in REGISTRY.names:
            self.at_bound.labels(knob)
            for kind in ("centre", "live", "baseline"):
                self.knob.labels(knob, kind)
        for reason in SafeModeReason:
            self.safe_mode.labels(reason.value)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"hotpath_{name}", text, registry=self._registry)

    def _counter(self, name: str, text: str, label: str, allowed: tuple[str, ...]) -> "ClosedCounter":
        return ClosedCounter(Counter(f"hotpath_{name}", text, [label], registry=self._registry), allowed)


class ClosedCounter:
    """A counter whose label takes the values of a list, and "other" for the rest."""

    def __init__(self, counter: Counter, allowed: tuple[str, ...]) -> None:
        self._children = {name: counter.labels(name) for name in allowed}
        self._counter = counter

    def add(self, name: str, count: float = 1) -> None:
        child = self._children.get(name)
        (self._counter.labels("other") if child is None else child).inc(count)
