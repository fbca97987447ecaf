"""A forensic file tells what the predictor saw before an emergency, and a storm of them does not fill the disk."""

import os

import msgpack
import numpy as np
import pytest

from predictor_core import DumpPlan, IntegrityError, NothingSeen, PredictorConfig, ProcessState, read_dump
from predictor_core.dump import DumpGate, Recent, dump_path, encode_dump, prune_dumps

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND


@pytest.fixture
def recent(program, rng):
    """128 ticks, the last of them an emergency."""
    made = Recent(128)
    records = np.zeros(200, program.result_dtype)
    records["reference_prediction"] = rng.normal(size=200)
    records["timestamp_ns"] = np.arange(200)
    records["weights"] = [0.1, 0.2, 0.3, 0.4]
    records["emergency_mode"][-1], records["events"][-1] = 1, 1 << 9
    for value, record in enumerate(records):
        made.add(float(value), record)
    return made


def test_a_dump_holds_what_was_seen_and_thought(recent, tmp_path):
    path = tmp_path / "a.msgpack"
    path.write_bytes(encode_dump(PredictorConfig(), "EURUSD", recent, START))
    plain = msgpack.unpackb(path.read_bytes())
    assert plain["asset_id"] == "EURUSD" and plain["emergency_timestamp"].startswith("2023-11-14T22:13:20")
    assert plain["signal_buffer"] == list(range(72, 200))
    assert len(plain["regime_history"]["adaptive_threshold"]) == 128
    assert plain["weights"] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert plain["flags_at_emergency"]["emergency"] and not plain["flags_at_emergency"]["regime_change"]
    assert {"kurtosis", "dgm_entropy", "adaptive_threshold"} <= plain["telemetry_snapshot"].keys()
    assert plain["events"] == ["EmergencyMode"] and plain["config"]["cusum_h"] == 5.0
    history = read_dump(path)["history"]
    records = recent.records()
    for name in records.dtype.names:
        assert np.array_equal(history[name], records[name])


@pytest.mark.parametrize("content", [b"", b"\x80", b"\x81\xa7history\xc0", b"\xc1", os.urandom(200), b"a,b\n" * 2000])
def test_a_file_that_is_no_dump_is_refused(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(IntegrityError, match="not an emergency dump") as raised:
        read_dump(tmp_path / "a")
    assert len(str(raised.value)) < len(str(tmp_path)) + 120, "one line, not the file"


@pytest.mark.parametrize("mistake", [{"interval_s": -1.0}, {"keep": 0}])
def test_a_plan_that_keeps_nothing_is_refused(mistake):
    with pytest.raises(ValueError, match="keep at least 1"):
        DumpPlan(**mistake)


def test_one_dump_in_so_many_seconds_is_let_through():
    gate = DumpGate(60.0)
    assert [gate.open(second * SECOND) for second in (0, 1, 59, 60, 61, 119, 120)] == [1, 0, 0, 1, 0, 0, 1]


def test_any_asset_name_makes_a_file_name_inside_the_folder(tmp_path):
    for asset in ("acme/EURUSD", "../../etc/passwd", "ä", "x" * 500, "a\0b"):
        path = dump_path(tmp_path, asset, START)
        assert path.parent == tmp_path
        path.touch()


def test_the_newest_dumps_are_kept(tmp_path):
    paths = [dump_path(tmp_path, f"asset {index % 3}", START + index * SECOND) for index in range(9)]
    for path in paths:
        path.touch()
    prune_dumps(tmp_path, 4)
    assert set(tmp_path.iterdir()) == set(paths[-4:])


def test_a_dump_can_be_taken_at_any_moment(make_universal, tmp_path):
    universal = make_universal(asset="a", clock=lambda: START)
    with pytest.raises(NothingSeen):
        universal.save_emergency_dump(tmp_path)
    universal.step(ProcessState(1.0, START))
    assert read_dump(universal.save_emergency_dump(tmp_path))["signal_buffer"] == [1.0]


def test_the_beginning_of_an_emergency_writes_one_dump(make_universal, tmp_path, rng, caplog):
    universal = make_universal(asset="a", dumps=DumpPlan(tmp_path, interval_s=1e6))
    rough = rng.normal(size=300)  # white noise is far rougher than a random walk
    emergencies = 0
    for index, value in enumerate(rough):
        now = START + index * SECOND
        emergencies += bool(universal.step(ProcessState(value, now), now).telemetry.emergency_mode)
    assert emergencies > 1 and universal.flush(10)
    (path,) = tmp_path.iterdir()
    dump = read_dump(path)
    assert dump["flags_at_emergency"]["emergency"] and 0 <= dump["holder_exponent"] <= 0.5
    assert caplog.messages.count("emergency_dump") == 1 and "EmergencyMode" in caplog.messages
