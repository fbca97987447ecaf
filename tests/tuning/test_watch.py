"""A published generation that does worse on later ticks is taken back, and one that does not is left."""

import asyncio

import numpy as np
import pytest

from loadtests.processes import GENERATORS
from predictor_core import PredictorConfig
from predictor_core.tuning import Judgement
from predictor_core.tuning.history import regular
from state_store import ConfigGeneration, Memory, MemoryStateStore
from worker.tuning import watch as tuningwatch
from worker.tuning.search import Outcome

SECOND = 10**9


def outcome_of(params, adopted=True):
    judgement = Judgement(params, adopted, "", None, None, {})
    return Outcome("", ("x", "y"), None, None, judgement, PredictorConfig(), 0.0)


@pytest.fixture(scope="module")
def history():
    levels = GENERATORS["logistic"](1500, np.random.default_rng(3)).levels
    return regular({"x": levels, "y": 2 * levels})


def test_numbers_that_do_worse_than_those_before_are_told(history, runner):
    good, bad = ({"readout_forgetting": forgetting} for forgetting in (0.993, 0.9999))
    told = [tuningwatch.look_back([outcome_of(params)], history, 1000 * SECOND, runner)[0] for params in (good, bad)]
    assert [live.worse for live in told] == [False, True]
    assert [live.ticks for live in told] == [1000, 1000]
    assert "taken back" in tuningwatch.live_text(told[1]) and "taken back" not in tuningwatch.live_text(told[0])


def test_too_few_ticks_decide_nothing(history, runner):
    (live,) = tuningwatch.look_back([outcome_of({"cusum_k": 0.9})], history, 1400 * SECOND, runner)
    assert not live.worse
    assert tuningwatch.live_text(live) == "all assets: 200 ticks since then, too few to tell"


def test_numbers_that_were_not_taken_over_are_not_watched(history, runner):
    assert tuningwatch.look_back([outcome_of({"cusum_k": 0.9}, adopted=False)], history, 0, runner) == []


@pytest.mark.parametrize(("worse", "values"), [(True, {"cusum_k": 0.4}), (False, {"cusum_k": 0.6})])
def test_what_was_in_force_before_is_published_again(monkeypatch, worse, values):
    class Told:
        def __init__(self):
            self.worse = worse

    async def nothing(*_):
        return None

    async def run():
        store = MemoryStateStore(Memory())
        await store.open_fleet(1, bytes(8), {})
        await store.publish_config(0, {"cusum_k": 0.4})
        await store.publish_config(1, {"cusum_k": 0.6})
        known = ConfigGeneration(1, {"cusum_k": 0.4})
        _, back = await tuningwatch.watch(store, [], known, 2, 0.0, None)
        return back, await store.read_config()

    monkeypatch.setattr(tuningwatch, "fleet_history", nothing)
    monkeypatch.setattr(tuningwatch, "look_back", lambda *_: [Told()])
    back, now = asyncio.run(run())
    assert now.values == values
    assert (back, now.number) == ((3, 3) if worse else (None, 2))
