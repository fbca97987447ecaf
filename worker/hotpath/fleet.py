"""Adds the digests of all workers to one of the fleet, and says how good that is.

    J = 0.35 p95 + 0.15 p99 + 0.25 lag + 0.15 cost + 0.10 loss + 5 max(0, -margin)    each against its target

Cost and loss have no target of their own: they are held against what was measured before tuning began.
"""

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

from scheduler.hotpath import LatencyHistogram, TelemetryDigest
from scheduler.hotpath.objective import constraint_margin, transport_objective, version_of
from worker.hotpath.digest import WorkerDigest
from worker.settings import HotpathSettings

P99_SAMPLES_MIN = 5000  # with fewer the 99th percentile is noise, and its weight goes to the 95th
COST_PER = 1000  # predictions
TINY = 1e-9
TERMS = ("p95", "p99", "lag", "cost", "loss")
AIMS = ("p95_target_ms", "p99_target_ms", "lag_target_s", "p99_limit_ms", "lag_limit_s", "rejected_limit")


@dataclass(frozen=True)
class References:
    """What cost and loss were before tuning began."""

    cost: float
    loss: float


@dataclass(frozen=True)
class Facts:
    """What a window was like, in plain units: milliseconds, seconds, CPU seconds per 1000 predictions, a ratio."""

    p95_ms: float
    p99_ms: float
    lag_s: float
    lag_max_s: float
    cost: float
    loss: float
    rejected: float
    predictions: int
    samples: int  # of their latencies
    workers: int
    window_us: int
    since_us: int
    utilisation: float  # of the graph's thread or of the machine, whichever is busier, of the busiest worker
    rate: float = 0.0  # ticks per second of one worker

    @property
    def references(self) -> References:
        return References(max(self.cost, TINY), max(self.loss, TINY))


def facts_of(digests: Sequence[WorkerDigest]) -> Facts:
    """Adds up the digests of one window, at least one of them with a prediction."""
    latency = reduce(LatencyHistogram.merge, (digest.latency for digest in digests))
    batches = sum(digest.batches for digest in digests)
    predictions, rejected = (sum(getattr(digest, name) for digest in digests) for name in ("predictions", "rejected"))
    cpu_s, ages_s, error, naive = (
        sum(map(operator.attrgetter(name), digests)) for name in ("cpu_s", "ages_s", "error", "naive")
    )
    return Facts(
        p95_ms=latency.quantile(0.95) / 1e6,
        p99_ms=latency.quantile(0.99) / 1e6,
        lag_s=ages_s / max(batches, 1),
        lag_max_s=max(digest.age_max_s for digest in digests),
        cost=COST_PER * cpu_s / max(predictions, 1),
        loss=error / naive if naive > 0 else 1.0,
        rejected=rejected / max(predictions + rejected, 1),
        predictions=predictions,
        samples=latency.count,
        workers=len(digests),
        window_us=max(digest.window_us for digest in digests),
        since_us=min(digest.since_us for digest in digests),
        utilisation=max(map(_utilisation, digests)),
        rate=1e6 * (predictions + rejected) / sum(digest.window_us for digest in digests),
    )


def _utilisation(digest: WorkerDigest) -> float:
    machine = digest.machine_busy_s / digest.machine_s if digest.machine_s > 0 else 0.0
    return max(machine, 1e6 * digest.busy_s / digest.window_us)


def terms_of(facts: Facts, aims: HotpathSettings, references: References) -> dict[str, float]:
    """Each quantity against its target: 1.0 is at the target."""
    few = facts.samples < P99_SAMPLES_MIN
    p95 = facts.p95_ms / aims.p95_target_ms
    return {
        "p95": p95,
        "p99": p95 if few else facts.p99_ms / aims.p99_target_ms,
        "lag": facts.lag_s / aims.lag_target_s,
        "cost": facts.cost / references.cost,
        "loss": facts.loss / references.loss,
    }


def ruler_of(aims: HotpathSettings, references: References | None) -> str:
    """The version of the objective: it is another one as soon as a target, a limit or a reference is."""
    targets: dict[str, float | None] = {name: getattr(aims, name) for name in AIMS}
    targets |= {"p99_samples_min": P99_SAMPLES_MIN}
    return version_of(targets | ({} if references is None else vars(references)))


def margin_of(facts: Facts, aims: HotpathSettings) -> float:
    """How much of the nearest limit is left over; negative beyond it."""
    return constraint_margin(
        [
            (facts.p99_ms, aims.p99_limit_ms),
            (facts.lag_max_s, aims.lag_limit_s),
            (facts.rejected, aims.rejected_limit),
        ]
    )


def fleet_digest(
    facts: Facts, aims: HotpathSettings, references: References, generation: int, timestamp_us: int
) -> TelemetryDigest:
    """The digest that the tuner is fed with."""
    margin = margin_of(facts, aims)
    return TelemetryDigest(
        window_us=facts.window_us,
        objective_value=transport_objective(**terms_of(facts, aims, references), margin=margin),
        sample_count=facts.samples,
        timestamp_us=timestamp_us,
        config_generation=generation,
        latency_p99_us=facts.p99_ms * 1000,
        throughput_rps=facts.predictions / (facts.window_us / 1e6),
        error_rate=facts.rejected,
        constraint_margin=margin,
        since_apply_us=facts.since_us,
    )
