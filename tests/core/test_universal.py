"""UniversalPredictor says what the fleet says, and goes on through everything that a feed may do."""

import logging
import warnings
from datetime import UTC, datetime

import numpy as np
import pytest

from predictor_core import (
    BadObservation,
    ConfigRefused,
    Diverged,
    Event,
    FunctionalPredictor,
    MarketObservation,
    NothingSeen,
    PredictorConfig,
    ProcessState,
    RejectReason,
    UniversalPredictor,
    WrongLayout,
    WrongShape,
)
from predictor_core.alerts import Alerts
from predictor_core.errors import FrequencyWarning, StalenessWarning
from predictor_core.warmup import is_stable

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND


@pytest.fixture
def walk(rng):
    return 100 + rng.normal(size=250).cumsum()


def same(one, other):
    numbers = ("reference_prediction", "confidence_lower", "confidence_upper", "quantiles")
    return all(np.array_equal(getattr(one, name), getattr(other, name), equal_nan=True) for name in numbers)


def feed(predictor, values, first=0):
    """One value a second, each arriving as it happens."""
    results = []
    for index, value in enumerate(values, first):
        now = START + index * SECOND
        results.append(predictor.step(ProcessState(value, now), arrival_ns=now))
    return results


def test_it_predicts_bit_for_bit_what_a_fleet_predicts(make_universal, program, walk):
    results = feed(make_universal(), walk[:60])
    assets, ticks = 150, 60  # the same asset among 149 others, all of them in one run
    values = np.repeat(walk[:60], assets) + np.tile(np.arange(assets), ticks)
    times_ns = np.repeat(START + np.arange(ticks) * SECOND, assets)
    row_of = np.tile(np.arange(assets), ticks)
    _, records = program.run(program.cold(assets), row_of, values, times_ns, times_ns)
    mine = records[row_of == 0]
    assert [result.reference_prediction for result in results] == list(mine["reference_prediction"])
    assert np.array_equal(np.stack([result.quantiles for result in results]), mine["quantiles"])
    assert np.array_equal(np.stack([result.telemetry.weights for result in results]), mine["weights"])


def test_its_state_is_the_one_of_the_pure_function(make_universal, predictor, walk):
    universal = make_universal()
    feed(universal, walk[:20])
    _, expected = predictor.step(universal.state, ProcessState(walk[20], START + 20 * SECOND))
    assert same(feed(universal, walk[20:21], 20)[0], expected)


def test_a_state_that_is_set_is_gone_on_from(make_universal, walk):
    one, other = make_universal(), make_universal()
    feed(one, walk[:30])
    other.state = one.state
    assert same(feed(one, walk[30:31], 30)[0], feed(other, walk[30:31], 30)[0])


def test_a_state_of_another_config_or_of_several_assets_is_refused(make_universal, predictor):
    universal = make_universal()
    with pytest.raises(WrongShape, match="got 2"):
        universal.state = predictor.init_states(2)
    with pytest.raises(WrongLayout):
        universal.state = FunctionalPredictor(PredictorConfig(confidence_level=0.9)).init_state()


