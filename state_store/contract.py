"""What the rest of the fleet may ask of a store, and the values that travel.

Two implementations keep these promises: `RedisStateStore` and, in a dict, `MemoryStateStore`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import chain
from typing import Any, Protocol

import msgpack
import numpy as np
from numpy.typing import NDArray

from state_store.errors import StoreUnavailable
from state_store.frames import ticks_in

SCHEMA = 1
START = b"0-0"  # The cursor before the first tick.
PAYLOAD_BYTES_MAX = 16_384
CONFIG_GENERATIONS_MAX = 256  # Kept; predictions made with older ones cannot be derived again.


class Outcome(Enum):
    """The four answers to a commit; a lost reply is always resolved into one of them."""

    OK = "ok"
    ALREADY = "already"  # The cursor is already the new one: an earlier sending took effect.
    FENCED = "fenced"  # Somebody else holds, or held, the lease since.
    CONFLICT = "conflict"  # The lease is mine, but the server is not, or may not be, where I read from.


@dataclass(frozen=True, slots=True)
class Retention:
    """How much stays readable behind the cursor, per partition."""

    ticks: int = 100_000
    predictions: int = 100_000
    rejected: int = 10_000


@dataclass(frozen=True, slots=True)
class Meta:
    """What a fleet was made with, and how its partitions were changed since."""

    partitions: int
    layout: bytes
    fields: dict[str, Any]
    schema: int = SCHEMA
    generation: int = 0  # Of its partitions: how often their number was changed.
    past: tuple[int, ...] = ()  # How many partitions each generation before had.
    oldest: int = 0  # The first generation whose keys are still kept.
    next_partitions: int = 0  # While the fleet moves: how many the next generation will have.
    moved_ms: int = 0  # When it moved last, by the server's clock.
    openings: tuple[int, ...] = ()  # The number under which each later generation was opened.
    next_opening: int = 0  # While the next one is opened: its number.

    @property
    def opening(self) -> int:
        """Of this generation: one that a failover took back and that was made anew has another number."""
        return self.openings[-1] if self.generation else 0

    def of(self, generation: int) -> "Meta":
        """The same fleet as it was in a generation before; raises StoreUnavailable for one that is not there yet."""
        if generation == self.generation:
            return self
        if generation > self.generation:
            raise StoreUnavailable(
                f"The fleet is in generation {self.generation} of its partitions: a failover took it back from "
                f"{generation}. See `predictor repartition --status`."
            )
        past, openings = self.past[:generation], self.openings[:generation]
        partitions = self.past[generation]
        return replace(self, partitions=partitions, generation=generation, past=past, openings=openings)


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to commit for one partition, and what the server said when it was granted or renewed.

    `state_cursor` trails `cursor` when states are not written with every commit: ticks after it have to be
    recomputed, predictions up to `cursor` exist already.
    """

    partition: int
    epoch: int
    nonce: bytes
    cursor: bytes
    applied: int
    attempts: int  # Acquisitions since the last commit, this one included.
    wanted_by: str
    ttl_ms: int
    state_cursor: bytes


@dataclass(frozen=True, slots=True)
class Held:
    """The answer when the lease is not mine: by whom it is held (may be nobody), and for how long."""

    partition: int
    owner: str
    left_ms: int
    cursor: bytes


@dataclass(frozen=True, slots=True)
class Control:
    """A partition's control fields as the server last told them; no round trip."""

    epoch: int = 0
    nonce: bytes = b""
    cursor: bytes = START
    applied: int = 0
    wanted_by: str = ""
    seal: str = ""
    state_cursor: bytes = START
    marks: bytes = b""


@dataclass(frozen=True, slots=True)
class Ticks:
    """One read as columns, ids ascending. A malformed tick keeps its place: value NaN, times as far as known.

    A frame that cannot be read has one row, which stands for all the ticks that it should hold.
    """

    ids: list[bytes]
    assets: list[bytes]
    values: NDArray[np.float64]
    times_ns: NDArray[np.int64]
    arrivals_ns: NDArray[np.int64]
    request_ids: list[bytes | None] | None
    malformed: dict[int, str]
    entries: Sequence[list[bytes] | None] = field(repr=False)  # Names and values as sent; None within a frame.

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def count(self) -> int:
        """How many ticks were sent, those of broken frames too."""
        broken = (ticks_in(self.entries[index] or ()) for index in self.malformed)
        return len(self) + sum(broken) - len(self.malformed)

    def __getitem__(self, part: slice) -> "Ticks":
        start, stop, _ = part.indices(len(self.ids))
        if (start, stop) == (0, len(self.ids)):
            return self
        return Ticks(
            self.ids[start:stop],
            self.assets[start:stop],
            self.values[start:stop],
            self.times_ns[start:stop],
            self.arrivals_ns[start:stop],
            None if self.request_ids is None else self.request_ids[start:stop],
            {index - start: reason for index, reason in self.malformed.items() if start <= index < stop},
            self.entries[start:stop],
        )

    def payload(self, index: int) -> bytes:
        """Packs a tick as it was sent, or as it would have been alone (MessagePack: name, value, ...)."""
        pieces = self.entries[index] or tick_fields(self.assets[index], self.values[index], self.times_ns[index])
        if sum(map(len, pieces)) > PAYLOAD_BYTES_MAX:
            pieces = [piece[:256] for piece in pieces[:32]]
        return bytes(msgpack.packb(pieces) or b"")


