"""A measurement that is ended from without leaves nothing behind: what ran on would spoil the next one."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from loadtests.caller import Caller
from state_store import EmbeddedRedis
from state_store.wire import encode

RIG = """
from loadtests.rig import IDENTITY, Rig, Shape
with Rig(Shape(IDENTITY, partitions=2, assets=16)) as rig, rig._listener(), rig._sending():
    print("running", flush=True)
    input()
"""


def children(rig: int) -> list[str]:
    """The command lines of the processes that a measurement started."""
    lines = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it ended just now
            lines.append(process.read_bytes().replace(b"\0", b" ").decode())
    return [line for line in lines if f"loadtests.child {rig} " in line]


def soon(condition: Callable[[], bool], otherwise: str) -> None:
    """A process that was started just now has no command line yet."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.05)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc, as the rig does")
def test_everyone_ends_with_a_measurement_that_is_killed(tmp_path):
    env = os.environ | {"PYTHONPATH": os.getcwd()}
    with subprocess.Popen(
        [sys.executable, "-c", RIG], cwd=tmp_path, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as rig:
        assert rig.stdout.readline() == "running\n"
        names = ("loadtests.floor", "loadtests.listener", "loadtests.producer")
        soon(lambda: all(name in " ".join(children(rig.pid)) for name in names), "not all of them run")
        rig.kill()
    soon(lambda: not children(rig.pid), "some outlived the measurement")


def test_who_asks_a_server_that_ends_does_not_wait_for_ever(tmp_path):
    with EmbeddedRedis(tmp_path / "redis", keep=False) as server:
        caller = Caller(server.url.removeprefix("unix://"))
        assert caller.ask(encode("ECHO", "one") + encode("ECHO", "two"), 2) == [b"one", b"two"]
    with pytest.raises((SystemExit, ConnectionError)):
        caller.ask(encode("ECHO", "three"), 1)
    caller.close()
