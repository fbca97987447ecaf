"""Ctrl-C that is not lost where Python drops exceptions.

What is raised in a callback of the garbage collector or in a finaliser is printed and dropped, an interrupt like
any other exception. JAX has such a callback, and tracing a program keeps the collector busy.
"""

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from traceback import walk_stack
from types import CodeType

AGAIN_S = 0.01  # by then the collector is done, or drops it once more


@contextmanager
def interruptible() -> Iterator[None]:
    """Within, an interrupt that was dropped comes again."""
    before = sys.unraisablehook

    def hook(dropped: "sys.UnraisableHookArgs") -> None:
        if issubclass(dropped.exc_type, KeyboardInterrupt):
            threading.Thread(target=_interrupt_after, args=(hook.__code__,), daemon=True).start()
        else:
            before(dropped)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


def _interrupt_after(hook: CodeType) -> None:
    """Sends an interrupt when the main thread has left the hook: what is raised in there is dropped for good."""
    main = threading.main_thread().ident
    assert main is not None
    time.sleep(AGAIN_S)
    while any(frame.f_code is hook for frame, _ in walk_stack(sys._current_frames()[main])):
        time.sleep(AGAIN_S)
    signal.pthread_kill(main, signal.SIGINT)
