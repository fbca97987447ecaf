import dataclasses
import math

import pytest

from scheduler.errors import BadRules, ClockWentBack
from scheduler.hotpath import (
    ApplyMinus,
    ApplyPlus,
    AtomicConfig,
    AuditQueue,
    Guardrails,
    Knob,
    KnobRegistry,
    NoChange,
    NoChangeReason,
    RollbackPolicy,
    SafetyExecutor,
    Update,
)
from scheduler.hotpath.control_safety import ControlRules, FlipTracker
from scheduler.hotpath.errors import (
    AuditQueueFull,
    ConstraintViolation,
    CumulativeDeltaViolation,
    DeltaTooLarge,
    DirectionFlipViolation,
    Fenced,
    InSafeMode,
    NoBaseline,
    NotFinite,
    OutOfBounds,
    Paused,
    Pinned,
    RateLimitExceeded,
    StaleBase,
    UnknownParameter,
)
from scheduler.hotpath.safe_mode import ManualReset, SafeModeReason

SECOND = 1_000_000
OPEN = {"min_interval_us": 1, "max_updates_per_second": 1e6}
ROOMY = {**OPEN, "max_cumulative_delta_per_minute": 1e6}


def update(*delta):
    return Update(0, delta, (0.0,) * len(delta))


def outcome(executor, proposal, now_us):
    """None if accepted, else the kind of the violation."""
    try:
        executor.apply(proposal, now_us)
    except Exception as violation:
        return type(violation)
    return None


def test_the_presets_are_the_published_ones():
    assert dataclasses.astuple(Guardrails.preset_conservative())[:7] == (0.05, 2, 500_000, 2, 60_000_000, 0.25, 3)
    assert dataclasses.astuple(Guardrails.preset_balanced())[:7] == (0.10, 10, 100_000, 3, 30_000_000, 0.50, 5)
    assert dataclasses.astuple(Guardrails.preset_aggressive())[:7] == (0.20, 20, 50_000, 5, 10_000_000, 1.00, 8)
    assert Guardrails() == Guardrails.preset_balanced() and Guardrails().bounds is None
    assert dataclasses.astuple(RollbackPolicy.preset_conservative()) == (2, 2, 30_000_000)
    assert dataclasses.astuple(RollbackPolicy.preset_balanced()) == (3, 4, 5_000_000)
    assert dataclasses.astuple(RollbackPolicy.preset_aggressive()) == (5, 10, 1_000_000)
    assert RollbackPolicy() == RollbackPolicy.preset_balanced()


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_delta_per_step": 0},
        {"max_delta_per_step": 1.1},
        {"max_updates_per_second": math.nan},
        {"min_interval_us": 0},
        {"direction_flip_limit": 0},
        {"regression_count_limit": 0},
        {"bounds": ((1.0, 0.0),)},
        {"bounds": ((0.0, math.inf),)},
    ],
)
def test_limits_without_meaning_are_refused(wrong):
    with pytest.raises(BadRules, match=next(iter(wrong))):
        Guardrails(**wrong)


def test_bounds_are_given_for_every_knob_and_hold_at_the_start():
    with pytest.raises(BadRules, match="number of bounds"):
        SafetyExecutor(AtomicConfig((0.5, 0.5)), Guardrails(bounds=((0.0, 1.0),)))
    with pytest.raises(BadRules, match="inside its bounds"):
        SafetyExecutor(AtomicConfig((1.5,)), Guardrails(bounds=((0.0, 1.0),)))


def test_a_step_may_reach_the_limit_and_not_pass_it(executor):
    made = executor()
    made.apply(update(0.1, -0.1), 0)
    assert made.centre == pytest.approx((0.6, 0.4))
    with pytest.raises(DeltaTooLarge) as refused:
        made.apply(update(0.1000001, 0), SECOND)
    assert refused.value.details["param_id"] == 0
    assert made.snapshot().generation == 1


def test_the_first_knob_that_goes_too_far_is_named(executor):
    with pytest.raises(DeltaTooLarge) as refused:
        executor().apply(update(0.2, 0.3), 0)
    assert refused.value.details == {"param_id": 0, "delta": 0.2, "max": 0.1}


@pytest.mark.parametrize(
    ("delta", "violation"),
    [
        ((math.nan, 0.0), NotFinite),
        ((math.inf, 0.0), NotFinite),
        ((0.01,), UnknownParameter),
        ((0.01, 0.01, 0.01), UnknownParameter),
    ],
)
def test_what_is_no_move_of_this_vector_changes_nothing(executor, delta, violation):
    made = executor()
    before = made.control_safety.checkpoint()
    with pytest.raises(violation):
        made.apply(update(*delta), 0)
    assert made.snapshot().params == made.centre == (0.5, 0.5)
    assert made.snapshot().generation == 0
    assert made.control_safety.checkpoint() == before and not made.rate.accepted_us


def test_a_bound_may_be_reached_exactly_and_not_passed(executor):
    made = executor(start=(0.96,), bounds=((0.0, 1.0),))
    with pytest.raises(OutOfBounds) as refused:
        made.apply(update(0.05), 0)
    assert refused.value.details["value"] == pytest.approx(1.01)
    made.apply(update(0.04), 0)
    assert made.centre == (1.0,)


