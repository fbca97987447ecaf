"""The path of a tick through a worker, three micro-batches in flight.

    one reader a partition      prepare             compute            commit
    XREAD --> read-ahead -----> take, HMGET rows -> the graph -------> one EXEC a partition
                                micro-batch k+1     micro-batch k      micro-batch k-1

A row lives in this worker's table while the lease holds. The first commit that is not accepted makes its holding
*lost*: what is in flight of it is thrown away, and the next owner, perhaps this worker, starts from the stored cursor.
That one rule covers zombies, failovers, lost replies and a Redis that went away.
"""

import asyncio
import logging
import time
from collections.abc import Callable

import numpy as np

from predictor_core import CorruptRecord, RejectReason, decode_record
from scheduler.batching import Backlog, BatchLimits, room, take
from scheduler.shedding import Shedder
from state_store import Commit, Outcome, PartitionSealed, StateStore, StoreFull, StoreUnavailable, Ticks
from worker.device import Answer, Device, Work
from worker.holding import Holding
from worker.metrics import Metrics
from worker.microbatch import MicroBatch, Part, commit_of, others, work_of

READ_BLOCK_MS = 500
FULL_PAUSE_S = 0.5
QUARANTINED = "the stored state of this asset is corrupt"
DEADLY = "this tick ended its worker each time it was tried"

GRAPH_REASONS = {reason.name.lower() for reason in RejectReason}

log = logging.getLogger(__name__)