@dataclass(frozen=True, slots=True)
class Rejected:
    """A dead letter."""

    id: bytes
    asset: bytes
    reason: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Commit:
    """Everything that moves together for one partition and micro-batch.

    The arrays are read until the commit has returned; do not write to them before.
    `state_cursor` is what the stored states reflect after this commit; None means `after`.
    """

    before: bytes
    after: bytes
    ids: list[bytes]
    assets: list[bytes]
    times_ns: NDArray[np.int64]
    payloads: NDArray[np.void]  # 'V{n}' [m]: one MessagePack map each.
    state_assets: list[bytes]
    state_records: NDArray[np.uint8]  # [n, record_bytes]
    rejected: list[Rejected]
    applied: int  # Ticks consumed: predictions, dead letters, and ticks whose prediction existed already.
    request_ids: list[bytes | None] | None = None
    state_cursor: bytes | None = None


@dataclass(frozen=True, slots=True)
class Probe:
    """A partition from outside: how far it is and who works on it."""

    partition: int
    added: int  # Ticks.
    length: int  # Entries.
    applied: int  # Ticks.
    trimmed: int  # Entries.
    backlog: int  # Ticks.
    cursor: bytes
    first_id: bytes
    last_id: bytes
    owner: str
    epoch: int
    lease_left_ms: int
    attempts: int
    oldest_ms: int  # Age of the oldest unread tick by the server's clock, 0 when there is none.
    seal: str = ""
    state_cursor: bytes = START  # The last tick that the stored states reflect.
    closed: bool = False  # Its assets go to the next generation: it takes no more ticks.
    drained: bool = False  # All its ticks are in its stored states, and nobody may hold it any more.
    framed: int = 0  # Ticks beyond one an entry that frames have brought.


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """A registered worker and how long ago the server last heard of it."""

    name: str
    info: dict[str, Any]
    age_ms: int


@dataclass(frozen=True, slots=True)
class ConfigGeneration:
    """The shared configuration that all workers follow, and its running number."""

    number: int
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Carried:
    """How much of a partition was copied to the next generation."""

    states: int
    latest: int


