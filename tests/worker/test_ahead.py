"""Rows ahead of their stored states, against a model that keeps every row's ticks in a list."""

import math
from random import Random

import numpy as np
import pytest

from worker.ahead import Ahead


def tick_id(number):
    return b"%d-0" % number


class Model:
    """Each asset's newest tick, and that of its stored state."""

    def __init__(self):
        self.ahead, self.newest, self.stored, self.ticks = Ahead(), {}, {}, 0

    def tick(self, codes):
        for code in codes:
            self.ticks += 1
            self.newest[code] = self.ticks
        self.ahead.took(len(codes))
        return self.ahead.changed(np.array(codes, np.int64)).tolist()

    def sweep(self, count):
        codes, reflected = self.ahead.sweep(count, tick_id(self.ticks), 0.0)
        self.stored |= {code: self.newest[code] for code in codes.tolist()}
        return codes.tolist(), reflected


@pytest.mark.parametrize("seed", range(40))
def test_when_a_sweep_is_through_no_stored_state_lacks_a_tick_that_came_before_it_began(seed):
    random, model, begun, ended = Random(seed), Model(), None, 0
    for _ in range(300):
        model.tick([random.randrange(30) for _ in range(random.randrange(1, 9))])
        if random.random() < 0.5:
            begun = begun or (dict(model.newest), model.ticks)
            _, reflected = model.sweep(random.randrange(12))
            if reflected is not None:
                newest, ticks = begun
                assert reflected == tick_id(ticks)
                assert all(model.stored[code] >= tick for code, tick in newest.items())
                assert model.ahead.ticks == model.ticks - ticks
                begun, ended = None, ended + 1
    assert ended > 20


def test_a_row_is_ahead_once_and_again_when_it_moves_after_it_was_handed_out():
    model = Model()
    assert sorted(set(model.tick([3, 1, 3, 300]))) == [1, 3, 300]
    assert model.tick([1, 2]) == [2]
    assert model.sweep(2) == ([1, 2], None)
    assert model.tick([2, 3]) == [2], "3 is still to be handed out, 2 moved on"
    assert model.sweep(2) == ([3, 300], tick_id(6)), "the sweep began with the sixth tick"
    assert model.sweep(9) == ([2], tick_id(8))


def test_what_is_unstored_is_counted_from_the_tick_a_sweep_began_with():
    ahead = Ahead()
    ahead.took(5)
    ahead.changed(np.arange(5))
    assert (ahead.unstored(12.0).rows, ahead.unstored(12.0).age_s) == (5, math.inf), "new here, so it is late"
    ahead.sweep(3, b"5-0", 13.0)
    ahead.took(4)
    ahead.changed(np.arange(4))
    told = ahead.unstored(14.0)
    assert (told.batches, told.ticks, told.rows, told.age_s, told.sweeping) == (2, 9, 2, math.inf, True)
    assert ahead.sweep(3, b"9-0", 15.0)[1] == b"5-0"
    told = ahead.unstored(16.0)
    assert (told.batches, told.ticks, told.rows, told.age_s, told.sweeping) == (1, 4, 3, 3.0, False)


def test_a_sweep_of_nothing_is_through_at_once():
    ahead = Ahead()
    ahead.took(2)
    codes, reflected = ahead.sweep(0, b"2-0", 1.0)
    assert not len(codes) and reflected == b"2-0" and not ahead.batches
