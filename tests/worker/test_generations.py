"""Numbers change while the fleet runs: from one micro-batch to the next, for all or for a group, and repeatably."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from predictor_core import PredictorConfig, Program
from state_store import ConfigGeneration
from worker.calm import Replay
from worker.generations import Generations
from worker.recall import alike, made_by
from worker.settings import Settings

CACHE = Path(__file__).parents[2] / ".predictor" / "cache"
FIRST = ConfigGeneration(1, {"predictor": {"volatility_alpha": 0.3}})
SECOND = ConfigGeneration(2, {"predictor": {"volatility_alpha": 0.3}, "groups": {"acme": {"cusum_k": 0.9}}})


@pytest.fixture(scope="module")
def program():
    return Program(PredictorConfig(), cache_dir=CACHE)


def test_the_newest_generation_holds_and_older_ones_are_known_by_their_mark(program):
    generations = Generations(program)
    of_the_settings = generations.current.everyone
    generations.learn([FIRST, SECOND])
    assert generations.current.number == 2
    assert generations.current.numbers_of(b"acme/A").params.cusum_k == 0.9
    assert generations.current.numbers_of(b"acme/A").params.volatility_alpha == 0.3
    assert generations.current.numbers_of(b"B").params.cusum_k == program.config.cusum_k
    assert generations.numbers_of(b"B", of_the_settings.made_by) == of_the_settings
    assert generations.know([of_the_settings.made_by, generations.current.numbers_of(b"acme").made_by])
    assert not generations.know([b"elsewhere"])


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"predictor": {"cusum_x": 1}}, "unknown predictor setting 'cusum_x'; did you mean 'cusum_"),
        ({"predictor": {"cusum_k": 9.0}}, "cusum_k must be a number in"),
        ({"predictor": {"log_sig_depth": 2}}, "log_sig_depth cannot change while the fleet runs"),
        ({"groups": {"acme": 3}}, "generation 7 of the configuration"),
        ({"quotas": {"acme": -1}}, "the quota of acme must be a whole number"),
        ({"quotas": {"acme/A": 5}}, "is no tenant"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name_and_the_old_numbers_stay(program, values, told):
    generations = Generations(program)
    generations.learn([FIRST])
    generations.learn([FIRST, ConfigGeneration(7, values)])
    assert told in generations.refused
    assert generations.current.number == 1
    generations.learn([FIRST, ConfigGeneration(7, values), replace(SECOND, number=8)])
    assert (generations.current.number, generations.refused) == (8, "")


def test_a_replay_follows_the_marks_through_a_change_of_numbers(program):
    rng = np.random.default_rng(3)
    assets = [(b"acme/A", b"B", b"C")[int(place)] for place in rng.integers(3, size=300)]
    values, times = rng.standard_normal(300).cumsum(), np.arange(300) + 10**18
    live = Replay(Settings(worker={"cache_dir": CACHE}))
    made = []
    for start, history in ((0, []), (100, [FIRST]), (200, [FIRST, SECOND])):
        live.generations.learn(history)
        part = slice(start, start + 100)
        made += live.take(assets[part], values[part], times[part], times[part]).payloads.tolist()
    assert len(set(map(made_by, made))) == 3

    judge = Replay(Settings(worker={"cache_dir": CACHE}))
    judge.generations.learn([FIRST, SECOND])
    again = judge.take(assets, values, times, times, marks=list(map(made_by, made)))
    assert again.payloads.tolist() == made
    assert judge.row(b"acme/A").tobytes() == live.row(b"acme/A").tobytes()
    unmarked = judge.take([b"D"] * 3, values[:3], times[:3], times[:3])
    assert set(map(made_by, unmarked.payloads.tolist())) == {judge.generations.current.everyone.made_by}


def test_ticks_go_together_where_they_were_made_alike_and_never_before_their_assets_older_ones():
    rng = np.random.default_rng(8)
    for count in (0, 1, 2, 50):
        assets, ways = rng.integers(4, size=count), rng.integers(3, size=count)
        groups = list(alike(assets, ways))
        order = np.concatenate([np.empty(0, int), *groups])
        assert sorted(order) == list(range(count))
        assert all(len(set(ways[group])) == 1 for group in groups)
        for asset in range(4):
            mine = order[assets[order] == asset]
            assert list(mine) == sorted(mine)
    assert len(list(alike(np.array([0, 1, 0, 1]), np.array([5, 6, 5, 6])))) == 2