def test_changes_keep_their_distance_in_time(executor):
    made = executor()
    times = (0, 99_999, 100_000, 150_000, 200_000)
    found = [outcome(made, update(0.01, 0), now_us) for now_us in times]
    assert found == [None, RateLimitExceeded, None, RateLimitExceeded, None]


def test_only_so_many_changes_fit_into_a_sliding_second(executor):
    made = executor(min_interval_us=1)
    found = [outcome(made, update(0.001, 0), i * 10_000) for i in range(12)]
    assert found == [None] * 10 + [RateLimitExceeded] * 2
    assert outcome(made, update(0.001, 0), 999_999) is RateLimitExceeded
    assert made.apply(NoChange(NoChangeReason.AWAITING_SAMPLES), 999_999).new_generation == 10
    assert outcome(made, update(0.001, 0), SECOND) is None


def test_less_than_one_change_a_second_is_one_in_a_longer_window(executor):
    made = executor(max_updates_per_second=0.5)
    found = [outcome(made, update(0.01, 0), now_us) for now_us in (0, 1_999_999, 2_000_000)]
    assert found == [None, RateLimitExceeded, None]


def test_a_refusal_for_the_rate_says_when_to_come_back(executor):
    made = executor()
    made.apply(update(0.01, 0), 7)
    with pytest.raises(RateLimitExceeded) as refused:
        made.apply(update(0.01, 0), 8)
    assert refused.value.earliest_us == 100_007


def test_the_first_reason_in_the_fixed_order_is_the_one_reported(executor):
    made = executor()
    made.audit_queue.capacity = 1
    made.enter_safe_mode(0, SafeModeReason.MANUAL_TRIGGER, ManualReset())
    too_far = update(0.5, 0)
    assert outcome(made, too_far, 0) is AuditQueueFull
    made.audit_queue.drain()
    made.audit_queue.capacity = 100
    assert outcome(made, too_far, 0) is InSafeMode
    made.reset_safe_mode(0, "ana", "test")
    assert outcome(made, too_far, 0) is DeltaTooLarge


def test_without_a_baseline_nothing_moves_and_nothing_returns(executor):
    made = executor(baseline=False)
    assert outcome(made, update(0.01, 0), 0) is NoBaseline
    with pytest.raises(NoBaseline):
        made.rollback(0)
    assert made.snapshot().generation == 0


def test_a_minute_has_a_budget(executor):
    made = executor()
    found = [outcome(made, update(0.1, 0), s * SECOND) for s in range(6)]
    assert found == [None] * 5 + [CumulativeDeltaViolation]
    assert outcome(made, update(0.1, 0), 60 * SECOND - 1) is CumulativeDeltaViolation
    assert outcome(made, update(0.1, 0), 60 * SECOND) is None
    assert made.safe_mode is None


def test_the_budget_counts_both_ways(executor):
    made = executor(direction_flip_limit=99, h=0.0)
    found = [outcome(made, update(0.1 * sign, 0), s * SECOND) for s, sign in enumerate((1, -1, 1, -1, 1, -1))]
    assert found == [None] * 5 + [CumulativeDeltaViolation]


def test_the_budget_has_no_gap_at_the_turn_of_a_minute(executor):
    made = executor()
    times = [59 * SECOND + i * 100_000 for i in range(4)] + [60 * SECOND + 1 + i * 100_000 for i in range(5)]
    found = [outcome(made, update(0.1, 0), now_us) for now_us in times]
    assert found == [None] * 5 + [CumulativeDeltaViolation] * 4


def test_an_hour_may_have_a_budget_too(executor):
    made = executor(max_cumulative_delta_per_hour=0.25)
    found = [outcome(made, update(0.1, 0), minute * 60 * SECOND) for minute in range(3)]
    assert found == [None, None, CumulativeDeltaViolation]
    assert outcome(made, update(0.1, 0), 3600 * SECOND) is None


def test_the_headroom_is_the_smallest_of_step_budget_and_bound(executor):
    made = executor(start=(0.52, 0.5), bounds=((0.0, 1.0), (0.0, 1.0)))
    for s in range(4):
        made.apply(update(0.1, 0), s * SECOND)
    made.apply(update(0.05, 0), 4 * SECOND)
    low, high = made.footing(5 * SECOND).headroom[0]
    assert high == pytest.approx(0.03) and low == pytest.approx(-0.05)
    assert made.footing(5 * SECOND).headroom[1] == pytest.approx((-0.1, 0.1))


def test_probes_cost_no_budget_and_are_no_flips(executor):
    made = executor(h=0.0)
    for i in range(20):
        kind = ApplyMinus if i % 2 else ApplyPlus
        made.apply(kind(i, (0.05 if i % 2 == 0 else -0.05, 0.0)), i * 100_000)
    assert made.control_safety.budget_left(3 * SECOND) == (0.5, 0.5)
    assert made.safe_mode is None and made.centre == (0.5, 0.5)
    assert outcome(made, ApplyPlus(20, (0.05, 0.0)), 1_900_001) is RateLimitExceeded


