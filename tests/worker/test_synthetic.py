"""The synthetic market: the same for a seed, positive, finite, of every kind, with rising event times."""

from itertools import islice

import numpy as np

from worker.synthetic import KINDS, Market, asset_names, ticks

START_NS = 1_700_000_000_000_000_000


def test_the_same_seed_gives_the_same_ticks():
    one, two, other = (list(islice(ticks(20, 1000, seed, START_NS), 500)) for seed in (7, 7, 8))
    assert one == two
    assert one != other


def test_event_times_rise_at_the_rate():
    times = [tick.timestamp_ns for tick in islice(ticks(5, 250, 0, START_NS), 100)]
    assert np.diff(times).tolist() == [4_000_000] * 99
    assert times[0] == START_NS


def test_every_asset_trades_and_every_kind_is_there():
    seen = {tick.asset for tick in islice(ticks(50, 1000, 0, START_NS), 2000)}
    assert seen == set(asset_names(50))
    assert {name.split("-")[0] for name in seen} == set(KINDS)


def test_an_asset_trades_at_most_once_in_a_round():
    assets, values = Market(100, 0).next_round()
    assert len(set(assets.tolist())) == len(assets) == len(values) < 100


def test_values_stay_positive_and_finite_for_long():
    market = Market(100, 1)
    for _ in range(2000):
        _, values = market.next_round()
        assert np.isfinite(values).all()
        assert (values > 0).all()


def test_lattice_values_lie_on_their_grid():
    market = Market(5, 3)
    values = [dict(zip(*market.next_round(), strict=True)).get(KINDS.index("lattice")) for _ in range(50)]
    steps = np.array([value for value in values if value is not None]) / market._grid[KINDS.index("lattice")]
    assert np.allclose(steps, np.round(steps))
