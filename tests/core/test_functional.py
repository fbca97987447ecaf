"""One step, a batch and a history are the same predictor, and its states are values."""

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest

from predictor_core import (
    CorruptRecord,
    Event,
    FunctionalPredictor,
    MarketObservation,
    OperatingMode,
    PredictionResult,
    PredictorConfig,
    ProcessState,
    RejectReason,
    States,
    Telemetry,
    WrongLayout,
    WrongShape,
)

SECOND = 1_000_000_000
NAMES = ("reference_prediction", "confidence_lower", "confidence_upper", "operating_mode", "quantiles", "events")


def leaves(result):
    return [np.asarray(leaf) for leaf in (*(getattr(result, name) for name in (*NAMES, "rejected")), *result.telemetry)]


def same(first, second):
    pairs = zip(leaves(first), leaves(second), strict=True)
    return all(np.ascontiguousarray(a).tobytes() == np.ascontiguousarray(b).tobytes() for a, b in pairs)


@pytest.fixture
def values(rng):
    return 50 + np.cumsum(rng.standard_normal((3, 40)), 1)


def test_step_and_replay_agree(predictor, values):
    state = predictor.init_state()
    replayed_state, replayed = predictor.replay(state, values[:1])
    for at, value in enumerate(values[0]):
        state, result = predictor.step(state, ProcessState(value, (at + 1) * SECOND))
        assert same(result, replayed[0, at]), at
    assert state == replayed_state


def test_step_batch_and_replay_agree(predictor, values):
    states = predictor.init_states(3)
    replayed_states, replayed = predictor.replay(states, values)
    for at in range(values.shape[1]):
        states, results = predictor.step_batch(states, [ProcessState(v, (at + 1) * SECOND) for v in values[:, at]])
        assert same(results, replayed[:, at]), at
    assert states == replayed_states


def test_one_observation_may_hold_a_whole_batch(predictor, values):
    states, moment = predictor.init_states(3), datetime(2026, 2, 18, tzinfo=UTC)
    after, results = predictor.step_batch(states, [ProcessState(value, moment) for value in values[:, 0]])
    time_ns = ProcessState(0.0, moment).timestamp_ns
    for batch in (
        ProcessState(values[:, 0], moment),
        MarketObservation(values[:, 0], None, time_ns),
        MarketObservation(values[:, :1], None, np.full(3, time_ns)),
    ):
        again, same_results = predictor.step_batch(states, batch)
        assert again == after and same(same_results, results)


def test_a_history_can_be_replayed_in_pieces(predictor, values):
    states, whole = predictor.replay(predictor.init_states(3), values)
    first, early = predictor.replay(predictor.init_states(3), values[:, :17])
    second, late = predictor.replay(first, values[:, 17:])
    assert second == states
    assert same(late, whole[:, 17:]) and same(early, whole[:, :17])


def test_the_future_changes_nothing(predictor, values):
    _, before = predictor.replay(predictor.init_states(3), values)
    changed = values.copy()
    changed[:, 30:] += 7
    _, after = predictor.replay(predictor.init_states(3), changed)
    assert same(after[:, :30], before[:, :30])
    assert not same(after[:, 30:], before[:, 30:])


def test_nan_means_no_tick_here(predictor, values):
    holes = np.full((3, 60), np.nan)
    holes[0, :40] = values[0]
    holes[1, 20:] = values[1]
    holes[2, 10:20], holes[2, 30:] = values[2, :10], values[2, 10:]
    states, whole = predictor.replay(predictor.init_states(3), values)
    gappy_states, gappy = predictor.replay(predictor.init_states(3), holes)
    assert gappy_states == states
    assert same(gappy[0, :40], whole[0]) and same(gappy[1, 20:], whole[1])
    empty = np.isnan(holes)
    assert np.isnan(gappy.reference_prediction[empty]).all() and np.isnan(gappy.quantiles[empty]).all()
    assert not gappy.telemetry.regime_change_detected[empty].any()
    assert (gappy.rejected[empty] == RejectReason.not_finite).all() and not gappy.rejected[~empty].any()


