import json

import pytest

from scheduler.hotpath import (
    ApplyMinus,
    ApplyPlus,
    AtomicConfig,
    EventType,
    Guardrails,
    NoChange,
    NoChangeReason,
    RollbackPolicy,
    SafeModeReason,
    SafetyExecutor,
    Update,
)
from scheduler.hotpath.control_safety import ControlRules, RegressionTracker, Verdict
from scheduler.hotpath.errors import CooldownActive, InSafeMode, ProbeActive
from scheduler.hotpath.spsa import Ready

SECOND = 1_000_000
MINUTE = 60 * SECOND
FINE, WORSE, BACK, FREEZE = Verdict.FINE, Verdict.WORSE, Verdict.ROLL_BACK, Verdict.FREEZE


def judged(*objectives):
    tracker = RegressionTracker(ControlRules(), 3, 5)
    return [tracker.judge(objective) for objective in objectives]


def test_three_worse_cycles_in_a_row_roll_back():
    assert judged(1, 1.02, 1.03, 1.04) == [FINE, WORSE, WORSE, BACK]


def test_worse_is_strictly_above_the_threshold():
    assert judged(1, 1.01) == [FINE, FINE]


def test_a_good_cycle_in_between_starts_the_count_again():
    assert judged(1, 1.02, 1.02, 1.0, 1.02, 1.02, 1.02) == [FINE, WORSE, WORSE, FINE, WORSE, WORSE, BACK]


@pytest.mark.parametrize("worse", [1.02, 50.0])
def test_if_the_baseline_is_worse_too_tuning_stops(worse):
    assert judged(1, *[worse] * 5) == [FINE, WORSE, WORSE, BACK, WORSE, FREEZE]


def test_a_slow_ramp_is_seen():
    assert judged(*(1 + 0.0099 * i for i in range(5))) == [FINE, FINE, WORSE, WORSE, BACK]


def test_noise_is_no_regression():
    tracker = RegressionTracker(ControlRules(), 3, 5)
    tracker.judge(1.0)
    tracker.variance = 2 * 0.02**2
    assert tracker.sigma == pytest.approx(0.02)
    assert tracker.judge(1.05) is FINE
    tracker.reference = 1.0
    assert tracker.judge(1.07) is WORSE


def test_the_engine_rolls_back_by_itself_and_then_stops(bench):
    values = iter([1.0] + [1.02] * 5)
    loop = bench(world=lambda live, now_us: 0.0)
    for value in values:
        loop.until(ApplyPlus)
        loop.steps(10, objective_value=value)
        if loop.engine.executor.rolled_back_us == loop.now_us:
            loop.now_us += 5 * SECOND
    history = [
        event for event in loop.engine.drain_audit() if event.event_type.value in ("rollback", "safe_mode_entered")
    ]
    assert [event.event_type.value for event in history] == ["rollback", "rollback", "safe_mode_entered"]
    assert json.loads(history[0].details)["objective"] == pytest.approx(1.02)
    assert len(loop.engine.executor.breaker.times_us) == 1
    latch = loop.engine.executor.safe_mode
    assert latch.reason is SafeModeReason.OBJECTIVE_REGRESSION
    assert latch.until_us == latch.entered_at_us + 30 * SECOND


def test_after_safe_mode_the_world_is_learned_again(bench):
    loop = bench(world=lambda live, now_us: 1.0 if now_us < 5 * SECOND else 9.0)
    loop.steps(2_000)
    assert loop.engine.executor.control_safety.regression.reference == pytest.approx(9.0)
    assert loop.engine.executor.safe_mode is None


def test_a_rollback_brings_the_values_back_and_the_number_forward(executor):
    made = executor()
    for i in range(3):
        made.apply(Update(i, (0.01, 0.01), (0.0, 0.0)), i * SECOND)
    receipt = made.rollback(5 * SECOND, "ana", "wrong way")
    assert made.snapshot().params == made.centre == (0.5, 0.5)
    assert (receipt.new_generation, receipt.reverted_to_generation) == (4, 0)
    assert (receipt.cause, receipt.actor) == ("wrong way", "ana")
    with pytest.raises(CooldownActive) as refused:
        made.apply(Update(3, (0.01, 0.01), (0.0, 0.0)), 10 * SECOND - 1)
    assert refused.value.earliest_us == 10 * SECOND
    made.apply(Update(3, (0.01, 0.01), (0.0, 0.0)), 10 * SECOND)


@pytest.mark.parametrize(
    ("policy", "allowed"),
    [
        (RollbackPolicy.preset_conservative(), 2),
        (RollbackPolicy.preset_balanced(), 4),
        (RollbackPolicy.preset_aggressive(), 10),
    ],
)
def test_one_automatic_rollback_too_many_in_an_hour_stops_tuning_until_somebody_looks(policy, allowed):
    made = SafetyExecutor(AtomicConfig((0.5,)), Guardrails(), policy)
    made.set_baseline(0)
    for i in range(allowed + 1):
        assert made.safe_mode is None
        made.apply(Update(i, (0.01,), (0.0,)), i * MINUTE)
        made.roll_back_automatically(i * MINUTE, "test", {})
        assert made.centre == (0.5,)
    assert made.safe_mode.reason is SafeModeReason.REPEATED_VIOLATIONS and made.safe_mode.manual


@pytest.mark.parametrize(("last_us", "trips"), [(3_600 * SECOND - 1, True), (3_600 * SECOND, False)])
def test_the_hour_of_the_breaker_slides(executor, last_us, trips):
    made = executor()
    for now_us in (0, MINUTE, 2 * MINUTE, 3 * MINUTE, last_us):
        made.tick(now_us)
        made.roll_back_automatically(now_us, "test", {})
    assert (made.safe_mode is not None) == trips


def test_a_tripped_breaker_lets_an_operator_roll_back_and_nothing_else(executor):
    made = executor()
    for i in range(5):
        made.roll_back_automatically(i * MINUTE, "test", {})
    made.rollback(5 * MINUTE, "ana", "to be sure")
    with pytest.raises(InSafeMode):
        made.apply(Update(0, (0.01, 0.0), (0.0, 0.0)), 3 * 3600 * SECOND)
    assert len(made.breaker.times_us) == 5


def test_a_probe_cannot_become_the_baseline(executor):
    made = executor()
    before = made.baseline
    made.apply(ApplyPlus(0, (0.01, 0.01)), 0)
    with pytest.raises(ProbeActive):
        made.set_baseline(1)
    assert made.baseline == before


def test_a_rollback_during_a_measurement_throws_it_away_and_keeps_the_iteration(bench):
    loop = bench()
    loop.until(Update)
    loop.until(ApplyMinus)
    loop.steps(2)
    loop.engine.rollback(loop.now_us, "ana", "no")
    assert loop.engine.spsa_state() == Ready()
    assert loop.step() == NoChange(NoChangeReason.COOLDOWN_ACTIVE)
    loop.now_us += 5 * SECOND
    assert loop.until(ApplyPlus).perturbation_id == 1


def test_a_rollback_tells_why_and_where_to(executor):
    made = executor()
    made.apply(Update(0, (0.01, 0.0), (0.0, 0.0)), 0)
    made.roll_back_automatically(SECOND, "objective_regression", {"objective": 2.0})
    event = made.audit_queue.drain()[-1]
    assert event.event_type is EventType.ROLLBACK
    assert (event.actor, event.cause, event.base_generation, event.generation) == (
        "engine",
        "objective_regression",
        1,
        2,
    )
    assert json.loads(event.details)["reverted_to_generation"] == 0
