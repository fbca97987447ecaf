"""A Ctrl-C that comes where Python drops exceptions: in the garbage collector's callbacks and in finalisers."""

import gc
import os
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path

import pytest

from worker.interrupts import interruptible


class Thing:
    pass


def in_a_callback_of_the_collector():
    def during(*_):
        gc.callbacks.remove(during)
        signal.raise_signal(signal.SIGINT)

    gc.callbacks.append(during)
    gc.collect()


def in_a_finaliser():
    class Last:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    Last()


def as_something_is_forgotten():
    thing = Thing()
    held = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGINT))
    del thing
    assert held() is None


@pytest.mark.parametrize("drop", [in_a_callback_of_the_collector, in_a_finaliser, as_something_is_forgotten])
def test_a_dropped_interrupt_comes_again(drop):
    hook, deadline = sys.unraisablehook, time.monotonic() + 30
    with pytest.raises(KeyboardInterrupt), interruptible():
        drop()
        while time.monotonic() < deadline:  # in steps: one long wait may begin just after the signal was noted
            time.sleep(0.01)
    assert sys.unraisablehook is hook


def test_any_other_dropped_exception_is_told_as_before(monkeypatch):
    class Last:
        def __del__(self):
            raise ValueError("told")

    told = []
    monkeypatch.setattr(sys, "unraisablehook", lambda dropped: told.append(str(dropped.exc_value)))
    with interruptible():
        Last()
    assert told == ["told"]


INTERRUPTED = """
import gc, signal, sys, time
from worker import cli
from worker.commands import look

def during(*_):
    gc.callbacks.remove(during)
    signal.raise_signal(signal.SIGINT)

def lag():
    gc.callbacks.append(during)
    gc.collect()
    while True:
        time.sleep(0.01)

(command,) = [command for command in cli.app.registered_commands if command.callback is look.lag]
command.callback = lag
sys.argv = ["predictor", "lag"]
cli.main()
"""


def test_a_command_is_ended_by_the_interrupt_that_the_collector_dropped():
    root = Path(__file__).parents[2]
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], timeout=60, env={**os.environ, "PYTHONPATH": str(root)}, check=False
    )
    assert ended.returncode == 130
