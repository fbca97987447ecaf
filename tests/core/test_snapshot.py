"""A snapshot is whole, or it is refused with a clear error: never a wrong state."""

import hashlib
import logging
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from predictor_core import (
    InsufficientStorage,
    IntegrityError,
    NoSnapshot,
    PredictorConfig,
    ProcessState,
    Program,
    SchemaMismatch,
    SnapshotPlan,
    UniversalPredictor,
    WriteFailed,
)
from predictor_core import snapshot as format_of
from predictor_core.files import ORPHAN_AFTER_S, sweep, write_atomically
from predictor_core.rotation import Names, load_newest
from predictor_core.writer import WAITING_MAX, Writer

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
ROOT = Path(__file__).parents[2]


def feed(predictor, first, last):
    for index in range(first, last):
        now = START + index * SECOND
        result = predictor.step(ProcessState(np.sin(index) + 0.01 * index, now), arrival_ns=now)
    return result


@pytest.fixture
def grown(make_universal):
    """A predictor that has seen something."""
    made = make_universal(clock=lambda: START)
    feed(made, 0, 40)
    return made


@pytest.fixture
def whole(grown, tmp_path):
    path = tmp_path / "a.msgpack"
    grown.save_snapshot(path)
    return path


def reseal(path, **changes):
    payload = msgpack.unpackb(path.read_bytes()[:-64]) | changes
    data = msgpack.packb(payload)
    path.write_bytes(data + hashlib.sha256(data).hexdigest().encode())


def test_what_is_loaded_is_what_was_saved(grown, whole, make_universal):
    other = make_universal()
    assert other.load_snapshot(whole) == whole
    assert other.state == grown.state
    assert other.predict_next().reference_prediction == grown.predict_next().reference_prediction
    assert feed(other, 40, 41).quantiles.tobytes() == feed(grown, 40, 41).quantiles.tobytes()


def test_the_file_has_the_keys_that_its_readers_know(whole):
    content = whole.read_bytes()
    payload = msgpack.unpackb(content[:-64])
    assert hashlib.sha256(content[:-64]).hexdigest() == content[-64:].decode("ascii")
    assert list(payload) == ["schema_version", "timestamp", "config", "global", "telemetry", "flags", "kernels"]
    assert payload["schema_version"] == "1.0" and payload["timestamp"] == START
    assert payload["config"]["cusum_h"] == 5.0
    assert {"kurtosis", "dgm_entropy", "adaptive_threshold"} <= payload["telemetry"].keys()
    assert payload["flags"].keys() == {"degraded_inference", "emergency", "regime_change", "mode_collapse"}
    assert list(payload["kernels"]) == ["A", "B", "C", "D"] and all(payload["kernels"].values())


@pytest.mark.parametrize("precision", [32, 64])
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_every_bit_of_every_number_survives(precision, data):
    config = PredictorConfig(float_precision=precision)
    program = Program(config)
    row = program.cold(1)
    seed = data.draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    for field in program.fields(row).values():
        field[...] = np.frombuffer(rng.bytes(field.nbytes), field.dtype).reshape(field.shape)
    content = format_of.Encoder(program, config).encode(row, None, 1)
    content += hashlib.sha256(content).hexdigest().encode()
    found = format_of.decode(program, config, content, "here")
    assert found.row.tobytes() == row.tobytes() and found.config == config and found.last is None


def test_one_flipped_bit_anywhere_is_found(whole_content):
    """Every byte of the file, and every bit of it in its turn."""
    content = bytearray(whole_content)
    for index in range(len(content)):
        content[index] ^= 1 << index % 8
        with pytest.raises(IntegrityError):
            format_of.unseal(content, "here")
        content[index] = whole_content[index]
    assert format_of.unseal(content, "here") == whole_content[:-64]


