"""An open-loop schedule: every tick has its time before the run begins, and is sent then or as soon as possible.

Latency counts from the scheduled time. A system that stalls for a second is therefore charged with the waiting of all
the ticks that were due in that second; a sender that waits for answers would have left them out.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

AT_ONCE_MAX = 2048
PAUSE_NS = 1_000_000  # ticks due within a millisecond go out together


@dataclass(frozen=True)
class Schedule:
    """`count` ticks at a steady rate from `start_ns` on."""

    start_ns: int
    rate: float
    count: int

    def due(self, now_ns: int) -> int:
        """How many ticks should have been sent by now."""
        if now_ns < self.start_ns:
            return 0
        return min(self.count, 1 + int((now_ns - self.start_ns) * self.rate / 1e9))

    def times_ns(self, first: int, last: int) -> np.ndarray:
        """When the ticks from `first` up to `last` are due."""
        return self.start_ns + np.ceil(np.arange(first, last) * (1e9 / self.rate)).astype(np.int64)


def follow(
    schedule: Schedule,
    now_ns: Callable[[], int],
    wait: Callable[[float], None],
    send: Callable[[int, np.ndarray], None],
) -> int:
    """Sends all of it, first index and scheduled times at a time; returns how late the latest sending was, in ns."""
    sent, latest_ns = 0, 0
    while sent < schedule.count:
        now = now_ns()
        last = min(schedule.due(now), sent + AT_ONCE_MAX)
        if last > sent:
            times = schedule.times_ns(sent, last)
            latest_ns = max(latest_ns, now - int(times[0]))
            send(sent, times)
            sent = last
        else:
            next_ns = int(schedule.times_ns(sent, sent + 1)[0])
            wait(max(next_ns - now, PAUSE_NS) / 1e9)
    return latest_ns
