import math
import os
import subprocess
import sys

import pytest

from scheduler.errors import BadRules
from scheduler.hotpath import AdaptiveEngineConfig, Guardrails, Spsa, SpsaConfig
from scheduler.hotpath.random_signs import signs, word
from scheduler.hotpath.spsa import trimmed_mean

PURE = SpsaConfig(k_floor=None)

GAINS = [
    (0, 0.023609218065474107, 0.01),
    (1, 0.022404377924347463, 0.009323864864368325),
    (2, 0.021350404225973049, 0.008949746893567633),
    (3, 0.020418833251343312, 0.008693445600900216),
    (4, 0.019588133807740014, 0.008499708457906336),
    (5, 0.018841686369479766, 0.008344623060592481),
    (9, 0.016473274777594173, 0.007925013304804718),
    (20, 0.012653196726335829, 0.007352852453019812),
]


def as_text(seed, k, n):
    return "".join("+" if sign > 0 else "-" for sign in signs(seed, k, n))


@pytest.mark.parametrize(("k", "a", "c"), GAINS)
def test_gains_follow_the_schedule(k, a, c):
    spsa = Spsa(config=PURE)
    assert spsa.learning_rate(k) == pytest.approx(a, rel=1e-14)
    assert spsa.perturbation_scale(k) == pytest.approx(c, rel=1e-14)


def test_late_gains_follow_the_schedule():
    spsa = Spsa(config=PURE)
    assert spsa.learning_rate(99) == pytest.approx(0.00590311988833, abs=1e-12)
    assert spsa.perturbation_scale(99) == pytest.approx(0.00628058358813, abs=1e-12)
    assert spsa.learning_rate(10_000) == pytest.approx(3.90582308775613e-4, rel=1e-12)
    assert spsa.perturbation_scale(10_000) == pytest.approx(3.94453318275832e-3, rel=1e-12)
    assert math.fsum(map(spsa.learning_rate, range(200))) == pytest.approx(1.47177280933, abs=1e-10)


def test_gains_fall_strictly_without_a_floor_and_stop_at_one():
    spsa = Spsa(config=PURE)
    for gain in (spsa.learning_rate, spsa.perturbation_scale):
        found = [gain(k) for k in range(10_001)]
        assert all(later < earlier for earlier, later in zip(found, found[1:], strict=False))
    floored = Spsa()
    assert {floored.learning_rate(k) for k in (20, 21, 10**6)} == {0.012653196726335829}
    assert {floored.perturbation_scale(k) for k in (20, 21, 10**6)} == {0.007352852453019812}


@pytest.mark.parametrize(
    ("seed", "n", "expected"),
    [
        (42, 3, "-+- ++- -++ -+- --- +++ +-+ +-+"),
        (0, 3, "+++ -++ +-- +++ -++ +-+ +-- +++"),
        (12345, 3, "+-- --+ --- -+- ++- -+- --+ --+"),
        (42, 2, "-+ -+ +- -+ +- +- -- -+"),
    ],
)
def test_signs_are_those_of_the_known_stream_in_whatever_order_they_are_asked_for(seed, n, expected):
    assert as_text(seed, 5, n) == expected.split()[5]
    assert " ".join(as_text(seed, k, n) for k in range(8)) == expected


def test_signs_are_balanced_and_probes_have_exactly_the_distance():
    drawn = [sign for k in range(10_000) for sign in signs(42, k, 4)]
    assert drawn.count(1) / len(drawn) == pytest.approx(0.5016, abs=5e-5)
    spsa = Spsa(42, 4)
    for k in range(50):
        spsa.iteration = k
        assert {abs(delta) for delta in spsa.generate_perturbation()} == {spsa.perturbation_scale(k)}


def test_the_stream_is_chacha8():
    assert word(42, 0) | word(42, 1) << 32 == 12578764544318200737
    assert [word(7, position) for position in range(3)] == [601310139, 677729076, 781920570]


