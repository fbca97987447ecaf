"""Quantiles: in order, read where they should be, and calibrated whatever the law that they are read from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from predictor_core import bands, lattice
from predictor_core.config import PredictorConfig
from predictor_core.levels import LEVELS, NORMAL, STUDENT

SHAPES = PredictorConfig(float_precision=64).static()


@pytest.fixture(autouse=True)
def wide():
    with jax.enable_x64(True):
        yield


def test_the_levels_are_symmetric_and_the_laws_have_unit_variance():
    assert np.allclose(LEVELS, 1 - LEVELS[::-1]) and np.allclose(NORMAL, -NORMAL[::-1])
    assert np.isclose(STUDENT[-1], 3.7469473880 * np.sqrt(0.5)) and np.allclose(STUDENT, -STUDENT[::-1])


def test_a_law_is_read_between_at_and_beyond_its_levels():
    law = jnp.asarray(NORMAL)
    assert np.allclose(bands.read(law, jnp.asarray(LEVELS)), NORMAL)
    assert bands.at_levels(law, tuple(LEVELS)) is law
    middle = bands.at_levels(law, (0.075, 0.5))
    assert np.isclose(middle[0], (NORMAL[2] + NORMAL[3]) / 2) and abs(middle[1]) < 1e-12
    beyond = np.asarray(bands.at_levels(law, (0.001, 0.999)))
    assert beyond[0] < NORMAL[0] and beyond[1] > NORMAL[-1]


def test_any_levels_read_in_order(rng):
    law = jnp.asarray(np.sort(rng.standard_normal(23)))
    levels = np.sort(rng.uniform(-0.02, 1.02, 23))
    assert np.all(np.diff(bands.read(law, jnp.asarray(levels))) >= 0)


def calibrated(draw, law, ticks=6000):
    """Share of values below each quantile over the second half, when the law that goes in never changes."""
    grid = jax.tree.map(jnp.asarray, lattice.cold(SHAPES, ()))
    state = bands.calibrate(jax.tree.map(jnp.asarray, bands.cold(SHAPES, ())), jnp.asarray(law), grid, jnp.asarray(1.0))

    @jax.jit
    def step(state, inputs):
        move, age = inputs
        below = (move < state.quantiles).astype(float)
        state = bands.learn(state, move, jnp.asarray(1e-9), age)
        return bands.calibrate(state, jnp.asarray(law), grid, jnp.asarray(1.0)), below

    _, below = jax.lax.scan(step, state, (jnp.asarray(draw(ticks)), jnp.arange(1.0, ticks + 1)))
    return np.asarray(below)[ticks // 2 :].mean(0)


def test_a_law_that_is_too_narrow_or_skewed_is_set_right(rng):
    shares = calibrated(rng.standard_normal, 0.8 * NORMAL + 0.1)
    assert np.abs(shares[2:-2] - LEVELS[2:-2]).max() < 0.02


def test_hits_on_an_atom_count_as_the_fraction_that_the_level_splits_off():
    quantiles = jnp.asarray(np.where((LEVELS > 0.22) & (LEVELS < 0.78), 0.0, NORMAL))
    hits = np.asarray(bands._hits(quantiles, jnp.asarray(LEVELS), jnp.asarray(0.0), jnp.asarray(1e-9)))
    atom = np.asarray(quantiles) == 0
    assert np.allclose(hits[atom], (LEVELS[atom] - 0.20) / (0.80 - 0.20))
    assert np.allclose(hits[~atom], LEVELS[~atom] > 0.5)


def test_a_lattice_is_found_and_snapped_to(rng):
    grid = jax.tree.map(jnp.asarray, lattice.cold(SHAPES, ()))
    for age, move in enumerate(0.25 * rng.integers(-2, 3, 600)):
        grid = lattice.update(grid, jnp.asarray(float(move)), jnp.asarray(float(age)))
    assert bool(lattice.is_on(grid, jnp.asarray(0.3)))
    assert np.allclose(lattice.snap(grid, jnp.asarray([0.2, 0.4, -0.1]), jnp.asarray(0.3)), [0.25, 0.5, 0.0], rtol=2e-3)


def test_no_lattice_is_seen_in_continuous_moves(rng):
    grid = jax.tree.map(jnp.asarray, lattice.cold(SHAPES, ()))
    for age, move in enumerate(rng.standard_normal(600)):
        grid = lattice.update(grid, jnp.asarray(move), jnp.asarray(float(age)))
    assert not bool(lattice.is_on(grid, jnp.asarray(0.8)))
