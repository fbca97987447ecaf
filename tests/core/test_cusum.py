"""The alarms keep their false-alarm rate on three laws, are quick, stay in one unit, and rest in the grace period."""

import jax
import numpy as np
import pytest

from loadtests.detectors import CONFIG, arl0, delay, run_cusum
from predictor_core import cusum
from predictor_core.config import PredictorConfig


@pytest.mark.parametrize("precision", [32, 64])
@pytest.mark.parametrize("lanes", [(), (64,)])
def test_a_tick_keeps_every_shape_and_precision(precision, lanes):
    config = PredictorConfig(float_precision=precision)
    cold = cusum.cold(config.static(), lanes)
    with jax.enable_x64(True):
        residual = jax.ShapeDtypeStruct(lanes, cold.last.dtype)
        new, alarm = jax.eval_shape(lambda state, e: cusum.update(state, e, config.params()), cold, residual)
    assert [(a.shape, a.dtype) for a in jax.tree.leaves(new)] == [(a.shape, a.dtype) for a in jax.tree.leaves(cold)]
    assert alarm.threshold.dtype == alarm.drift_up.dtype == cold.last.dtype


@pytest.mark.parametrize("law", ["normal", "t4", "ar1"])
def test_a_thousand_ticks_pass_between_false_alarms(law):
    assert arl0(law, lanes=512, ticks=4000) >= 1000


def test_alarms_stay_rare_under_volatility_that_changes_by_itself():
    assert arl0("garch", lanes=256, ticks=4000) >= 500


@pytest.mark.parametrize("change, limit", [((2.0, 1.0), 4.0), ((1.0, 1.0), 12.0), ((0.0, 2.0), 10.0)])
def test_a_change_is_noticed_in_a_few_ticks(change, limit):
    ticks, power = delay(*change)
    assert ticks <= limit and power > 0.99


@pytest.fixture(scope="module")
def noise():
    """[1200, 32]; every test below reuses this shape, and so one compilation."""
    return np.random.default_rng(8).standard_normal((1200, 32))


def test_alarm_exactly_when_a_statistic_passes_the_threshold(noise):
    noise = noise.copy()
    noise[600:] += 1.5
    says = run_cusum(noise)
    over = np.maximum(np.maximum(says.drift_up, says.drift_down), says.drift_scale) > says.threshold
    assert np.array_equal(says.crossed, over)
    assert np.array_equal(says.alarm, says.crossed & (np.roll(says.grace, 1, 0) <= 1))
    assert (says.alarm[600:].argmax(0) < 60).all()


def test_the_threshold_is_the_published_formula_until_the_first_alarm(noise):
    says = run_cusum(noise)
    quiet = np.cumsum(says.alarm, 0) == 0
    formula = CONFIG.cusum_h * says.sigma * (1 + np.log(np.maximum(says.kurtosis, 3) / 3))
    # The kurtosis that counts is the one before the tick.
    published = says.threshold[1:] / says.sigma[1:] * says.sigma[:-1]
    before = formula[:-1]
    assert np.allclose(published[quiet[1:]], before[quiet[1:]], rtol=1e-4)


def test_the_unit_of_the_residuals_changes_nothing_but_the_unit(noise):
    noise = noise.copy()
    noise[800:] += 2
    one, fifty = run_cusum(noise), run_cusum(noise * 2.0**6)
    assert np.array_equal(one.alarm, fifty.alarm)
    assert np.allclose(one.threshold * 2.0**6, fifty.threshold) and np.allclose(one.drift_up * 2.0**6, fifty.drift_up)


def test_the_threshold_follows_the_scale_so_that_only_the_quiet_series_sees_a_small_drift(noise):
    small, large = noise[:, :16] * 0.01, noise[:, 16:] * 0.5
    drift = np.zeros(1200)
    drift[600:900], drift[900:] = 0.05, 2.0
    says = run_cusum(np.concatenate([small, large], 1) + drift[:, None])
    ratio = says.threshold[599, 16:].mean() / says.threshold[599, :16].mean()
    assert abs(ratio / 50 - 1) < 0.1
    assert (says.alarm[600:620, :16].any(0)).all()
    assert says.alarm[600:620, 16:].any(0).mean() < 0.15
    assert (says.alarm[900:920, 16:].any(0)).all()


def test_the_grace_period_runs_as_published(noise):
    """Alarm at t = 1 with the counter at 20, silence from 2 to 20 while it falls to 1, an alarm again at 21."""
    noise = noise.copy()
    noise[600:] *= 30
    says = run_cusum(noise)
    for lane in range(4):
        first = 600 + says.alarm[600:, lane].argmax()
        grace, alarm, crossed = (leaf[first : first + 21, lane] for leaf in (says.grace, says.alarm, says.crossed))
        assert grace.tolist() == [20, *range(19, 0, -1), 20]
        assert alarm.tolist() == [True] + [False] * 19 + [True]
        assert crossed[10:20].all()  # the statistic is followed all the same