def test_signs_do_not_depend_on_the_hash_seed_of_the_process():
    code = "from scheduler.hotpath.random_signs import signs; print([signs(9, k, 5) for k in range(20)])"
    environment = {**os.environ, "PYTHONHASHSEED": "77"}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == str([signs(9, k, 5) for k in range(20)])


@pytest.mark.parametrize(
    ("values", "mean"),
    [
        ([1, 2, 3, 4, 100], 3), ([1, 1, 1, 1, 100], 1), ([5, 1], 3), ([7], 7), ([1, 2, 9], 2), (range(1, 11), 5.5),
        (range(1, 12), 6),
    ],
)  # fmt: skip
def test_a_window_is_worth_its_trimmed_mean(values, mean):
    assert trimmed_mean(list(values)) == mean


def test_a_trim_that_would_leave_nothing_leaves_the_middle():
    assert trimmed_mean([1, 2, 5], 0.5) == 2
    assert trimmed_mean([1, 2], 0.6) == 1.5


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [1.0, math.inf]])
def test_a_window_without_numbers_is_worth_nothing(values):
    with pytest.raises(BadRules, match="values of a window"):
        trimmed_mean(values)


@pytest.mark.parametrize(("aggregation", "value"), [("trimmed_mean", 13 / 3), ("median", 4), ("mean", 22)])
def test_a_window_may_be_worth_its_median_or_mean(aggregation, value):
    spsa = Spsa(42, 1, config=SpsaConfig(aggregation=aggregation))
    spsa.start_plus_perturbation((0.01,))
    for sample in (1, 3, 4, 6, 96):
        spsa.record_objective(sample)
    spsa.complete_eval_window()
    assert spsa.state.y_plus == pytest.approx(value)


def test_digests_may_weigh_by_their_samples():
    assert trimmed_mean([1, 2], 0.0, [3, 1]) == 1.25


@pytest.mark.parametrize(
    ("guardrails", "fits", "too_large"),
    [(Guardrails.preset_balanced(), 0.05, 0.051), (Guardrails.preset_conservative(), 0.025, 0.026)],
)
def test_the_jump_from_plus_to_minus_must_fit_into_one_step(guardrails, fits, too_large):
    AdaptiveEngineConfig(guardrails=guardrails, perturbation_scale=fits)
    with pytest.raises(BadRules, match="at most half of max_delta_per_step"):
        AdaptiveEngineConfig(guardrails=guardrails, perturbation_scale=too_large)


@pytest.mark.parametrize("wrong", [{"perturbation_scale": 0.0}, {"learning_rate": -1.0}, {"learning_rate": math.nan}])
def test_gains_that_measure_or_move_nothing_are_refused(wrong):
    for make in (Spsa, AdaptiveEngineConfig):
        with pytest.raises(BadRules, match=next(iter(wrong))):
            make(**wrong)


@pytest.mark.parametrize("wrong", [{"eval_window_digests": 0}, {"alpha": 0}, {"gamma": -1}, {"stability_a": -1}])
def test_schedules_without_meaning_are_refused(wrong):
    with pytest.raises(BadRules, match=next(iter(wrong))):
        SpsaConfig(**wrong)


def test_a_drift_gives_gradients_of_either_sign_and_no_way_to_go():
    """Which way is measured first is drawn for each knob in each cycle, so what the second side has more of cancels."""
    spsa, now, cycles = Spsa(42, 3, config=SpsaConfig(eval_window_digests=5)), 0.0, 4000
    gradients = []
    for _ in range(cycles):
        spsa.start_plus_perturbation(spsa.generate_perturbation())
        found = None
        while found is None:
            while not spsa.has_enough_samples():
                now += 0.001  # worse with time, whatever the knobs are
                spsa.record_objective(now)
            found = spsa.complete_eval_window()
        gradients.append(found[0])
    for slopes in zip(*gradients, strict=True):
        size = sum(map(abs, slopes)) / cycles
        assert size > 0.3  # each alone is misled
        assert abs(sum(slopes) / cycles) < 3 * size / math.sqrt(cycles)
        assert 0.47 < sum(slope > 0 for slope in slopes) / cycles < 0.53
