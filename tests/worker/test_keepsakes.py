"""`predictor snapshot` and `predictor dump` show what is in a file, and fail on a damaged one."""

import json
import sys

import numpy as np
import pytest

from predictor_core import PredictorConfig, Program
from predictor_core.dump import Recent, encode_dump
from predictor_core.snapshot import Encoder
from predictor_core.writer import write
from worker.cli import main


@pytest.fixture(scope="module")
def program():
    return Program(PredictorConfig())  # never compiled


@pytest.fixture
def snapshot_file(program, tmp_path):
    path = tmp_path / "snapshot_1.msgpack"
    write(path, Encoder(program, PredictorConfig()).encode(program.cold(1), None, 42))
    return path


@pytest.fixture
def dump_file(program, tmp_path):
    recent = Recent(64)
    records = np.zeros(64, program.result_dtype)
    records["weights"] = 0.25
    for record in records:
        recent.add(1.5, record)
    path = tmp_path / "a_emergency_b.msgpack"
    write(path, encode_dump(PredictorConfig(), "acme/a", recent, 10**18), sealed=False)
    return path


@pytest.fixture
def predictor(monkeypatch, capsys):
    """The command as a shell would start it: its exit code and what it printed."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["predictor", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, *capsys.readouterr()

    return run


def test_a_snapshot_is_shown_and_checked(snapshot_file, predictor):
    code, out, _ = predictor("snapshot", snapshot_file, "--json")
    facts = json.loads(out)
    assert code == 0 and facts["timestamp"] == 42 and facts["config"]["cusum_h"] == 5.0
    assert facts["kernels"].keys() == set("ABCD")
    snapshot_file.write_bytes(snapshot_file.read_bytes()[:-1])
    code, _, told = predictor("snapshot", snapshot_file)
    assert code == 1 and "Checksum mismatch" in told


def test_a_dump_is_shown_and_drawn(dump_file, tmp_path, predictor):
    code, out, told = predictor("dump", dump_file, "--plot", tmp_path / "a.html")
    assert code == 0 and "drawn" in told
    assert "acme/a" in out and "signal_buffer" in out
    assert "emergency at 2001-09-09" in (tmp_path / "a.html").read_text()
    dump_file.write_bytes(b"")
    code, _, told = predictor("dump", dump_file)
    assert code == 1 and "not an emergency dump" in told
