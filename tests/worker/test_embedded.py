"""A service of one asset ends cleanly whatever it is doing, and the next one goes on where it ended."""

import json
import logging
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgpack
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from predictor_core import ProcessState
from worker.embedded import RESIDUAL_MAX, PredictorService
from worker.shutdown import ShutdownMetrics

CACHE = Path(".predictor/cache").absolute()
ROOT = Path(__file__).parents[2]
START = 1_700_000_000 * 10**9


def observation(index, value=None):
    return ProcessState(np.sin(index) if value is None else value, START + index * 1000)


@pytest.fixture
def make_service(tmp_path):
    made = []

    def make(**options):
        options.setdefault("folder", tmp_path / "snapshots")
        registry = CollectorRegistry()
        service = PredictorService(cache_dir=CACHE, clock=lambda: START, metrics=ShutdownMetrics(registry), **options)
        service.registry = registry
        made.append(service)
        return service

    yield make
    for service in made:
        service.predictor.close(0.0)


def phases(caplog):
    return [record.shutdown_phase for record in caplog.records if hasattr(record, "shutdown_phase")]


def snapshots(service):
    return sorted(service.folder.iterdir())


def test_a_shutdown_refuses_drains_waits_and_keeps_the_state(make_service, caplog):
    service = make_service()
    for index in range(20):
        assert service.offer(observation(-100 + index))
    results = []
    with caplog.at_level(logging.INFO):
        assert service.graceful_shutdown(on_result=results.append) == 0
    assert phases(caplog) == ["block", "drain", "pending", "final", "closed"]
    assert len(results) == 20 and not any(result.rejected for result in results)
    assert not service.offer(observation(0)) and service.accept_observation(observation(0)) is None
    (last,) = snapshots(service)
    assert msgpack.unpackb(last.read_bytes()[:-64])["schema_version"] == "1.0"
    sample = service.registry.get_sample_value
    assert sample("predictor_graceful_shutdowns_total") == 1
    assert sample("predictor_shutdown_duration_seconds_bucket", {"le": "30.0"}) == 1
    assert sample("predictor_shutdown_residual_observations_bucket", {"le": "10.0"}) == 0
    assert sample("predictor_shutdown_residual_observations_bucket", {"le": "50.0"}) == 1


def test_the_next_service_begins_where_the_last_one_ended(make_service):
    first = make_service()
    for index in range(30):
        first.accept_observation(observation(index - 100))
    first.graceful_shutdown()
    second = make_service()
    assert second.predictor.state == first.predictor.state
    expected = first.predictor.step(observation(-50))
    assert second.accept_observation(observation(-50)).reference_prediction == expected.reference_prediction


def test_a_folder_of_damaged_snapshots_starts_cold_and_says_so(make_service, tmp_path, caplog):
    (tmp_path / "snapshots").mkdir()
    (tmp_path / "snapshots" / "snapshot_1.msgpack").write_bytes(b"damaged")
    service = make_service()
    assert "IntegrityError" in caplog.messages
    assert service.accept_observation(observation(-1)) is not None


def test_a_full_queue_is_refused_not_grown(make_service):
    service = make_service()
    assert all(service.offer(observation(index)) for index in range(RESIDUAL_MAX))
    assert not service.offer(observation(RESIDUAL_MAX))


def test_a_drain_that_takes_too_long_is_cut_off_and_counted(make_service, caplog):
    seconds = iter(np.arange(0.0, 1e4, 4.0))  # every look at the clock is four seconds later
    service = make_service(now=lambda: next(seconds))
    for index in range(50):
        service.offer(observation(index - 100))
    with caplog.at_level(logging.INFO):
        assert service.graceful_shutdown() == 0
    drained = next(record for record in caplog.records if getattr(record, "shutdown_phase", "") == "drain")
    assert 0 < drained.processed < 5 and drained.processed + drained.dropped == 50


def test_a_state_that_cannot_be_kept_is_exit_code_one(make_service, tmp_path, caplog):
    service = make_service()
    service.accept_observation(observation(-1))
    (tmp_path / "snapshots").touch()  # a file where the folder should be
    with caplog.at_level(logging.INFO):
        assert service.graceful_shutdown() == 1
    final = next(record for record in caplog.records if getattr(record, "shutdown_phase", "") == "final")
    assert final.status == "error" and "could not be written" in final.error


def test_a_snapshot_that_hangs_does_not_hold_the_process(make_service, caplog):
    release, begun = threading.Event(), threading.Event()

    def hang():
        begun.set()
        release.wait(30)

    service = make_service()
    service.accept_observation(observation(-1))
    service.predictor._writer.submit(service.folder / "stuck", bytes, after=hang)
    assert begun.wait(10)
    started = time.monotonic()
    assert service.graceful_shutdown(timeout_s=0.2) == 1
    assert time.monotonic() - started < 5
    release.set()


def test_threads_may_offer_while_the_main_loop_works(make_service):
    service, results = make_service(), []

    def produce():
        for index in range(200):
            while not service.offer(observation(index - 1000)):
                time.sleep(0.001)
        service.stop("enough")

    thread = threading.Thread(target=produce)
    thread.start()
    while service.accepting:
        taken = service._next(None)
        if taken is not None:
            results.append(service._step(taken))
    thread.join()
    service._drain(10, results.append)
    assert len(results) == 200 and not any(result.rejected for result in results)


PROCESS = """
import sys, time
from predictor_core import ProcessState, SnapshotPlan
from worker.embedded import PredictorService
from worker.logs import start_logging
from worker.settings import LogSettings

start_logging(LogSettings(format="json"), "embedded")
plan = SnapshotPlan(sys.argv[1], every=50)
service = PredictorService(folder=sys.argv[1], cache_dir=sys.argv[2], snapshots=plan)
steps = 0

def read():
    global steps
    steps += 1
    if steps == 120:
        for extra in range(40):
            service.offer(ProcessState(float(extra), time.time_ns()))
        print("ready", flush=True)
    if steps > 120:
        time.sleep(0.01)
        return None
    return ProcessState(float(steps % 7), time.time_ns())

sys.exit(service.run_forever(read))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_process_with_its_state_kept(tmp_path, number):
    command = [sys.executable, "-c", PROCESS, str(tmp_path), str(CACHE)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        said = child.stdout.readline()
        assert said == "ready\n", said + child.communicate()[1]
        child.send_signal(number)
        started = time.monotonic()
        _, logged = child.communicate(timeout=30)
    assert child.returncode == 0 and time.monotonic() - started < 25
    lines = [json.loads(line) for line in logged.splitlines() if line.startswith("{")]
    told = {line["shutdown_phase"]: line for line in lines if "shutdown_phase" in line}
    assert list(told) == ["block", "drain", "pending", "final", "closed"]
    assert told["block"]["reason"] == number.name and told["drain"]["dropped"] == 0
    newest = max(tmp_path.iterdir())
    assert told["final"]["filepath"] == str(newest) and newest.read_bytes()[-64:].decode() == told["final"]["checksum"]
