"""The names that dashboards rely on, and labels that cannot grow."""

import logging
import time
from types import SimpleNamespace

import numpy as np

from scheduler.batching import BatchLimits
from scheduler.shedding import Shedder, SheddingRules
from state_store import Memory, MemoryStateStore
from worker.metrics import LEASE_EVENTS, OUTCOMES, REASONS, STAGES, STATISTICS, Metrics
from worker.pipeline import Pipeline
from worker.rows import RowTable

MS = 1_000_000

NAMES = {
    "predictor_ticks",
    "predictor_predictions",
    "predictor_rejected",
    "predictor_commits",
    "predictor_corrupt_states",
    "predictor_backlog_ticks",
    "predictor_oldest_tick_age_seconds",
    "predictor_stage_seconds",
    "predictor_tick_latency_seconds",
    "predictor_batch_ticks",
    "predictor_batch_rows",
    "predictor_signature_depth",
    "predictor_kernels",
    "predictor_shedding_ratio",
    "predictor_shedding_alert",
    "predictor_jitter_seconds",
    "predictor_compilations",
    "predictor_lease_events",
    "predictor_held_partitions",
    "predictor_loop_lag_seconds",
}


def test_every_metric_has_its_name():
    assert {family.name for family in Metrics().registry.collect()} >= NAMES


def test_labels_are_there_from_the_start():
    numbers = Metrics().numbers()
    assert {f"predictor_rejected_total.{reason}" for reason in REASONS} <= numbers.keys()
    assert {f"predictor_commits_total.{outcome}" for outcome in OUTCOMES} <= numbers.keys()
    assert {f"predictor_lease_events_total.{event}" for event in LEASE_EVENTS} <= numbers.keys()
    assert {f"predictor_stage_seconds_count.{stage}" for stage in STAGES} <= numbers.keys()


def test_what_a_tick_says_never_becomes_a_label():
    metrics = Metrics()
    for number in range(100):
        metrics.rejected.labels(f"not a number: {number}").inc()
    page = metrics.page().decode()
    assert 'predictor_rejected_total{reason="other"} 100.0' in page
    assert "not a number" not in page


def test_a_partition_that_went_to_another_worker_is_off_the_page():
    metrics = Metrics()
    metrics.backlog.labels(3).set(7)
    assert b'predictor_backlog_ticks{partition="3"} 7.0' in metrics.page()
    metrics.backlog.forget(3)
    metrics.backlog.forget(3)
    assert b'partition="3"' not in metrics.page()


def test_two_workers_in_one_process_do_not_share_metrics():
    one, two = Metrics(), Metrics()
    one.ticks.inc(5)
    assert two.numbers()["predictor_ticks_total"] == 0


def test_what_decides_on_depth_is_told_as_it_is_when_somebody_looks():
    metrics, shedder = Metrics(), Shedder(SheddingRules(alert_after_ns=0))
    metrics.follow(shedder)
    calm = metrics.numbers()
    assert (calm["predictor_kernels"], calm["predictor_shedding_ratio"], calm["predictor_shedding_alert"]) == (4, 0, 0)
    began_ns = time.monotonic_ns()
    for latency_ms in range(120, 220):
        shedder.observe(latency_ms * MS, 100 * MS, began_ns)
    slow = metrics.numbers()
    assert (slow["predictor_kernels"], slow["predictor_shedding_alert"]) == (2, 1)
    assert slow["predictor_shedding_ratio"] == shedder.ratio > 2
    jitter = shedder.jitter()
    told = {statistic: slow[f"predictor_jitter_seconds.{statistic}"] for statistic in STATISTICS}
    assert told == {statistic: getattr(jitter, statistic) / 1e9 for statistic in STATISTICS}
    assert 0.2 < told["p95"] < told["p99"] < told["max"] == 0.219


class Clock:
    """Seconds that only a test moves."""

    def __init__(self):
        self.s = 0.0

    def __call__(self):
        return self.s


def test_the_log_says_once_that_full_depth_is_missing_for_long_and_once_that_it_is_back(caplog):
    """One round takes 5 ms, then 150 ms, then 5 ms again, where an asset has a tick every 100 ms."""
    caplog.set_level(logging.INFO)
    clock = Clock()
    shedder = Shedder(SheddingRules(alert_after_ns=3_000_000_000))
    program = SimpleNamespace(layout_fingerprint=bytes(8))
    device = SimpleNamespace(program=program, table=RowTable(np.zeros(1, np.uint32), 8))
    store, generations = MemoryStateStore(Memory()), SimpleNamespace(without_canary=False)
    pipeline = Pipeline(store, device, BatchLimits(), shedder, Metrics(), generations, clock=clock)
    pipeline.holdings[0] = SimpleNamespace(assets=[b"a"])
    for round_, seconds in enumerate([0.005] * 20 + [0.15] * 40 + [0.005] * 200, 1):
        clock.s = round_ / 10
        work = SimpleNamespace(arrivals_ns=np.array([round_ * 100 * MS]), values=np.zeros(1))
        pipeline._shed(work, SimpleNamespace(rounds=1, seconds=seconds))
    said = [(record.msg, record.levelno) for record in caplog.records if record.msg.startswith("shedding")]
    assert said == [("shedding_lasts", logging.WARNING), ("shedding_over", logging.INFO)]
    (began, ended) = [record for record in caplog.records if record.msg.startswith("shedding")]
    assert (began.depth, ended.depth) == (1, 5) and began.ratio > 1 > ended.ratio
