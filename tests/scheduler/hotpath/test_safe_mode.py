import pytest

from scheduler.hotpath import (
    ApplyMinus,
    ApplyPlus,
    NoChange,
    NoChangeReason,
    SafeModeReason,
    Update,
)
from scheduler.hotpath.errors import DirectionFlipViolation, InSafeMode
from scheduler.hotpath.objective import constraint_margin
from scheduler.hotpath.safe_mode import AuditDrained, ManualReset, ObjectiveRecovery, Timer
from scheduler.hotpath.spsa import Ready

SECOND = 1_000_000


def zigzag(i):
    return Update(i, (0.01 * (-1) ** i, 0.0), (0.0, 0.0))


def test_after_the_timer_nothing_is_remembered_against_the_centre(executor):
    made = executor(h=0.0)
    for i in range(4):
        made.apply(zigzag(i), i * SECOND)
    with pytest.raises(DirectionFlipViolation):
        made.apply(zigzag(4), 4 * SECOND)
    with pytest.raises(InSafeMode):
        made.apply(zigzag(4), 34 * SECOND - 1)
    made.apply(zigzag(4), 34 * SECOND)
    made.apply(zigzag(5), 35 * SECOND)


def test_an_operators_latch_is_not_weakened_by_a_timer(executor):
    made = executor()
    made.enter_safe_mode(0, SafeModeReason.MANUAL_TRIGGER, ManualReset(), "ana", "look at it")
    made.enter_safe_mode(SECOND, SafeModeReason.THRASHING, Timer(30 * SECOND))
    assert made.safe_mode.reason is SafeModeReason.MANUAL_TRIGGER
    made.tick(3600 * SECOND)
    assert made.safe_mode is not None
    made.reset_safe_mode(3600 * SECOND, "ana", "looked at it")
    assert made.safe_mode is None


def test_a_shorter_timer_does_not_shorten_the_latch(executor):
    made = executor()
    made.enter_safe_mode(0, SafeModeReason.THRASHING, Timer(30 * SECOND))
    made.enter_safe_mode(5 * SECOND, SafeModeReason.EVAL_TIMEOUT, Timer(10 * SECOND))
    assert made.safe_mode.until_us == 30 * SECOND and made.safe_mode.reason is SafeModeReason.THRASHING
    made.enter_safe_mode(25 * SECOND, SafeModeReason.EVAL_TIMEOUT, Timer(10 * SECOND))
    assert made.safe_mode.until_us == 35 * SECOND and made.safe_mode.reason is SafeModeReason.EVAL_TIMEOUT


def test_every_condition_must_be_met(executor):
    made = executor()
    made.enter_safe_mode(0, SafeModeReason.THRASHING, Timer(10))
    made.enter_safe_mode(0, SafeModeReason.AUDIT_QUEUE_FULL, AuditDrained())
    made.audit_queue.mark = 0
    made.tick(10)
    assert made.safe_mode is not None
    made.audit_queue.mark = 99
    made.tick(11)
    assert made.safe_mode is None


def test_an_objective_that_has_recovered_opens_its_latch(bench):
    loop = bench(world=lambda live, now_us: 1.0)
    loop.step()
    loop.step()
    loop.engine.enter_safe_mode(loop.now_us, "ana", "wait for it to get better", ObjectiveRecovery(0.2))
    assert loop.step(objective_value=0.81) == NoChange(NoChangeReason.SAFE_MODE)
    loop.steps(2, objective_value=0.8)
    assert loop.engine.executor.safe_mode is None


def test_a_latch_during_a_measurement_returns_to_the_centre_at_once(bench):
    loop = bench()
    loop.until(ApplyMinus)
    loop.steps(2)
    generation, k = loop.engine.snapshot().generation, loop.engine.proposer.iteration()
    loop.engine.enter_safe_mode(loop.now_us, "ana", "stop")
    assert loop.engine.snapshot().params == loop.theta == (0.5, 0.5)
    assert loop.engine.snapshot().generation == generation + 1
    assert loop.engine.spsa_state() == Ready() and loop.engine.proposer.iteration() == k


