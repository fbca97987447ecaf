"""A picture is one file that stands alone, whatever the history looks like."""

from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from predictor_core import NothingSeen, PredictorConfig, ProcessState
from predictor_core.charts import made_before, page
from predictor_core.functional import prediction_result
from predictor_core.graph import Program
from predictor_core.svg import number, ruler

PROGRAM = Program(PredictorConfig())  # for the fields of its results; it is never compiled


def history(ticks, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=ticks).cumsum()
    records = np.zeros(ticks, PROGRAM.result_dtype)
    records["reference_prediction"] = values + rng.normal(size=ticks)
    records["confidence_lower"] = records["reference_prediction"] - 2
    records["confidence_upper"] = records["reference_prediction"] + 2
    records["weights"] = rng.dirichlet(np.ones(4), ticks)
    records["regime_change_detected"] = rng.random(ticks) < 0.05
    records["emergency_mode"] = rng.random(ticks) < 0.1
    return values, records, np.arange(ticks) * 10**9


class Page(HTMLParser):
    """Notes the tags, and fails on those left open."""

    def __init__(self, text):
        super().__init__()
        self.open, self.links, self.paths = [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.links += [value for name, value in given.items() if name in ("src", "href")]
        self.paths += [given["d"]] if tag == "path" else []
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_a_picture_stands_alone_and_knows_night_and_phones(tmp_path):
    values, records, times_ns = history(3000)
    path = prediction_result(records).plot(values, times_ns, "acme/<b>").save(tmp_path / "a.html")
    text = path.read_text(encoding="utf-8")
    drawn = Page(text)
    assert not drawn.links and "<script" not in text and "acme/&lt;b&gt;" in text
    assert "prefers-color-scheme: dark" in text and "width=device-width" in text
    for title in ("Value, forecast and band", "Weights of the kernels", "Hölder exponent", "CUSUM"):
        assert title in text
    assert len(drawn.paths) == 11 and len(text) < 400_000


@settings(max_examples=25, deadline=None)
@given(ticks=st.integers(1, 40), seed=st.integers(0, 99), holes=st.floats(0, 1), big=st.sampled_from([0.0, 1e300]))
def test_any_history_can_be_drawn(ticks, seed, holes, big):
    values, records, times_ns = history(ticks, seed)
    rng = np.random.default_rng(seed)
    gone = rng.random(ticks) < holes
    records["rejected"][gone] = 1
    for name in ("reference_prediction", "confidence_lower", "confidence_upper", "weights"):
        records[name][gone] = np.nan
    values[rng.random(ticks) < holes] = np.nan
    values *= max(big, 1.0)
    drawn = Page(page(prediction_result(records), values, times_ns).html)
    assert not any("nan" in path or "inf" in path for path in drawn.paths)


def test_a_value_is_drawn_beside_the_forecast_that_was_out_when_it_came():
    accepted = np.array([True, True, False, True])
    assert made_before([10.0, 11.0, 12.0, 13.0], accepted) == pytest.approx([np.nan, 10, 11, 11], nan_ok=True)


def test_rulers_stand_at_round_numbers_inside_the_span():
    for span, told in (((-0.02, 0.57), ["0", "0.2", "0.4"]), ((-5.0, 131.8), ["0", "50", "100"])):
        assert [label for label in told if f">{label}<" in ruler(span)[1]] == told
    assert ruler((1e16, 1e16 + 2))[1] and ruler((3.0, 3.0 + 1e-12))[1]


@pytest.mark.parametrize("value, told", [(0.0, "0"), (-12345.6, "-12,345.6"), (2.5e9, "2.5e+09"), (np.nan, "-")])
def test_numbers_are_short(value, told):
    assert number(value) == told


def test_a_picture_is_of_one_asset_and_of_values_of_one_length():
    values, records, times_ns = history(10)
    results = prediction_result(records)
    with pytest.raises(ValueError, match="one length"):
        results.plot(values[:9], times_ns)
    with pytest.raises(ValueError, match="draw results"):
        prediction_result(records.reshape(2, 5)).plot(values, times_ns)
    with pytest.raises(ValueError, match="at least 1"):
        results[:0].plot([], [])


def test_a_notebook_shows_a_picture_in_a_frame_of_its_own(make_universal):
    universal = make_universal(asset="EURUSD")
    with pytest.raises(NothingSeen):
        universal.plot()
    for second in range(1, 40):
        universal.step(ProcessState(np.sin(second), second * 10**9), second * 10**9)
    shown = universal.plot()._repr_html_()
    assert shown.startswith("<iframe srcdoc=") and "EURUSD" in shown
    Page(shown)
