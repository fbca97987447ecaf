import math
import random

import pytest

from scheduler.errors import BadRules
from scheduler.hotpath import AdaptiveEngineConfig, TelemetryDigest
from scheduler.hotpath.observer import Observer


def observed(sigma, digests=20_000, config=None):
    observer, noise = Observer(config or AdaptiveEngineConfig()), random.Random(1)
    for now_us in range(digests):
        observer.observe(TelemetryDigest(1, 2.0 + noise.gauss(0, sigma), 10, now_us, 0))
    return observer.estimate()


def test_the_scatter_between_windows_is_measured():
    found = observed(0.01)
    assert found.windows == 4_000 and found.objective == pytest.approx(2.0, abs=1e-3)
    # The mean of the middle three of five scatters a little more than that of all five.
    assert found.sigma_y == pytest.approx(0.01 / math.sqrt(5), rel=0.1)
    assert found.gradient_known is False


def test_a_quiet_fleet_may_keep_its_gains():
    found = observed(0.0, 100)
    assert (found.perturbation_scale, found.learning_rate, found.window_factor) == (0.01, 0.1, 1.0)


def test_a_noisy_fleet_needs_longer_probes_and_at_last_longer_windows():
    noisy, noisier = observed(0.03), observed(0.2)
    assert noisy.perturbation_scale == pytest.approx(2 * noisy.sigma_y) and noisy.window_factor == 1.0
    assert noisier.perturbation_scale == 0.05 and noisier.window_factor > 10


def test_noise_alone_moves_no_knob_far():
    config = AdaptiveEngineConfig(learning_rate=1.0)
    found = observed(0.03, config=config)
    gain = found.learning_rate / (1 + config.spsa.stability_a) ** config.spsa.alpha
    assert gain * found.sigma_y * math.sqrt(2) / (2 * found.perturbation_scale) == pytest.approx(0.02)


def test_what_is_no_number_is_left_out_and_too_little_is_no_estimate():
    observer = Observer(AdaptiveEngineConfig())
    for value in (math.nan, 1.0, 1.0, math.inf, 1.0, 1.0, 1.0):
        observer.observe(TelemetryDigest(1, value, 10, 0, 0))
    assert observer.windows == 1
    with pytest.raises(BadRules, match="at least 2"):
        observer.estimate()
