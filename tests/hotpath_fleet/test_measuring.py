"""What is measured: windows of one configuration each, histograms that add up, forecasts against "as before"."""

import random
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest

from scheduler.batching import BatchLimits
from scheduler.hotpath import LatencyHistogram
from worker.hotpath.digest import RefusedDigest, WorkerDigest, decode
from worker.hotpath.fleet import facts_of, fleet_digest, margin_of, terms_of
from worker.hotpath.knobs import Knobs
from worker.hotpath.measures import Measures
from worker.hotpath.merge import Merger
from worker.rows import RowTable
from worker.settings import HotpathSettings

BASE = Knobs(BatchLimits())
RESULT = np.dtype([("rejected", np.int32), ("reference_prediction", np.float64)])


@dataclass
class Batch:
    """What Measures looks at of a micro-batch."""

    knobs: Knobs
    work: SimpleNamespace
    parts: tuple = ()


class Bench:
    """Measures on a clock that the test owns; ticks arrive by the same clock."""

    def __init__(self, slots=8, digest_s=10.0, settle_s=15.0):
        self.now_s, self.cpu_s = 100.0, 0.0
        self.table = RowTable(np.zeros(1, np.uint32), slots)
        self.holding = SimpleNamespace(slots=np.full(slots, -1, np.int32))
        for code in range(slots):
            self.table.place(self.holding, code, np.zeros(1, np.uint32))
        self.measures = Measures(self.table, BASE, digest_s, settle_s, lambda: self.now_s, lambda: self.cpu_s)
        self.measures.offset_ns = 0

    def batch(self, slots, values, forecasts, knobs=BASE, late_s=0.5, rejected=None):
        results = np.zeros(len(slots), RESULT)
        results["reference_prediction"] = forecasts
        results["rejected"] = 0 if rejected is None else rejected
        arrivals = np.full(len(slots), int((self.now_s - late_s) * 1e9), np.int64)
        work = SimpleNamespace(slots=np.array(slots), values=np.array(values, float), arrivals_ns=arrivals)
        refused = int(np.count_nonzero(results["rejected"]))
        self.measures.count(len(slots) - refused, refused)
        self.measures.committed(Batch(knobs, work), SimpleNamespace(results=results, seconds=0.001))


def test_a_window_belongs_to_one_configuration_and_the_first_one_lets_it_settle():
    bench = Bench()
    turned = Knobs(BatchLimits(), 0.01, 5, 3)
    bench.now_s += 7
    bench.measures.swap(turned, bench.now_s)
    bench.batch([0], [1.0], [1.0])  # formed before the change, committed after it
    for _ in range(40):
        bench.batch([0, 1], [1.0, 2.0], [1.0, 2.0], turned)
        bench.now_s += 1
        bench.measures.look(bench.now_s)
    digests = list(bench.measures.digests)
    assert [digest.pair for digest in digests] == [(0, 0), (5, 3), (5, 3), (5, 3)]
    assert [digest.window_us / 1e6 for digest in digests] == [7, 15, 10, 10]
    assert [digest.since_us / 1e6 for digest in digests] == [0, 0, 15, 25]
    assert [digest.predictions for digest in digests] == [0, 30, 20, 20]


def test_forecasts_are_held_against_as_before_like_a_slow_reading():
    bench, chance = Bench(), random.Random(3)
    before, error, naive = {}, 0.0, 0.0
    for _ in range(50):
        slots = [chance.randrange(8) for _ in range(chance.randrange(1, 12))]
        values = [chance.random() for _ in slots]
        forecasts = [chance.random() for _ in slots]
        rejected = [int(chance.random() < 0.2) for _ in slots]
        bench.batch(slots, values, forecasts, rejected=rejected)
        for slot, value, forecast, refused in zip(slots, values, forecasts, rejected, strict=True):
            if refused:
                continue
            if slot in before:
                error += abs(value - before[slot][1])
                naive += abs(value - before[slot][0])
            before[slot] = value, forecast
    bench.now_s += 20
    bench.measures.look(bench.now_s)
    digest = bench.measures.digests[0]
    assert (digest.error, digest.naive) == pytest.approx((error, naive))


def test_a_row_given_to_another_asset_is_not_held_against_the_last_one():
    bench = Bench()
    bench.batch([0], [1.0], [1.0])
    bench.table.busy[:] = 0
    bench.table.forget(bench.holding)
    for code in range(8):
        bench.table.place(bench.holding, code, np.zeros(1, np.uint32))
    bench.batch([0], [100.0], [100.0])
    bench.now_s += 20
    bench.measures.look(bench.now_s)
    assert bench.measures.digests[0].naive == 0.0


def test_digests_of_workers_add_up_exactly(digest_of):
    rng = np.random.default_rng(1)
    latencies = rng.lognormal(17, 1, 30_000)
    whole, parts = LatencyHistogram(), []
    whole.record(latencies)
    for part in np.array_split(latencies, 7):
        histogram = LatencyHistogram()
        histogram.record(part)
        digest = digest_of(BASE, 1.0)
        parts.append(decode(WorkerDigest(**vars(digest) | {"latency": histogram, "predictions": len(part)}).encode()))
    facts = facts_of(parts)
    assert facts.p95_ms == whole.quantile(0.95) / 1e6
    assert facts.p95_ms == pytest.approx(np.quantile(latencies, 0.95) / 1e6, rel=0.03)
    assert (facts.predictions, facts.workers) == (30_000, 7)
    assert facts.cost == pytest.approx(1000 * 0.7 / 30_000)


