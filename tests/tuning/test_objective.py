"""Candidates share a program and nothing else, and what judges them is dealt out as promised."""

import numpy as np
import pytest

from loadtests.accuracy import crps
from predictor_core import FunctionalPredictor, PredictorConfig
from predictor_core.levels import HIGH, LOW
from predictor_core.tuning import Split, WalkForward, folds, history_of, judge
from predictor_core.tuning.history import BIN, regular
from predictor_core.tuning.runs import PORTION, Runner, Tallies
from predictor_core.tuning.verdict import compare

from .conftest import CACHE

OTHER = PredictorConfig(readout_forgetting=0.99, cusum_k=0.2, grace_period_steps=5)


@pytest.fixture(scope="session")
def objective(past, runner):
    return WalkForward(past, PredictorConfig(), runner=runner)


def test_a_candidates_scores_do_not_depend_on_its_company(past, runner):
    alone = runner.run([OTHER], past)
    crowd = runner.run([PredictorConfig(scale_rate=0.001 * k) for k in range(1, 13)] + [OTHER], past)
    assert all(np.array_equal(one[0], many[-1]) for one, many in zip(alone, crowd, strict=True))
    single = runner.run([OTHER], past.only([1]))
    assert np.array_equal(single.crps[0, 0], alone.crps[0, 1, : single.crps.shape[-1]])


