"""Ctrl-C that is not lost to the garbage collector.

An exception that is raised in a callback of the collector is printed and dropped by Python, and JAX has such a
callback: of the interrupts of a program that was being traced, one in four came to nothing.
"""

import gc
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

AGAIN_S = 0.01


@contextmanager
def interruptible() -> Iterator[None]:
    """Within, a Ctrl-C that meets the collector at work comes again when it is done. Main thread only."""
    before = signal.signal(signal.SIGINT, _on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _on_signal(number: int, frame: FrameType | None) -> None:
    if not _collecting(frame):
        raise KeyboardInterrupt
    threading.Timer(AGAIN_S, os.kill, (os.getpid(), number)).start()


def _collecting(frame: FrameType | None) -> bool:
    callbacks = {getattr(callback, "__code__", None) for callback in gc.callbacks}
    while frame is not None and frame.f_code not in callbacks:
        frame = frame.f_back
    return frame is not None
