import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.errors import BadRules, ClockWentBack
from scheduler.shedding import Shedder, SheddingRules

MS = 1_000_000
QUICK = SheddingRules(recover_observations=1)
ENOUGH = SheddingRules().observations_min


def feed(shedder, latency_ms, interval_ms, times=1, start_ms=None):
    """Observes the same latency and interval again and again; returns the depths that followed."""
    now = start_ms * MS if start_ms is not None else (shedder._now_ns or 0)
    depths = []
    for _ in range(times):
        now += int(interval_ms * MS)
        depths.append(shedder.observe(int(latency_ms * MS), int(interval_ms * MS), now))
    return depths


@pytest.mark.parametrize(
    ("latency_ms", "depth", "kernels"),
    [
        (69.9, 5, "ABCD"),
        (70, 3, "ABCD"),
        (99.9, 3, "ABCD"),
        (100, 2, "ABCD"),
        (100.1, 1, "CD"),
        (900, 1, "CD"),
    ],
)
def test_each_ratio_has_its_depth_and_kernels(latency_ms, depth, kernels):
    shedder = Shedder()
    feed(shedder, latency_ms, 100, ENOUGH)
    assert (shedder.depth, shedder.kernels) == (depth, kernels)


def test_cold_caches_after_a_start_shed_nothing():
    """Each of the first observations alone would take the depth to the lowest."""
    shedder = Shedder()
    assert set(feed(shedder, 900, 100)) == {5}
    assert set(feed(shedder, 20, 100, 100)) == {5}
    slow = Shedder()
    assert feed(slow, 900, 100, ENOUGH) == [5] * (ENOUGH - 1) + [1]


def test_latency_is_smoothed_with_a_factor_of_three_tenths():
    shedder = Shedder()
    feed(shedder, 10, 100)
    feed(shedder, 20, 100)
    assert shedder.latency_ns == pytest.approx(13 * MS)
    assert shedder.ratio == pytest.approx(0.13)


def test_depth_comes_back_one_rung_at_a_time():
    shedder = Shedder(QUICK)
    feed(shedder, 250, 100, ENOUGH)
    assert list(dict.fromkeys(feed(shedder, 1, 100, 12))) == [1, 2, 3, 5]


def test_between_the_thresholds_the_depth_stays_where_it_is():
    shedder = Shedder(QUICK)
    feed(shedder, 80, 100, ENOUGH)
    assert set(feed(shedder, 60, 100, times=50)) == {3}
    fresh = Shedder(QUICK)
    assert set(feed(fresh, 60, 100, times=50)) == {5}


def test_recovery_takes_twenty_healthy_observations_in_a_row():
    shedder = Shedder()
    feed(shedder, 80, 100, ENOUGH)
    depths = feed(shedder, 40, 100, times=60)
    healthy_from = next(i for i in range(60) if 40 + 40 * 0.7 ** (i + 1) < 50)
    assert depths.index(5) == healthy_from + 19


def test_a_slow_observation_starts_the_count_again():
    shedder = Shedder()
    feed(shedder, 80, 100, ENOUGH)
    for _ in range(10):
        feed(shedder, 30, 100, times=19)
        assert feed(shedder, 140, 100)[0] < 5


def test_a_black_swan_goes_down_the_ladder_and_comes_back_without_a_growing_backlog():
    latency_ms = {5: 15, 3: 6, 2: 3, 1: 2}
    intervals_ms = [100] * 100 + [20] * 400 + [5] * 500 + [100] * 200
    shedder, depths, now_ms, done_ms, waits_ms = Shedder(), [], 0.0, 0.0, []
    for interval_ms in intervals_ms:
        now_ms += interval_ms
        started_ms = max(now_ms, done_ms)
        done_ms = started_ms + latency_ms[shedder.depth]
        waits_ms.append(started_ms - now_ms)
        depths.append(shedder.observe(latency_ms[shedder.depth] * MS, interval_ms * MS, int(now_ms * MS)))
    assert (depths[50], depths[300], depths[700], depths[-1]) == (5, 3, 2, 5)
    assert max(waits_ms) < 30 and max(waits_ms[600:]) == 0


def test_a_pause_of_the_feed_does_not_excuse_slowness():
    shedder = Shedder()
    feed(shedder, 100, 60_000, ENOUGH)
    assert shedder.depth == 2


