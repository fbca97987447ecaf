"""The canary's arithmetic: what is better is found, noise is not, harm ends it, and every group has its turns."""

import json
import random
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

from scheduler.errors import BadRules
from scheduler.hotpath.candidates import STEP, Search
from scheduler.hotpath.crossover import effect_of, order_of, rotations_needed
from scheduler.hotpath.trial import Sums, Trial, TrialRules

RULES = TrialRules(groups=4, rotations=3, scored_min=100, round_us=10, patience_us=1000, level=0.01)


def trial(seed=1, rules=RULES, **changes):
    return Trial("t", seed, {"x": 2.0}, {"x": 1.0}, rules, **changes)


def run(chance, effect=0.0, scatter=0.02, seed=1, rules=RULES, watch=False):
    """A world with groups unlike each other, moods that all share, and noise in every cell."""
    tried, now = trial(seed, rules, watch=watch), 0
    own = [chance.gauss(0.8, 0.2) for _ in range(rules.groups)]
    for _ in range(rules.rounds + 1):
        tried.begin(now)
        mood = chance.gauss(1.0, 0.3)
        told = {}
        for group, level in enumerate(own):
            loss = level + mood + chance.gauss(0, scatter) + effect * (group == tried.turn)
            told[group] = Sums(200, 200 * loss, 200.0, 190)
        tried.take(told)
        now += 10
        verdict = tried.step(now)
        if verdict is not None:
            return verdict, tried
    raise AssertionError("no verdict")


def test_every_group_has_one_turn_in_each_rotation_and_all_orders_are_drawn():
    for groups in (2, 3, 4, 8):
        assert all(sorted(order_of(5, rotation, groups)) == list(range(groups)) for rotation in range(20))
    drawn = [order_of(seed, 0, 3) for seed in range(600)]
    assert all(70 < drawn.count(order) < 130 for order in permutations(range(3)))


def test_the_effect_is_the_one_that_was_put_in_and_moods_and_groups_cancel():
    rng = np.random.default_rng(4)
    orders = [order_of(9, rotation, 5) for rotation in range(3)]
    tables = [rng.normal(size=(5, 1)) + rng.normal(size=(1, 5)) for _ in orders]
    for table, order in zip(tables, orders, strict=True):
        table[np.arange(5), list(order)] -= 0.25
    effect = effect_of(tables, orders, 9)
    assert effect.difference == pytest.approx(-0.25, abs=1e-12)
    assert effect.p < 0.001
    assert effect_of(tables, orders, 9) == effect


def test_chance_alone_is_as_rare_as_it_says():
    rng = np.random.default_rng(0)
    found = []
    for seed in range(600):
        orders = [order_of(seed, rotation, 4) for rotation in range(2)]
        tables = [rng.standard_t(2, size=(4, 4)).cumsum(0) for _ in orders]  # heavy tails, and not independent
        found.append(effect_of(tables, orders, seed).p)
    for level in (0.01, 0.05, 0.2):
        share = float(np.mean(np.array(found) <= level))
        assert share <= level + 3 * (level / 600) ** 0.5, (level, share)


def test_few_groups_need_more_rotations_before_anything_can_be_sure():
    assert [rotations_needed(groups, 0.01) for groups in (2, 3, 4, 8)] == [10, 4, 3, 1]
    assert TrialRules(groups=2, rotations=1).rounds == 20


def test_a_better_candidate_is_found_and_a_worse_or_equal_one_is_not():
    chance = random.Random(3)
    assert run(chance, effect=-0.1)[0].promotes
    assert run(chance, effect=+0.05)[0].kind == "no_better"
    promoted = sum(run(chance, seed=seed)[0].promotes for seed in range(200))
    assert promoted <= 6, promoted  # two of 200 are to be expected by chance


def test_a_gain_too_small_to_matter_is_no_gain():
    rules = TrialRules(**vars(RULES) | {"gain_min": 0.5})
    verdict, _ = run(random.Random(3), effect=-0.1, rules=rules)
    assert verdict.kind == "no_better" and verdict.p < 0.01


def test_harm_ends_it_in_its_first_round():
    verdict, tried = run(random.Random(1), effect=1.0)
    assert (verdict.kind, tried.round) == ("harmful", 0)
    assert "worse than the control" in verdict.told


def test_a_round_that_is_bad_as_noise_is_ends_nothing():
    rules = TrialRules(**vars(RULES) | {"groups": 8, "harm_max": 0.02})
    ended = [run(random.Random(seed), scatter=0.1, seed=seed, rules=rules)[0].kind for seed in range(40)]
    assert ended.count("harmful") <= 25  # in 24 rounds each; with the limit alone all would be
    alone = [run(random.Random(seed), scatter=0.001, effect=0.1, seed=seed, rules=rules)[0] for seed in range(10)]
    assert {(verdict.kind, verdict.rounds) for verdict in alone} == {("harmful", 0)}