@settings(max_examples=40, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_short_anywhere_is_found(share, whole_content, program):
    with pytest.raises(IntegrityError):
        format_of.decode(program, PredictorConfig(), whole_content[: int(share * len(whole_content))], "here")


@pytest.fixture(scope="module")
def whole_content(program):
    config = PredictorConfig()
    data = format_of.Encoder(program, config).encode(program.cold(1), None, 1)
    return data + hashlib.sha256(data).hexdigest().encode()


def test_a_damaged_file_leaves_the_state_and_says_what_to_do(grown, whole):
    content = bytearray(whole.read_bytes())
    content[100:104] = bytes(byte ^ 0xFF for byte in content[100:104])
    whole.write_bytes(content)
    before = grown.state
    with pytest.raises(ValueError, match="Checksum mismatch") as raised:
        grown.load_snapshot(whole)
    assert "checksum mismatch" in str(raised.value) and "start cold" in str(raised.value)
    assert str(whole) in str(raised.value) and grown.state == before


def test_another_schema_is_refused_with_the_remedy(grown, whole):
    reseal(whole, schema_version="0.9")
    with pytest.raises(SchemaMismatch, match="snapshot=0.9, current=1.0.*Load it with the version"):
        grown.load_snapshot(whole)


def test_other_shapes_are_refused_by_the_name_of_the_setting(whole):
    config = PredictorConfig(wtmm_buffer_size=256, confidence_level=0.9)
    with pytest.raises(SchemaMismatch, match="confidence_level, *wtmm_buffer_size|wtmm_buffer_size|confidence_level"):
        format_of.decode(Program(config), config, whole.read_bytes(), whole)


@pytest.mark.parametrize("change", [{"global": {}}, {"kernels": None}, {"global": {"layout": b"12345678"}}])
def test_a_sealed_file_that_is_no_snapshot_is_refused(grown, whole, change):
    reseal(whole, **change)
    with pytest.raises(ValueError):
        grown.load_snapshot(whole)


def test_a_missing_file_is_named(grown, tmp_path):
    with pytest.raises(NoSnapshot, match="nothing.msgpack"):
        grown.load_snapshot(tmp_path / "nothing.msgpack")
    with pytest.raises(NoSnapshot, match="no file"):
        grown.load_snapshot(tmp_path)
    with pytest.raises(NoSnapshot, match="nothing.msgpack"):
        UniversalPredictor.from_snapshot(tmp_path / "nothing.msgpack")


def test_the_config_comes_with_the_file(make_universal, tmp_path, cache_dir):
    made = make_universal(PredictorConfig(cusum_h=6.5))
    feed(made, 0, 5)
    made.save_snapshot(tmp_path / "a")
    with UniversalPredictor.from_snapshot(tmp_path / "a", cache_dir=cache_dir) as other:
        assert other.config == made.config and other.state == made.state


NEXT_THOUSAND = """
import hashlib, sys
import numpy as np
from predictor_core import ProcessState, UniversalPredictor
predictor, digest = UniversalPredictor.from_snapshot(sys.argv[1], cache_dir=sys.argv[2]), hashlib.sha256()
for index in range(40, 1040):
    now = 1_700_000_000 * 10**9 + index * 10**9
    result = predictor.step(ProcessState(np.sin(index) + 0.01 * index, now), arrival_ns=now)
    digest.update(result.quantiles.tobytes() + result.telemetry.weights.tobytes())
print(digest.hexdigest())
"""


def test_another_process_goes_on_with_the_same_thousand_predictions(grown, whole, cache_dir):
    command = [sys.executable, "-c", NEXT_THOUSAND, str(whole), str(cache_dir)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        digest = hashlib.sha256()
        for index in range(40, 1040):
            result = feed(grown, index, index + 1)
            digest.update(result.quantiles.tobytes() + result.telemetry.weights.tobytes())
        assert child.communicate(timeout=60)[0].strip() == digest.hexdigest()


# Imports the writing alone, without the package around it, so that a child starts at once.
BARE = f"""
import sys, types, hashlib
from pathlib import Path
package = types.ModuleType("predictor_core")
package.__path__ = [{str(ROOT / "predictor_core")!r}]
sys.modules["predictor_core"] = package
"""

WRITE_FOREVER = """
from predictor_core.files import write_atomically
from itertools import count
path, size = Path(sys.argv[1]), int(sys.argv[2])
for number in count():
    data = bytes([number % 256]) * size
    write_atomically(path, data + hashlib.sha256(data).hexdigest().encode())
    print(number, flush=True)
"""


def test_a_kill_at_any_point_of_a_write_leaves_the_old_file_or_the_new(tmp_path):
    path, rng = tmp_path / "snapshot_1.msgpack", random.Random(7)
    for _ in range(8):
        command = [sys.executable, "-c", BARE + WRITE_FOREVER, str(path), str(3_000_000)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
            assert child.stdout.readline()  # a whole one is there: from now on there must always be one
            time.sleep(rng.uniform(0, 0.05))
            child.send_signal(signal.SIGKILL)
        data = load_newest(tmp_path, lambda path: format_of.unseal(path.read_bytes(), path))
        assert len(set(data)) == 1 and len(data) == 3_000_000
    write_atomically(path, b"after the kills")
    assert path.read_bytes() == b"after the kills"


def test_what_a_killed_writer_left_is_ignored_and_swept_when_old(tmp_path):
    orphan, fresh = tmp_path / "snapshot_1.msgpack.ab.tmp", tmp_path / "snapshot_2.msgpack.cd.tmp"
    orphan.write_bytes(b"half")
    fresh.write_bytes(b"being written")
    long_ago = time.time() - 2 * ORPHAN_AFTER_S
    os.utime(orphan, (long_ago, long_ago))
    with pytest.raises(NoSnapshot):
        load_newest(tmp_path, Path.read_bytes)
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == [fresh]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_a_disk_that_fills_up_leaves_the_old_file(grown, whole, share):
    before = whole.read_bytes()
    feed(grown, 40, 41)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(share * len(before)), hard))
    try:
        with pytest.raises(WriteFailed, match="What was there before is untouched"):
            grown.save_snapshot(whole)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert whole.read_bytes() == before and list(whole.parent.iterdir()) == [whole]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="wants a file system that has no room by nature")