class StateStore(Protocol):
    """What a worker needs to remember things between two ticks.

    A store works on one generation of partitions: the one that was current when it was first used, until `follow`.
    """

    async def open_fleet(self, partitions: int, layout: bytes, fields: Mapping[str, Any]) -> Meta:
        """Makes the fleet, or confirms that it was made with the same values; else raises FleetMismatch."""
        ...

    async def read_meta(self) -> Meta:
        """Reads what the fleet was made with and where it is now; raises FleetMissing."""
        ...

    def follow(self, meta: Meta) -> None:
        """Works on another generation from now on; nothing of the one before may be under way."""
        ...

    async def begin_move(self, partitions: int) -> Meta:
        """Notes that the fleet is to have so many partitions; raises MoveRefused while it moves to another number."""
        ...

    async def close_partition(self, partition: int) -> Probe:
        """Takes no more ticks here, whoever sends them; drained if all are in the stored states, and then for good."""
        ...

    async def carry(self, partition: int) -> Carried:
        """Copies what a drained partition remembers to the next homes of its assets; may be done again."""
        ...

    async def end_move(self) -> Meta:
        """Makes the next generation the current one, after all is carried; does nothing if that was done before."""
        ...

    async def forget_past(self) -> Meta:
        """Removes what the generations before still hold; their logs stay closed for ever."""
        ...

    async def acquire(self, partition: int, worker: str, ttl_ms: int) -> Lease | Held:
        """Takes a free or expired lease. Asking again after a lost reply gives the same lease.

        Raises PartitionSealed, and PartitionMoved for one whose assets are on their way to the next generation.
        """
        ...

    async def renew(self, lease: Lease) -> Lease | Held:
        """Extends a lease by its time, also after expiry if nobody took it; Held means it is lost."""
        ...

    async def release(self, lease: Lease) -> None:
        """Gives a lease back; a lost or foreign one is left alone."""
        ...

    async def want(self, partition: int, worker: str) -> None:
        """Asks the holder to hand over; it sees the name in its next renewal or commit."""
        ...

    def seen(self, partition: int) -> Control:
        """Repeats what the server last said to the holder of this partition."""
        ...

    async def read(self, partition: int, after: bytes, count: int, block_ms: int) -> Ticks:
        """Reads up to `count` ticks after an id; waits up to `block_ms` for the first (0: not at all)."""
        ...

    async def load(self, partition: int, assets: list[bytes]) -> list[bytes | None]:
        """Loads state records, None for an asset never seen."""
        ...

    async def predictions(self, partition: int, after: bytes, until: bytes) -> dict[bytes, bytes]:
        """Loads the predictions that exist after one id and up to another: id -> payload."""
        ...

    async def commit(self, lease: Lease, commit: Commit) -> Outcome:
        """Moves states, predictions, dead letters and cursor together, or nothing.

        It is sent once: if a connection of its lease was lost and it did not take effect, the answer is CONFLICT, since
        the server may have lost the ticks that the commit is made of.
        Raises StoreUnavailable while the server cannot be reached, StoreFull (nothing was written) and PartitionSealed.
        """
        ...

    async def make_room(self, partition: int) -> int:
        """Frees memory of a full server: cuts history behind the cursor below its retention, never an unread tick.

        Gives how many entries went: applied ticks first, then the older half of the predictions.
        """
        ...

    def lie_together(self, one: int, other: int) -> bool:
        """Tells whether two partitions share a server, and so its memory."""
        ...

    async def probe(self, partition: int) -> Probe:
        """Looks at a partition without touching it."""
        ...

    async def register_worker(self, name: str, info: Mapping[str, Any]) -> None:
        """Says by the server's clock that a worker lives."""
        ...

    async def deregister_worker(self, name: str) -> None:
        """Forgets a worker."""
        ...

    async def workers(self) -> list[WorkerInfo]:
        """Lists the registered workers by name."""
        ...

    async def read_config(self) -> ConfigGeneration:
        """Reads the newest shared configuration; generation 0 is empty."""
        ...

    async def config_history(self) -> list[ConfigGeneration]:
        """Reads the generations that are kept, the oldest first."""
        ...

    async def publish_config(self, known: int, values: Mapping[str, Any]) -> int | None:
        """Publishes the generation after a known one; None if somebody else was faster."""
        ...

    async def append_audit(self, event: Mapping[str, Any]) -> bytes:
        """Appends an event to the audit stream; gives its id."""
        ...

    async def close(self) -> None:
        """Closes every connection; leases stay until released or expired."""
        ...


def joined(parts: Sequence[Ticks]) -> Ticks:
    """Reads that follow each other as one."""
    malformed, start, asked = {}, 0, any(part.request_ids is not None for part in parts)
    for part in parts:
        malformed |= {start + place: why for place, why in part.malformed.items()}
        start += len(part)
    return Ticks(
        ids=list(chain.from_iterable(part.ids for part in parts)),
        assets=list(chain.from_iterable(part.assets for part in parts)),
        values=np.concatenate([part.values for part in parts]),
        times_ns=np.concatenate([part.times_ns for part in parts]),
        arrivals_ns=np.concatenate([part.arrivals_ns for part in parts]),
        request_ids=list(chain.from_iterable(p.request_ids or [None] * len(p) for p in parts)) if asked else None,
        malformed=malformed,
        entries=list(chain.from_iterable(part.entries for part in parts)),
    )


def tick_fields(asset: bytes, value: float, time_ns: int) -> list[bytes]:
    """The names and values of a tick that is sent alone."""
    return [b"a", asset, b"y", repr(float(value)).encode(), b"t", b"%d" % time_ns]


def id_order(entry_id: bytes) -> tuple[int, int]:
    """Gives the sort key of a stream id."""
    ms, _, sequence = entry_id.partition(b"-")
    return int(ms), int(sequence or 0)


def ascending(ids: list[bytes]) -> bool:
    """Tells whether stream ids rise strictly."""
    pairs = zip(ids, ids[1:], strict=False)
    # Ids of one length sort like their text.
    return all(one < two if len(one) == len(two) else id_order(one) < id_order(two) for one, two in pairs)
