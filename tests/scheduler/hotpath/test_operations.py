import json

import pytest

from scheduler.errors import BadRules
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
    Update,
)
from scheduler.hotpath.errors import AuditQueueFull, BadCheckpoint, Fenced, InSafeMode, NoBaseline, StaleBase
from scheduler.hotpath.spsa import Ready

SECOND = 1_000_000


def test_pause_ends_the_probe_and_resume_starts_again_with_the_same_iteration(bench):
    loop = bench()
    loop.until(ApplyMinus)
    loop.engine.pause(loop.now_us, "ana", "deploy")
    assert loop.engine.snapshot().params == loop.theta and loop.engine.spsa_state() == Ready()
    assert loop.step() == NoChange(NoChangeReason.PAUSED)
    assert loop.engine.rollback(loop.now_us, "ana", "to be sure").reverted_to_generation == 0
    loop.engine.resume(loop.now_us, "ana", "deployed")
    loop.now_us += 5 * SECOND
    assert loop.until(ApplyPlus).perturbation_id == 0


@pytest.mark.parametrize(("minutes", "known"), [(10, True), (11, False)])
def test_after_a_long_pause_the_world_is_learned_again(bench, minutes, known):
    loop = bench()
    loop.until(Update)
    loop.engine.pause(loop.now_us, "ana", "night")
    loop.now_us += minutes * 60 * SECOND
    loop.engine.resume(loop.now_us, "ana", "morning")
    assert (loop.engine.executor.control_safety.regression.reference is not None) == known


def test_resume_is_refused_while_an_operators_latch_holds(bench):
    loop = bench()
    loop.engine.pause(0, "ana", "look")
    loop.engine.enter_safe_mode(0, "ana", "look")
    with pytest.raises(InSafeMode, match="reset_safe_mode"):
        loop.engine.resume(0, "ana", "looked")


def test_a_pinned_knob_stays_and_the_others_go_on(bench):
    loop = bench(guardrails=Guardrails(bounds=((0.0, 1.0), (0.0, 1.0))))
    free = bench()
    loop.until(ApplyPlus)
    loop.engine.pin(0, 0.7, loop.now_us, "ana", "test", jump=True)
    assert loop.theta == loop.engine.snapshot().params == (0.7, 0.5)
    assert loop.engine.executor.phase == "centre"
    plus = loop.until(ApplyPlus)
    assert plus.delta[0] == 0.0 and plus.delta[1] == free.until(ApplyPlus).delta[1]
    update = loop.until(Update)
    assert update.delta[0] == update.gradient_estimate[0] == 0.0 and update.delta[1] != 0
    assert loop.engine.rollback(loop.now_us).new_generation and loop.theta[0] == 0.7
    loop.engine.unpin(0, loop.now_us, "ana", "test over")
    assert loop.theta[0] == 0.7
    loop.now_us += 5 * SECOND
    assert abs(loop.until(ApplyPlus).delta[0]) > 0


def test_a_pin_is_reached_in_allowed_steps(bench):
    loop = bench()
    loop.engine.pin(1, 0.75, 0, "ana", "gently")
    path = [loop.theta[1]]
    while loop.theta[1] != 0.75:
        loop.step()
        path.append(loop.theta[1])
    assert path == pytest.approx([0.6, 0.7, 0.75])
    loop.steps(30)
    assert loop.theta[1] == 0.75 and loop.engine.proposer.iteration() > 0


def test_a_pin_outside_the_range_is_refused():
    engine = AdaptiveEngine(registry=KnobRegistry([Knob("a", 0, 10, 5)]))
    with pytest.raises(BadRules, match="pinned value"):
        engine.pin(0, 1.1, 0, "ana", "too far")
    with pytest.raises(BadRules, match="index"):
        engine.pin(1, 0.5, 0, "ana", "no such knob")


def test_with_a_full_audit_queue_pausing_is_possible_and_pinning_is_not(bench):
    loop = bench()
    queue = loop.engine.executor.audit_queue
    queue.capacity = 0
    with pytest.raises(AuditQueueFull):
        loop.engine.pin(0, 0.55, 0, "ana", "test", jump=True)
    assert loop.theta == (0.5, 0.5)
    loop.engine.pause(0, "ana", "drain it")
    assert [event.cause for event in loop.engine.drain_audit()] == ["drain it"]


