"""All outboxes of one producer, in the generation of partitions to which it sends. Pure.

    generation g: every partition is closed, what each has taken is known   -->   g + 1: what waits, in new outboxes

A failover may take the fleet back to a generation before, ticks and all, and it may have gone on from there since: then
its later generation was opened under another number. So the outboxes of before go on as they were closed, and what the
later ones have lost waits in them again. Whatever is sent to a generation anew is numbered in a session of its own.
"""

from collections.abc import Callable
from typing import Any

from state_store.contract import Meta
from state_store.keys import partition_of
from state_store.outbox import Outbox


class Outboxes:
    """One for each partition that has been sent to; `asset_of` reads the asset out of a tick that waits."""

    def __init__(self, meta: Meta, rewind_max: int, asset_of: Callable[[Any], bytes], session: int = 0):
        self.generation, self.partitions, self.opening = meta.generation, meta.partitions, meta.opening
        self.session = self._last_session = session
        self.by_partition: dict[int, Outbox] = {}
        self._rewind_max, self._asset_of = rewind_max, asset_of
        self._before: Outboxes | None = None
        self._taken_since = self._lost_since = 0  # In a later generation, which is gone.
        self._asked: tuple[int, int] | None = None  # Where the fleet was when all partitions were asked last.

    @property
    def accepted(self) -> int:
        """Ticks that the server has taken, in this generation and before."""
        before = self._before.accepted if self._before is not None else 0
        return before + self._taken_since + self._taken

    @property
    def _taken(self) -> int:
        return sum(outbox.acknowledged - outbox.lost for outbox in self.by_partition.values())

    @property
    def lost(self) -> int:
        """Ticks that the server had taken, lost, and that were not here any more."""
        before = self._before.lost if self._before is not None else 0
        return before + self._lost_since + sum(outbox.lost for outbox in self.by_partition.values())

    @property
    def closed(self) -> bool:
        """Whether any partition has said that it takes no ticks."""
        return any(outbox.closed for outbox in self.by_partition.values())

    def may_move(self, meta: Meta) -> bool:
        """Told where the fleet is: whether what waits may go there. If not, all may have something to ask.

        They are asked again and again while one is closed: a failover may open it, or take back what it had.
        """
        every = self.by_partition.values()
        here, there = (self.generation, self.opening), (meta.generation, meta.opening)
        if self._asked == there and any(outbox.unsure for outbox in every):
            return False
        if self._asked == there != here and all(outbox.closed for outbox in every):
            return True
        self._asked = there
        for outbox in every:
            outbox.unsure = True
        return False

    def home(self, asset: bytes) -> tuple[int, Outbox]:
        """The partition of an asset, and its outbox."""
        partition = partition_of(asset, self.partitions)
        if partition not in self.by_partition:
            self.by_partition[partition] = Outbox(self._rewind_max)
        return partition, self.by_partition[partition]

    def moved_to(self, meta: Meta) -> "Outboxes":
        """Those of another generation, with all that waits, every asset's ticks in their order."""
        assert all(outbox.closed and not outbox.unsure for outbox in self.by_partition.values())
        if meta.generation < self.generation or meta.of(self.generation).opening != self.opening:
            return self._gone_back(meta)
        after = self._next(meta)
        after._before = self
        if self._before is not None:
            self._before._forget()
        after._add([tick for outbox in self.by_partition.values() for tick in outbox.waiting])
        for outbox in self.by_partition.values():
            outbox.waiting.clear()
        return after

    def _gone_back(self, meta: Meta) -> "Outboxes":
        before = self._before or self._next(meta)
        before._last_session = max(before._last_session, self._last_session)
        before._taken_since += self._taken_since + self._taken
        before._lost_since += self._lost_since + sum(outbox.lost for outbox in self.by_partition.values())
        before._add([tick for outbox in self.by_partition.values() for tick in outbox.waiting])
        before._asked = None  # The fleet may be further back still: then these are asked, and go back in their turn.
        return before

    def _next(self, meta: Meta) -> "Outboxes":
        return type(self)(meta, self._rewind_max, self._asset_of, self._last_session + 1)

    def _add(self, ticks: list[Any]) -> None:
        for tick in ticks:
            self.home(self._asset_of(tick))[1].waiting.append(tick)

    def _forget(self) -> None:
        """What was taken so long ago is not lost any more."""
        for outbox in self.by_partition.values():
            outbox.kept.clear()