def test_few_samples_give_the_weight_of_the_99th_percentile_to_the_95th(digest_of):
    aims = HotpathSettings()
    few, many = facts_of([digest_of(BASE, 80.0, 100)]), facts_of([digest_of(BASE, 80.0, 6000)])
    assert terms_of(few, aims, few.references)["p99"] == terms_of(few, aims, few.references)["p95"]
    assert terms_of(many, aims, many.references)["p99"] == pytest.approx(0.4, rel=0.03)


def test_the_margin_is_that_of_the_nearest_limit(digest_of):
    aims = HotpathSettings(p99_limit_ms=100.0, lag_limit_s=10.0)
    assert margin_of(facts_of([digest_of(BASE, 150.0)]), aims) == pytest.approx(-0.5, abs=0.03)
    facts = facts_of([digest_of(BASE, 10.0, age_max_s=20.0)])
    assert margin_of(facts, aims) == -1.0
    assert fleet_digest(facts, aims, facts.references, 3, 7).constraint_margin == -1.0


POISON = [
    b"",
    b"\x93\x01\x02\x03",
    b"\xc1" * 100,
    b"x" * 40_000,
]


def poisoned(digest_of):
    good = digest_of(BASE, 5.0)
    changes = [
        {"cpu_s": float("nan")},
        {"error": float("inf")},
        {"predictions": -1},
        {"batches": True},
        {"window_us": 0},
        {"fence": 1.5},
        {"ages_s": "1"},
    ]
    return [*POISON, *(WorkerDigest(**vars(good) | change).encode() for change in changes)]


def test_what_no_worker_can_have_measured_is_refused(digest_of):
    for payload in poisoned(digest_of):
        with pytest.raises(RefusedDigest):
            decode(payload)


def test_a_source_of_nonsense_is_not_listened_to_any_more(digest_of):
    merger, good = Merger(1_000_000, 0, 1), digest_of(BASE, 5.0)
    for payload in poisoned(digest_of):
        merger.take("bad", payload, (0, 0), 0)
        merger.take("good", good.encode(), (0, 0), 0)
    merger.take("bad", good.encode(), (0, 0), 0)
    assert merger.counts["quarantined"] >= 1 and merger.counts["valid"] == len(poisoned(digest_of))
    assert len(merger.window(["good"], 0)) == len(poisoned(digest_of))


def test_a_window_waits_for_all_workers_but_not_for_ever(digest_of):
    merger, payload = Merger(1_000_000, 0, 1), digest_of(BASE, 5.0).encode()
    merger.take("a", payload, (0, 0), 0)
    assert merger.window(["a", "b"], 1_400_000) is None
    assert len(merger.window(["a", "b"], 1_500_000)) == 1
    merger.take("a", payload, (0, 0), 2_000_000)
    merger.take("b", payload, (0, 0), 2_100_000)
    assert len(merger.window(["a", "b"], 2_100_000)) == 2
    assert merger.window(["a", "b"], 9_000_000) is None


def test_digests_of_another_configuration_or_of_its_settling_do_not_count(digest_of):
    merger = Merger(1_000_000, 500, 1)
    merger.take("a", digest_of(Knobs(BatchLimits(), 0, 1, 1), 5.0).encode(), (1, 2), 0)
    merger.take("a", digest_of(Knobs(BatchLimits(), 0, 1, 2), 5.0, since_us=499).encode(), (1, 2), 0)
    assert merger.counts == {"wrong_generation": 1, "settling": 1}
    assert merger.window([], 9_000_000) is None


def test_too_few_predictions_make_no_window(digest_of):
    merger = Merger(1_000_000, 0, 2000)
    merger.take("a", digest_of(BASE, 5.0, 1999).encode(), (0, 0), 0)
    assert merger.window(["a"], 0) is None
    assert merger.counts["too_few"] == 1


def told_the_time(bench, server_s, took_s=0.02):
    bench.measures.set_server_clock(int(server_s * 1e6), bench.now_s - took_s, bench.now_s)


@pytest.mark.parametrize("step_s", [40.0, -40.0], ids=["forward", "back"])
def test_latencies_across_a_step_of_the_servers_clock_are_thrown_away_and_all_settles_again(step_s):
    bench = Bench()
    told_the_time(bench, bench.now_s)
    for _ in range(30):
        bench.batch([0], [1.0], [1.0])
        bench.now_s += 1
        bench.measures.look(bench.now_s)
    sent = len(bench.measures.digests)
    bench.measures.digests.clear()  # sent
    for _ in range(9):  # the clock has stepped, and nobody has asked yet
        bench.batch([0], [1.0], [1.0], late_s=0.5 - step_s)
        bench.now_s += 1
    bench.measures.look(bench.now_s)
    assert sent == 2 and len(bench.measures.digests) == 1
    told_the_time(bench, bench.now_s + step_s)
    assert not bench.measures.digests
    for _ in range(30):
        bench.batch([0], [1.0], [1.0], late_s=0.5 - step_s)  # stamped by the new clock
        bench.now_s += 1
        bench.measures.look(bench.now_s)
        told_the_time(bench, bench.now_s + step_s)
    digests = list(bench.measures.digests)
    assert [digest.since_us / 1e6 for digest in digests] == [0, 15]  # the leader leaves out what settles
    assert all(digest.latency.quantile(0.99) < 1e9 for digest in digests)


def test_a_slow_answer_is_no_step_of_the_clock():
    bench = Bench()
    told_the_time(bench, bench.now_s)
    bench.batch([0], [1.0], [1.0])
    bench.now_s += 20
    bench.measures.look(bench.now_s)
    told_the_time(bench, bench.now_s - 1.5, took_s=3.0)  # the server answered at once, the network took its time
    told_the_time(bench, bench.now_s - 0.01)
    assert len(bench.measures.digests) == 1
