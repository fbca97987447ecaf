"""Every metric of a worker, declared once.

Labels are bounded: a partition is one of the fleet's, every other label comes from a list below, and a value that is
not in its list is counted as "other". No asset and no text of a tick ever becomes a label.
"""

import time
from dataclasses import dataclass
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from scheduler.partitions import PARTITIONS_MAX
from scheduler.shedding import Shedder
from worker.hotpath.metrics import HotpathMetrics
from worker.shutdown import ShutdownMetrics

STAGES = ("load", "compute", "commit")
OUTCOMES = ("ok", "already", "fenced", "conflict")
REASONS = ("late", "not_finite", "future", "malformed", "quarantined", "deadly", "over_quota")
LEASE_EVENTS = ("acquired", "handed_over", "lost")
STORE_REFUSALS = ("unavailable", "full")
SIDES = ("below", "above")
STATISTICS = ("mean", "std", "min", "max", "p50", "p95", "p99")

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
COUNTS = (1, 4, 16, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)


@dataclass
class Vitals:
    """What the health endpoints look at; moments are `time.monotonic()`."""

    phase: str = "starting"  # the last progress line of the service
    ready: bool = False
    computing_since: float | None = None  # set while the graph runs
    store_seen: float | None = None  # the last answer of the store to a heartbeat


M = TypeVar("M", Counter, Histogram)


class Labelled(Generic[M]):
    """A metric with one label from a bounded list."""

    def __init__(self, metric: M, allowed: tuple[str, ...]) -> None:
        self._metric = metric
        self._allowed: dict[str, M] = {
            name: metric.labels(name) for name in allowed
        }  # made now: they show as 0 from the start

    def labels(self, name: str) -> M:
        """The child of this label value; of "other" when the list does not know it."""
        return self._allowed[name] if name in self._allowed else self._metric.labels("other")


class ByPartition:
    """A gauge with one child for each partition that this worker holds."""

    def __init__(self, metric: Gauge) -> None:
        self._metric = metric

    def labels(self, partition: int) -> Gauge:
        assert 0 <= int(partition) < PARTITIONS_MAX
        return self._metric.labels(str(int(partition)))

    def forget(self, partition: int) -> None:
        """Takes the partition off the page: another worker reports it now."""
        try:
            self._metric.remove(str(int(partition)))
        except KeyError:
            pass  # it was never set


