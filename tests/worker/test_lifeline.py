"""A process that holds on to its parent does not outlive it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CHILD = """
import sys, time
from worker.lifeline import hold_on_to
hold_on_to(int(sys.argv[1]))
print("holding", flush=True)
time.sleep(60)
"""
PARENT = f"""
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}, str(os.getpid())])
print(child.pid, flush=True)
child.wait()
"""


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_child_ends_with_a_parent_that_is_killed():
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    with parent:
        child = int(parent.stdout.readline())
        assert parent.stdout.readline() == "holding\n"
        parent.kill()
    deadline = time.monotonic() + 10
    while not gone(child):
        assert time.monotonic() < deadline, f"process {child} outlived its parent"
        time.sleep(0.02)


def test_a_child_of_somebody_else_ends_at_once():
    stranger = subprocess.run([sys.executable, "-c", CHILD, str(os.getppid())], timeout=30)
    assert stranger.returncode in (1, -signal.SIGKILL)
