"""The kernels against slow and obvious references."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from predictor_core import memory, packed
from predictor_core.config import PredictorConfig
from predictor_core.kernels import CENTRES, KERNELS, RECURSIONS, SIZES, analogs, base, galerkin, levy, signature

SHAPES = PredictorConfig(float_precision=64).static()


@pytest.fixture(autouse=True)
def wide():
    with jax.enable_x64(True):
        yield


def test_a_packed_matrix_multiplies_as_the_full_one(rng):
    root = rng.standard_normal((7, 7))
    full, vector = root @ root.T, rng.standard_normal(7)
    wrapped = np.array([[full[i, (i + k) % 7] for i in range(7)] for k in range(4)])
    assert np.allclose(packed.unpack(wrapped), full)
    assert np.allclose(packed.times(jnp.asarray(wrapped), jnp.asarray(vector)), full @ vector)
    less = packed.less_outer(jnp.asarray(wrapped), jnp.asarray(vector), jnp.asarray(0.3))
    assert np.allclose(packed.unpack(np.asarray(less)), full - 0.3 * np.outer(vector, vector))
    scaled = packed.scale(jnp.asarray(wrapped), jnp.asarray(abs(vector)))
    assert np.allclose(packed.unpack(np.asarray(scaled)), full * np.outer(abs(vector), abs(vector)))


def test_a_readout_is_recursive_least_squares(rng):
    n, forgetting = 5, 0.99
    readout = base.cold_readout(n, (), np.float64)
    weights, covariance, error_size = np.zeros(n), np.eye(n), 0.0
    step = jax.jit(lambda r, f, y, age: base.learn_readout(base.forecast(r, f)[0], y, age, forgetting))
    for age in range(1, 120):
        features = rng.standard_normal(n)
        target = features @ np.arange(n) + 0.1 * rng.standard_normal() + (30 if age == 90 else 0)
        readout = step(readout, jnp.asarray(features), target, float(age))
        if age < 2:
            continue
        error = target - weights @ features
        trust = min(1.0, base.HUBER * error_size / abs(error)) if age > base.WARM_UP else 1.0
        error_size += max(base.ERROR_RATE, 1 / age) * (trust * abs(error) - error_size)
        gain = covariance @ features
        gain_size = trust / (forgetting + trust * features @ gain)
        weights = weights + gain_size * error * gain
        covariance = covariance - gain_size * np.outer(gain, gain)
        swell = np.where(np.diag(covariance) < base.SPREAD_MAX, forgetting**-0.5, 1)
        covariance *= np.outer(swell, swell)
    assert np.allclose(readout.weights, weights)
    assert np.allclose(packed.unpack(np.asarray(readout.covariance)), covariance)
    assert np.allclose(weights, np.arange(n), atol=0.2)  # the outlier did no harm


def test_features_that_say_nothing_do_not_wind_up_the_covariance(rng):
    readout = base.cold_readout(3, (), np.float64)
    step = jax.jit(lambda r, f, age: base.learn_readout(base.forecast(r, f)[0], f[0], age, 0.97))
    for age in range(1, 3000):
        readout = step(readout, jnp.asarray([rng.standard_normal(), 0.0, 0.0]), float(age))
    diagonal = np.asarray(readout.covariance[0])
    assert diagonal[1:].max() <= base.SPREAD_MAX / 0.97
    assert abs(float(readout.weights[0]) - 1) < 1e-6


def test_a_readout_learns_where_its_errors_are_large(rng):
    readout = base.cold_readout(3, (), np.float64)
    step = jax.jit(lambda r, f, y, age: base.learn_readout(base.forecast(r, f)[0], y, age, 0.999))
    side = 0.0
    for age in range(1, 2500):
        readout = step(readout, jnp.asarray([1.0, side, 0.0]), rng.standard_normal() * np.exp(side), float(age))
        side = float(rng.choice([-1.0, 1.0]))
    small, large = (float(base.forecast(readout, jnp.asarray([1.0, s, 0.0]))[1].deviation) for s in (-1.0, 1.0))
    assert 0.25 < small < 0.55 and 2.0 < large < 3.6  # exp(-1), exp(1)


def chen(left, right):
    """Product of two signatures, level by level from 0; words in lexical order."""
    return [sum(np.outer(left[j], right[k - j]).ravel() for j in range(k + 1)) for k in range(len(left))]


def straight(step, depth):
    levels = [np.ones(1)]
    for k in range(1, depth + 1):
        levels.append(np.outer(levels[-1], step).ravel() / k)
    return levels


def test_the_running_signature_obeys_chen(rng):
    steps = rng.standard_normal((20, 2))
    reference = straight(np.zeros(2), 5)
    running = [jnp.zeros(2**k) for k in range(1, 6)]
    for step in steps:
        reference = chen([0.9**k * level for k, level in enumerate(reference)], straight(step, 5))
        running = signature.append(running, jnp.asarray(step), 0.9)
    for ours, theirs in zip(running, reference[1:], strict=True):
        assert np.allclose(ours, theirs, rtol=1e-12, atol=1e-12)


def test_the_logarithm_of_a_straight_path_is_its_step():
    step = jnp.asarray([0.3, -1.2])
    levels = signature.append([jnp.zeros(2**k) for k in range(1, 6)], step)
    one, two, three = signature.logarithm(levels)
    assert np.allclose(one, step) and np.allclose(two, 0, atol=1e-15) and np.allclose(three, 0, atol=1e-15)


def test_without_fading_a_reparametrised_path_has_the_same_signature(rng):
    steps = rng.standard_normal((5, 2))
    whole = [jnp.zeros(2**k) for k in range(1, 4)]
    halved = list(whole)
    for step in steps:
        whole = signature.append(whole, jnp.asarray(step))
        halved = signature.append(signature.append(halved, jnp.asarray(step / 3)), jnp.asarray(2 * step / 3))
    assert all(np.allclose(a, b, atol=1e-12) for a, b in zip(whole, halved, strict=True))


def test_every_depth_keeps_the_same_state(rng):
    after = {depth: signature.cold(SHAPES, ()) for depth in (2, 3, 5)}
    for _ in range(4):
        view = base.View(jnp.asarray(rng.standard_normal(3)), jnp.asarray(rng.standard_normal(3)))
        after = {depth: signature.predict(state, view, depth)[0] for depth, state in after.items()}
    for depth, other in itertools.combinations(after, 2):
        assert np.array_equal(after[depth].fast, after[other].fast)
        assert np.array_equal(after[depth].slow, after[other].slow)
    used = {depth: int(np.count_nonzero(state.readout.features)) for depth, state in after.items()}
    assert used[2] < used[3] < used[5] == signature.SIZE


def test_analogs_find_the_phase_of_a_cycle():
    wave = np.sin(2 * np.pi * np.arange(400) / 37)
    moves = np.diff(wave)[::-1][:384] * 10
    short, long = np.asarray(analogs.analogs(jnp.asarray(moves)))
    following = 10 * (np.sin(2 * np.pi * 400 / 37) - wave[-1])
    assert abs(long - following) < 0.1 and abs(short - following) < 0.2


def test_analogs_are_a_kernel_regression(rng):
    moves = rng.standard_normal(60)
    moments = 60 - analogs.LONG[-1] - 1
    for delays, ours in zip((analogs.SHORT, analogs.LONG), analogs.analogs(jnp.asarray(moves)), strict=True):
        distance = [
            sum((moves[1 + i + j] - moves[i]) ** 2 for i in delays) + analogs.LEVEL_WEIGHT * moves[: j + 1].sum() ** 2
            for j in range(moments)
        ]
        bandwidth = analogs.NEAREST * min(distance) + analogs.BACKGROUND * np.mean(distance) + 1e-6
        weight = np.exp((min(distance) - np.array(distance)) / bandwidth)
        assert np.isclose(ours, weight @ moves[:moments] / weight.sum())


def test_the_memory_gives_back_what_it_was_told(rng):
    told, kept = 20 * rng.standard_normal(50), jnp.asarray(memory.cold(SHAPES, ()))
    for move in told:
        kept = memory.push(kept, jnp.asarray(move))
    assert np.abs(np.asarray(memory.moves(kept, np.float64))[:50] - told[::-1]).max() <= 0.5 / memory.STEPS
    far = memory.moves(memory.push(kept, jnp.asarray(-1e9)), np.float64)
    assert far[0] == -memory.FAR


def test_the_galerkin_network_solves_the_backward_equation():
    readout = base.cold_readout(galerkin.SIZE, (), np.float64)
    weights = np.zeros(galerkin.SIZE)
    weights[-1] = -0.3  # b(x) = -0.3 x
    state = galerkin.Galerkin(
        base.Readout(jnp.asarray(weights), *(jnp.asarray(leaf) for leaf in jax.tree.leaves(readout)[1:])),
        jnp.zeros(galerkin.UNITS),
    )
    residuals = []
    for _ in range(300):
        state, field = galerkin.relax(state, jnp.asarray(1.0), jnp.asarray(False))
        residuals.append(float(field.residual))
    assert residuals[-1] < 0.1 * residuals[0]
    ends = np.asarray(field.values)[[0, -1]] / galerkin.FIELD[[0, -1]]
    assert np.all(ends > 0.6) and np.all(ends < 0.9)  # exp(-0.3) = 0.74


def test_a_stiff_reversion_is_stepped_implicitly_sooner_on_rough_paths():
    state = jax.tree.map(jnp.asarray, levy.cold(SHAPES, ()))
    shares = [
        float(levy._scheme(state, jnp.asarray(-2.0), jnp.asarray(holder)).implicit_share) for holder in (0.5, 0.1)
    ]
    assert 0 < shares[0] < shares[1] <= 1
    assert float(levy._scheme(state, jnp.asarray(0.1), jnp.asarray(0.5)).stiffness) == 0


def test_every_kernel_holds_the_random_walk():
    assert CENTRES[0] is None and all(centre in range(len(CENTRES)) for centre, _ in RECURSIONS)
    for kernel in KERNELS:
        assert any(expert.centre is None for expert in kernel.EXPERTS)
    assert sum(len(kernel.EXPERTS) for kernel in KERNELS) + 1 == sum(SIZES)
