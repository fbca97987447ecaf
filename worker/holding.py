"""One leased partition as its worker sees it: the lease, the ticks read ahead, and where its assets' rows lie."""

import asyncio
from collections import deque
from dataclasses import dataclass
from itertools import islice

import numpy as np

from state_store import Lease, Ticks
from state_store.contract import joined
from worker.ahead import Ahead
from worker.quotas import TenantMeter

MERGED_MAX = 1024  # small reads are joined up to this many ticks, so that a slow feed still makes full micro-batches
POISON_SHIFT = 4  # each acquisition without a commit takes a sixteenth of the ticks of the one before
DEADLY_ATTEMPTS = 8


@dataclass
class _Chunk:
    """Ticks of one read, with the codes of their assets."""

    ticks: Ticks
    codes: np.ndarray
    start: int = 0

    def __len__(self) -> int:
        return len(self.ticks) - self.start


class _Codes(dict[bytes, int]):
    """Numbers assets as they appear; looked up for every tick, so without a call into Python."""

    def __missing__(self, asset: bytes) -> int:
        self[asset] = code = len(self)
        return code


class Holding:
    """Lives from one acquisition of the lease to its loss or release."""

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self.partition = lease.partition
        self.cursor = lease.cursor  # the last tick whose effects are stored, as far as this worker knows
        self.state_cursor = lease.state_cursor  # the last tick that the stored states reflect
        self.read_to = lease.state_cursor
        self.leaving = False  # it will take no more ticks
        self.lost = False
        self.fresh_s = 0.0  # when the server last confirmed the lease
        self.in_flight = 0  # micro-batches
        self.held_up = 0  # loads and commits that take long: until they end no more ticks are taken
        self.turn = asyncio.Lock()  # of its commits, in the order of their micro-batches
        self.attempts = lease.attempts
        self.meter = TenantMeter()
        self.takes = 0
        self.last_take = 0  # among those of all partitions
        self.quarantined: set[int] = set()
        self.space = asyncio.Event()
        self._settled = asyncio.Event()
        self._settled.set()
        self.assets: list[bytes] = []
        self.slots = np.full(256, -1, np.int32)  # by code
        self.ahead = Ahead()
        self._codes = _Codes()
        self._chunks: deque[_Chunk] = deque()
        self.buffered = 0

    def push(self, ticks: Ticks) -> None:
        """Appends what was read after everything read before."""
        chunk = _Chunk(ticks, self.codes_of(ticks.assets))
        self.buffered += len(chunk)
        self.read_to = ticks.ids[-1]
        if self._chunks and len(self._chunks[-1]) + len(chunk) <= MERGED_MAX:
            chunk = _merged(self._chunks.pop(), chunk)
        self._chunks.append(chunk)

    def codes_of(self, assets: list[bytes]) -> np.ndarray:
        """Numbers them, new ones too."""
        codes = np.fromiter(map(self._codes.__getitem__, assets), np.int32, len(assets))
        if len(self._codes) > len(self.assets):
            self._admit()
        return codes

    def ready(self) -> tuple[np.ndarray, int]:
        """The codes of the oldest chunk's waiting ticks, and when its first tick arrived."""
        chunk = self._chunks[0]
        return chunk.codes[chunk.start :], int(chunk.ticks.arrivals_ns[chunk.start])

    def take(self, count: int) -> tuple[Ticks, np.ndarray]:
        """The oldest `count` ticks of the oldest chunk, and their codes."""
        chunk = self._chunks[0]
        end = chunk.start + count
        ticks, codes = chunk.ticks[chunk.start : end], chunk.codes[chunk.start : end]
        chunk.start = end
        if not len(chunk):
            self._chunks.popleft()
        self.buffered -= count
        self.takes += 1
        self.ahead.took(count)
        self.begin()
        return ticks, codes

    def begin(self) -> None:
        """Something of this holding is in flight, until it settles."""
        self.in_flight += 1
        self._settled.clear()

    def settle(self) -> None:
        """A micro-batch of this holding is committed, or thrown away."""
        self.in_flight -= 1
        if not self.in_flight:
            self._settled.set()

    async def settled(self) -> None:
        await self._settled.wait()

    def names(self, codes: np.ndarray) -> list[bytes]:
        return [self.assets[code] for code in codes.tolist()]

    def ticks_max(self, limit: int) -> int:
        """Fewer ticks at once after each acquisition that ended without a commit: so a deadly tick is cornered."""
        return max(1, limit >> (POISON_SHIFT * (self.attempts - 1)))

    def cornered(self) -> bool:
        """True when the first tick, at last alone, ended its workers again and again: it is the culprit."""
        return self.attempts >= DEADLY_ATTEMPTS and self.takes <= 1  # those behind it were never alone

    def _admit(self) -> None:
        """Makes room for assets that were read for the first time."""
        self.assets += islice(self._codes, len(self.assets), None)
        while len(self.slots) < len(self.assets):
            self.slots = np.concatenate([self.slots, np.full(len(self.slots), -1, np.int32)])


def _merged(a: _Chunk, b: _Chunk) -> _Chunk:
    return _Chunk(joined([a.ticks[a.start :], b.ticks]), np.concatenate([a.codes[a.start :], b.codes]))