def test_no_room_is_seen_before_anything_is_written(grown):
    with pytest.raises(InsufficientStorage, match="0 bytes are free"):
        grown.save_snapshot("/proc/snapshot.msgpack")


def test_a_folder_that_cannot_be_is_named(grown, whole):
    with pytest.raises(OSError, match="could not be written"):
        grown.save_snapshot(whole / "below_a_file")
    report = grown.save_snapshot_nonblocking(whole / "below_a_file").result(10)
    assert report["status"] == "error" and "could not be written" in report["error"]
    assert grown.snapshots.failed == 1 and grown.snapshots.last_error == report["error"]


def test_snapshots_come_every_so_many_steps_and_the_last_few_are_kept(make_universal, tmp_path):
    made = make_universal(snapshots=SnapshotPlan(tmp_path, every=10, keep=3))
    for last in range(10, 61, 10):
        feed(made, last - 10, last)
        assert made.flush(10)
    assert made.snapshots.written == 6 and made.snapshots.waiting == 0
    kept = sorted(tmp_path.iterdir())
    assert len(kept) == 3
    assert msgpack.unpackb(kept[-1].read_bytes()[:-64])["timestamp"] > 0


def test_a_damaged_newest_snapshot_falls_back_to_the_newest_whole_one(make_universal, tmp_path, caplog):
    made = make_universal(snapshots=SnapshotPlan(tmp_path, every=10))
    feed(made, 0, 10)
    made.flush(10)
    expected = made.state
    feed(made, 10, 30)
    made.flush(10)
    oldest, *others = sorted(tmp_path.iterdir())
    for path in others:
        path.write_bytes(path.read_bytes()[:-70])
    other = make_universal()
    assert other.load_snapshot(tmp_path) == oldest and other.state == expected
    assert caplog.messages.count("CorruptedSnapshotEvent") == len(others)
    oldest.write_bytes(b"")
    with pytest.raises(NoSnapshot, match=oldest.name):
        other.load_snapshot(tmp_path)


def test_a_clock_that_goes_back_does_not_make_the_newest_old(tmp_path):
    names = Names(tmp_path)
    first, second = names.next(1000), names.next(10)
    second.touch()
    assert first.name < second.name < Names(tmp_path).next(10).name


