"""The names that dashboards rely on, and labels that cannot grow."""

from worker.metrics import LEASE_EVENTS, OUTCOMES, REASONS, STAGES, Metrics

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
