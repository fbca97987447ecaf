"""The whole demo as a user starts it: real Redis, real workers, real ticks, and nothing left behind."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

CACHE = Path(__file__).parents[2] / ".predictor" / "cache"
COMMAND = [sys.executable, "-m", "worker", "demo"]
KEYS = [
    "ticks_sent",
    "ticks_accepted",
    "predictions_read",
    "missing",
    "duplicated",
    "out_of_order",
    "ticks_per_second",
    "latency_ms",
    "workers",
]


@pytest.fixture
def started(tmp_path, program):
    running = []

    def start(*words):
        env = os.environ | {"USP_WORKER__CACHE_DIR": str(CACHE)}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        running.append(subprocess.Popen([*COMMAND, *words], cwd=tmp_path, env=env, **pipes))
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.communicate()


def children_of(pid):
    """All living processes below this one."""
    try:
        direct = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return set()
    return set(map(int, direct)).union(*(children_of(int(child)) for child in direct))


def command_line(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except FileNotFoundError:
        return ""


def wait_until(condition, what, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come about"
        time.sleep(0.02)


def test_two_demos_at_once_lose_nothing_and_leave_nothing(started, tmp_path):
    words = ("--seconds", "4", "--assets", "60", "--rate", "400", "--json")
    demos = [started(*words), started(*words)]
    for demo in demos:
        out, err = demo.communicate(timeout=240)
        assert demo.returncode == 0, err
        result = json.loads(out)
        assert list(result) == KEYS
        assert result["ticks_sent"] == result["ticks_accepted"] == result["predictions_read"] > 800
        assert result["missing"] == result["duplicated"] == result["out_of_order"] == 0
        assert result["workers"] == 2
        assert 0 < result["latency_ms"]["p50"] <= result["latency_ms"]["p95"] <= result["latency_ms"]["p99"]
    assert not list((tmp_path / ".predictor").glob("demo-*"))


def test_a_demo_that_is_killed_takes_everything_with_it(started, tmp_path):
    demo = started("--seconds", "60")

    def workers_run():
        lines = [command_line(pid) for pid in children_of(demo.pid)]
        return sum("worker --name" in line for line in lines) == 2 and any("redis" in line for line in lines)

    wait_until(workers_run, "two workers and a server")
    below = children_of(demo.pid)
    demo.send_signal(signal.SIGKILL)
    demo.wait()
    wait_until(lambda: not any(map(command_line, below)), "the end of all processes")
    assert list((tmp_path / ".predictor").glob("demo-*"))  # the next demo sweeps it away
    again = started("--seconds", "60")
    wait_until(lambda: len(list((tmp_path / ".predictor").glob("demo-*"))) == 1 and children_of(again.pid), "a sweep")


def test_ctrl_c_ends_a_demo_in_order(started):
    demo = started("--seconds", "600", "--json", "--rate", "300", "--workers", "1")
    said = iter(demo.stderr.readline, "")
    address = next(line.split()[-1] for line in said if "in a browser" in line)
    with urllib.request.urlopen(f"{address}events", timeout=5) as viewer:  # which does not keep the demo from ending
        assert b"event: waiting" in viewer.readline()
        assert any("ticks/s" in line for line in said)
        demo.send_signal(signal.SIGINT)
        out, err = demo.communicate(timeout=60)
    assert "Traceback" not in err
    assert demo.returncode == 0, err
    assert json.loads(out)["missing"] == 0
