"""The capacity model on numbers that can be worked out by hand."""

import pytest

from loadtests.capacity import Demand, Model, Observation, Price, Sizes, calibrated, need

SIZES = Sizes(1000, 500, 2000, 6000, 50, 750, 5500)
PRICES = {"graph": Price(8, 200), "worker": Price(6, 400), "server": Price(7, 300)}
MODEL = Model(PRICES, load_us=2, sizes=SIZES)


def observed(ticks_per_commit):
    us = {party: price.at(ticks_per_commit) for party, price in PRICES.items()}
    return Observation(ticks_per_commit, {**us, "producer": 1.0, "reader": 1.0})


def test_a_commit_is_shared_by_its_ticks():
    assert MODEL.us_per_tick(100) == {"graph": 10, "worker": 10, "server": 10}
    assert MODEL.us_per_tick(1) == {"graph": 208, "worker": 406, "server": 307}


def test_two_runs_give_back_the_prices_that_made_them():
    found = calibrated(observed(40), observed(200))
    for party, price in PRICES.items():
        assert (found[party].each_tick, found[party].each_commit) == pytest.approx((price.each_tick, price.each_commit))


def test_no_price_is_below_zero_where_noise_would_have_it_so():
    cheap, dear = {party: 1.0 for party in PRICES}, {party: 9.0 for party in PRICES}
    found = calibrated(Observation(40, cheap), Observation(200, dear))
    assert all((price.each_tick, price.each_commit) == (9.0, 0.0) for price in found.values())


@pytest.mark.parametrize(
    ("workers", "cores", "rate", "bound"),
    [
        (1, 16, 50_000, "workers"),  # 20 us a tick, one after the other
        (4, 16, 100_000, "Redis"),  # 10 us on its one core
        (2, 2, 62_500, "cores"),  # 32 us of everybody on two cores
    ],
)
def test_the_first_bound_that_is_reached_decides(workers, cores, rate, bound):
    assert MODEL.throughput(workers, cores, 100) == pytest.approx(rate)
    assert MODEL.bound(workers, cores, 100) == bound


def test_a_cluster_has_as_many_shards_and_workers_as_the_rate_needs():
    found = need(MODEL, Demand(1_000_000, 100_000, ticks_per_commit=100, utilisation=0.5))
    assert (found.shards, found.workers) == (20, 40)
    assert found.redis_in_bytes_per_s == 1e9 and found.file_bytes_per_s == 2e9
    assert found.row_bytes == 100_000 * 5500
    assert found.redis_bytes == 100_000 * 6000 + 20 * 16 * (100_000 * 50 + 100_000 * 750)


def test_more_assets_need_memory_and_nothing_else():
    few, many = (need(MODEL, Demand(100_000, assets, 100)) for assets in (1000, 1_000_000))
    assert (few.shards, few.workers) == (many.shards, many.workers)
    assert many.redis_bytes - few.redis_bytes == 999_000 * 6000
