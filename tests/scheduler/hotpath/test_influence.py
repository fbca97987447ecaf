"""A knob that changes nothing is named after enough cycles, and one that matters never is."""

import json
import random

from scheduler.hotpath.influence import CYCLES, Influence


def taught(slopes, seed, cycles=CYCLES, noise=1.0):
    chance, influence = random.Random(seed), Influence(len(slopes))
    for _ in range(cycles):
        influence.take(tuple(chance.gauss(slope, noise) for slope in slopes))
    return influence


def test_a_knob_that_changes_nothing_is_named_and_one_that_matters_is_not():
    named = [taught((0.0, 0.5, -0.5), seed).without() for seed in range(200)]
    assert all(set(each) <= {0} for each in named)
    assert sum(each == [0] for each in named) >= 180  # 19 in 20 are to be expected


def test_nothing_is_said_before_there_were_enough_cycles():
    assert taught((0.0, 0.0), 1, CYCLES - 1).without() == []


def test_a_knob_that_comes_to_matter_is_no_longer_named():
    influence = taught((0.0,), 3)
    assert influence.without() == [0]
    chance = random.Random(3)
    for _ in range(CYCLES):
        influence.take((chance.gauss(0.7, 1.0),))
    assert influence.without() == []


def test_it_goes_on_from_its_checkpoint():
    whole, half = taught((0.1, 0.2), 5, 2 * CYCLES), Influence(2)
    half.restore(json.loads(json.dumps(taught((0.1, 0.2), 5).checkpoint())))
    chance = random.Random(5)
    slopes = [tuple(chance.gauss(slope, 1.0) for slope in (0.1, 0.2)) for _ in range(2 * CYCLES)]
    for gradient in slopes[CYCLES:]:
        half.take(gradient)
    assert half.checkpoint() == whole.checkpoint()
