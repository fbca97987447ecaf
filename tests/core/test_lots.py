"""Every tick gets one place, in order, with little waste."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from predictor_core.lots import lots_of

LANES, BLOCKS, STEPS = 4, 3, 12


@settings(deadline=None)
@given(st.lists(st.integers(0, 29), max_size=300))
def test_every_tick_is_taken_once_in_its_rows_order_and_lane(row_of):
    row_of = np.array(row_of, np.int64)
    taken = []
    for lot in lots_of(row_of, 30, LANES, BLOCKS, STEPS):
        lane_of = dict(zip(lot.rows.tolist(), range(len(lot.rows)), strict=True))
        assert len(lane_of) == len(lot.rows) <= LANES * BLOCKS
        assert lot.first_steps[-1] <= STEPS and len(set(lot.places)) == len(lot.places)
        for tick, place in zip(lot.ticks, lot.places, strict=True):
            lane = lane_of[row_of[tick]]
            step = place // LANES - lot.first_steps[lane // LANES]
            assert place % LANES == lane % LANES
            assert 0 <= step < lot.counts[lane]
        taken += sorted(lot.ticks, key=lambda tick: dict(zip(lot.ticks, lot.places, strict=True))[tick])
    for row in set(row_of):
        assert [tick for tick in taken if row_of[tick] == row] == np.flatnonzero(row_of == row).tolist()
    assert sorted(taken) == list(range(len(row_of)))


def test_rows_with_many_ticks_share_a_block():
    row_of = np.repeat(np.arange(8), [1, 3, 1, 3, 1, 3, 1, 3])
    (lot,) = lots_of(row_of, 8, LANES, BLOCKS, STEPS)
    assert lot.rows[:LANES].tolist() == [1, 3, 5, 7]
    assert lot.first_steps.tolist() == [0, 3, 4]


def test_few_rows_use_the_steps_of_all_blocks():
    lots = list(lots_of(np.zeros(30, int), 1, LANES, BLOCKS, STEPS))
    assert [len(lot.ticks) for lot in lots] == [12, 12, 6]
