"""The strongest Koopman mode is the cycle in the data, and a flat spectrum has no Paley-Wiener integral to speak of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from predictor_core import spectrum
from predictor_core.config import PredictorConfig
from predictor_core.kernels.hilbert import PERIODS

CONFIG = PredictorConfig()


@pytest.mark.parametrize("precision", [32, 64])
@pytest.mark.parametrize("lanes", [(), (64,)])
def test_a_tick_keeps_every_shape_and_precision(precision, lanes):
    config = PredictorConfig(float_precision=precision)
    shapes = config.static()
    cold = spectrum.cold(shapes, lanes)
    with jax.enable_x64(True):
        modes = jax.ShapeDtypeStruct((2, len(PERIODS), *lanes), cold.powers.dtype)
        age = jax.ShapeDtypeStruct(lanes, cold.powers.dtype)
        new, found = jax.eval_shape(
            lambda state, z, n: spectrum.update(state, z, n, config.params(), shapes), cold, modes, age
        )
    assert [(a.shape, a.dtype) for a in jax.tree.leaves(new)] == [(a.shape, a.dtype) for a in jax.tree.leaves(cold)]
    assert found.frequencies.shape == (min(5, len(PERIODS)), *lanes)


def watch(moves, config=CONFIG):
    """Turns resonators with the moves, as kernel A does, and reads the spectrum at every tick."""
    turn = np.exp((2j * np.pi - 1) / PERIODS)
    modes = np.zeros(len(PERIODS), complex)
    seen = []
    for move in moves:
        modes = turn * modes + np.sqrt(2 / PERIODS) * move
        seen.append([modes.real, modes.imag])

    def step(state, inputs):
        return spectrum.update(state, inputs[0], inputs[1], config.params(), config.static())

    with jax.enable_x64(True):
        ages = jnp.arange(1, len(moves) + 1).astype(jnp.float32)
        cold = spectrum.cold(config.static(), ())
        found = jax.jit(lambda xs: jax.lax.scan(step, cold, xs)[1])((jnp.asarray(seen, jnp.float32), ages))
    return jax.tree.map(lambda leaf: np.asarray(leaf)[-1], found)


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(0).standard_normal(1500)


def test_the_strongest_mode_is_the_cycle_in_the_data(noise):
    for period in PERIODS[[1, -1]]:
        found = watch(noise + 4 * np.sin(2 * np.pi * np.arange(1500) / period))
        assert np.isclose(found.frequency, 1 / period) and found.power > 0.4
        assert (np.diff(found.powers) <= 0).all()


def test_frequencies_are_in_the_sampling_interval_of_the_signal(noise):
    wave = noise + 4 * np.sin(2 * np.pi * np.arange(1500) / PERIODS[2])
    found = watch(wave, PredictorConfig(signal_sampling_interval=0.5))
    assert np.isclose(found.frequency, 2 / PERIODS[2])


def test_a_flat_spectrum_has_a_small_integral_and_a_cycle_a_large_one(noise):
    flat, wave = watch(noise), watch(0.05 * noise + np.sin(2 * np.pi * np.arange(1500) / PERIODS[0]))
    assert flat.paley_wiener < 1 < wave.paley_wiener
    assert np.allclose(flat.powers, 1, atol=0.6)


def test_the_bound_of_the_integral_is_a_setting(noise):
    assert watch(noise).predictable
    assert not watch(noise, PredictorConfig(paley_wiener_integral_max=0.0)).predictable


def test_silence_has_no_mode():
    found = watch(np.zeros(1500))
    assert found.frequency == 0 and found.power == 0 and found.paley_wiener == 0


def test_modes_weaker_than_the_least_power_are_no_modes(noise):
    found = watch(noise * 1e-6)
    assert (found.powers == 0).all() and found.frequency == 0
