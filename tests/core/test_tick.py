"""One tick: precise types, and finite answers to anything, with the right event and a way back."""

import jax
import numpy as np
import pytest

from predictor_core import state, tick
from predictor_core.config import PredictorConfig
from predictor_core.observation import Observation
from predictor_core.result import Event, RejectReason

SECOND, START = 10**9, 10**18
TICKS = 400


@pytest.mark.parametrize("precision", [32, 64])
@pytest.mark.parametrize("lanes", [(), (64,)])
def test_a_tick_keeps_every_shape_and_precision(precision, lanes):
    config = PredictorConfig(float_precision=precision)
    shapes, cold = config.static(), state.cold(config.static(), lanes)
    with jax.enable_x64(True):
        time = jax.ShapeDtypeStruct(lanes, np.int64)
        observation = Observation(jax.ShapeDtypeStruct(lanes, np.float64), time, time)
        new, output = jax.eval_shape(lambda s, o: tick.tick(s, o, config.params(), shapes), cold, observation)
    assert [(a.shape, a.dtype) for a in jax.tree.leaves(new)] == [(a.shape, a.dtype) for a in jax.tree.leaves(cold)]
    assert output.quantiles.shape == (23, *lanes) and output.quantiles.dtype == np.float64
    assert {leaf.dtype for leaf in output.telemetry} == {np.dtype(np.float32)}


def test_single_precision_makes_no_wide_arrays_but_levels_and_times():
    """Wide numbers are few: the level, what is added to it, and the settings."""
    config = PredictorConfig()
    cold = state.cold(config.static(), (64,))
    with jax.enable_x64(True):
        time = jax.ShapeDtypeStruct((64,), np.int64)
        observation = Observation(jax.ShapeDtypeStruct((64,), np.float64), time, time)
        traced = jax.make_jaxpr(lambda s, o: tick.tick(s, o, config.params(), config.static()))(cold, observation)
    wide = [v.aval.shape for e in traced.eqns for v in e.outvars if v.aval.dtype == np.float64 and v.aval.shape]
    assert len(wide) < 0.02 * len(traced.eqns)
    assert {shape for shape in wide if len(shape) > 1} <= {(1, 64), (3, 64), (23, 64)}


def replay(predictor, values, **when):
    values = np.atleast_2d(np.asarray(values, float))
    return predictor.replay(predictor.init_states(len(values)), values, **when)


def walks(count, ticks=TICKS):
    return np.cumsum(np.random.default_rng(11).standard_normal((count, ticks)), 1)


def hard_series():
    walk = walks(1)[0]
    cauchy = np.cumsum(np.random.default_rng(1).standard_cauchy(TICKS))
    leap, late, flip = walk.copy(), np.zeros(TICKS), np.where(np.arange(TICKS) % 2, 1.0, -1.0)
    leap[200:] += 1e6
    late[200:] = walk[200:]
    return {
        "constant": np.full(TICKS, 3.0),
        "tiny": 1e-12 * walk,
        "huge": 1e12 + 1e12 * walk,
        "leap": leap,
        "late start": late,
        "line": np.arange(TICKS, dtype=float),
        "flip": flip,
        "cauchy": cauchy,
        "far from nought": 1e9 + 1e-3 * walk,
        "louder": np.cumsum(np.diff(walk, prepend=0) * np.where(np.arange(TICKS) < 200, 1, 1e4)),
        "rare": np.cumsum(np.where(np.random.default_rng(2).random(TICKS) < 0.02, 1.0, 0.0)),
        "beyond": np.where(np.arange(TICKS) % 50 == 49, 1e300, walk),
        "whole range": 10.0 ** (12 * np.sin(np.arange(TICKS))),
    }


@pytest.fixture(scope="module")
def hard(predictor):
    series = hard_series()
    return dict(zip(series, range(len(series)), strict=True)), replay(predictor, list(series.values()))


@pytest.mark.parametrize("name", hard_series())
def test_every_answer_is_finite_and_in_order(hard, name):
    lanes, (states, result) = hard
    accepted = result.rejected[lanes[name]] == 0
    quantiles = result.quantiles[lanes[name]][accepted]
    assert np.isfinite(quantiles).all() and np.all(np.diff(quantiles, axis=1) >= 0)
    for answer in (result.confidence_lower, result.reference_prediction, result.confidence_upper):
        assert np.isfinite(answer[lanes[name]][accepted]).all()
    weights = result.telemetry.weights[lanes[name]][accepted]
    assert np.all(weights >= 0) and np.allclose(weights.sum(1), 1, atol=1e-5)
    for leaf in result.telemetry:
        assert np.isfinite(leaf[lanes[name]][accepted]).all()


def test_what_cannot_be_a_level_is_rejected(hard):
    lanes, (_, result) = hard
    assert np.count_nonzero(result.rejected[lanes["beyond"]] == RejectReason.not_finite) == TICKS // 50