def test_the_length_of_grace_is_a_setting(noise):
    noise = noise.copy()
    noise[600:] *= 30
    says = run_cusum(noise, PredictorConfig(grace_period_steps=7).params())
    alarms = 600 + np.flatnonzero(says.alarm[600:, 0])
    assert alarms[1] - alarms[0] == 7


def test_a_calm_series_around_a_hundred_gives_no_alarm_and_a_jump_of_500_deviations_gives_one_at_once(noise):
    """A plain two-sided CUSUM at h = 5 would stay silent for 500 ticks on one of these in three; ours on most."""
    series = 0.01 * noise
    series[500:] = 5 + 0.05 * noise[500:]
    says = run_cusum(series)
    silent = ~says.alarm[:500].any(0)
    assert silent.mean() > 0.6
    assert (says.alarm[500:505].any(0)).all()


def test_the_kurtosis_is_three_for_normal_residuals_and_much_more_for_heavy_tails(noise):
    """Of the signed residuals: that of their sizes is 3.9 for a normal law. A single seed may miss by a little."""
    rng = np.random.default_rng(9)
    normal = run_cusum(noise).kurtosis[999]
    t3, t2 = (run_cusum(rng.standard_t(degrees, noise.shape)) for degrees in (3, 2))
    assert np.mean((normal > 2.5) & (normal < 3.5)) > 0.85 and abs(normal.mean() - 3) < 0.15
    assert np.median(t3.kurtosis[999]) > 5
    assert np.median(t2.kurtosis[499]) > 15
    assert np.mean(t2.threshold[499] > 2 * CONFIG.cusum_h * t2.sigma[499]) > 0.9


def test_heavy_tails_raise_fewer_alarms_than_a_plain_cusum_would():
    says = run_cusum(3 * np.random.default_rng(333).standard_t(4, (1200, 32)), PredictorConfig(cusum_h=3.0).params())
    z = 3 * np.random.default_rng(333).standard_t(4, (1200, 32)) / (3 * 2**0.5)
    plain = np.zeros(32, int)
    up = down = np.zeros(32)
    for tick in range(1200):
        up, down = np.maximum(0, up + z[tick] - 0.5), np.maximum(0, down - z[tick] - 0.5)
        fired = np.maximum(up, down) > 3
        plain += fired & (tick >= 700)
        up, down = np.where(fired, 0, up), np.where(fired, 0, down)
    assert says.alarm[700:].sum() < plain.sum() / 2


def test_an_outlier_alone_is_no_regime_change(noise):
    """It counts no more than its rank, so only an asset that was near an alarm anyway gives one."""
    says = run_cusum(np.where(np.arange(1200)[:, None] == 700, 15.0, noise))
    assert says.alarm[700].mean() < 0.3


def test_the_kurtosis_warning_takes_more_than_five_ticks_in_a_row(noise):
    says = run_cusum(np.random.default_rng(666).standard_t(1.5, noise.shape))
    over = says.kurtosis > 20
    run = np.zeros(32, int)
    for tick in range(1200):
        run = np.where(over[tick], run + 1, 0)
        assert np.array_equal(says.kurtosis_warning[tick], run > 5)
    assert says.kurtosis_warning.any()


def test_no_asset_spends_its_life_in_alarm(noise):
    """The scale doubles and halves every 100 ticks for ever: the patience grows until that is normal."""
    beat = np.where((np.arange(1200) // 100) % 2, 4.0, 1.0)[:, None]
    alarms = run_cusum(noise * beat).alarm
    assert alarms[900:].sum() < alarms[:900].sum() / 3


@pytest.mark.parametrize("what", ["constant", "ties", "huge", "tiny", "cauchy"])
def test_whatever_comes_the_figures_stay_finite(noise, what):
    rng = np.random.default_rng(2)
    series = {
        "constant": np.zeros_like(noise),
        "ties": np.where(rng.random(noise.shape) < 0.9, 0.0, np.sign(noise)),
        "huge": noise * 1e9,
        "tiny": noise * 1e-9,
        "cauchy": rng.standard_cauchy(noise.shape),
    }[what]
    says = run_cusum(series)
    assert all(np.isfinite(leaf).all() for leaf in says)
    if what in ("constant", "ties"):
        assert says.alarm.sum() <= 32  # fewer than one a thousand ticks