class Metrics:
    """The metrics of one process; each instance has a registry of its own."""

    def __init__(self) -> None:
        self.vitals = Vitals()
        self.registry = registry = CollectorRegistry()
        self.hotpath = HotpathMetrics(registry)
        self.shutdown = ShutdownMetrics(registry)
        ProcessCollector(registry=registry)  # CPU, memory, open files, start of the process

        def counter(name: str, text: str) -> Counter:
            return Counter(f"predictor_{name}", text, registry=registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"predictor_{name}", text, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"predictor_{name}", text, buckets=buckets, registry=registry)

        # What went through.
        self.ticks = counter("ticks", "Ticks whose effects were committed, rejected ones included")
        self.predictions = counter("predictions", "Predictions committed")
        self.rejected = self._by("rejected", "Ticks sent to the dead letters", "reason", REASONS)
        self.commits = self._by("commits", "Commits by the server's answer", "outcome", OUTCOMES)
        self.corrupt_states = counter("corrupt_states", "Assets quarantined because their state is damaged")
        self.quarantined_assets = gauge("quarantined_assets", "Quarantined assets of the partitions held now")
        self.store_refusals = self._by("store_refusals", "Times that Redis did not do it", "kind", STORE_REFUSALS)

        # What waits.
        self.backlog = self._by_partition("backlog_ticks", "Ticks after the cursor")
        self.oldest_age_seconds = self._by_partition("oldest_tick_age_seconds", "Age of the first waiting tick")

        # How it was done.
        stage = Histogram("predictor_stage_seconds", "Time of one stage", ["stage"], buckets=SECONDS, registry=registry)
        self.stage_seconds = Labelled(stage, STAGES)
        self.tick_latency_seconds = histogram("tick_latency_seconds", "From a tick's arrival to its commit", SECONDS)
        self.batch_ticks = histogram("batch_ticks", "Ticks in a micro-batch", COUNTS)
        self.batch_rows = histogram("batch_rows", "Distinct assets in a micro-batch", COUNTS)
        self.depth = gauge("signature_depth", "Depth of the graph in use; less than configured means shedding")
        self.depth_configured = gauge("signature_depth_configured", "Depth of the graph without shedding")
        self.kernels = gauge("kernels", "Kernels that take part; fewer than 4 means shedding")
        text = "Time for a tick of each asset over the gap between two of one; beyond 1 the graph falls behind"
        self.shedding_ratio = gauge("shedding_ratio", text)
        text = "1 while full depth is missing for longer than shedding.alert_after_s"
        self.shedding_alert = gauge("shedding_alert", text)
        text = "Time for a tick of each asset, over the last 100 micro-batches; std is what jitter is judged by"
        self.jitter_seconds = Gauge("predictor_jitter_seconds", text, ["statistic"], registry=registry)
        for statistic in STATISTICS:
            self.jitter_seconds.labels(statistic)
        self.compilations = gauge("compilations", "Graphs compiled since the start; growth after readiness is a fault")

        # How good it was: what of the followed assets came, against the forecast that stood before it.
        self.followed = counter("followed_values", "Values held against their forecast; 64 assets a worker")
        self.band_level = gauge("band_level", "Share of values that should fall into the band")
        self.band_misses = self._by("band_misses", "Followed values outside their band", "side", SIDES)
        self.pit = counter("pit", "Sum of places in their forecast, 0 to 1; of honest forecasts the mean is one half")
        self.forecast_loss = counter("forecast_loss", "Sum of CRPS in widths of the band")
        self.naive_loss = counter("naive_loss", 'The same of the forecast "as before"')

        # Who holds what, and whether the process breathes.
        self.lease_events = self._by("lease_events", "Events in the life of leases", "event", LEASE_EVENTS)
        self.generation = gauge("config_generation", "The fleet's configuration in use; 0: the settings alone")
        self.partitions = gauge("partitions", "Partitions of the fleet, held or not")
        self.held_partitions = gauge("held_partitions", "Partitions that this worker holds")
        self.sealed_partitions = gauge("sealed_partitions", "Partitions that this worker found sealed")
        self.build = Info("predictor_build", "What this worker runs", registry=registry)
        gauge("ready", "1 while this worker serves").set_function(lambda: float(self.vitals.ready))
        gauge("store_silence_seconds", "Since the last answer of Redis").set_function(self._store_silence_s)
        self.loop_lag_seconds = gauge("loop_lag_seconds", "How late the event loop's last heartbeat was")

    def follow(self, shedder: Shedder) -> None:
        """Tells what decides on depth, as it is when somebody looks."""
        self.kernels.set_function(lambda: len(shedder.kernels))
        self.shedding_ratio.set_function(lambda: shedder.ratio)
        self.shedding_alert.set_function(lambda: shedder.alert(time.monotonic_ns()))
        for statistic in STATISTICS:
            jitter = self.jitter_seconds.labels(statistic)
            jitter.set_function(lambda statistic=statistic: getattr(shedder.jitter(), statistic) / 1e9)

    def page(self) -> bytes:
        """All of it in the exposition format."""
        return generate_latest(self.registry)

    def numbers(self) -> dict[str, float]:
        """The counters and gauges as plain numbers, labels in the name; without the histograms' buckets."""
        samples = (sample for family in self.registry.collect() for sample in family.samples)
        return {
            sample.name + "".join(f".{value}" for value in sample.labels.values()): sample.value
            for sample in samples
            if "le" not in sample.labels and not sample.name.endswith("_created")
        }

    def _store_silence_s(self) -> float:
        seen = self.vitals.store_seen
        return 0.0 if seen is None else max(0.0, time.monotonic() - seen)

    def _by_partition(self, name: str, text: str) -> ByPartition:
        return ByPartition(Gauge(f"predictor_{name}", text, ["partition"], registry=self.registry))

    def _by(self, name: str, text: str, label: str, allowed: tuple[str, ...]) -> Labelled[Counter]:
        return Labelled(Counter(f"predictor_{name}", text, [label], registry=self.registry), allowed)


CONTENT_TYPE = CONTENT_TYPE_LATEST
