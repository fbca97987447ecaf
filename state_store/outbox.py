"""Ticks of one producer on their way to one partition: numbered, and kept a while after they were taken.

    kept (taken, for a rewind)          waiting
[ ... acknowledged ]                [ acknowledged + 1 ... ]
"""

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any

from state_store.errors import StateStoreError

if TYPE_CHECKING:
    from state_store.lane import Lane


class Outbox:
    """Pure: answers come in as arguments."""

    def __init__(self, rewind_max: int):
        self.acknowledged = 0  # The highest number that the server took.
        self.lost = 0  # Taken by the server, lost by it, and no longer here.
        self.resume = False  # The next call goes on after a gap that cannot be filled.
        self.fits = 0  # Where a frame did not, how many ticks do.
        self.waiting: deque[Any] = deque()
        self.kept: deque[Any] = deque(maxlen=rewind_max)
        self.obstacle: StateStoreError | None = None  # Why nothing moves.
        self.retry_at = 0.0
        self.moved_at = 0.0
        self.closed = False  # The partition takes no more: what waits goes to the next generation of partitions.
        self.unsure = False  # The partition has to be asked what it has, with ticks or without.
        self.lane: Lane  # Over which they go; whoever makes an outbox gives it to one.

    @property
    def has_to_ask(self) -> bool:
        """Whether there is something to say to the partition."""
        return self.unsure or (bool(self.waiting) and not self.closed)

    def head(self, count: int) -> list[Any]:
        """The next ticks to send, none to a closed partition; the first has the number `acknowledged + 1`."""
        return [] if self.closed else list(islice(self.waiting, count))

    def acknowledge(self, last: int) -> int:
        """Notes that the server has taken everything up to a number; gives how many that were."""
        taken = last - self.acknowledged
        for _ in range(taken):
            self.kept.append(self.waiting.popleft())
        self.acknowledged = last
        self.resume = self.resume and not taken  # The server notes the gap with the first tick behind it.
        self.closed = self.unsure = False
        return taken

    def rewind(self, last: int) -> None:
        """Takes back what the server no longer has; what is not kept any more is counted as lost."""
        missing = self.acknowledged - last
        again = min(missing, len(self.kept))
        for _ in range(again):
            self.waiting.appendleft(self.kept.pop())
        self.acknowledged -= again
        self.lost += missing - again
        self.resume = missing > again
        self.closed = self.unsure = False

    def close(self, last: int) -> None:
        """Notes up to which number a closed partition has taken ticks; what waits then, it has not and never will."""
        if last < self.acknowledged:
            self.rewind(last)
        else:
            self.acknowledge(last)
        self.closed = True