def test_a_batch_may_leave_an_asset_out(predictor):
    states, _ = predictor.replay(predictor.init_states(2), np.ones((2, 5)))
    after, results = predictor.step_batch(states, [ProcessState(np.nan, 9 * SECOND), ProcessState(1.5, 9 * SECOND)])
    assert after[0] == states[0] and after[1] != states[1]
    assert np.isnan(results.reference_prediction[0]) and np.isfinite(results.reference_prediction[1])


def test_results_have_the_shape_of_the_call(predictor, values):
    levels = len(predictor.config.quantile_levels)
    states, history = predictor.replay(predictor.init_states(3), values)
    _, batch = predictor.step_batch(states, [ProcessState(1.0, 99 * SECOND)] * 3)
    _, single = predictor.step(states[0], ProcessState(1.0, 99 * SECOND))
    for result, shape in ((history, (3, 40)), (batch, (3,)), (single, ())):
        for name in NAMES:
            assert np.shape(getattr(result, name)) == shape + ((levels,) if name == "quantiles" else ()), name
        for name, leaf in result.telemetry._asdict().items():
            assert np.shape(leaf) == shape + ((4,) if name == "weights" else ()), name


def test_forecasts_keep_their_promises_of_form(predictor, values):
    _, result = predictor.replay(predictor.init_states(3), values)
    assert (result.confidence_lower <= result.reference_prediction).all()
    assert (result.reference_prediction <= result.confidence_upper).all()
    assert (np.diff(result.quantiles, axis=-1) >= 0).all()
    np.testing.assert_allclose(result.telemetry.weights.sum(-1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("value", "seconds", "arrival", "reason"),
    [
        (1.0, 5, None, RejectReason.late),
        (np.inf, 6, None, RejectReason.not_finite),
        (1.0, 500, 7, RejectReason.future),
    ],
)
def test_a_rejected_step_raises_nothing_and_changes_nothing(predictor, value, seconds, arrival, reason):
    state, _ = predictor.replay(predictor.init_state(), np.ones((1, 5)))
    arrival_ns = arrival and arrival * SECOND
    after, result = predictor.step(state, ProcessState(value, seconds * SECOND), arrival_ns)
    assert after == state
    assert result.reject_reason == reason
    assert np.isnan(result.reference_prediction) and np.isnan(result.quantiles).all()


def test_a_clock_may_be_given_once_for_all_or_for_each(predictor, values):
    times_ns = np.cumsum(np.arange(1, 41)) * SECOND
    _, shared = predictor.replay(predictor.init_states(3), values, times_ns)
    _, own = predictor.replay(predictor.init_states(3), values, np.tile(times_ns, (3, 1)), times_ns)
    assert same(shared, own)


def test_without_timestamps_no_clock_warns(predictor, values):
    _, result = predictor.replay(predictor.init_states(3), values)
    clock = Event.StalenessWarning | Event.FrequencyWarning
    assert not (result.events & clock).any()


def test_either_kind_of_observation_does(predictor):
    moment = datetime(2026, 2, 18, 12, 0, 0, 123456, tzinfo=UTC)
    old = MarketObservation(price=np.array([3.25]), target=None, timestamp_ns=ProcessState(0.0, moment).timestamp_ns)
    new = ProcessState(magnitude=np.float32(3.25), timestamp_utc=moment, state_tag="open", dispersion_proxy=0.1)
    first, by_price = predictor.step(predictor.init_state(), old)
    second, by_magnitude = predictor.step(predictor.init_state(), new)
    assert first == second and same(by_price, by_magnitude)


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2262, 4, 11, 23, 47, 16, 854775, tzinfo=UTC),
        datetime(1677, 9, 22, 0, 12, 43, 1, tzinfo=UTC),
        datetime(2026, 2, 18, 12, 0, 0, 999999, tzinfo=timezone(timedelta(hours=-5))),
    ],
)
def test_datetimes_become_exact_nanoseconds(moment):
    naive = moment.astimezone(UTC).replace(tzinfo=None)
    assert ProcessState(1.0, moment).timestamp_ns == int(np.datetime64(naive, "ns"))
    assert ProcessState(1.0, naive).timestamp_ns == ProcessState(1.0, moment).timestamp_ns
    assert ProcessState(1.0, 2**62 + 1).timestamp_ns == 2**62 + 1