def test_scores_are_those_of_the_library(past, runner):
    predictor = FunctionalPredictor(OTHER, cache_dir=CACHE)
    _, results = predictor.replay(predictor.init_states(3), past.values.T, past.times_ns.T)
    tallies, burn = runner.run([OTHER], past), 250 // BIN
    for asset, n in enumerate(past.lengths):
        levels, made = past.values[:n, asset], results.quantiles[asset, : n - 1]
        quantiles = np.concatenate([np.full((1, made.shape[1]), np.nan), made])
        scored = slice(burn, n // BIN)
        ours = tallies.crps[0, asset, scored].sum() / tallies.ticks[0, asset, scored].sum()
        assert ours == pytest.approx(crps(quantiles[: n // BIN * BIN], levels[: n // BIN * BIN]), rel=1e-4)
        inside = (quantiles[250:, LOW] <= levels[250:]) & (levels[250:] <= quantiles[250:, HIGH])
        assert tallies.inside[0, asset, burn:].sum() == pytest.approx(inside.sum(), abs=2)


def test_rejected_ticks_are_not_scored(past, runner):
    broken = past.only([0])
    broken.values[300:310] = np.inf
    broken.times_ns[400] = 0
    assert runner.run([OTHER], broken).ticks.sum() == runner.run([OTHER], past.only([0])).ticks.sum() - 11


def test_the_future_changes_nothing(past, runner):
    other = past.only([0])
    other.values[PORTION + 7 :] = 0.0
    before = slice(0, (PORTION + 7) // BIN)
    one, two = (runner.run([OTHER], history).crps[..., before] for history in (past.only([0]), other))
    assert np.array_equal(one, two)


def test_a_batch_of_candidates_gets_the_values_that_each_gets_alone(objective):
    candidates = [{"cusum_k": 0.1 * k, "readout_forgetting": 0.99 + 0.001 * k} for k in range(1, 4)]
    assert objective.many(candidates) == [objective(params) for params in candidates]


def test_the_present_configuration_gets_one(objective):
    assert objective({}) == 1.0


@pytest.mark.parametrize("metric", ["rmsse", "mape"])
def test_other_losses_tell_better_from_worse_too(past, runner, metric):
    objective = WalkForward(past.only([0]), PredictorConfig(), runner=runner, metric=metric)
    good, bad = objective.many([{"readout_forgetting": 0.99}, {"readout_forgetting": 0.9999}])
    assert good < 1 < bad


def test_spoilt_bands_cost(objective):
    tallies = objective.present_tallies
    narrow = tallies._replace(inside=0.7 * tallies.inside)
    assert objective.values(narrow)[0] > objective.values(tallies)[0] + 0.1


def test_folds_are_dealt_by_volatility_with_embargoes_and_leave_the_end_alone():
    generator = np.random.default_rng(0)
    storm = np.repeat(generator.choice([0.1, 1.0, 10.0], 200), BIN)
    history = regular({"x": np.cumsum(storm * generator.standard_normal(10_000))})
    dealt = folds.deal(history, Split())[0]
    assert (dealt[: 250 // BIN] == folds.BURN_IN).all()
    first = {part: np.flatnonzero(dealt == part)[0] for part in (folds.VALIDATION, folds.HELD_BACK)}
    last_searched = np.flatnonzero(dealt >= 0)[-1]
    assert last_searched + 1 < first[folds.VALIDATION] < first[folds.HELD_BACK] - 1
    assert dealt[first[folds.VALIDATION] - 1] == dealt[first[folds.HELD_BACK] - 1] == folds.EMBARGO
    for before, after in zip(dealt[:last_searched], dealt[1 : last_searched + 1], strict=True):
        assert before == after or folds.EMBARGO in (before, after), "two folds touch"
    volatility = history.volatility()[0]
    terciles = np.searchsorted(np.quantile(volatility[dealt >= 0], [1 / 3, 2 / 3]), volatility)
    for fold in range(5):
        counts = np.bincount(terciles[dealt == fold], minlength=3)
        assert counts.min() >= 0.1 * counts.sum()


def test_too_short_a_past_is_refused_by_name():
    with pytest.raises(ValueError, match=r"1000 ticks of every asset; too few: \['short'\]"):
        folds.deal(regular({"short": np.arange(999.0), "long": np.arange(2000.0)}), Split())


@pytest.mark.parametrize("bad", [{"folds": 1}, {"search": 0.8}, {"validation": 0.0}, {"burn_in": 1}, {"embargo": -1}])
def test_a_split_that_cannot_be_is_refused(bad):
    with pytest.raises(ValueError):
        Split(**bad)


def test_mixed_ticks_become_columns_in_the_order_of_each_asset():
    history = history_of(["b", "a", "b", "b"], np.array([1.0, 2, 3, 4]), np.array([10, 11, 12, 13]))
    assert history.assets == ("b", "a")
    assert list(history.lengths) == [3, 1]
    assert list(history.values[:, 0]) == [1, 3, 4]
    assert list(history.arrivals_ns[:, 0]) == [10, 12, 13]


class Given(Runner):
    """Makes the losses of each configuration from a rule."""

    def __init__(self, rule):
        super().__init__()
        self.rule = rule

    def run(self, configs, history):
        shape = (len(configs), len(history.assets), -(-len(history.values) // BIN))
        noise = 1 + 0.2 * np.random.default_rng(0).standard_normal(shape[1:])
        loss = np.stack([BIN * noise * self.rule(config, shape[1:]) for config in configs])
        ticks = np.full(shape, float(BIN))
        return Tallies(loss, loss**2, loss, 0.9 * ticks, ticks)


def judged(rule, params):
    history = regular({f"asset {k}": np.cumsum(np.random.default_rng(k).standard_normal(5000)) for k in range(4)})
    return judge(WalkForward(history, PredictorConfig(), runner=Given(rule)), params)


def test_a_clear_gain_is_taken_over_and_idle_knobs_go_back():
    def rule(config, shape):
        return np.full(shape, 1 - 0.02 * (config.cusum_k != 0.5))

    verdict = judged(rule, {"cusum_k": 0.7, "cusum_h": 6.0})
    assert verdict.adopted
    assert verdict.params == {"cusum_k": 0.7}
    assert verdict.held_back.ratio == pytest.approx(0.98)
    assert verdict.held_back.high < 1


def test_what_only_the_search_sees_is_not_taken_over():
    def rule(config, shape):
        gain = np.where(np.arange(shape[1]) < 45, 0.02, 0.0)
        return np.broadcast_to(1 - gain * (config.cusum_k != 0.5), shape)

    verdict = judged(rule, {"cusum_k": 0.7})
    assert not verdict.adopted
    assert "no clear gain on the validation part" in verdict.reason


def test_what_harms_one_asset_is_not_taken_over():
    def rule(config, shape):
        validated = np.arange(shape[1]) > 45
        harm = np.where((np.arange(shape[0]) == 2)[:, None] & validated, 0.02, -0.02)
        return np.broadcast_to(1 + harm * (config.cusum_k != 0.5), shape)

    verdict = judged(rule, {"cusum_k": 0.7})
    assert not verdict.adopted
    assert verdict.reason == "it clearly harms asset 2 on the validation part"


def test_the_present_numbers_stay_where_nothing_is_better():
    verdict = judged(lambda config, shape: np.full(shape, 1 + abs(config.cusum_k - 0.5)), {"cusum_k": 0.7})
    assert not verdict.adopted
    assert verdict.params == {}


def test_an_interval_holds_the_truth_about_as_often_as_it_says():
    generator, hits = np.random.default_rng(5), 0
    history = regular({f"{k}": np.arange(5000.0) for k in range(2)})
    objective = WalkForward(history, PredictorConfig(), runner=Given(lambda _, shape: np.ones(shape)))
    present, mask = objective.present_tallies, objective.dealt == folds.HELD_BACK
    for _ in range(60):
        factor = 0.99 + 0.02 * generator.standard_normal(present.crps.shape)
        comparison = compare(objective, present._replace(crps=present.crps * factor), mask)
        hits += comparison.low <= 0.99 <= comparison.high
    assert hits >= 50