def test_in_safe_mode_nothing_is_proposed_and_the_way_back_stays_open(bench):
    loop = bench()
    loop.engine.enter_safe_mode(0, "ana", "stop")
    assert loop.step() == NoChange(NoChangeReason.SAFE_MODE)
    assert loop.engine.rollback(loop.now_us).reverted_to_generation == 0


def test_silence_in_a_window_ends_in_safe_mode_after_three_timeouts(bench):
    loop = bench()
    engine = loop.engine
    engine.apply(engine.tick(0), 0)
    assert engine.tick(509_999) == NoChange(NoChangeReason.AWAITING_SAMPLES)
    assert engine.tick(510_000) == NoChange(NoChangeReason.EVAL_TIMEOUT)
    assert engine.tick(1_009_999) == NoChange(NoChangeReason.AWAITING_SAMPLES)
    assert engine.tick(1_010_000) == NoChange(NoChangeReason.EVAL_TIMEOUT)
    assert engine.tick(1_510_000) == NoChange(NoChangeReason.SAFE_MODE)
    latch = engine.executor.safe_mode
    assert (latch.reason, latch.until_us) == (SafeModeReason.EVAL_TIMEOUT, 31_510_000)
    assert engine.snapshot().params == (0.5, 0.5) and engine.proposer.iteration() == 0
    assert engine.tick(31_509_999) == NoChange(NoChangeReason.SAFE_MODE)
    assert isinstance(engine.tick(31_510_000), ApplyPlus)


def test_samples_survive_a_timeout_and_a_late_one_completes_the_window(bench):
    loop = bench()
    loop.until(ApplyPlus)
    loop.steps(4)
    loop.now_us += 200_000
    assert loop.engine.tick(loop.now_us) == NoChange(NoChangeReason.EVAL_TIMEOUT)
    assert isinstance(loop.step(), ApplyMinus)
    assert loop.engine.proposer.timeouts == 0


def test_a_broken_constraint_ends_the_probe_and_a_badly_broken_one_goes_back_at_once(bench):
    loop = bench()
    loop.until(ApplyPlus)
    assert loop.step(constraint_margin=-0.5) == NoChange(NoChangeReason.CONSTRAINT_VIOLATION)
    assert loop.engine.snapshot().params == (0.5, 0.5)
    assert loop.engine.executor.rolled_back_us is None and loop.engine.executor.safe_mode is None
    loop = bench()
    loop.until(ApplyPlus)
    assert loop.step(constraint_margin=-0.6) == NoChange(NoChangeReason.SAFE_MODE)
    assert loop.engine.executor.rolled_back_us == loop.now_us
    assert loop.engine.executor.safe_mode.reason is SafeModeReason.REPEATED_VIOLATIONS
    assert not loop.engine.executor.safe_mode.manual


def test_a_margin_is_the_smallest_share_of_a_limit_that_is_left():
    assert constraint_margin([(0.0015, 0.001)]) == pytest.approx(-0.5)
    assert constraint_margin([(0.0016, 0.001), (1, 2)]) == pytest.approx(-0.6)


@pytest.mark.parametrize(("rate", "rolled_back"), [(0.0015, False), (0.0016, True)])
def test_the_border_of_the_margin_is_hit_in_spite_of_rounding(bench, rate, rolled_back):
    loop = bench()
    loop.until(ApplyPlus)
    loop.step(constraint_margin=constraint_margin([(rate, 0.001)]))
    assert (loop.engine.executor.rolled_back_us is not None) == rolled_back


def test_a_centre_that_breaks_a_constraint_for_three_windows_goes_back(bench):
    loop = bench()
    loop.until(Update)
    loop.until(ApplyPlus)
    found = [loop.step(constraint_margin=-0.1).reason for _ in range(16)]
    told = [i for i, reason in enumerate(found) if reason is NoChangeReason.CONSTRAINT_VIOLATION]
    assert told == [0, 5, 10, 15]
    assert loop.theta == (0.5, 0.5) and loop.engine.executor.rolled_back_us == loop.now_us


def test_tuning_goes_on_when_the_constraint_holds_again(bench):
    loop = bench()
    loop.until(ApplyPlus)
    loop.steps(8, constraint_margin=-0.1)
    assert isinstance(loop.step(constraint_margin=0.0), ApplyPlus)
