"""A payload as a line, percentiles, and the picture that a terminal shows."""

import io
import json
import math

import msgpack
import numpy as np
import pytest
from rich.console import Console

from worker.console.asset import Point, Trail
from worker.console.fleet import Fleet
from worker.latencies import Latencies
from worker.lines import json_line, prediction_line, table_line
from worker.picture import Picture, Series
from worker.top import picture_of
from worker.watch import PartitionView, WorkerView

FIELDS = {"quantile_levels": [0.1, 0.9], "telemetry": ["kurtosis", "weights_a"]}
PAYLOAD = msgpack.packb(
    {
        "reference_prediction": 0.1,
        "confidence_lower": -1.0,
        "confidence_upper": 1.5,
        "quantiles": [-0.5, 0.5],
        "timestamp_ns": 1_700_000_000_123_456_789,
        "operating_mode": 1,
        "events": 0b11,
        "depth": 3,
        "made_by": b"\x01" * 8,
        "telemetry": [math.nan, 0.25],
    }
)


def test_a_payload_becomes_every_field_by_name():
    line = json.loads(json_line(prediction_line(PAYLOAD, FIELDS, "é/1", 3, "5-0")))
    assert line == {
        "partition": 3,
        "tick_id": "5-0",
        "asset": "é/1",
        "timestamp_ns": 1_700_000_000_123_456_789,
        "reference_prediction": 0.1,
        "confidence_lower": -1.0,
        "confidence_upper": 1.5,
        "quantiles": [-0.5, 0.5],
        "operating_mode": 1,
        "events": 3,
        "depth": 3,
        "made_by": "01" * 8,
        "mode": "calibration",
        "event_names": ["DomainError", "OutlierDetected"],
        "telemetry": {"kurtosis": None, "weights_a": 0.25},
    }


def test_a_line_for_a_person_has_asset_time_and_band():
    text = table_line(prediction_line(PAYLOAD, FIELDS, "A"))
    assert "A " in text and "2023-11-14T22:13:20.123Z" in text and "[-1, 1.5]" in text and "calibration" in text


def test_a_line_for_a_person_escapes_what_a_terminal_would_obey():
    text = table_line(prediction_line(PAYLOAD, FIELDS, "😀é, \n\x1b[31mx\u202e\x9b"))
    assert text.isprintable() and "😀é, \\n\\x1b[31mx\\u202e\\x9b " in text


def test_the_live_view_escapes_what_a_terminal_would_obey():
    trail = Trail()
    trail.add(Point("1-0", 1.0, 1.0, 0.1, -1.0, 1.5, (), 1, 0, 3, 0.5, (), False))
    partition = PartitionView(0, "", "0-0", 0, 0.0, None, 0, 0, 0.0, "")
    worker = WorkerView("\x1b[32m[/b]", (), 0, None, 0.1)
    picture = picture_of(Fleet(1, [partition], [worker]), {"\x1b[31m[/red]": trail}, "", 0.0)
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(picture.draw())
    text = console.export_text()
    assert "\\x1b[31m[/red]" in text and "\\x1b[32m[/b]" in text


@pytest.mark.parametrize("scale", [0.05, 3.0, 20_000.0])
def test_percentiles_are_right_to_three_per_cent(scale):
    samples = np.random.default_rng(0).lognormal(0.0, 1.0, 5000) * scale
    latencies = Latencies()
    for sample in samples:
        latencies.add(sample)
    for name, found in latencies.percentiles().items():
        assert found == pytest.approx(np.percentile(samples, int(name[1:])), rel=0.03, abs=0.002)


def test_no_samples_have_no_percentiles():
    assert all(math.isnan(value) for value in Latencies().percentiles().values())


def test_a_band_is_judged_by_the_value_that_comes_next():
    series = Series("a")
    series.value(1, 1.0)
    series.predict(1, 1.0, 0.5, 1.5)
    series.value(2, 1.2)
    series.predict(2, 1.2, 1.0, 1.4)
    series.value(3, 9.0)
    assert (series.covered, series.judged) == (1, 2)


def test_a_late_prediction_is_judged_by_the_value_after_its_own():
    series = Series("a")
    for number in range(5):
        series.value(number, float(number))
    for number in range(5):
        series.predict(number, number + 1, number + 0.5, number + 1.5)
    assert (series.covered, series.judged) == (4, 4)
    series.value(5, 5.0)
    assert (series.covered, series.judged) == (5, 5)


def test_the_picture_shows_workers_assets_and_rates():
    series = Series("walk-00000")
    series.value(1, 101.25)
    series.predict(1, 101.5, 100.0, 103.0)
    workers = [WorkerView("worker-1", (0, 1, 2), 5, 1999.6, 0.1), WorkerView("worker-2", (), 0, None, 30.0)]
    latency = {"p50": 1.25, "p95": 3.0, "p99": math.nan}
    picture = Picture("two workers", 12.0, 500, 24_000, 1999.6, 5, 0.1, latency, workers, [series], "end with Ctrl-C")
    console = Console(width=120, record=True, file=open("/dev/null", "w"))
    with console.file:
        console.print(picture.draw())
    text = console.export_text()
    for part in ("two workers", "24,000", "2,000", "worker-1", "0 1 2", "silent", "walk-00000", "101.25", "100 … 103"):
        assert part in text
    assert "24000 ticks  2,000 ticks/s" in picture.line()
