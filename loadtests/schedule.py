"""An open-loop schedule: every tick has its time before the run begins, and is sent then or as soon as possible.

Latency counts from the scheduled time. A system that stalls for a second is therefore charged with the waiting of all
the ticks that were due in that second; a sender that waits for answers would have left them out.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

AT_ONCE_MAX = 2048
PAUSE_NS = 2_000_000  # ticks due within it go out together, as with the client, whose `linger_ms` it is


class Phase(NamedTuple):
    """A steady rate for a while."""

    rate: float
    seconds: float

    @property
    def ticks(self) -> int:
        return int(self.rate * self.seconds)


class Schedule:
    """Phases one after the other, from `start_ns` on, and when each tick of them is due."""

    def __init__(self, start_ns: int, phases: Sequence[Phase]) -> None:
        self.start_ns, self.phases = start_ns, phases
        lengths_ns = [round(phase.seconds * 1e9) for phase in phases]
        self.starts_ns = start_ns + np.cumsum([0, *lengths_ns])
        due_ns = [np.ceil(np.arange(phase.ticks) * (1e9 / phase.rate)).astype(np.int64) for phase in phases]
        starts_and_due = zip(self.starts_ns[:-1], due_ns, strict=True)
        self.times_ns = np.concatenate([start + due for start, due in starts_and_due])

    @property
    def count(self) -> int:
        return len(self.times_ns)

    def due(self, now_ns: int) -> int:
        """How many ticks should have been sent by now."""
        return int(np.searchsorted(self.times_ns, now_ns, "right"))


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
        due = schedule.due(now)
        if due > sent:
            last = min(due, sent + AT_ONCE_MAX)
            times = schedule.times_ns[sent:last]
            latest_ns = max(latest_ns, now - int(times[0]))
            send(sent, times)
            sent = last
        if sent < schedule.count and sent >= due:  # what came due while sending waits for company as well
            next_ns = int(schedule.times_ns[sent])
            wait(max(next_ns - now_ns(), PAUSE_NS) / 1e9)
    return latest_ns
