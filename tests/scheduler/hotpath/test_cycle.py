import pytest

from scheduler.hotpath import (
    AdaptiveEngine,
    AdaptiveEngineConfig,
    ApplyMinus,
    ApplyPlus,
    Guardrails,
    Knob,
    KnobRegistry,
    NoChange,
    NoChangeReason,
    Spsa,
    SpsaConfig,
    Update,
)
from scheduler.hotpath.proposer import SpsaProposer
from scheduler.hotpath.spsa import Ready, WaitingMinus, WaitingPlus

AWAITING = NoChange(NoChangeReason.AWAITING_SAMPLES)


def measure(spsa, plus, minus, delta):
    """One whole cycle in which each window repeats one value."""
    spsa.start_plus_perturbation(delta)
    for value in (plus, minus):
        for _ in range(spsa.config.eval_window_digests):
            spsa.record_objective(value)
        found = spsa.complete_eval_window()
    return found


def test_the_gradient_comes_from_two_measurements():
    gradient, step = measure(Spsa(42, 2), 1.2, 1.0, (0.01, -0.01))
    assert gradient == pytest.approx((10, -10))
    assert step == pytest.approx((-0.23609218065474, 0.23609218065474))


def test_five_cycles_on_a_parabola_move_as_calculated():
    spsa, theta = Spsa(42, 2, config=SpsaConfig(k_floor=None)), (0.5, 0.5)
    path, seen = [], []
    for k, way in enumerate([(-1, 1), (1, 1), (1, -1), (-1, -1), (1, 1)]):
        delta = tuple(sign * spsa.perturbation_scale(k) for sign in way)
        plus, minus = (
            sum((x + side * d - best) ** 2 for x, d, best in zip(theta, delta, (0.3, 0.7), strict=True))
            for side in (1, -1)
        )
        gradient, step = measure(spsa, plus, minus, delta)
        theta = tuple(x + way for x, way in zip(theta, step, strict=True))
        path.append(theta)
        seen.append((plus, minus, gradient))
    assert seen[0][:2] == pytest.approx((0.0722, 0.0882)) and seen[0][2] == pytest.approx((0.8, -0.8))
    assert seen[2][2] == pytest.approx((0.724450502190, -0.724450502190), abs=1e-11)
    assert path[0] == path[1] == pytest.approx((0.481112625548, 0.518887374452), abs=1e-11)
    assert path[2] == pytest.approx((0.465645314484, 0.534354685516), abs=1e-11)
    assert path[4] == path[3] == pytest.approx(path[2], abs=1e-11)


def test_both_sides_of_the_centre_are_measured_while_the_centre_stays(bench):
    loop = bench()
    loop.until(ApplyPlus)
    assert loop.engine.snapshot().params == pytest.approx((0.49, 0.51))
    assert loop.theta == (0.5, 0.5)
    loop.until(ApplyMinus)
    assert loop.engine.snapshot().params == pytest.approx((0.51, 0.49))
    assert loop.theta == (0.5, 0.5)


def test_an_update_tells_its_iteration_and_the_gradient_before_the_gain(bench):
    update = bench().until(Update)
    assert update.iteration == 0
    assert update.gradient_estimate == pytest.approx((0.8, -0.8))
    assert update.delta == pytest.approx((-0.018887374452, 0.018887374452))


def test_a_cycle_takes_eleven_digests_and_three_applies(bench):
    loop = bench()
    proposals = {number: loop.step() for number in range(1, 24)}
    kinds = {number: type(proposal) for number, proposal in proposals.items() if proposal != AWAITING}
    one, two = (ApplyPlus, ApplyMinus, Update), (1, 6, 11, 12, 17, 22)
    assert kinds == {**dict(zip(two, one * 2, strict=True)), 23: ApplyPlus}
    assert loop.engine.proposer.iteration() == 2
    assert loop.engine.snapshot().generation == 7


def test_a_pair_has_one_id_and_the_perturbation_in_force_has_its_sign(bench):
    loop = bench()
    plus = loop.until(ApplyPlus)
    assert loop.engine.proposer.current_perturbation() == (0, plus.delta)
    minus = loop.until(ApplyMinus)
    assert minus.perturbation_id == plus.perturbation_id == 0
    assert minus.delta == tuple(-change for change in plus.delta)
    assert loop.engine.proposer.current_perturbation() == (0, minus.delta)


def test_nothing_is_recorded_while_nothing_is_measured():
    spsa = Spsa(42, 2)
    spsa.record_objective(1.0)
    assert spsa.state == Ready()
    assert spsa.has_enough_samples() is False
    assert spsa.complete_eval_window() is None


