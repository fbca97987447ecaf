"""The promises of the store kept in dictionaries: the double that tests and simulations run on.

`Memory` is the server, shared by any number of `MemoryStateStore`, one for each worker. Time is an argument, and a
fault hook is called before and after every effect, so a simulation owns the clock and every lost reply.
"""

import asyncio
import bisect
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain, count
from typing import Any

from state_store.commit import latest_value, settle
from state_store.contract import (
    CONFIG_GENERATIONS_MAX,
    START,
    Carried,
    Commit,
    ConfigGeneration,
    Control,
    Held,
    Lease,
    Meta,
    Outcome,
    Probe,
    Retention,
    Ticks,
    WorkerInfo,
    ascending,
    id_order,
)
from state_store.errors import (
    FleetMissing,
    MoveRefused,
    PartitionMoved,
    PartitionSealed,
    StoreFull,
    StoreUnavailable,
)
from state_store.frames import ticks_in
from state_store.keys import partition_of, tag_of
from state_store.lease import moved
from state_store.meta import compare_meta
from state_store.moving import CARRIED, next_meta, not_begun, not_drained
from state_store.retention import Mark, advance
from state_store.room import PREDICTIONS_LEFT
from state_store.ticks import AssetCheck, parse

Fault = Callable[[str, int], Awaitable[None]]
Fields = dict[bytes, bytes]
Order = tuple[int, int]


def _flat(fields: Mapping[bytes, bytes]) -> list[bytes]:
    """Names and values, as they come over the wire."""
    return list(chain(*fields.items()))


def _count(fields: Mapping[bytes, bytes]) -> int:
    return ticks_in(_flat(fields))


async def _no_fault(point: str, partition: int) -> None:
    """Lets everything pass."""


class Log:
    """A stream: entries by rising id; an emptied one remembers its last id."""

    def __init__(self):
        self.entries: list[tuple[bytes, Fields]] = []
        self.orders: list[Order] = []
        self.last: bytes = START
        self.added = 0
        self.framed = 0  # Ticks beyond one an entry.

    def append(self, entry_id: bytes, fields: Fields) -> None:
        assert id_order(entry_id) > id_order(self.last), f"{entry_id!r} does not come after {self.last!r}"
        self.entries.append((entry_id, fields))
        self.orders.append(id_order(entry_id))
        self.last = entry_id
        self.added += 1
        self.framed += _count(fields) - 1

    def after(self, entry_id: bytes) -> list[tuple[bytes, Fields]]:
        return self.entries[bisect.bisect_right(self.orders, id_order(entry_id)) :]

    def cut(self, before: int) -> int:
        """Removes the first `before` entries."""
        del self.entries[:before], self.orders[:before]
        return before

    def cut_before(self, entry_id: bytes) -> int:
        return self.cut(bisect.bisect_left(self.orders, id_order(entry_id)))

    def cut_to(self, length: int) -> None:
        self.cut(max(0, len(self.entries) - length))


@dataclass
class MemoryPartition:
    """One partition's keys."""

    epoch: int = 0
    nonce: bytes = b""
    owner: str = ""
    until_ms: int = 0
    cursor: bytes = START
    state_cursor: bytes = START
    applied: int = 0
    trimmed: int = 0
    attempts: int = 0
    seal: str = ""
    closed: bool = False
    drained: bool = False
    opened: int = 0
    wanted_by: str = ""
    marks: tuple[Mark, ...] = ()
    ticks: Log = field(default_factory=Log)
    predictions: Log = field(default_factory=Log)
    rejected: Log = field(default_factory=Log)
    states: dict[bytes, bytes] = field(default_factory=dict)
    latest: dict[bytes, bytes] = field(default_factory=dict)

    def control(self) -> Control:
        return Control(
            self.epoch, self.nonce, self.cursor, self.applied, self.wanted_by, self.seal, self.state_cursor
        )

    def backlog(self) -> int:
        """As the server counts: all ticks that ever came less the applied ones."""
        counted = len(self.ticks.entries) + self.trimmed + self.ticks.framed - self.applied
        return max(1, counted) if self.ticks.after(self.cursor) else 0