def test_a_background_snapshot_holds_the_state_of_its_moment(grown, tmp_path, make_universal):
    future = grown.save_snapshot_nonblocking(tmp_path / "a")
    before = grown.state
    feed(grown, 40, 60)
    report = future.result(10)
    assert report["status"] == "success" and report["filesize_bytes"] == (tmp_path / "a").stat().st_size
    assert report["checksum"].encode() == (tmp_path / "a").read_bytes()[-64:]
    other = make_universal()
    other.load_snapshot(tmp_path / "a")
    assert other.state == before and other.state != grown.state


@pytest.fixture
def held_writer(tmp_path):
    """A writer in the middle of a write, until `release` is set."""
    release, begun, made = threading.Event(), threading.Event(), Writer()

    def hold():
        begun.set()
        assert release.wait(10)

    made.submit(tmp_path / "held", bytes, after=hold)
    assert begun.wait(10)
    yield made, release
    release.set()
    made.close()


def test_the_newest_content_wins_and_the_superseded_future_says_so(held_writer, tmp_path, caplog):
    made, release = held_writer
    with caplog.at_level(logging.INFO):
        older, newer = made.submit(tmp_path / "a", bytes), made.submit(tmp_path / "a", lambda: b"newer", sealed=False)
    assert older.result(0) == {"status": "superseded", "filepath": str(tmp_path / "a"), "by": str(tmp_path / "a")}
    assert "snapshot_superseded" in caplog.messages
    release.set()
    assert newer.result(10)["status"] == "success"
    assert (tmp_path / "a").read_bytes() == b"newer"
    assert made.status.superseded == 1


def test_the_shelf_is_bounded_and_gives_up_its_oldest(held_writer, tmp_path):
    made, release = held_writer
    futures = [made.submit(tmp_path / str(number), bytes) for number in range(WAITING_MAX + 2)]
    assert made.status.waiting == WAITING_MAX + 1
    release.set()
    assert made.flush(10)
    reports = [future.result(10)["status"] for future in futures]
    assert reports == ["superseded"] * 2 + ["success"] * WAITING_MAX


def test_a_cancelled_future_harms_nobody(held_writer, tmp_path):
    made, release = held_writer
    cancelled, other = made.submit(tmp_path / "a", bytes), made.submit(tmp_path / "b", bytes)
    assert cancelled.cancel()
    made.submit(tmp_path / "a", bytes)
    release.set()
    assert other.result(10)["status"] == "success" and made.flush(10)


def test_content_that_cannot_be_made_is_an_error_of_its_future(tmp_path):
    made = Writer()
    report = made.submit(tmp_path / "a", lambda: 1 / 0).result(10)
    assert report["status"] == "error" and "division" in report["error"] and made.status.failed == 1
    assert made.submit(tmp_path / "b", bytes).result(10)["status"] == "success"
    made.close()


def test_a_stuck_disk_is_given_up_in_time_by_name(held_writer, tmp_path):
    made, _ = held_writer
    waiting = made.submit(tmp_path / "a", bytes)
    assert not made.flush(0.01) and not made.close(0.01)
    assert "the disk took longer" in waiting.result(0)["error"]
    with pytest.raises(RuntimeError, match="closed"):
        made.submit(tmp_path / "a", bytes)


def test_a_program_that_just_ends_still_writes_what_it_submitted(tmp_path):
    code = BARE + (
        "from predictor_core.writer import Writer\nw = Writer()\nw.submit(Path(sys.argv[1]), lambda: b'x' * 10**6)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")], check=True, timeout=30)
    assert format_of.unseal((tmp_path / "a").read_bytes(), "a") == b"x" * 10**6


def test_the_write_at_exit_covers_what_waits_too(tmp_path):
    code = BARE + (
        "from predictor_core.writer import Writer\nw = Writer()\n"
        "for name in 'abcd': w.submit(Path(sys.argv[1]) / name, lambda: b'x' * 10**6)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=30)
    assert sorted(path.name for path in tmp_path.iterdir()) == list("abcd")