def test_after_a_leap_the_band_is_as_narrow_as_before(hard):
    lanes, (_, result) = hard
    width = (result.confidence_upper - result.confidence_lower)[lanes["leap"]]
    assert result.events[lanes["leap"], 200] & Event.DomainError
    assert (result.events[lanes["leap"], 200:215] & Event.Reanchored).any()
    assert np.median(width[320:]) < 5 * np.median(width[100:199])
    assert abs(result.reference_prediction[lanes["leap"], -1] - 1e6) < 1000


def test_units_do_not_matter(predictor):
    walk = walks(1)[0]
    result = replay(predictor, [walk, 1e-6 * walk, 1e6 * walk])[1]
    one, small, large = result.reference_prediction * np.array([[1], [1e6], [1e-6]])
    assert np.allclose(small, one, atol=1e-2) and np.allclose(large, one, atol=1e-2)


def test_a_frozen_feed_is_called_so_and_comes_back(predictor):
    walk = walks(1)[0]
    walk[200:260] = walk[199]
    _, result = replay(predictor, walk)
    frozen = (result.events[0] & Event.FrozenSignal) > 0
    assert not frozen[:200].any() and frozen[230:260].all() and not frozen[330:].any()
    held = result.telemetry.weights[0, 231:259]
    assert np.array_equal(held, np.broadcast_to(held[0], held.shape))
    assert (result.events[0, 260:330] & Event.NormalOperationRestoredEvent).any()


def test_a_gap_of_a_year_freezes_the_weights_for_a_tick(predictor):
    times = START + SECOND * np.arange(TICKS)
    times[300:] += 365 * 86_400 * SECOND
    _, result = replay(predictor, walks(1), timestamps_ns=times)
    sparse = (result.events[0] & Event.FrequencyWarning) > 0
    assert sparse[300] and not sparse[:300].any() and not sparse[302:].any()
    assert np.array_equal(result.telemetry.weights[0, 300], result.telemetry.weights[0, 299])


def test_the_second_of_two_equal_timestamps_is_late(predictor):
    times = START + SECOND * np.arange(TICKS)
    times[50] = times[49]
    _, result = replay(predictor, walks(1), timestamps_ns=times)
    assert result.rejected[0, 50] == RejectReason.late and np.count_nonzero(result.rejected[0]) == 1


def test_late_arrivals_are_stale_until_well_in_time(predictor):
    times = START + SECOND * np.arange(TICKS)
    arrivals = times + np.where((np.arange(TICKS) >= 100) & (np.arange(TICKS) < 120), SECOND, 0)
    _, result = replay(predictor, walks(1), timestamps_ns=times, arrivals_ns=arrivals)
    stale = (result.events[0] & Event.StalenessWarning) > 0
    assert stale[100:120].all() and stale.sum() == 20
    assert result.operating_mode[0, 110] == 1 and result.telemetry.degraded_inference_mode[0, 110]


def test_five_ticks_are_enough_for_an_answer(predictor):
    _, result = replay(predictor, [[100.0, 101.0, 100.5, 102.0, 101.5]])
    assert np.isfinite(result.quantiles).all()
    assert result.confidence_lower[0, -1] < 101.5 < result.confidence_upper[0, -1]


def test_a_regime_change_is_told_and_levels_the_weights(predictor):
    moves = np.random.default_rng(3).standard_normal(900)
    moves[600:] += 3
    _, result = replay(predictor, np.cumsum(moves))
    told = np.flatnonzero(result.events[0] & Event.RegimeChangeDetected)
    assert len(told) and 600 <= told[told >= 600][0] < 612
    first = told[told >= 600][0]
    assert result.telemetry.grace_counter[0, first] == 20


def test_a_rough_path_is_an_emergency_and_kernel_d_is_forced(predictor):
    flip = np.where(np.arange(300) % 2, 1.0, -1.0) + 0.1 * np.random.default_rng(4).standard_normal(300)
    _, result = replay(predictor, flip)
    assert result.telemetry.emergency_mode[0, 100:].all() and result.operating_mode[0, -1] == 2
    assert result.telemetry.weights[0, -1, 3] > 0.95


def test_double_precision_answers_as_single_does(predictor):
    config, walk = PredictorConfig(float_precision=64), walks(1, 120)[0]
    with jax.enable_x64(True):
        step = jax.jit(lambda s, o: tick.tick(s, o, config.params(), config.static()))
        now = state.cold(config.static())
        for index, value in enumerate(walk):
            time = np.int64(START + index * SECOND)
            now, output = step(now, Observation(np.float64(value), time, time))
    assert np.allclose(output.quantiles, replay(predictor, walk)[1].quantiles[0, -1], atol=0.02)
