"""The server of a history: the store's double, and all that an administrator or a failover may do to it.

It keeps a record of every tick it took, which trimming does not touch and a rollback shortens: what the judge reads.
"""

from collections.abc import Callable
from copy import deepcopy

from state_store import Commit, Lease, Memory, MemoryStateStore, Meta, Outcome

EPOCH_MS = 1_700_000_000_000
Entry = tuple[bytes, dict[bytes, bytes]]
Home = tuple[int, int]  # generation and partition


class WatchedMemory(Memory):
    """Remembers what should never have been written."""

    def __init__(self, clock_ms: Callable[[], int]) -> None:
        Memory.__init__(self, clock_ms)
        self.fouls: list[str] = []


class WatchedStore(MemoryStateStore):
    """The double, with an eye on who writes."""

    def _apply(self, lease: Lease, commit: Commit) -> Outcome:
        kept = self._kept(lease.partition)
        if (kept.epoch, kept.nonce) != (lease.epoch, lease.nonce):
            self.memory.fouls.append(f"{lease.nonce} wrote to partition {lease.partition}, which is {kept.nonce}'s")
        return MemoryStateStore._apply(self, lease, commit)


class Server:
    """`Memory` with connections that can be cut, a memory that can be full, and a past to which it can return."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self.ahead_ms = 0  # how far this server's clock is ahead of its first primary's
        self.memory = WatchedMemory(self.clock_ms)
        self.taken: dict[Home, list[Entry]] = {}
        self.marks: dict[tuple[Home, str], tuple[int, int]] = {}  # producers' sessions and highest numbers
        self.connection = 0  # every cut makes another one
        self.primary = 0
        self.down = False

    def clock_ms(self) -> int:
        return EPOCH_MS + int(self._now_s() * 1000) + self.ahead_ms

    @property
    def meta(self) -> Meta:
        assert self.memory.meta is not None
        return self.memory.meta

    def append(self, home: Home, fields: dict[bytes, bytes]) -> None:
        """Takes a tick as a plain XADD does."""
        generation, partition = home
        self.taken.setdefault(home, []).append((self.memory.append(partition, fields, generation), fields))

    def ingest(
        self, home: Home, opening: int, name: str, session: int, first: int, resume: bool, ticks: list
    ) -> tuple[str, int]:
        """Takes numbered ticks as the ingest script does."""
        kept_session, last = self.marks.get((home, name), (session, 0))
        if kept_session > session:
            return "STALE", 0
        last = last if kept_session == session else 0
        if self.refuses(home, opening):
            return "MOVED", last
        if first > last + 1:
            if not resume:
                return "GAP", last
            last = first - 1
        for fields in ticks[last + 1 - first :]:
            self.append(home, fields)
            last += 1
        if ticks:
            self.marks[home, name] = session, last
        return "OK", last

    def refuses(self, home: Home, opening: int) -> bool:
        """Whether a partition takes no numbered ticks: any more, as yet, or of those who mean another."""
        generation, partition = home
        kept = self.memory.partition(partition, generation)
        return kept.closed or (generation > 0 and kept.opened != opening)

    def cut(self) -> None:
        """Breaks every connection."""
        self.connection += 1

    def copy(self) -> tuple:
        """What a replica has at this moment."""
        return deepcopy((self.memory.partitions, self.memory.meta, self.memory.workers, self.taken, self.marks))

    def fail_over(self, replica: tuple, ahead_ms: int) -> None:
        """Promotes the replica: all that came after its copy is gone, and the clock is another one."""
        self.memory.partitions, self.memory.meta, self.memory.workers, self.taken, self.marks = replica
        self.ahead_ms = ahead_ms
        self.primary += 1
        self.cut()