def test_jitter_is_the_spread_of_the_last_hundred():
    shedder = Shedder()
    latencies = np.random.default_rng(1).integers(1, 20, 250)
    for i, latency in enumerate(latencies):
        shedder.observe(int(latency), 100 * MS, i)
    jitter, last = shedder.jitter(), latencies[-100:]
    assert (jitter.observations, jitter.min, jitter.max) == (100, last.min(), last.max())
    assert (jitter.mean, jitter.std) == pytest.approx((last.mean(), last.std()))
    assert (jitter.p50, jitter.p95, jitter.p99) == pytest.approx(tuple(np.percentile(last, (50, 95, 99))))


def test_jitter_over_four_fifths_of_the_nyquist_interval_degrades_though_the_ratio_is_low():
    shedder = Shedder(SheddingRules(smoothing=0.01))
    depths = [feed(shedder, latency, 100)[0] for latency in (1, 170) * 20]
    assert shedder.ratio < 0.7 and shedder.jitter().violations > 0
    assert depths[:9] == [5] * 9 and depths[-1] == 2


def test_jitter_over_six_tenths_costs_one_rung():
    shedder = Shedder(SheddingRules(smoothing=0.01))
    assert [feed(shedder, latency, 100)[0] for latency in (1,) * ENOUGH + (1, 131) * 20][-1] == 3


def test_fewer_than_ten_latencies_say_nothing_about_jitter():
    shedder = Shedder(SheddingRules(smoothing=0.01))
    assert {feed(shedder, latency, 100)[0] for latency in (1, 170, 1, 170, 1, 170, 1, 170, 1)} == {5}
    assert shedder.jitter().violations == 0


def test_an_alert_follows_a_minute_below_full_depth():
    shedder = Shedder()
    feed(shedder, 80, 100, ENOUGH, start_ms=0)
    below_since = ENOUGH * 100 * MS
    feed(shedder, 80, 100, times=600)
    assert not shedder.alert(below_since + 60_000 * MS)
    assert shedder.alert(below_since + 60_000 * MS + 1)
    feed(shedder, 1, 100, times=200)
    assert shedder.depth == 5 and not shedder.alert(below_since + 80_000 * MS)


def test_a_feed_that_stops_while_depth_is_missing_rings_no_bell_all_night():
    shedder = Shedder(SheddingRules(alert_after_ns=0))
    feed(shedder, 80, 100, 2 * ENOUGH, start_ms=0)
    last = 2 * ENOUGH * 100 * MS
    assert shedder.depth < 5 and shedder.alert(last + 10_000 * MS) and not shedder.alert(last + 10_001 * MS)


def test_status_names_the_state_of_the_ladder():
    shedder = Shedder()
    statuses = [shedder.status]
    for latency_ms in (75, 90, 300):
        feed(shedder, latency_ms, 100, ENOUGH)
        statuses.append(shedder.status)
    assert statuses == ["NOMINAL", "DEGRADED", "DEGRADED", "DEGRADED_CRITICAL"]


def test_the_ladder_follows_the_depths_that_exist():
    shallow = Shedder(SheddingRules(depths=(2, 3)))
    assert (shallow.depth, feed(shallow, 80, 100, ENOUGH)[-1]) == (3, 2)
    single = Shedder(SheddingRules(depths=(3,)))
    assert set(feed(single, 80, 100, ENOUGH)) == {3} and single.status == "NOMINAL"
    assert (feed(single, 200, 100, ENOUGH)[-1], single.kernels, single.status) == (1, "CD", "DEGRADED_CRITICAL")


def test_time_must_not_go_back():
    shedder = Shedder()
    shedder.observe(1, 1, 10)
    with pytest.raises(ClockWentBack, match="monotonic"):
        shedder.observe(1, 1, 9)


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 200)), max_size=60))
@settings(max_examples=60)
def test_any_history_stays_on_the_ladder_and_climbs_one_rung_at_most(history):
    shedder = Shedder(QUICK)
    for i, (latency, interval) in enumerate(history):
        before = shedder.ladder.index(shedder.depth)
        shedder.observe(latency * MS, interval * MS, i)
        assert shedder.ladder.index(shedder.depth) <= before + 1
        assert shedder.ratio < 0.7 or shedder.depth < 5 or i < ENOUGH - 1


@pytest.mark.parametrize(
    "wrong",
    [
        *({"depths": depths} for depths in ((), (3, 2), (1, 2))),
        *({"recover_ratio": 0.8}, {"smoothing": 0}, {"jitter_window": 5}),
    ],
)
def test_thresholds_that_contradict_each_other_are_refused(wrong):
    with pytest.raises(BadRules):
        SheddingRules(**wrong)