def test_a_watch_takes_back_what_the_former_numbers_beat_and_keeps_the_rest():
    chance = random.Random(5)
    beaten, _ = run(chance, effect=-0.1, watch=True)  # the former numbers, where they are back, lose less
    assert (beaten.kind, beaten.takes_back, beaten.promotes) == ("taken_back", True, False)
    assert beaten.p <= 0.01 and beaten.difference < 0 and "the former numbers: objective -" in beaten.told
    assert run(chance, effect=0.0, watch=True)[0].kind == "kept"
    assert run(chance, effect=+0.05, watch=True)[0].kind == "kept"
    for_nothing = sum(run(chance, seed=seed, watch=True)[0].takes_back for seed in range(200))
    assert for_nothing <= 6, for_nothing  # two of 200 are to be expected by chance


def test_a_watch_ends_in_its_first_round_where_the_difference_is_plain():
    far_worse, tried = run(random.Random(1), effect=-1.0, watch=True)
    assert (far_worse.kind, tried.round, far_worse.p) == ("taken_back", 0, None) and far_worse.difference < 0
    far_better, tried = run(random.Random(1), effect=+1.0, watch=True)
    assert (far_better.kind, tried.round) == ("kept", 0) and "the former numbers were" in far_better.told
    assert run(random.Random(1), effect=-1.0)[0].promotes  # a trial never ends early in the candidate's favour


def test_a_round_waits_for_every_group_and_not_for_ever():
    tried = trial()
    tried.take({0: Sums(1000, 1.0, 1.0, 1)})  # not in force yet
    assert tried.sums[0].scored == 0
    tried.begin(0)
    tried.take({group: Sums(200, 200.0, 200.0, 190) for group in (0, 1, 2)})
    assert tried.step(500) is None and tried.round == -1
    verdict = tried.step(1000)
    assert (verdict.kind, verdict.told) == ("too_few", "group 3 had 0 of 100 forecasts in a round")


def test_a_trial_goes_on_from_its_checkpoint_to_the_same_verdict():
    whole, _ = run(random.Random(8))
    chance, tried, now = random.Random(8), trial(), 0
    own = [chance.gauss(0.8, 0.2) for _ in range(4)]
    verdict = None
    while verdict is None:
        tried.begin(now)
        mood = chance.gauss(1.0, 0.3)
        losses = [level + mood + chance.gauss(0, 0.02) for level in own]
        tried.take({group: Sums(200, 200 * loss, 200.0, 190) for group, loss in enumerate(losses)})
        now += 10
        tried = Trial.restore(json.loads(json.dumps(tried.checkpoint())))
        verdict = tried.step(now)
    assert verdict == whole


@pytest.mark.parametrize("wrong", [{"groups": 1}, {"rotations": 0}, {"level": 0.0}, {"harm_max": 0}, {"gain_min": -1}])
def test_rules_without_meaning_are_refused(wrong):
    with pytest.raises(BadRules):
        TrialRules(**wrong)


def test_candidates_go_to_both_sides_and_on_where_it_was_better():
    centre, free = (0.5, 0.5, 0.95), {0, 2}
    first = Search()
    up, down = (search.candidate(42, centre, free) for search in (first, first.after(False)))
    assert abs(up[0] - 0.5) == pytest.approx(STEP) and up[0] + down[0] == pytest.approx(1.0)
    assert up[1] == down[1] == 0.5
    assert max(up[2], down[2]) == 1.0
    assert first.after(True) == first
    assert first.after(False).after(False) == Search(1, 1)


def limited(watch, turn, rest, before=(190, 2)):
    """The verdict within a round, by (covered, alarms) of 200 forecasts of the group with the turn, and of others."""
    tried = trial(watch=watch, rules=replace(RULES, harm_max=9.0))  # whatever the objective says
    for now, here in ((0, before), (10, turn)):
        tried.begin(now)
        around = before if now == 0 else rest
        told = {group: here if group == tried.turn else around for group in range(4)}
        tried.take({group: Sums(200, 200.0, 200.0, *counts) for group, counts in told.items()})
        verdict = tried.step(now + 10)
    return verdict


FINE, NARROW, LOUD = (190, 2), (150, 2), (190, 30)  # a coverage of 0.75; alarms at 0.15 of the ticks


@pytest.mark.parametrize("bad, told", [(NARROW, "coverage 0.75"), (LOUD, "alarms at 0.15")], ids=["bands", "alarms"])
def test_a_candidate_that_alone_passes_a_limit_ends_within_the_round(bad, told):
    found = limited(False, bad, FINE)
    assert found.kind == "harmful" and found.told.startswith(told)
    assert limited(False, bad, bad) is None  # all do: that is the market
    assert limited(False, bad, FINE, before=bad) is None  # so did this group without it
    assert limited(False, FINE, FINE) is None


@pytest.mark.parametrize("bad", [NARROW, LOUD], ids=["bands", "alarms"])
def test_promoted_numbers_that_pass_a_limit_are_taken_back_and_former_ones_that_do_are_not_wanted(bad):
    assert limited(True, FINE, bad, before=bad).kind == "taken_back"
    assert limited(True, bad, FINE).kind == "kept"
    assert limited(True, bad, bad, before=bad) is None