def test_a_knob_set_starts_at_its_defaults():
    registry = KnobRegistry([Knob("a", 0, 10, 5), Knob("b", 1, 100, 10, scale="log")])
    assert AdaptiveEngine(registry=registry).snapshot().params == (0.5, 0.5)
    with pytest.raises(BadRules, match="initial_params"):
        AdaptiveEngine()


def test_a_proposal_that_was_overtaken_is_refused(bench):
    loop = bench()
    plus = loop.observe()
    loop.engine.rollback(loop.now_us, "ana", "between")
    with pytest.raises(StaleBase, match="observe"):
        loop.engine.apply(plus, loop.now_us)
    assert loop.engine.snapshot().params == (0.5, 0.5)


def test_without_a_baseline_the_engine_waits_for_one(bench):
    loop = bench(baseline=False)
    loop.step()
    assert isinstance(loop.refused[0], NoBaseline)
    loop.engine.set_baseline(loop.now_us)
    assert isinstance(loop.step(), ApplyPlus) and len(loop.refused) == 1


def test_a_fenced_leader_stops(bench):
    loop = bench()
    plus = loop.observe()
    loop.engine.fence()
    with pytest.raises(Fenced):
        loop.engine.apply(plus, loop.now_us)
    assert loop.step() == NoChange(NoChangeReason.NOT_LEADER)


def test_no_cycle_starts_while_the_budget_is_spent(bench):
    loop = bench(guardrails=Guardrails(max_cumulative_delta_per_minute=0.02))
    loop.engine.executor.control_safety.move((0.02, 0.02), (0.5, 0.5), 0)
    assert loop.step() == NoChange(NoChangeReason.BUDGET_EXHAUSTED)
    loop.now_us = 60 * SECOND
    assert isinstance(loop.step(), ApplyPlus)


def test_a_good_centre_becomes_the_baseline_only_where_that_is_wanted(bench):
    for wanted in (True, False):
        loop = bench(auto_promote=wanted)
        loop.steps(700)
        assert (loop.engine.executor.baseline.generation > 0) == wanted
        told = [e for e in loop.engine.drain_audit() if e.cause == "promotion"]
        assert bool(told) == wanted


def test_a_world_that_got_worse_promotes_nothing(bench):
    loop = bench(auto_promote=True, world=lambda live, now_us: now_us / 1e9)
    loop.steps(700)
    assert loop.engine.executor.baseline.params == (0.5, 0.5)


@pytest.mark.parametrize(("field", "value"), [("version", 0), ("seed", 1), ("registry", 123)])
def test_a_checkpoint_of_something_else_is_refused_by_name(bench, field, value):
    checkpoint = json.loads(json.dumps(bench().engine.checkpoint())) | {field: value}
    with pytest.raises(BadCheckpoint, match=field):
        AdaptiveEngine.restore(AdaptiveEngineConfig(), checkpoint)


def test_a_checkpoint_keeps_latches_pins_and_the_breaker(bench):
    loop = bench()
    loop.engine.pin(0, 0.55, 0, "ana", "test")
    loop.engine.executor.roll_back_automatically(0, "test", {})
    loop.engine.enter_safe_mode(0, "ana", "stop")
    loop.engine.pause(0, "ana", "too")
    restored = AdaptiveEngine.restore(AdaptiveEngineConfig(), json.loads(json.dumps(loop.engine.checkpoint())))
    for name in ("safe_mode", "pins", "paused_us", "baseline", "centre", "rolled_back_us"):
        assert getattr(restored.executor, name) == getattr(loop.engine.executor, name), name
    assert list(restored.executor.breaker.times_us) == [0]
    assert json.dumps(restored.checkpoint()) == json.dumps(loop.engine.checkpoint())


def test_the_fleets_numbers_fit_together():
    config = AdaptiveEngineConfig.for_fleet(seed=7)
    assert (config.seed, config.perturbation_scale, config.control.flip_hysteresis) == (7, 0.025, 0.05)
    assert config.guardrails.max_cumulative_delta_per_hour == 0.25
