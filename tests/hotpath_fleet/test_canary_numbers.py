"""Which numbers a tick is taken with while a canary is tried: by its partition, and known again by its mark."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from predictor_core import PredictorConfig, Program
from state_store import ConfigGeneration, Lease, Ticks
from worker.generations import Generations
from worker.holding import Holding
from worker.hotpath.tuning import Tuning
from worker.microbatch import ALL, Part, numbers_for

CACHE = Path(__file__).parents[2] / ".predictor" / "cache"
CANARY = {"trial": "t", "numbers": {"volatility_alpha": 0.3}, "of": 4, "turn": 1}
VALUES = {"predictor": {"cusum_k": 0.6}, "groups": {"acme": {"volatility_alpha": 0.2}}, "canary": CANARY}


@pytest.fixture(scope="module")
def program():
    return Program(PredictorConfig(), cache_dir=CACHE)


@pytest.fixture
def generations(program):
    learned = Generations(program)
    learned.learn([ConfigGeneration(3, VALUES)])
    assert not learned.refused
    return learned


def part(partition, assets):
    zeros = np.zeros(len(assets), np.int64)
    ids = [b"1-%d" % number for number in range(len(assets))]
    ticks = Ticks(ids, assets, zeros * 1.0, zeros, zeros, None, {}, [[]] * len(assets))
    holding = Holding(Lease(partition, 1, b"nonce", b"0-0", 0, 1, "", 5000, b"0-0"))
    return Part(holding, ticks, {}, ALL, zeros)


def test_the_group_whose_turn_it_is_has_the_candidate_and_what_a_tenant_has_stays(generations):
    current = generations.current
    alphas = {p: float(current.side_of(p).numbers_of(b"A").params.volatility_alpha) for p in range(8)}
    assert alphas == pytest.approx({p: 0.3 if p % 4 == 1 else 0.1 for p in range(8)})
    for partition in (0, 1):
        tenant = current.side_of(partition).numbers_of(b"acme/A")
        assert float(tenant.params.volatility_alpha) == pytest.approx(0.2)
        assert float(tenant.params.cusum_k) == pytest.approx(0.6)
    assert current.side_of(0).numbers_of(b"acme/A") == current.side_of(1).numbers_of(b"acme/A")


def test_a_micro_batch_of_both_sides_takes_each_tick_with_its_partitions_numbers(generations):
    current = generations.current
    parts = [part(0, [b"A", b"acme/B"]), part(5, [b"C", b"acme/D", b"E"])]
    numbers, numbers_of = numbers_for(parts, current)
    alphas = [float(numbers[at].params.volatility_alpha) for at in numbers_of]
    assert alphas == pytest.approx([0.1, 0.2, 0.3, 0.2, 0.3])
    alone, same = numbers_for([part(5, [b"C"])], current)
    assert same is None and float(alone[0].params.volatility_alpha) == pytest.approx(0.3)
    assert numbers_for([part(5, [])], current) == ([current.everyone], None)


def test_every_side_is_known_again_by_its_mark(generations, program):
    marks = {generations.current.side_of(p).numbers_of(asset).made_by for p in (0, 1) for asset in (b"A", b"acme/A")}
    assert len(marks) == 3
    successor = Generations(program)
    assert not successor.know(marks)
    successor.learn([ConfigGeneration(3, VALUES)])
    assert successor.know(marks)
    for mark in marks:
        assert successor.numbers_of(b"A", mark).made_by == mark


@pytest.mark.parametrize(
    "changes",
    [{"turn": 4}, {"turn": -2}, {"of": "x"}, {"numbers": {"log_sig_depth": 2}}, {"numbers": {"volatility_alpha": 9}}],
)
def test_a_canary_that_cannot_be_is_refused_and_the_old_numbers_stay(generations, changes):
    generations.learn([ConfigGeneration(4, VALUES | {"canary": CANARY | changes})])
    assert "generation 4" in generations.refused and generations.current.number == 3
    generations.learn([ConfigGeneration(5, VALUES | {"canary": {"of": 2}})])
    assert generations.current.number == 3


@pytest.mark.parametrize("why", ["frozen", "leaderless"])
def test_frozen_or_without_a_leader_a_worker_leaves_the_candidate(generations, namespace, tmp_path, why):
    tuning = SimpleNamespace(
        clock=lambda: 1000.0,
        _led_s=930.0 if why == "leaderless" else 1000.0,
        settings=SimpleNamespace(canary_ttl_s=60.0),
        follower=SimpleNamespace(frozen=why == "frozen"),
        pipeline=SimpleNamespace(generations=generations),
    )
    Tuning._check_canary(tuning)
    assert generations.current.canary is None and generations.current.number == 3
    assert float(generations.current.side_of(1).numbers_of(b"A").params.volatility_alpha) == pytest.approx(0.1)
    tuning._led_s, tuning.follower.frozen = 999.0, False
    Tuning._check_canary(tuning)
    assert generations.current.canary is not None


def test_the_values_of_a_generation_survive_json(generations, program):
    again = Generations(program)
    again.learn([ConfigGeneration(3, json.loads(json.dumps(VALUES)))])
    for partition in range(4):
        mark = again.current.side_of(partition).everyone.made_by
        assert mark == generations.current.side_of(partition).everyone.made_by