@pytest.mark.parametrize(
    ("preset", "refused", "until_s"),
    [
        (Guardrails.preset_conservative(), 4, 63),
        (Guardrails.preset_balanced(), 5, 34),
        (Guardrails.preset_aggressive(), 7, 16),
    ],
)
def test_a_centre_that_turns_too_often_is_stopped(executor, preset, refused, until_s):
    made = executor(preset, h=0.0)
    found = [outcome(made, update(0.01 * (-1) ** i, 0), i * SECOND) for i in range(refused)]
    assert found == [None] * (refused - 1) + [DirectionFlipViolation]
    assert made.safe_mode.reason is SafeModeReason.THRASHING
    assert made.safe_mode.until_us == until_s * SECOND


@pytest.mark.parametrize(("at_s", "expected"), [(69, DirectionFlipViolation), (70, None)])
def test_turns_age_out_of_a_sliding_minute(executor, at_s, expected):
    made = executor(h=0.0, **ROOMY)
    for s, sign in ((0, 1), (10, -1), (20, 1), (30, -1)):
        made.apply(update(0.01 * sign, 0), s * SECOND)
    assert outcome(made, update(0.01, 0), at_s * SECOND) is expected


def turns(path, h):
    tracker = FlipTracker(path[0], h)
    for value in path[1:]:
        tracker.move(value, 0)
    return len(tracker.flips_us)


def test_standing_still_is_no_direction():
    assert turns([0.5, 0.51, 0.51, 0.5], 0.0) == 1


def test_small_turns_are_not_counted_with_hysteresis():
    zigzag = [0.5 + 0.01 * (i % 2) for i in range(21)]
    assert turns(zigzag, 0.03) == 0 and turns(zigzag, 0.0) == 19
    assert turns([0.5, 0.55, 0.5, 0.55, 0.5, 0.55], 0.03) == 4
    assert turns([0.50, 0.52, 0.54, 0.53, 0.52, 0.51, 0.50], 0.03) == 1


def test_the_gates_of_a_fleet_come_before_safe_mode(executor):
    made = executor()
    made.enter_safe_mode(0, SafeModeReason.MANUAL_TRIGGER, ManualReset())
    made.pin(1, 0.5, 0)
    assert outcome(made, update(0.01, 0.01), 0) is Pinned
    made.paused_us = 0
    assert outcome(made, update(0.01, 0.01), 0) is Paused
    with pytest.raises(StaleBase):
        made.apply(update(0.01, 0), 0, base_generation=99)
    made.fenced = True
    assert outcome(made, update(0.01, 0), 0) is Fenced
    assert made.snapshot().generation == 0


def test_no_update_while_a_constraint_is_broken(executor):
    made = executor()
    made.margin = -0.1
    assert outcome(made, update(0.01, 0), 0) is ConstraintViolation
    assert outcome(made, ApplyPlus(0, (0.01, 0.01)), 0) is None


def test_a_knob_may_have_a_step_of_its_own():
    registry = KnobRegistry([Knob("a", 0, 1, 0.5, max_delta=0.02), Knob("b", 0, 1, 0.5)])
    made = SafetyExecutor(AtomicConfig((0.5, 0.5)), registry=registry)
    made.set_baseline(0)
    assert outcome(made, update(0.021, 0), 0) is DeltaTooLarge
    assert outcome(made, update(0.02, 0.1), 0) is None
    assert outcome(made, update(0.0, 0.1), SECOND) is None
    assert made.bounds == ((0.0, 1.0), (0.0, 1.0))


def test_three_defects_in_a_row_stop_the_proposer_until_somebody_looks(executor):
    made = executor()
    for now_us in range(3):
        outcome(made, update(0.5, 0), now_us)
    assert made.safe_mode.reason is SafeModeReason.REPEATED_VIOLATIONS and made.safe_mode.manual


def test_a_refusal_that_is_no_retry_ends_the_probe(executor):
    made = executor()
    made.apply(ApplyPlus(0, (0.01, 0.01)), 0)
    outcome(made, update(0.5, 0), SECOND)
    assert made.snapshot().params == made.centre == (0.5, 0.5)
    assert made.snapshot().generation == 2


def test_a_retry_is_told_once(executor):
    made = executor()
    made.apply(update(0.01, 0), 0)
    for now_us in range(1, 50):
        outcome(made, update(0.01, 0), now_us)
    kinds = [event.event_type.value for event in made.audit_queue.drain()]
    assert kinds == ["apply", "violation"]


def test_time_must_not_go_back(executor):
    made = executor()
    made.tick(10)
    with pytest.raises(ClockWentBack, match="monotonic"):
        made.apply(update(0.01, 0), 9)


def test_rules_of_the_watch_are_checked():
    for wrong in ({"flip_hysteresis": -0.1}, {"regression_z": math.nan}, {"regression_threshold": 0}):
        with pytest.raises(BadRules, match=next(iter(wrong))):
            ControlRules(**wrong)
    with pytest.raises(BadRules, match="capacity"):
        AuditQueue(0)