def test_both_kinds_of_observation_mean_the_same(make_universal, walk):
    one, other = make_universal(), make_universal()
    for index, value in enumerate(walk[:10]):
        now = START + index * SECOND
        moment = datetime.fromtimestamp(now // SECOND, UTC)
        first = one.step(ProcessState(np.array([value]), moment), now)
        assert same(first, other.step(MarketObservation(value, value, now), now))


def test_predict_next_is_the_forecast_that_is_out(make_universal, walk):
    universal = make_universal()
    with pytest.raises(NothingSeen, match="fit_history"):
        universal.predict_next()
    last = feed(universal, walk[:5])[-1]
    assert same(universal.predict_next(), last)
    now = START + 5 * SECOND
    assert same(universal.predict_next(ProcessState(walk[5], now)), universal.predict_next())


@pytest.mark.parametrize(
    "observation, why",
    [
        (ProcessState("abc", START), "a value is one number, got 'abc'"),
        (ProcessState(np.array([1.0, 2.0]), START), "a value is one number, got array"),
        (ProcessState(1.0, "2026-01-01"), "whole nanoseconds since 1970 in 64 bits, got '2026-01-01'"),
        (ProcessState(1.0, None), "got None"),
        (ProcessState(1.0, 2**70), "in 64 bits"),
        (MarketObservation(1.0, timestamp_ns=float("nan")), "got nan"),
        (1.0, "an observation is a ProcessState or a MarketObservation, got 1.0"),
    ],
)
def test_what_is_no_observation_is_refused_in_a_line_and_changes_nothing(make_universal, observation, why):
    universal = make_universal(clock=lambda: START)
    before = universal.state
    for take in (universal.step, universal.predict_next, universal.validate_domain):
        with pytest.raises(BadObservation, match=why) as raised:
            take(observation)
        assert isinstance(raised.value, ValueError) and "\n" not in str(raised.value)
    assert universal.state == before


@pytest.mark.parametrize("mistake", [{"config": {}}, {"snapshots": "folder"}, {"dumps": "folder"}])
def test_a_part_of_another_kind_is_refused_by_name(mistake):
    (name,) = mistake
    with pytest.raises(TypeError, match=f"{name} must be a .*, got"):
        UniversalPredictor(**mistake)


def test_the_clock_says_when_a_tick_arrived(make_universal):
    universal = make_universal(clock=lambda: START)
    assert universal.step(ProcessState(1.0, START + 10 * SECOND)).rejected == RejectReason.future
    assert universal.step(ProcessState(1.0, START)).rejected == RejectReason.accepted


@pytest.mark.parametrize("value, seconds, why", [(np.nan, 30, "not_finite"), (1.0, 29, "late"), (1.0, 5, "late")])
def test_a_rejected_tick_changes_nothing_and_gets_the_last_valid_forecast(make_universal, walk, value, seconds, why):
    universal = make_universal()
    last = feed(universal, walk[:30])[-1]
    before = universal.state
    answer = universal.step(ProcessState(value, START + seconds * SECOND), START + seconds * SECOND)
    assert same(answer, last) and answer.reject_reason.name == why
    assert universal.state == before


def test_a_rejected_first_tick_says_so_without_a_forecast(make_universal):
    answer = make_universal().step(ProcessState(np.inf, START), START)
    assert answer.rejected == RejectReason.not_finite and np.isnan(answer.reference_prediction)


def test_a_run_of_rejected_ticks_is_logged_once(make_universal, walk, caplog):
    universal = make_universal(asset="EURUSD")
    feed(universal, walk[:3])
    feed(universal, [np.nan] * 5, 3)
    feed(universal, walk[3:5], 8)
    feed(universal, [np.nan] * 5, 10)
    told = [record for record in caplog.records if record.getMessage() == "tick_rejected"]
    assert [(record.asset, record.reason) for record in told] == [("EURUSD", "not_finite")] * 2


def test_a_short_history_is_refused(make_universal):
    with pytest.raises(ValueError, match="127 usable values.*wtmm_buffer_size = 128"):
        make_universal().fit_history([1.0] * 127)
    with pytest.raises(ValueError, match="127 usable"):
        make_universal().fit_history([*range(127), np.nan, np.inf])
    with pytest.raises(WrongShape, match="a list of numbers"):
        make_universal().fit_history(np.ones((2, 100)))
    with pytest.raises(WrongShape):
        make_universal().fit_history(range(200), timestamps_ns=range(1, 100))


def test_a_history_is_taken_as_if_its_values_had_come_one_by_one(make_universal, walk):
    one, other = make_universal(), make_universal()
    one.fit_history(walk, START + np.arange(len(walk)) * SECOND)
    assert same(feed(other, walk)[-1], one.predict_next())
    assert one.state == other.state


def test_a_calm_history_ends_stable(make_universal, walk):
    assert make_universal().fit_history(walk) is True


def test_the_verdict_on_a_history_does_not_depend_on_its_unit(make_universal, walk):
    assert make_universal().fit_history(walk) == make_universal().fit_history(1e6 * walk)


def test_a_history_without_times_lets_the_first_live_tick_start_the_clock(make_universal, walk, recwarn):
    universal = make_universal()
    universal.fit_history(walk)
    answer = universal.step(ProcessState(walk[-1] + 0.1, START), START)
    assert answer.rejected == RejectReason.accepted
    assert not answer.telemetry.degraded_inference_mode and not list(recwarn)


@pytest.mark.parametrize(
    "converged, up, down, verdict",
    [(1, 0.0, 0.0, True), (1, 9.9, 0.0, True), (0, 0.0, 0.0, False), (1, 10.1, 0.0, False), (1, 0.0, 10.1, False)],
)
def test_a_cold_start_is_stable_if_sinkhorn_converged_and_no_sum_has_drifted(program, converged, up, down, verdict):
    record = np.zeros(1, program.result_dtype)[0]
    record["sinkhorn_converged"], record["cusum_drift"], record["cusum_drift_down"] = converged, up, down
    record["sigma"] = 2.0
    assert is_stable(record, cusum_h=5.0) is verdict


def test_a_history_that_diverges_raises_and_leaves_the_state(make_universal, program, walk):
    universal = make_universal()
    rows = universal.state.rows.copy()
    for name, field in program.fields(rows).items():
        if name.startswith("orchestrator"):
            field[...] = np.nan
    universal.state = type(universal.state)(rows, program.layout_fingerprint)
    with pytest.raises(Diverged) as raised:
        universal.fit_history(walk)
    assert isinstance(raised.value, RuntimeError) and "not finite" in str(raised.value)
    assert universal.state.rows.tobytes() == rows.tobytes()


def test_validate_domain_judges_by_the_assets_own_measure_and_changes_nothing(make_universal, walk):
    universal = make_universal()
    feed(universal, walk)
    before, now = universal.state, START + len(walk) * SECOND
    assert universal.validate_domain(ProcessState(walk[-1] + 2, now))
    assert not universal.validate_domain(ProcessState(walk[-1] + 1e6, now))
    assert not universal.validate_domain(ProcessState(np.nan, now))
    assert universal.state == before


def test_a_catastrophic_value_is_not_learnt_from_and_the_forecast_stands(make_universal, walk, caplog):
    universal = make_universal()
    last = feed(universal, walk)[-1]
    answer = feed(universal, [walk[-1] + 1e6], len(walk))[0]
    assert "DomainError" in answer.event_names and "DomainError" in caplog.messages
    assert abs(answer.reference_prediction - last.reference_prediction) < 5


def test_stale_ticks_warn_once_an_episode_and_freeze_the_weights(make_universal, walk, caplog):
    universal = make_universal(asset="EURUSD")
    feed(universal, walk[:200])
    with pytest.warns(StalenessWarning, match="EURUSD") as warned:
        for index in range(200, 220):
            now = START + index * SECOND
            answer = universal.step(ProcessState(walk[index], now), now + SECOND)
    assert len(warned) == 1 and caplog.messages.count("StalenessWarning") == 1
    assert warned[0].filename == __file__
    assert answer.telemetry.degraded_inference_mode and answer.mode == "Robust"
    with caplog.at_level(logging.INFO):
        feed(universal, walk[220:240], 220)
    assert "NormalOperationRestoredEvent" in caplog.messages


def test_a_gap_warns_of_the_frequency(make_universal, walk):
    universal = make_universal()
    feed(universal, walk[:200])
    with pytest.warns(FrequencyWarning):
        feed(universal, walk[200:201], 2000)


def test_a_warning_turned_into_an_error_does_not_cost_the_tick(make_universal, walk):
    universal = make_universal()
    feed(universal, walk[:200])
    now = START + 200 * SECOND
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(StalenessWarning):
            universal.step(ProcessState(walk[200], now), now + SECOND)
    assert universal.step(ProcessState(walk[200], now), now).reject_reason.name == "late"


def test_an_episode_of_the_gates_ends_with_the_degraded_mode_only():
    alerts, late = Alerts("x"), Event.StalenessWarning | Event.DegradedInference
    assert alerts.begun(late) == late
    assert not alerts.begun(Event.DegradedInference)
    assert not alerts.begun(late)
    assert alerts.begun(0) == Event(0)
    assert alerts.begun(late) == late
    assert alerts.begun(late | Event.RegimeChangeDetected) == Event.RegimeChangeDetected


def test_alerts_of_every_kind_are_logged_by_their_names(caplog):
    with caplog.at_level(logging.INFO), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Alerts("x").tell(Event(0xFFFF), {})
    for name in ("DomainError", "StalenessWarning", "FrequencyWarning", "ModeDegradationAlert", "EmergencyMode"):
        assert name in caplog.messages
    assert {"KurtosisOutlierWarning", "NormalOperationRestoredEvent", "IntegrityError"} <= set(caplog.messages)


def test_numbers_of_the_config_swap_without_losing_the_state_or_compiling(make_universal, walk):
    universal = make_universal()
    feed(universal, walk[:50])
    before, compilations = universal.state, universal._program.compilations
    assert universal.reconfigure(PredictorConfig(cusum_h=7.5, staleness_ttl_ns=1))
    assert universal.state == before and universal.config.cusum_h == 7.5
    with pytest.warns(StalenessWarning):
        now = START + 50 * SECOND
        universal.step(ProcessState(walk[50], now), now + 1000)
    assert universal._program.compilations == compilations


def test_shapes_change_only_if_a_restart_is_allowed(make_universal, walk):
    universal = make_universal()
    feed(universal, walk[:50])
    before, other = universal.state, PredictorConfig(wtmm_buffer_size=256)
    with pytest.raises(ConfigRefused, match="wtmm_buffer_size cannot change"):
        universal.reconfigure(other)
    assert universal.state == before and universal.config == PredictorConfig()


def test_many_predictors_share_one_program(make_universal):
    one, other = make_universal(), make_universal()
    assert one._program._executable(3) is other._program._executable(3)
    assert isinstance(one, UniversalPredictor)