def test_validate_domain_is_about_the_raw_number():
    assert ProcessState(-20.0, 0).validate_domain() and not ProcessState(20.5, 0).validate_domain()
    assert MarketObservation(41.0).validate_domain(sigma_bound=20, sigma_val=2.1)
    assert not MarketObservation(np.nan).validate_domain()


def test_states_are_values(predictor, values):
    states, _ = predictor.replay(predictor.init_states(3), values)
    with pytest.raises(ValueError):
        states.rows[0, 0] = 1
    before = states.to_bytes()
    predictor.replay(states, values[:, ::-1])
    assert states.to_bytes() == before
    assert len(states) == 3 and len(states[1]) == 1 and len(states[[2, 0]]) == 2
    assert States.join(list(states)) == states and hash(States.join(list(states))) == hash(states)
    assert states[1] != states[2] and states != 3


def test_states_go_through_bytes(predictor, values):
    states, _ = predictor.replay(predictor.init_states(3), values)
    data = states.to_bytes()
    assert predictor.states_from_bytes(data) == states
    assert len(predictor.states_from_bytes(b"")) == 0
    with pytest.raises(CorruptRecord, match="whole number"):
        predictor.states_from_bytes(data[:-1])
    with pytest.raises(CorruptRecord):
        predictor.states_from_bytes(data[:100] + b"?" + data[101:])


def test_states_of_another_config_are_refused(predictor):
    other = FunctionalPredictor(PredictorConfig(float_precision=64))
    with pytest.raises(WrongLayout, match="another config"):
        predictor.step(other.init_state(), ProcessState(1.0, 1))
    with pytest.raises(WrongLayout, match="cannot be joined"):
        States.join([predictor.init_state(), other.init_state()])


def test_calls_that_do_not_fit_are_refused(predictor):
    two = predictor.init_states(2)
    with pytest.raises(WrongShape, match="step_batch"):
        predictor.step(two, ProcessState(1.0, 1))
    with pytest.raises(WrongShape, match="one observation for each of 2 states"):
        predictor.step_batch(two, [ProcessState(1.0, 1)])
    with pytest.raises(WrongShape, match="n = 2"):
        predictor.replay(two, np.ones((3, 4)))


def test_a_result_can_be_made_of_anything_and_looks_at_nothing():
    telemetry = Telemetry(*[object()] * len(Telemetry._fields))
    result = PredictionResult(object(), object(), object(), object(), telemetry=telemetry, request_id="r")
    assert result.predicted_next is result.reference_prediction and result.request_id == "r"


def test_modes_have_names():
    names = [OperatingMode.to_string(mode) for mode in (0, 1, 2, 7)]
    assert names == ["inference", "calibration", "diagnostic", "inference"]
    flags = Telemetry(*[False] * len(Telemetry._fields))
    cases = {
        "Standard": flags,
        "Robust": flags._replace(degraded_inference_mode=True),
        "Emergency": flags._replace(degraded_inference_mode=True, emergency_mode=True),
    }
    for name, telemetry in cases.items():
        assert PredictionResult(0.0, 0.0, 0.0, 0, telemetry=telemetry).mode == name
    several = flags._replace(emergency_mode=np.array([True, False]))
    assert PredictionResult(0.0, 0.0, 0.0, 0, telemetry=several).mode.tolist() == ["Emergency", "Standard"]


def test_event_bits_have_their_published_names():
    assert Event.names(0) == []
    assert Event.names(Event.FrozenSignal | Event.StalenessWarning) == ["StalenessWarning", "FrozenSignal"]
    assert Event.names(1 << 31 | 1) == ["DomainError"]
    assert [event.value for event in Event] == [1 << bit for bit in range(len(Event))]
