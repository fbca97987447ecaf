"""A forecast depends on what came before it in its own series, and on nothing else."""

import numpy as np
import pytest

TICKS = 150


@pytest.fixture(scope="module")
def values():
    return np.cumsum(np.random.default_rng(5).standard_normal((3, TICKS)), 1)


def replay(predictor, values):
    return predictor.replay(predictor.init_states(len(values)), values)[1]


def test_changing_the_future_changes_no_forecast(predictor, values):
    changed = values.copy()
    changed[:, 100:] = 1e6 * np.sin(changed[:, 100:])
    before, after = replay(predictor, values), replay(predictor, changed)
    for name in ("quantiles", "reference_prediction", "confidence_lower", "events"):
        assert np.array_equal(getattr(before, name)[:, :100], getattr(after, name)[:, :100])
    assert not np.array_equal(before.quantiles[:, 100:], after.quantiles[:, 100:])


def test_the_bad_ticks_of_one_asset_reach_no_other(predictor, values):
    poisoned = values.copy()
    poisoned[1, 20:120:3] = np.inf
    poisoned[1, 21:120:3] = 1e17
    before, after = replay(predictor, values), replay(predictor, poisoned)
    for lane in (0, 2):
        assert np.array_equal(before.quantiles[lane], after.quantiles[lane])
        assert np.array_equal(before.telemetry.weights[lane], after.telemetry.weights[lane])


def test_a_rejected_tick_leaves_the_state_as_it_was(predictor, values):
    states, _ = predictor.replay(predictor.init_states(3), values)
    same, result = predictor.replay(states, np.full((3, 1), np.inf))
    assert np.array_equal(same.rows, states.rows) and np.all(result.rejected[:, 0] > 0)


def test_a_history_in_two_parts_is_the_history(predictor, values):
    whole_states, whole = predictor.replay(predictor.init_states(3), values)
    states, first = predictor.replay(predictor.init_states(3), values[:, :70])
    states, second = predictor.replay(states, values[:, 70:])
    assert np.array_equal(np.concatenate([first.quantiles, second.quantiles], 1), whole.quantiles)
    assert np.array_equal(states.rows, whole_states.rows)
