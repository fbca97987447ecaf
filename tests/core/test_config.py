"""A config is checked once, whole, and says what it wants."""

import dataclasses
import math

import numpy as np
import pytest

from predictor_core import PredictorConfig
from predictor_core.config import Params, Shapes

# What programs that were written for this class rely on.
PUBLISHED = {
    "schema_version": "1.0",
    "epsilon": 1e-3,
    "learning_rate": 0.01,
    "jko_domain_length": 1.0,
    "entropy_window_relaxation_factor": 5.0,
    "entropy_window_bounds_min": 10,
    "entropy_window_bounds_max": 500,
    "learning_rate_safety_factor": 0.8,
    "learning_rate_minimum": 1e-6,
    "sinkhorn_cost_type": "squared",
    "sinkhorn_huber_delta": 1.0,
    "log_sig_depth": 3,
    "wtmm_buffer_size": 128,
    "besov_cone_c": 1.5,
    "koopman_top_k": 5,
    "koopman_min_power": 1e-10,
    "paley_wiener_integral_max": 100.0,
    "kernel_c_jump_intensity": 0.05,
    "kernel_c_jump_mean": 0.0,
    "kernel_c_jump_scale": 0.1,
    "kernel_c_jump_max_events": 16,
    "holder_threshold": 0.4,
    "robustness_dimension_threshold": 1.5,
    "robustness_force_kernel_d": True,
    "entropy_scaling_trigger": 2.0,
    "sde_fd_epsilon": 1e-6,
    "signal_sampling_interval": 1.0,
    "cusum_h": 5.0,
    "cusum_k": 0.5,
    "grace_period_steps": 20,
    "degraded_recovery_min_steps": 2,
    "volatility_alpha": 0.1,
    "staleness_ttl_ns": 500_000_000,
    "besov_nyquist_interval_ns": 100_000_000,
    "inference_recovery_hysteresis": 0.8,
}


def test_published_names_have_their_published_defaults():
    config = PredictorConfig()
    assert {name: getattr(config, name) for name in PUBLISHED} == PUBLISHED
    assert config.float_precision == 32 and config.confidence_level == 0.95 and len(config.quantile_levels) == 23


def test_a_config_is_a_value():
    same = PredictorConfig(cusum_h=4, grace_period_steps=np.int64(5), quantile_levels=[0.1, 0.5, 0.9])
    config = PredictorConfig(cusum_h=4.0, grace_period_steps=5, quantile_levels=(0.1, 0.5, 0.9))
    assert same == config != PredictorConfig()
    assert hash(same) == hash(config) and repr(same) == repr(config)
    with pytest.raises(dataclasses.FrozenInstanceError):
        PredictorConfig().cusum_h = 3.0


def test_every_field_is_either_static_or_traced():
    names = {field.name for field in dataclasses.fields(PredictorConfig)}
    static = {field.name for field in dataclasses.fields(Shapes)}
    assert static | set(Params._fields) == names - {"schema_version"}
    assert not static & set(Params._fields)


def test_params_are_numbers_of_two_kinds():
    params = PredictorConfig().params()
    assert {value.dtype for value in params} == {np.dtype(np.float64), np.dtype(np.int64)}
    assert params._fields == Params._fields
    assert [value.dtype for value in PredictorConfig(cusum_h=3).params()] == [value.dtype for value in params]


def test_equal_shapes_are_one_key():
    assert hash(PredictorConfig(cusum_h=3.0).static()) == hash(PredictorConfig().static())
    assert PredictorConfig(cusum_h=3.0).static() == PredictorConfig().static()
    assert PredictorConfig(log_sig_depth=5).static() != PredictorConfig().static()


@pytest.mark.parametrize("field", [f for f in dataclasses.fields(PredictorConfig) if not f.metadata["static"]])
def test_a_number_out_of_range_is_refused_by_name(field):
    low, high = field.metadata["allowed"]
    for bad in (math.nextafter(low, -math.inf), math.nextafter(high, math.inf) * 1.001 + 1, math.nan, "1", None):
        with pytest.raises(ValueError, match=rf"{field.name} must be a .*number in \[.*\], got"):
            PredictorConfig(**{field.name: bad})
    widest = {"entropy_window_bounds_min": 1, "entropy_window_bounds_max": 100_000}
    for good in (low, high):
        assert getattr(PredictorConfig(**{**widest, field.name: type(field.default)(good)}), field.name) == good


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("float_precision", 16),
        ("log_sig_depth", 4),
        ("koopman_top_k", 0),
        ("sinkhorn_cost_type", "cubic"),
        ("schema_version", "2.0"),
        ("confidence_level", 1.0),
        ("quantile_levels", (0.5, 0.1, 0.9)),
        ("quantile_levels", (0.5,)),
        ("quantile_levels", (0.0, 0.5, 1.0)),
        ("quantile_levels", (0.1, 0.1, 0.9)),
        ("quantile_levels", (0.1, math.nan, 0.9)),
    ],
)
def test_a_choice_that_does_not_exist_is_refused_by_name(name, bad):
    with pytest.raises(ValueError, match=name):
        PredictorConfig(**{name: bad})


def test_bounds_must_not_cross():
    with pytest.raises(ValueError, match="must not exceed"):
        PredictorConfig(entropy_window_bounds_min=20, entropy_window_bounds_max=10)


def test_a_mapping_makes_the_same_config():
    assert PredictorConfig.from_mapping({"cusum_h": 4}) == PredictorConfig(cusum_h=4.0)


def test_an_unknown_name_is_refused_with_the_nearest_known_one():
    with pytest.raises(ValueError, match="unknown predictor setting 'cusum_hh'; did you mean 'cusum_h'"):
        PredictorConfig.from_mapping({"cusum_hh": 4})
    with pytest.raises(ValueError, match=r"'zzz'\.$"):
        PredictorConfig.from_mapping({"zzz": 1})