class Memory:
    """The server's side: everything that survives a worker."""

    def __init__(self, clock_ms: Callable[[], int] | None = None):
        self.clock_ms = clock_ms or (lambda: time.time_ns() // 1_000_000)
        self.partitions: dict[int | str, MemoryPartition] = {}  # Those of later generations by their tags.
        self.meta: Meta | None = None
        self.workers: dict[str, tuple[str, int]] = {}
        self.configs: list[ConfigGeneration] = []
        self.audit = Log()
        self.full = False  # Refuses writes, as a server at its memory limit does.
        self._grown = asyncio.Condition()

    def partition(self, partition: int, generation: int = 0) -> MemoryPartition:
        home = tag_of(generation, partition) if generation else partition
        return self.partitions.setdefault(home, MemoryPartition())

    def append(self, partition: int, fields: Mapping[bytes, bytes], generation: int = 0) -> bytes:
        """Appends a raw tick as a plain XADD would, or a frame as the ingest script; gives its id."""
        kept = self.partition(partition, generation)
        if kept.closed:
            raise PartitionMoved(f"The memory takes no ticks in partition {partition} any more.")
        return self.stamp(kept.ticks, fields)

    def stamp(self, log: Log, fields: Mapping[bytes, bytes]) -> bytes:
        """Appends an entry with the next id that the clock gives; a frame needs as many as it has ticks."""
        last_ms, last_sequence = id_order(log.last)
        now_ms, count = self.clock_ms(), _count(fields)
        order = (now_ms, count - 1) if now_ms > last_ms else (last_ms, last_sequence + count)
        entry_id = b"%d-%d" % order
        log.append(entry_id, dict(fields))
        return entry_id

    async def wake(self) -> None:
        """Wakes the reads that wait for ticks."""
        async with self._grown:
            self._grown.notify_all()

    async def wait_for_ticks(self, log: Log, after: bytes, block_ms: int) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(block_ms / 1000), self._grown:
                await self._grown.wait_for(lambda: log.after(after))


class MemoryStateStore:
    """A worker's view of a `Memory`; keeps the contract of `StateStore`."""

    def __init__(
        self,
        memory: Memory | None = None,
        *,
        retention: Retention | None = None,
        fault: Fault = _no_fault,
        nonces: Callable[[], bytes] | None = None,
    ):
        self.memory = memory or Memory()
        self.retention = retention or Retention()
        self._fault = fault
        numbers = count(1)
        self._new_nonce = nonces or (lambda: b"%d.%d" % (id(self), next(numbers)))
        self._nonces: dict[int, bytes] = {}  # Of acquisitions whose reply was lost.
        self._seen: dict[int, Control] = {}
        self._checks: dict[int, AssetCheck] = {}
        self._generation: int | None = None

    async def open_fleet(self, partitions: int, layout: bytes, fields: Mapping[str, Any]) -> Meta:
        wanted = Meta(partitions, layout, dict(fields))
        self.memory.meta = self.memory.meta or wanted
        compare_meta(self.memory.meta, wanted, "the fleet in memory")
        return self._oriented(self.memory.meta)

    async def read_meta(self) -> Meta:
        await self._fault("read_meta", -1)
        return self._oriented(self._meta())

    def _meta(self) -> Meta:
        if self.memory.meta is None:
            raise FleetMissing("There is no fleet in memory yet: open one with open_fleet.")
        return self.memory.meta

    def _oriented(self, meta: Meta) -> Meta:
        self._generation = meta.generation if self._generation is None else self._generation
        return meta

    @property
    def generation(self) -> int:
        """Of the partitions that this store works on."""
        if self._generation is None and self.memory.meta is not None:
            self._generation = self.memory.meta.generation
        return self._generation or 0

    def _kept(self, partition: int) -> MemoryPartition:
        return self.memory.partition(partition, self.generation)

    def follow(self, meta: Meta) -> None:
        self._generation = meta.generation
        for each in (self._nonces, self._seen, self._checks):
            each.clear()

    async def begin_move(self, partitions: int) -> Meta:
        next_meta(await self.read_meta(), partitions)
        await self._fault("begin_move", -1)
        meta = self._meta()
        if meta.generation == self._generation and not meta.next_partitions and meta.partitions != partitions:
            self.memory.meta = replace(meta, next_partitions=partitions)
        return next_meta(await self.read_meta(), partitions)

    async def close_partition(self, partition: int) -> Probe:
        meta = await self.read_meta()
        if meta.generation == self._generation and not meta.next_partitions:
            raise not_begun()
        await self._fault("close", partition)
        kept = self._kept(partition)
        if kept.seal:
            raise PartitionSealed(f"Partition {partition} is sealed: {kept.seal}")
        self._close(kept)
        if not kept.drained and self._worked_off(kept):
            kept.drained, kept.epoch, kept.nonce, kept.owner, kept.until_ms = True, kept.epoch + 1, b"", "", 0
        return await self.probe(partition)

    def _close(self, kept: MemoryPartition) -> None:
        kept.closed = True

    def _worked_off(self, kept: MemoryPartition) -> bool:
        return kept.cursor == kept.state_cursor and not kept.backlog()

    async def carry(self, partition: int) -> Carried:
        meta = await self.read_meta()
        if meta.generation != self._generation:
            return Carried(0, 0)
        if not meta.next_partitions:
            raise not_begun()
        return Carried(*[await self._carry(partition, name, meta.next_partitions) for name in CARRIED])

    async def _carry(self, partition: int, name: str, partitions: int) -> int:
        await self._fault("carry", partition)
        if not self._kept(partition).drained:
            raise not_drained(partition)
        source = dict(getattr(self._kept(partition), name))
        await self._fault("carry.write", partition)
        for asset, value in source.items():
            home = self.memory.partition(partition_of(asset, partitions), self.generation + 1)
            if self._may_carry(home):
                getattr(home, name)[asset] = value
        return len(source)

    def _may_carry(self, home: MemoryPartition) -> bool:
        return not home.opened

    async def end_move(self) -> Meta:
        meta = await self.read_meta()
        if meta.generation != self._generation:
            return meta
        if not meta.next_partitions:
            raise not_begun()
        await self._fault("end.count", -1)
        if self._meta().generation == meta.generation:
            self._count_carried(meta)
        await self._fault("end.open", -1)
        number = self._open_next(meta)
        await self._fault("end.switch", -1)
        now = self._meta()
        if number and now.generation == meta.generation and now.next_opening >= number:
            self.memory.meta = replace(
                now,
                partitions=now.next_partitions,
                generation=now.generation + 1,
                past=(*now.past, now.partitions),
                next_partitions=0,
                moved_ms=self.memory.clock_ms(),
                openings=(*now.openings, now.next_opening),  # Who came later opened all of them again.
                next_opening=0,
            )
        return await self.read_meta()

    def _open_next(self, meta: Meta) -> int:
        """Opens the next partitions under a number higher than any before; gives it, or 0 when somebody was faster."""
        now = self._meta()
        if (now.generation, now.next_partitions) != (meta.generation, meta.next_partitions):
            return 0
        homes = [self.memory.partition(partition, meta.generation + 1) for partition in range(meta.next_partitions)]
        number = 1 + max(1000 * self.memory.clock_ms(), now.next_opening, *(home.opened for home in homes))
        self.memory.meta = replace(now, next_opening=number)
        for home in homes:
            home.opened = number
        return number

    def _count_carried(self, meta: Meta) -> None:
        old = [self._kept(partition) for partition in range(meta.partitions)]
        new = [self.memory.partition(p, meta.generation + 1) for p in range(meta.next_partitions)]
        for partition, kept in enumerate(old):
            if not kept.drained:
                raise not_drained(partition)
        there, here = (sum(len(kept.states) + len(kept.latest) for kept in each) for each in (old, new))
        if there != here:
            raise MoveRefused(f"{here} of {there} states and predictions were carried over: carry the others too.")

    async def forget_past(self) -> Meta:
        meta = await self.read_meta()
        for generation in range(meta.oldest, meta.generation):
            for partition in range(meta.past[generation]):
                kept = self.memory.partition(partition, generation)
                kept.ticks.cut_to(0)
                for log in (kept.predictions, kept.rejected):
                    log.cut_to(0)
                kept.states.clear()
                kept.latest.clear()
        self.memory.meta = replace(meta, oldest=meta.generation)
        return await self.read_meta()

    async def acquire(self, partition: int, worker: str, ttl_ms: int) -> Lease | Held:
        nonce = self._nonces.setdefault(partition, self._new_nonce())
        await self._fault("acquire.before", partition)
        granted = self._grant(partition, worker, nonce, ttl_ms)
        await self._fault("acquire.after", partition)
        del self._nonces[partition]
        return granted

    def _grant(self, partition: int, worker: str, nonce: bytes, ttl_ms: int) -> Lease | Held:
        kept = self._kept(partition)
        now = self.memory.clock_ms()
        if kept.seal:
            raise PartitionSealed(f"Partition {partition} is sealed: {kept.seal}")
        if kept.drained or (self.generation and not kept.opened):
            raise moved(partition)
        if kept.nonce != nonce:
            if kept.nonce and kept.until_ms > now:
                return self._held(partition)
            kept.epoch, kept.nonce, kept.owner, kept.wanted_by = kept.epoch + 1, nonce, worker, ""
            kept.until_ms, kept.attempts = now + ttl_ms, 1 + (kept.attempts if kept.ticks.last != kept.cursor else 0)
        return self._lease(partition, ttl_ms)

    def _lease(self, partition: int, ttl_ms: int) -> Lease:
        kept = self._kept(partition)
        self._seen[partition] = kept.control()
        return Lease(
            partition,
            kept.epoch,
            kept.nonce,
            kept.cursor,
            kept.applied,
            kept.attempts,
            kept.wanted_by,
            ttl_ms,
            kept.state_cursor,
        )

    def _held(self, partition: int) -> Held:
        kept = self._kept(partition)
        left_ms = max(0, kept.until_ms - self.memory.clock_ms()) if kept.nonce else 0
        return Held(partition, kept.owner if kept.nonce else "", left_ms, kept.cursor)

    def _mine(self, lease: Lease) -> bool:
        kept = self._kept(lease.partition)
        return (kept.epoch, kept.nonce) == (lease.epoch, lease.nonce)

    async def renew(self, lease: Lease) -> Lease | Held:
        await self._fault("renew.before", lease.partition)
        renewed = self._held(lease.partition)
        if self._mine(lease):
            self._kept(lease.partition).until_ms = self.memory.clock_ms() + lease.ttl_ms
            renewed = self._lease(lease.partition, lease.ttl_ms)
        await self._fault("renew.after", lease.partition)
        return renewed

    async def release(self, lease: Lease) -> None:
        await self._fault("release.before", lease.partition)
        if self._mine(lease):
            kept = self._kept(lease.partition)
            kept.nonce, kept.owner, kept.until_ms, kept.wanted_by = b"", "", 0, ""
            kept.attempts = max(kept.attempts - 1, 0)
        await self._fault("release.after", lease.partition)

    async def want(self, partition: int, worker: str) -> None:
        await self._fault("want", partition)
        kept = self._kept(partition)
        if kept.nonce and kept.until_ms > self.memory.clock_ms() and not kept.wanted_by:
            kept.wanted_by = worker

    def seen(self, partition: int) -> Control:
        return self._seen.get(partition, Control())

    async def read(self, partition: int, after: bytes, count: int, block_ms: int) -> Ticks:
        await self._fault("read", partition)
        log = self._kept(partition).ticks
        if block_ms and not log.after(after):
            await self.memory.wait_for_ticks(log, after, block_ms)
        entries = [[entry_id, _flat(fields)] for entry_id, fields in log.after(after)[:count]]
        return parse(entries, self._check(partition), after, count)

    def _check(self, partition: int) -> AssetCheck:
        if partition not in self._checks:
            self._checks[partition] = AssetCheck(partition, self._meta().of(self.generation).partitions)
        return self._checks[partition]

    async def load(self, partition: int, assets: list[bytes]) -> list[bytes | None]:
        await self._fault("load", partition)
        return list(map(self._kept(partition).states.get, assets))

    async def predictions(self, partition: int, after: bytes, until: bytes) -> dict[bytes, bytes]:
        await self._fault("load", partition)
        later = self._kept(partition).predictions.after(after)
        return {entry_id: fields[b"p"] for entry_id, fields in later if id_order(entry_id) <= id_order(until)}

    async def commit(self, lease: Lease, commit: Commit) -> Outcome:
        assert ascending(commit.ids), "predictions must come in the order of their ticks"
        outcome = self._settle(lease, commit)
        if outcome is not None:
            return outcome
        try:
            await self._fault("commit.before", lease.partition)
            outcome = self._settle(lease, commit) or self._apply(lease, commit)
            await self._fault("commit.after", lease.partition)
            return outcome
        except StoreUnavailable:
            return self._settle(lease, commit) or Outcome.CONFLICT

    def _settle(self, lease: Lease, commit: Commit) -> Outcome | None:
        kept = self._kept(lease.partition)
        self._seen[lease.partition] = kept.control()
        return settle(kept.control(), lease, commit)

    def _apply(self, lease: Lease, commit: Commit) -> Outcome:
        if self.memory.full:
            raise StoreFull("The store in memory is set to be full; nothing was written.")
        kept = self._kept(lease.partition)
        self._write_predictions(kept, commit)
        kept.states.update(zip(commit.state_assets, map(bytes, commit.state_records), strict=True))
        for letter in commit.rejected:
            fields = {b"a": letter.asset, b"reason": letter.reason.encode(), b"payload": letter.payload}
            kept.rejected.append(letter.id, fields)
        kept.cursor, kept.applied, kept.attempts = commit.after, kept.applied + commit.applied, 0
        kept.state_cursor = commit.after if commit.state_cursor is None else commit.state_cursor
        kept.until_ms = self.memory.clock_ms() + lease.ttl_ms
        self._trim(kept)
        self._seen[lease.partition] = kept.control()
        return Outcome.OK

    def _write_predictions(self, kept: MemoryPartition, commit: Commit) -> None:
        payloads, requests = commit.payloads.tolist(), commit.request_ids or [None] * len(commit.ids)
        for entry_id, asset, time_ns, payload, request in zip(
            commit.ids, commit.assets, commit.times_ns.tolist(), payloads, requests, strict=True
        ):
            fields = {b"a": asset, b"t": b"%d" % time_ns, b"p": payload}
            kept.predictions.append(entry_id, fields if request is None else fields | {b"r": request})
            kept.latest[asset] = latest_value(entry_id, payload)

    async def make_room(self, partition: int) -> int:
        await self._fault("make_room", partition)
        kept = self._kept(partition)
        gone = kept.ticks.cut_before(kept.state_cursor)
        kept.trimmed += gone
        if gone:
            return gone
        had = len(kept.predictions.entries)
        needed = len(kept.predictions.after(kept.state_cursor))
        kept.predictions.cut_to(max(-(-had // 2), min(PREDICTIONS_LEFT, self.retention.predictions), needed))
        return had - len(kept.predictions.entries)

    def _trim(self, kept: MemoryPartition) -> None:
        kept.marks, floor = advance(kept.marks, kept.applied, kept.state_cursor, self.retention.ticks)
        if floor is not None:
            kept.trimmed += kept.ticks.cut_before(floor)
        kept.predictions.cut_to(self.retention.predictions)
        kept.rejected.cut_to(self.retention.rejected)

    def lie_together(self, one: int, other: int) -> bool:
        return True

    async def probe(self, partition: int) -> Probe:
        await self._fault("probe", partition)
        kept, now = self._kept(partition), self.memory.clock_ms()
        unread = kept.ticks.after(kept.cursor)
        return Probe(
            partition=partition,
            added=kept.ticks.added + kept.ticks.framed,
            length=len(kept.ticks.entries),
            applied=kept.applied,
            trimmed=kept.trimmed,
            backlog=kept.backlog(),
            cursor=kept.cursor,
            first_id=kept.ticks.entries[0][0] if kept.ticks.entries else b"",
            last_id=kept.ticks.last,
            owner=kept.owner,
            epoch=kept.epoch,
            lease_left_ms=max(0, kept.until_ms - now) if kept.nonce else 0,
            attempts=kept.attempts,
            oldest_ms=max(0, now - id_order(unread[0][0])[0]) if unread else 0,
            seal=kept.seal,
            state_cursor=kept.state_cursor,
            closed=kept.closed,
            drained=kept.drained,
            framed=kept.ticks.framed,
        )

    async def register_worker(self, name: str, info: Mapping[str, Any]) -> None:
        await self._fault("register_worker", -1)
        self.memory.workers[name] = (json.dumps(info), self.memory.clock_ms())

    async def deregister_worker(self, name: str) -> None:
        await self._fault("deregister_worker", -1)
        self.memory.workers.pop(name, None)

    async def workers(self) -> list[WorkerInfo]:
        await self._fault("workers", -1)
        now, known = self.memory.clock_ms(), sorted(self.memory.workers.items())
        return [WorkerInfo(name, json.loads(info), now - at) for name, (info, at) in known]

    async def read_config(self) -> ConfigGeneration:
        await self._fault("read_config", -1)
        return self.memory.configs[-1] if self.memory.configs else ConfigGeneration(0, {})

    async def config_history(self) -> list[ConfigGeneration]:
        await self._fault("read_config", -1)
        return self.memory.configs[:]

    async def publish_config(self, known: int, values: Mapping[str, Any]) -> int | None:
        await self._fault("publish_config", -1)
        if (self.memory.configs[-1].number if self.memory.configs else 0) != known:
            return None
        self.memory.configs.append(ConfigGeneration(known + 1, json.loads(json.dumps(values))))
        del self.memory.configs[:-CONFIG_GENERATIONS_MAX]
        return known + 1

    async def append_audit(self, event: Mapping[str, Any]) -> bytes:
        await self._fault("append_audit", -1)
        return self.memory.stamp(self.memory.audit, {b"event": json.dumps(event).encode()})

    async def close(self) -> None:
        """Leaves the leases as they are."""

