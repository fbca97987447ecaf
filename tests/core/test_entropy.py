"""The entropy of a healthy field is never negative, a collapsed one is found after ten ticks and forgiven after ten."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from predictor_core import entropy
from predictor_core.config import PredictorConfig

CONFIG = PredictorConfig()
POINTS = np.linspace(-3, 3, 24)
FLAT, HEALTHY = 0.001 * POINTS, POINTS + 0.3 * np.sin(2 * POINTS)


@pytest.mark.parametrize("precision", [32, 64])
@pytest.mark.parametrize("lanes", [(), (64,)])
def test_a_tick_keeps_every_shape_and_precision(precision, lanes):
    config = PredictorConfig(float_precision=precision)
    cold = entropy.cold(config.static(), lanes)
    real = cold.baseline.dtype
    with jax.enable_x64(True):
        field, scalar = jax.ShapeDtypeStruct((24, *lanes), real), jax.ShapeDtypeStruct(lanes, real)
        new, found = jax.eval_shape(
            lambda *args: entropy.update(*args, config.params()), cold, field, field, scalar, scalar
        )
    assert [(a.shape, a.dtype) for a in jax.tree.leaves(new)] == [(a.shape, a.dtype) for a in jax.tree.leaves(cold)]
    assert found.entropy.dtype == real


def hybrid(values):
    return float(entropy.hybrid(jnp.asarray(values, jnp.float32)))


def test_uniform_values_have_high_entropy():
    assert hybrid(np.random.default_rng(0).random(1000)) > 3.5


def test_a_constant_field_has_collapsed():
    """Shannon's entropy of the bins alone is 0 here, the differential one only by luck below -3."""
    assert hybrid(np.ones(500)) < -3


def test_a_sine_has_not():
    """Its differential entropy is .35: no single published estimator passes this test and the one above."""
    assert hybrid(np.sin(np.linspace(-3, 3, 100))) >= 0.5 * 1.5


def test_entropy_falls_without_bound_as_the_field_closes():
    found = [hybrid(width * POINTS) for width in (1, 1e-1, 1e-3, 1e-6)]
    assert found[0] > 3 and (np.diff(found) < -0.5).all()


def follow(fields, weight=0.25, turbulence=0.1, config=CONFIG):
    """The findings over a history of fields; one compilation for all tests."""
    fields = np.asarray(fields, np.float32)
    with jax.enable_x64(True):
        found = _follow(fields, np.float32(weight), np.float32(turbulence), config.params())
    return jax.tree.map(np.asarray, found)


@jax.jit
def _follow(fields, weight, turbulence, params):
    terminal = jnp.asarray(POINTS, jnp.float32)

    def step(state, field):
        return entropy.update(state, field, terminal, turbulence, weight, params)

    return jax.lax.scan(step, entropy.cold(CONFIG.static(), ()), fields)[1]


def history(*spells):
    return np.concatenate([np.tile(field, (ticks, 1)) for field, ticks in spells])


def test_a_collapse_is_found_after_more_than_ten_ticks_and_forgiven_after_ten_good_ones():
    found = follow(history((HEALTHY, 20), (FLAT, 30), (HEALTHY, 30)))
    assert np.flatnonzero(found.collapsed).tolist() == list(range(30, 59))
    assert np.flatnonzero(found.degraded).tolist() == [30]  # the alert is given once


def test_ten_flat_ticks_are_no_collapse():
    assert not follow(history((HEALTHY, 20), (FLAT, 10), (HEALTHY, 50))).collapsed.any()


def test_nobody_minds_the_field_of_a_kernel_without_a_say():
    assert not follow(history((HEALTHY, 20), (FLAT, 30), (HEALTHY, 30)), weight=0.05).collapsed.any()


def test_gamma_is_strict_in_calm_and_lenient_in_turbulence():
    fields = history((HEALTHY, 80))
    assert [float(follow(fields, turbulence=t).gamma[0]) for t in (0.0, 0.1, 0.5)] == pytest.approx([0.9, 0.8, 0.5])


def test_the_terminal_values_themselves_are_never_collapsed():
    assert not follow(history((POINTS, 80)), turbulence=0.0).collapsed.any()


def test_the_ratio_is_to_the_healthy_baseline_and_bounded():
    found = follow(history((HEALTHY, 40), (FLAT, 40)))
    assert np.allclose(found.ratio[:40], 1, atol=1e-5)
    assert (found.ratio[40:] == pytest.approx(0.1)) and np.isfinite(found.entropy).all()
    assert not found.wants_capacity.any()


def test_a_field_that_becomes_much_richer_asks_for_capacity():
    """A healthy field has half of the terminal entropy or more, so a monotone one cannot pass a trigger of 2."""
    poor = np.round(POINTS)  # seven values
    found = follow(history((poor, 40), (POINTS, 40)), 0.25, 0.5, PredictorConfig(entropy_scaling_trigger=1.5))
    assert not found.wants_capacity[:40].any() and found.wants_capacity[40:55].all()
