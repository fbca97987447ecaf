"""A Ctrl-C that comes while Python's garbage collector is at work."""

import gc
import signal
import sys
import threading

import pytest

from worker.interrupts import interruptible


def test_an_interrupt_that_meets_the_garbage_collector_is_not_lost(monkeypatch):
    dropped, sent = [], []

    def during(phase, _):
        if not sent:
            sent.append(phase)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(sys, "unraisablehook", lambda told: dropped.append(told.exc_type))
    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(KeyboardInterrupt), interruptible():
            gc.callbacks.append(during)  # not before: the collector comes by itself too
            gc.collect()
            assert sent
            threading.Event().wait(60)
    finally:
        gc.callbacks.remove(during)
    assert dropped == []
    assert signal.getsignal(signal.SIGINT) is before
