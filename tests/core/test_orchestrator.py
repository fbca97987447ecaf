"""The weights: always on the simplex, down the energy, and the transport plan what it claims to be."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from predictor_core import aggregation, orchestrator
from predictor_core.config import PredictorConfig
from predictor_core.sinkhorn import sinkhorn

CONFIG = PredictorConfig()
COST = np.ones((4, 4)) - np.eye(4)


@pytest.fixture(autouse=True)
def wide():
    with jax.enable_x64(True):
        yield


def flow(losses, config=CONFIG, turbulence=0.0):
    """Weights after each row of losses of the four kernels."""
    state = jax.tree.map(jnp.asarray, orchestrator.cold(PredictorConfig(float_precision=64).static(), ()))
    weights = []

    @jax.jit
    def step(state, loss):
        state = eqx.tree_at(
            lambda s: s.energy, state, aggregation.update(state.energy, (state.weights * loss).sum() - loss, (4,))
        )
        judgement = orchestrator.Judgement(loss, None)
        return orchestrator.step(state, judgement, jnp.asarray(turbulence), config.params(), "squared")

    for loss in losses:
        state, report = step(state, jnp.asarray(loss))
        weights.append(np.asarray(state.weights))
    return np.array(weights), report


def test_weights_stay_on_the_simplex(rng):
    weights, report = flow(rng.uniform(-1, 1, (200, 4)))
    assert np.abs(weights.sum(1) - 1).max() < 1e-12 and weights.min() > 0
    assert bool(report.converged)


def test_weights_flow_down_the_energy(rng):
    weights, _ = flow(np.array([0.1, 0.0, 0.1, 0.1]) + 0.05 * rng.standard_normal((400, 4)))
    assert weights[-1].argmax() == 1 and weights[-1, 1] > 0.9
    one, _ = flow([[0.2, -0.1, -0.06, -0.04]])
    assert one[0, 0] < 0.25


def test_the_flow_beats_uniform_weights_and_keeps_up_with_exponential_ones(rng):
    losses = np.array([0.04, 0.0, 0.02, 0.06]) + 0.2 * rng.standard_normal((1500, 4))
    weights, _ = flow(losses)
    held = np.concatenate([np.full((1, 4), 0.25), weights[:-1]])
    ours, uniform = (held * losses).sum(1).mean(), losses.mean()
    total, exponential = np.zeros(4), 0.0
    for loss in losses:
        share = np.exp(-0.05 * (total - total.min()))
        exponential += share @ loss / share.sum() / len(losses)
        total += loss
    assert ours < uniform - 0.02 and ours < exponential + 0.005


def test_an_infinite_temperature_levels_all_weights(rng):
    plan = orchestrator.transport(jnp.asarray(COST), jnp.asarray(1e4))
    assert np.abs(np.array([0.7, 0.1, 0.1, 0.1]) @ np.asarray(plan) - 0.25).max() < 1e-4


def test_turbulence_raises_the_temperature_and_the_share():
    shares = []
    for turbulence in (0.0, 0.5, 2.0):
        epsilon = orchestrator.temperature(jnp.asarray(turbulence), CONFIG.params())
        shares.append(1 - float(orchestrator.transport(jnp.asarray(COST), epsilon)[0, 0]))
    assert 1e-4 < shares[0] < 1e-3 < shares[1] * 2 and shares[0] < shares[1] < shares[2] < 0.05
    floor = PredictorConfig(sinkhorn_epsilon_0=0.001, sinkhorn_epsilon_min=0.05)
    assert float(orchestrator.temperature(jnp.asarray(0.0), floor.params())) == 0.05


@pytest.mark.filterwarnings("ignore")  # ott imports a library that announces its own end
def test_the_closed_plan_is_the_limit_of_sinkhorn_with_a_free_end(rng):
    """Between its own two marginals, weighed against a uniform end, the closed plan is Sinkhorn's and ott's."""
    from ott.geometry.geometry import Geometry
    from ott.solvers import linear

    source, epsilon = rng.dirichlet(np.ones(4)), 0.2
    plan = source[:, None] * np.asarray(orchestrator.transport(jnp.asarray(COST), jnp.asarray(epsilon)))
    target = plan.sum(0)
    ours = sinkhorn(jnp.asarray(COST), jnp.asarray(source), jnp.asarray(target), epsilon, steps=3000)
    geometry = Geometry(cost_matrix=jnp.asarray(COST), epsilon=epsilon)
    theirs = linear.solve(geometry, a=jnp.asarray(source), b=jnp.asarray(target), threshold=1e-10, max_iterations=5000)
    assert np.allclose(ours.plan, plan, atol=1e-8)
    assert np.allclose(theirs.matrix, plan, atol=1e-6)
    assert float(ours.error) < 1e-8


@pytest.mark.parametrize("epsilon", [1e-4, 1e-2, 1.0])
def test_sinkhorn_keeps_its_marginals(epsilon, rng):
    source, target = jnp.asarray(rng.dirichlet(np.ones(4))), jnp.asarray(rng.dirichlet(np.ones(4)))
    found = sinkhorn(jnp.asarray(COST), source, target, epsilon)
    assert np.isfinite(found.plan).all() and float(abs(found.plan.sum(0) - target).sum()) < 1e-6


def test_an_alarm_levels_the_weights_and_leaves_half_of_the_evidence():
    state = jax.tree.map(jnp.asarray, orchestrator.cold(PredictorConfig().static(), ()))
    state = eqx.tree_at(
        lambda s: (s.weights, s.energy.total), state, (jnp.asarray([0.7, 0.1, 0.1, 0.1]), jnp.asarray([4.0, 0, 0, 0]))
    )
    after = orchestrator.reset(state)
    assert np.array_equal(after.weights, [0.25] * 4) and after.energy.total[0] == 2


def test_a_forced_kernel_has_it_all_and_a_drained_one_nothing_unless_it_leads():
    even, led = jnp.full(4, 0.25), jnp.asarray([0.1, 0.7, 0.1, 0.1])
    assert float(orchestrator.forced(even, 3)[3]) > 0.9999
    yes = jnp.asarray(True)
    assert float(orchestrator.drained(even, 1, yes)[1]) < 1e-6
    assert float(orchestrator.drained(led, 1, yes)[1]) == pytest.approx(0.7)
    assert np.isclose(orchestrator.drained(even, 1, yes).sum(), 1)


def test_the_regret_at_a_tie_is_the_true_difference_of_losses():
    levels = orchestrator.LEVELS
    parent, member = np.linspace(-1, 1, 23), np.linspace(-1, 1, 23) + 0.3
    move = parent[7]
    loss = lambda q: np.maximum(levels * (move - q), (levels - 1) * (move - q))  # noqa: E731
    slope = ((move < parent) - levels) * (parent - member)
    expected = np.where(np.arange(23) == 7, loss(parent) - loss(member), slope).mean() / 4
    ours = orchestrator.regret(*(jnp.asarray(v) for v in (parent, member[None], move, 1e-9, 4.0)))
    assert np.isclose(ours[0], expected)


def test_the_free_energy_is_finite_and_rises_with_the_losses():
    low, high = (flow(np.full((50, 4), loss))[1] for loss in (0.0, 0.5))
    assert np.isfinite(float(low.free_energy)) and float(high.free_energy) > float(low.free_energy)