def test_states_follow_each_other():
    spsa = Spsa(42, 1, config=SpsaConfig(eval_window_digests=1))
    spsa.start_plus_perturbation(spsa.generate_perturbation())
    assert isinstance(spsa.state, WaitingPlus)
    spsa.record_objective(1.0)
    assert spsa.complete_eval_window() is None
    assert isinstance(spsa.state, WaitingMinus) and spsa.state.y_plus == 1.0
    spsa.record_objective(2.0)
    spsa.complete_eval_window()
    assert spsa.state == Ready() and spsa.iteration == 1


def test_at_a_bound_the_gradient_uses_the_way_that_was_really_gone(bench):
    world = {(1.0, 0.51): 1.0, (0.985, 0.49): 1.3}
    loop = bench(
        world=lambda live, now: world.get(tuple(round(x, 9) for x in live), 1.1),
        start=(0.995, 0.5),
        seed=_seed_with_signs((1, 1)),
        guardrails=Guardrails(bounds=((0.0, 1.0), (0.0, 1.0))),
    )
    loop.until(ApplyPlus)
    assert loop.engine.snapshot().params == pytest.approx((1.0, 0.51))
    loop.until(ApplyMinus)
    assert loop.engine.snapshot().params == pytest.approx((0.985, 0.49))
    update = loop.until(Update)
    assert update.gradient_estimate == pytest.approx((-20, -15))
    assert loop.theta == pytest.approx((1.0, 0.6), abs=1e-12)


BATCH_CAP = Knob("batch_cap", 1, 512, 512**0.5, kind="int", scale="log")


def cycle_of_batch_cap(scale, difference):
    registry = KnobRegistry([BATCH_CAP])
    config = AdaptiveEngineConfig(perturbation_scale=scale, seed=_seed_with_signs((1,)))
    proposer = SpsaProposer(Spsa(config.seed, 1, config.learning_rate, scale), registry)
    footing = AdaptiveEngine(config, (0.5,), registry).executor.footing(0)
    shown = []
    for value in (1.0 + difference, 1.0):
        proposal = proposer.propose(footing)
        shown.append(BATCH_CAP.to_native(0.5 + proposal.delta[0]))
        proposer.accepted(proposal, 0)
        for _ in range(5):
            proposer.spsa.record_objective(value)
    return shown, proposer.propose(footing), proposer


def test_whole_number_knobs_use_the_displacement_of_the_rounded_values():
    assert BATCH_CAP.to_native(0.5) == 23
    shown, update, proposer = cycle_of_batch_cap(0.05, 0.02)
    assert shown == [31, 17]
    assert proposer.spsa.state.displacement == pytest.approx((0.0963037,), abs=1e-6)
    assert update.gradient_estimate == pytest.approx((0.207676,), abs=1e-6)


def test_a_probe_that_changes_nothing_has_no_gradient_and_is_reported():
    shown, update, proposer = cycle_of_batch_cap(0.0005, 0.02)
    assert shown == [23, 23]
    assert update.gradient_estimate == (0.0,)
    assert proposer.dead_probes == {0: 1}


def test_a_knob_with_a_smallest_useful_change_is_probed_at_least_that_far():
    registry = KnobRegistry([Knob("window_ms", 0, 100, 50, min_probe=4)])
    engine = AdaptiveEngine(AdaptiveEngineConfig(), registry=registry)
    proposal = engine.tick(0)
    assert abs(proposal.delta[0]) == pytest.approx(0.04)


def test_a_refused_probe_is_offered_again_and_shifts_nothing(bench):
    calm, hurried = bench(), bench()
    calm.steps(23)
    hurried.steps(11)
    retried = hurried.engine.observe(hurried.digest(), hurried.now_us)
    for _ in range(5):
        hurried.apply(retried)
        retried_again = hurried.engine.tick(hurried.now_us)
        assert retried_again == retried and hurried.engine.proposer.iteration() == 1
    assert [violation.kind for violation in hurried.refused] == ["RateLimitExceeded"] * 5
    assert hurried.refused[0].earliest_us == hurried.now_us + 100_000
    hurried.steps(12)
    assert hurried.theta == pytest.approx(calm.theta, abs=1e-15)


def test_a_complete_window_takes_no_further_sample():
    spsa = Spsa(42, 1)
    spsa.start_plus_perturbation((0.01,))
    for value in (1, 1, 1, 1, 1, 50, 50):
        spsa.record_objective(value)
    assert len(spsa.state.accumulated) == 5


def test_a_refused_minus_keeps_the_window_that_was_measured(bench):
    loop = bench()
    loop.steps(5)
    minus = loop.observe()
    loop.engine.executor.rate.accepted_us.append(loop.now_us)
    loop.apply(minus)
    assert loop.refused[0].kind == "RateLimitExceeded"
    assert loop.step(objective_value=99.0) == minus
    assert loop.engine.spsa_state().y_plus == pytest.approx(0.0722)


def _seed_with_signs(wanted):
    from scheduler.hotpath.random_signs import signs

    return next(seed for seed in range(100) if signs(seed, 0, len(wanted)) == wanted)
