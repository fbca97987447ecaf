"""A picture is one file that stands alone, whatever the history looks like."""

from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from predictor_core import PredictorConfig
from predictor_core.functional import prediction_result
from predictor_core.graph import Program
from worker.charts import _made_before, picture, write_picture

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
    write_picture(tmp_path / "a.html", prediction_result(records), values, times_ns, "acme/<b>")
    text = (tmp_path / "a.html").read_text()
    page = Page(text)
    assert not page.links and "<script" not in text and "acme/&lt;b&gt;" in text
    assert "prefers-color-scheme: dark" in text and "width=device-width" in text
    for title in ("Value, forecast and band", "Weights of the kernels", "Hölder exponent", "CUSUM"):
        assert title in text
    assert len(page.paths) == 11 and len(text) < 400_000


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
    page = Page(picture(prediction_result(records), values, times_ns, ""))
    assert not any("nan" in path or "inf" in path for path in page.paths)


def test_a_value_is_drawn_beside_the_forecast_that_was_out_when_it_came():
    accepted = np.array([True, True, False, True])
    assert _made_before([10.0, 11.0, 12.0, 13.0], accepted) == pytest.approx([np.nan, 10, 11, 11], nan_ok=True)


def test_replay_draws_the_asset_that_is_asked_for(tmp_path):
    from worker.errors import BadInput
    from worker.replayplot import plot_file
    from worker.settings import load
    from worker.ticksfile import TicksFile

    rows = [f"{asset},{tick * 10**9},{np.sin(tick + ord(asset))}" for tick in range(1, 60) for asset in "ab"]
    (tmp_path / "ticks.csv").write_text("\n".join(["asset,timestamp_ns,value", *rows]))
    settings, file = load({"worker": {"cache_dir": Path(".predictor/cache")}}), TicksFile(tmp_path / "ticks.csv")
    plot_file(settings, file, "b", tmp_path / "b.html")
    assert "<h1>b</h1>" in (tmp_path / "b.html").read_text()
    with pytest.raises(BadInput, match="no tick of 'c'"):
        plot_file(settings, file, "c", tmp_path / "c.html")
    with pytest.raises(BadInput, match="cannot be written"):
        plot_file(settings, file, None, tmp_path / "no" / "folder" / "a.html")
