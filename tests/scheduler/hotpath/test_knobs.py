import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.errors import BadRules
from scheduler.hotpath import Knob, KnobRegistry

WINDOW = Knob("window_ms", 1, 200, 20, scale="log", unit="ms")
CAP = Knob("batch_cap", 1, 512, 64, kind="int", scale="log")
LINEAR = Knob("share", 10, 20, 15)

knobs = st.builds(
    lambda lo, span, kind, scale: Knob("k", lo, lo + span, lo + span, kind, scale),
    st.integers(1, 100),
    st.integers(1, 1000),
    st.sampled_from(["float", "int"]),
    st.sampled_from(["linear", "log"]),
)


def test_known_values_have_known_coordinates():
    assert WINDOW.to_unit(20) == pytest.approx(0.565, abs=5e-4)
    assert Knob("epsilon", 3e-4, 1e-2, 1e-3, scale="log").to_unit(1e-3) == pytest.approx(0.343, abs=5e-4)
    assert (LINEAR.to_unit(10), LINEAR.to_unit(15), LINEAR.to_unit(20)) == (0.0, 0.5, 1.0)
    assert CAP.to_native(0.5) == 23 and isinstance(CAP.to_native(0.5), int)


@given(knobs, st.floats(0, 1))
@settings(max_examples=60)
def test_units_survive_the_way_to_native_and_back(knob, unit):
    native = knob.to_native(unit)
    if knob.kind == "float":
        assert knob.lo <= native <= knob.hi
        assert knob.to_unit(native) == pytest.approx(unit, abs=1e-9)
    else:
        assert native == round(native)
        assert knob.to_native(knob.realised(unit)) == native


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"lo": 20},
        {"hi": math.inf},
        {"default": 21},
        {"scale": "log", "lo": 0.0},
        {"scale": "cubic"},
        {"kind": "bool"},
        {"kind": "int", "lo": 10.5},
        {"min_probe": -1},
        {"max_delta": 2},
    ],
)
def test_knobs_without_meaning_are_refused(wrong):
    with pytest.raises(BadRules):
        dataclasses.replace(LINEAR, **wrong)


def test_the_smallest_useful_change_depends_on_where_the_knob_is():
    knob = dataclasses.replace(CAP, min_probe=1)
    assert knob.probe(0.0) == pytest.approx(math.log(2) / math.log(512))
    assert knob.probe(0.9) < 0.01
    assert knob.probe(1.0) > 0
    assert CAP.probe(0.5) == 0.0


def test_a_registry_keeps_the_order_in_which_it_was_made():
    registry = KnobRegistry([WINDOW, CAP])
    assert (registry.get_id("batch_cap"), registry.get_name(0), len(registry)) == (1, "window_ms", 2)
    vec = registry.to_vec({"batch_cap": 64, "window_ms": 20})
    assert vec == registry.defaults()
    assert registry.to_natives(vec) == {"window_ms": pytest.approx(20), "batch_cap": 64}


@pytest.mark.parametrize(
    "natives", [{"window_ms": 20}, {"window_ms": 20, "batch_cap": 64, "x": 1}, {"window_ms": 20, "batch_cap": 513}]
)
def test_missing_unknown_and_outlying_values_are_refused(natives):
    with pytest.raises(BadRules):
        KnobRegistry([WINDOW, CAP]).to_vec(natives)


def test_names_are_unique_and_known():
    with pytest.raises(BadRules, match="unique"):
        KnobRegistry([CAP, CAP])
    with pytest.raises(BadRules, match="window_ms"):
        KnobRegistry([WINDOW]).get_id("windows_ms")
    with pytest.raises(BadRules, match="number of knobs"):
        KnobRegistry([])


def test_the_hash_changes_with_anything_that_matters():
    variants = [[WINDOW, CAP], [CAP, WINDOW], [WINDOW], [dataclasses.replace(WINDOW, hi=201), CAP]]
    assert len({KnobRegistry(knobs).hash64 for knobs in variants}) == len(variants)
    assert KnobRegistry([WINDOW, CAP]).hash64 == KnobRegistry([WINDOW, CAP]).hash64 < 2**64