class Pipeline:
    """Moves the ticks of the partitions it holds; `hold` and `let_go` change the set while it runs."""

    def __init__(
        self,
        store: StateStore,
        device: Device,
        limits: BatchLimits,
        shedder: Shedder,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store, self.device, self.limits, self.shedder, self.metrics = store, device, limits, shedder, metrics
        self.clock = clock
        self.holdings: dict[int, Holding] = {}
        self.lost: list[Holding] = []  # for the service to give back
        self._draining = False
        self._newest_ns = 0
        self._readers: dict[int, asyncio.Task] = {}
        self._arrived = asyncio.Event()
        self._prepared: asyncio.Queue[MicroBatch | None] = asyncio.Queue(1)
        self._computed: asyncio.Queue[tuple[MicroBatch, Answer] | None] = asyncio.Queue(1)

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Sets the stages going; they end with `drain`, and a failure of one ends the group."""
        self._tasks = tasks
        for stage in (self._prepare, self._compute, self._commit):
            tasks.create_task(stage())

    def hold(self, holding: Holding) -> None:
        """Starts to read a partition whose lease was just acquired."""
        self.holdings[holding.partition] = holding
        self._readers[holding.partition] = self._tasks.create_task(self._read(holding))

    async def let_go(self, holding: Holding) -> None:
        """Takes no more of this partition's ticks and waits until nothing of it is in flight."""
        self.holdings.pop(holding.partition, None)
        await self._stop_reading(holding)
        await holding.settled()
        self.device.table.forget(holding)

    async def drain(self) -> None:
        """Takes no more ticks; returns when all that was taken is committed or lost."""
        self._draining = True
        self._arrived.set()
        await asyncio.gather(*(self.let_go(holding) for holding in list(self.holdings.values())))

    # -- read ---------------------------------------------------------------------------------------------------------

    async def _read(self, holding: Holding) -> None:
        block_ms = 0  # the first look does not wait
        while not holding.lost:
            count = room(holding.buffered, self.limits)
            if not count:
                holding.space.clear()
                await holding.space.wait()
                continue
            try:
                ticks = await self.store.read(holding.partition, holding.read_to, count, block_ms)
            except StoreUnavailable as error:
                self.lose(holding, str(error))  # the server may come back with a shorter log
                return
            if ticks.ids:
                holding.push(ticks)
                self._arrived.set()
            elif not block_ms:
                holding.attempts = 1  # nothing was waiting: no tick ended the workers before
            block_ms = READ_BLOCK_MS

    async def _stop_reading(self, holding: Holding) -> None:
        reader = self._readers.pop(holding.partition, None)
        if reader is not None:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    # -- prepare ------------------------------------------------------------------------------------------------------

    async def _prepare(self) -> None:
        while not self._draining:
            self._arrived.clear()
            shares = take(self._backlogs(), self.limits)
            if shares:
                await self._prepared.put(await self._micro_batch(shares))
            else:
                await self._arrived.wait()
        await self._prepared.put(None)

    def _backlogs(self) -> list[Backlog]:
        return [self._backlog(holding) for holding in self.holdings.values() if holding.buffered]

    def _backlog(self, holding: Holding) -> Backlog:
        codes, oldest_ns = holding.ready()
        return Backlog(holding.partition, oldest_ns, codes[: holding.ticks_max(self.limits.ticks_max)])

    async def _micro_batch(self, shares: dict[int, int]) -> MicroBatch:
        taken = [(self.holdings[p], *self.holdings[p].take(count)) for p, count in shares.items()]
        with self.metrics.stage_seconds.labels("load").time():
            parts = await asyncio.gather(*(self._part(*share) for share in taken))
        return MicroBatch(list(parts), work_of(parts, self.shedder.depth))

    async def _part(self, holding: Holding, ticks: Ticks, codes: np.ndarray) -> Part:
        refused = dict(ticks.malformed)
        if holding.cornered():
            refused[0] = DEADLY
        await self._load(holding, np.unique(codes[others(len(codes), refused)]))
        for i in np.flatnonzero(np.isin(codes, list(holding.quarantined))):
            refused.setdefault(int(i), QUARANTINED)
        computed = others(len(codes), refused) if not holding.lost else np.empty(0, np.int64)
        return Part(holding, ticks, refused, computed, holding.slots[codes[computed]])

    async def _load(self, holding: Holding, codes: np.ndarray) -> None:
        """Brings the rows that are not in the table; from here to the commit their slots are busy."""
        table = self.device.table
        slots = holding.slots[codes]
        table.busy[slots[slots >= 0]] += 1
        missing = [int(code) for code in codes[slots < 0] if code not in holding.quarantined]
        if not missing:
            return
        try:
            records = await self.store.load(holding.partition, [holding.assets[code] for code in missing])
        except StoreUnavailable as error:
            return self.lose(holding, str(error))
        for code, record in zip(missing, records, strict=True):
            row = self._row(holding, code, record)
            if row is not None:
                table.place(holding, code, row)

    def _row(self, holding: Holding, code: int, record: bytes | None) -> np.ndarray | None:
        """A stored row, or the cold one; a corrupt record quarantines its asset, and only that."""
        if record is None:
            return self.device.table.cold
        try:
            return decode_record(record, self.device.program.layout_fingerprint)
        except CorruptRecord as error:
            holding.quarantined.add(code)
            self.metrics.corrupt_states.inc()
            log.error("state_corrupt", extra={"asset": holding.assets[code].decode(), "why": str(error)})
            return None

    # -- compute ------------------------------------------------------------------------------------------------------

    async def _compute(self) -> None:
        while (batch := await self._prepared.get()) is not None:
            started = self.metrics.vitals.computing_since = self.clock()
            answer = await self.device.run(batch.work)
            self.metrics.vitals.computing_since = None
            self._observe(batch, answer, self.clock() - started)
            await self._computed.put((batch, answer))
        await self._computed.put(None)

    def _observe(self, batch: MicroBatch, answer: Answer, seconds: float) -> None:
        self.metrics.stage_seconds.labels("compute").observe(seconds)
        self.metrics.batch_ticks.observe(len(batch.work.values))
        self.metrics.batch_rows.observe(sum(map(len, answer.slots)))
        self._shed(batch.work, answer.rounds, seconds)
        self.metrics.depth.set(self.shedder.depth)

    def _shed(self, work: Work, rounds: int, seconds: float) -> None:
        """Holds the time of one round against the time between two ticks of one asset."""
        newest_ns = int(work.arrivals_ns.max(initial=0))
        if self._newest_ns and newest_ns > self._newest_ns:
            assets = sum(len(holding.assets) for holding in self.holdings.values())
            interval_ns = (newest_ns - self._newest_ns) * assets // len(work.values)
            self.shedder.observe(int(seconds * 1e9) // rounds, interval_ns, int(self.clock() * 1e9))
        self._newest_ns = max(newest_ns, self._newest_ns)

    # -- commit -------------------------------------------------------------------------------------------------------

    async def _commit(self) -> None:
        while (item := await self._computed.get()) is not None:
            batch, answer = item
            with self.metrics.stage_seconds.labels("commit").time():
                parts = enumerate(batch.parts)
                await asyncio.gather(*(self._commit_part(part, i, batch.work, answer) for i, part in parts))
            for slots in answer.slots:
                self.device.table.busy[slots] -= 1
            for part in batch.parts:
                self._settle(part.holding)

    async def _commit_part(self, part: Part, index: int, work: Work, answer: Answer) -> None:
        holding = part.holding
        if holding.lost:
            return
        commit = commit_of(part, slice(work.bounds[index], work.bounds[index + 1]), answer, index)
        try:
            outcome = await self._answer(holding, commit)
        except (StoreUnavailable, StoreFull, PartitionSealed) as error:
            return self.lose(holding, str(error))
        self.metrics.commits.labels(outcome.value).inc()
        if outcome not in (Outcome.OK, Outcome.ALREADY):
            return self.lose(holding, outcome.value)
        holding.cursor, holding.attempts, holding.fresh_s = commit.after, 1, self.clock()
        self._count(part, commit)

    async def _answer(self, holding: Holding, commit: Commit) -> Outcome:
        """A full server took nothing: makes room, or waits with the commit in hand, until there is some."""
        while True:
            try:
                return await self.store.commit(holding.lease, commit)
            except StoreFull as error:
                if await self._make_room(holding.partition):
                    continue
                if not self._draining:
                    log.warning("store_full", extra={"partition": holding.partition, "why": str(error)})
                    await asyncio.sleep(FULL_PAUSE_S)
                if self._draining or holding.lost:
                    raise

    async def _make_room(self, wanting: int) -> bool:
        """Cuts history short, the wanting partition's if it has any, else that of another one held here."""
        for partition in (wanting, *self.holdings):
            if gone := await self.store.make_room(partition):
                log.warning("history_cut", extra={"partition": partition, "entries": gone})
                return True
        return False

    def _count(self, part: Part, commit: Commit) -> None:
        self.metrics.ticks.inc(commit.applied)
        self.metrics.predictions.inc(len(commit.ids))
        for rejected in commit.rejected:
            self.metrics.rejected.labels(_label(rejected.reason)).inc()
        self.metrics.tick_latency_seconds.observe(time.time() - part.ticks.arrivals_ns[0] / 1e9)

    def _settle(self, holding: Holding) -> None:
        holding.settle()
        if holding.lost and not holding.in_flight:
            self.device.table.forget(holding)

    def lose(self, holding: Holding, why: str) -> None:
        """Throws away everything of a holding that may no longer be its worker's."""
        if holding.lost:
            return
        holding.lost = True
        holding.space.set()  # lets its reader end
        self.holdings.pop(holding.partition, None)
        self._readers.pop(holding.partition, None)
        self.lost.append(holding)
        self.metrics.lease_events.labels("lost").inc()
        log.warning("partition_lost", extra={"partition": holding.partition, "why": why})
        if not holding.in_flight:
            self.device.table.forget(holding)


def _label(reason: str) -> str:
    """A metrics label has few values; what is wrong with a malformed tick is told in its dead letter."""
    if reason in GRAPH_REASONS:
        return reason
    return {QUARANTINED: "quarantined", DEADLY: "deadly"}.get(reason, "malformed")
