"""The path of a tick through a worker, three micro-batches in flight.

    one reader a partition      prepare             compute            commit
    XREAD --> read-ahead -----> take, HMGET rows -> the graph -------> one EXEC a partition
                                micro-batch k+1     micro-batch k      micro-batch k-1

A row lives in this worker's table while the lease holds. Predictions are stored with every commit, states when a write
serves several ticks and when no tick comes: whoever takes over reads on from where the states are, and makes them again
from ticks whose predictions exist already. The first commit that is not accepted makes its holding
*lost*: what is in flight of it is thrown away, and the next owner, perhaps this worker, starts from the stored cursor.
That one rule covers zombies, failovers, lost replies and a Redis that went away.

No stage waits long for one partition, since its node may be the only one in a cluster that does not answer: what takes
long goes on beside, and its partition gives no ticks meanwhile.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from predictor_core import RejectReason
from scheduler.batching import Backlog, BatchLimits, room, take
from scheduler.shedding import Shedder
from scheduler.storing import Storing, StoringRules
from state_store import Commit, Outcome, PartitionSealed, StateStore, StoreFull, StoreUnavailable, Ticks
from state_store.contract import id_order
from worker.device import Answer, Device, Work
from worker.errors import TicksGone
from worker.generations import Generations
from worker.holding import Holding
from worker.hotpath.knobs import Knobs
from worker.hotpath.measures import Measures
from worker.keeping import Keeping
from worker.metrics import Metrics
from worker.microbatch import NOTHING, MicroBatch, Part, commits_of, commits_of_states, numbers_for, others, work_of
from worker.quality import Quality
from worker.quotas import OVER_QUOTA
from worker.settings import BATCHES_IN_FLIGHT_MAX
from worker.succession import Succession
from worker.tracing import Moments, Tracing, noted

READ_BLOCK_MS = 500
CROWDED_S = 10.0
FULL_PAUSE_S = 0.5
RESTS_TRIPS = 2  # so many micro-batches long a partition rests, so that half of the time is left for others
REST_S_MIN = 0.001
CAUGHT_UP_AT_ONCE = 1024  # rows; as records they are twice in memory
STALL_S = 0.25  # how long a stage waits for its slowest partition
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
        generations: Generations,
        clock: Callable[[], float] = time.monotonic,
        window_s: float = 0.0,
        rest_s: float = 0.0,
        storing: StoringRules | None = None,
    ) -> None:
        self.store, self.device, self.shedder, self.metrics = store, device, shedder, metrics
        self.clock, self.generations, self.rest_s = clock, generations, rest_s
        self.storing = Storing(storing or StoringRules())
        self.rows = Keeping(store, device.table, device.program.layout_fingerprint, metrics)
        self.succession = Succession(store, device, self.rows, generations, shedder.depth)
        self.knobs = Knobs(limits, window_s)  # replaced as a whole by the tuner; read once for a micro-batch
        self.measures: Measures | None = None  # of the tuner
        self.tracing: Tracing | None = None
        self.quality: Quality | None = None
        self.holdings: dict[int, Holding] = {}
        self.lost: list[Holding] = []  # for the service to give back
        self._draining = False
        self._newest_ns = 0
        self._sheds_long = False
        self._crowded_until_s = -math.inf
        self._first_s: float | None = None  # when the first tick of the next micro-batch was there
        self._readers: dict[int, asyncio.Task] = {}
        self._takes = 0
        self._resting: dict[Holding, float] = {}  # since when; their last take left nothing
        self._trip_s = math.inf  # of the last micro-batch, from its forming to its commit
        self._arrived = asyncio.Event()
        self._wanted = asyncio.Event()  # no micro-batch waits for the graph: one formed earlier would only be smaller
        self._wanted.set()
        self._prepared: asyncio.Queue[MicroBatch | None] = asyncio.Queue(1)
        self._late: dict[asyncio.Task[Part], Holding] = {}  # parts whose rows were not loaded in time
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
        holding.leaving = True
        self._forget(holding)
        await self._stop_reading(holding)
        await holding.settled()
        reflected = min(holding.read_to, holding.cursor, key=id_order)  # the former while states are made again
        await self._alone(holding, self._catch_up(holding, reflected))
        self.device.table.forget(holding)

    async def drain(self) -> None:
        """Takes no more ticks; returns when all that was taken is committed or lost."""
        self._draining = True
        self._arrived.set()
        await asyncio.gather(*(self.let_go(holding) for holding in list(self.holdings.values())))

    # -- read ---------------------------------------------------------------------------------------------------------

    async def _read(self, holding: Holding) -> None:
        """Reads once for each take, shortly before the next one, unless a window waits for more."""
        block_ms = 0  # the first look does not wait
        if holding.read_to != holding.cursor:
            await self._alone(holding, self._recall(holding))
        while not holding.lost:
            count = room(holding.buffered, self.knobs.limits)
            if not count or (holding.buffered and not holding.space.is_set() and not self.knobs.window_s):
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
                holding.space.clear()
                self._first_s = self.clock() if self._first_s is None else self._first_s
                self._arrived.set()
            elif not block_ms:
                holding.attempts = 1  # nothing was waiting: no tick ended the workers before
            elif not holding.in_flight and not holding.buffered:
                await self._alone(holding, self._catch_up(holding, holding.cursor))
            block_ms = READ_BLOCK_MS

    async def _alone(self, holding: Holding, work: Coroutine[Any, Any, None]) -> None:
        """Does something while nothing else of the holding is in flight, to its end even if its reader is stopped."""

        async def settling() -> None:
            try:
                await work
            finally:
                self._settle(holding)

        holding.begin()
        await asyncio.shield(self._tasks.create_task(settling()))

    async def _recall(self, holding: Holding) -> None:
        try:
            await self.succession.take_over(holding, self.knobs.limits.rows_max, self._made_again)
        except TicksGone as error:
            log.error("recall_impossible", extra={"partition": holding.partition, "why": str(error)})
            self.lose(holding, str(error))
        except StoreUnavailable as error:
            self.lose(holding, str(error))

    async def _made_again(self, holding: Holding) -> None:
        """Stores what a recall has made so far, if it would leave too little room or too much to make once more."""
        holding.ahead.batches = self.storing.rules.every  # so that a commit soon does it otherwise
        if self._scarce() or holding.ahead.ticks >= self.storing.rules.ticks_max:
            await self._catch_up(holding, holding.read_to)

    async def _catch_up(self, holding: Holding, cursor: bytes) -> None:
        """Stores the states that are ahead of the stored ones; they are as they are at this cursor."""
        while holding.ahead.batches and not holding.lost:
            codes, reflected = holding.ahead.sweep(CAUGHT_UP_AT_ONCE, cursor, self.clock())
            names, records = holding.names(codes), await self.device.records(holding.slots[codes])
            reflects = reflected or holding.state_cursor
            commits = commits_of_states(holding, holding.cursor, reflects, names, records, self.knobs.limits)
            if await self._all_sent(holding, commits):
                self.rows.stored(holding, codes, reflected)

    def _scarce(self) -> bool:
        """Whether memory is: the server's, or room in the table for what will be in flight."""
        in_flight = BATCHES_IN_FLIGHT_MAX * self.knobs.limits.rows_max
        return self.rows.crowded(in_flight) or self.clock() < self._crowded_until_s

    async def _stop_reading(self, holding: Holding) -> None:
        reader = self._readers.pop(holding.partition, None)
        if reader is not None:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    # -- prepare ------------------------------------------------------------------------------------------------------

    async def _prepare(self) -> None:
        while not self._draining:
            self._arrived.clear()
            await self._wanted.wait()
            knobs = self.knobs
            if knobs.window_s and await self._linger(knobs):
                continue
            shares = take(self._backlogs(knobs.limits), knobs.limits)
            if shares or any(part.done() for part in self._late):
                self._first_s = None
                await self._form(shares, knobs)
                self._let_read(max(1, knobs.limits.partitions_max - len(self._able())))
            else:
                await self._rest()
        if self._late:
            await asyncio.wait(self._late)
            await self._form({}, self.knobs)
        await self._prepared.put(None)

    def _let_read(self, count: int) -> None:
        """Lets so many partitions read, for the next micro-batch; sooner, each read would bring fewer ticks."""
        if self._resting and self._rest_left_s() <= 0:
            for holding in list(islice(self._resting, max(0, count))):
                del self._resting[holding]
                holding.space.set()

    def _rest_left_s(self) -> float:
        """Of the one that has rested longest; the next ones read together with it."""
        rest_s = min(self.rest_s, RESTS_TRIPS * self._trip_s)
        return next(iter(self._resting.values())) + rest_s - self.clock()

    async def _rest(self) -> None:
        """Waits for ticks, or until the next partitions may read."""
        self._let_read(self.knobs.limits.partitions_max)
        left_s = max(REST_S_MIN, self._rest_left_s()) if self._resting else None
        with suppress(TimeoutError):
            async with asyncio.timeout(left_s):
                await self._arrived.wait()

    def _able(self) -> list[Holding]:
        """Those that can give ticks."""
        return [holding for holding in self.holdings.values() if holding.buffered and not holding.held_up]

    async def _linger(self, knobs: Knobs) -> bool:
        """Waits for more ticks while a micro-batch would not be full; its window begins with its first tick."""
        buffered = sum(holding.buffered for holding in self.holdings.values())
        if not 0 < buffered < knobs.limits.ticks_max:
            return False
        left_s = (self._first_s or 0.0) + knobs.window_s - self.clock()
        if left_s <= 0:
            return False
        with suppress(TimeoutError):
            async with asyncio.timeout(left_s):
                await self._arrived.wait()
        return True

    def _backlogs(self, limits: BatchLimits) -> list[Backlog]:
        return [self._backlog(holding, limits) for holding in self._able()]

    def _backlog(self, holding: Holding, limits: BatchLimits) -> Backlog:
        codes, oldest_ns = holding.ready()
        codes = codes[: holding.ticks_max(limits.ticks_max)]
        return Backlog(holding.partition, holding.last_take, oldest_ns, codes)

    async def _form(self, shares: dict[int, int], knobs: Knobs) -> None:
        """Puts together what is ready in time; the rest joins a later micro-batch."""
        depth, generation = self.shedder.depth, self.generations.current
        moments = None if self.tracing is None else Moments()
        with self.metrics.stage_seconds.labels("load").time(), noted(moments, "read"):
            parts = self._with_states(await self._parts(shares))
        if parts:
            work = work_of(parts, depth, *numbers_for(parts, generation))
            self._wanted.clear()
            await self._prepared.put(MicroBatch(parts, work, knobs, generation, self.clock(), moments))

    async def _parts(self, shares: dict[int, int]) -> list[Part]:
        """Those of these shares that are ready in time, and the late ones of earlier that are ready now."""
        ready: list[Part] = []
        begun: dict[asyncio.Task[Part], Holding] = {}
        self._takes += 1
        for partition, count in shares.items():
            holding = self.holdings[partition]
            holding.last_take, (ticks, codes) = self._takes, holding.take(count)
            if holding.buffered:
                holding.space.set()
            else:
                self._resting.pop(holding, None)  # the order is that of the times
                self._resting[holding] = self.clock()
            refused = self._refused(holding, ticks, codes)
            if missing := self.rows.use(holding, codes[others(len(codes), refused)]):
                loading = self._tasks.create_task(self._loaded(holding, missing, ticks, codes, refused))
                begun[loading] = holding
            else:
                ready.append(self._part(holding, ticks, codes, refused))
        late = (await asyncio.wait(begun, timeout=STALL_S))[1] if begun else set()
        for part in late:
            begun[part].held_up += 1
            part.add_done_callback(lambda _: self._arrived.set())
        for part in [part for part in (*self._late, *begun) if part.done()]:
            ready.append(part.result())
            if (holding := self._late.pop(part, None)) is not None:
                holding.held_up -= 1
        self._late.update((part, begun[part]) for part in late if not part.done())
        return ready

    def _refused(self, holding: Holding, ticks: Ticks, codes: np.ndarray) -> dict[int, str]:
        """Which ticks have no part in the graph, and why."""
        refused = dict(ticks.malformed)
        if holding.cornered():
            refused[0] = DEADLY
        quotas = self.generations.current.quotas
        for i in holding.meter.over(quotas, holding.assets, codes, ticks.arrivals_ns).tolist():
            refused.setdefault(i, OVER_QUOTA)
        return refused

    async def _loaded(
        self, holding: Holding, missing: list[int], ticks: Ticks, codes: np.ndarray, refused: dict[int, str]
    ) -> Part:
        try:
            await self.rows.load(holding, missing)
        except StoreUnavailable as error:
            self.lose(holding, str(error))
        return self._part(holding, ticks, codes, refused)

    def _part(self, holding: Holding, ticks: Ticks, codes: np.ndarray, refused: dict[int, str]) -> Part:
        """Of rows that are in the table."""
        if holding.quarantined:
            for i in np.flatnonzero(np.isin(codes, list(holding.quarantined))):
                refused.setdefault(int(i), QUARANTINED)
        computed = others(len(codes), refused) if not holding.lost else NOTHING
        self.rows.ahead(holding, codes[computed])
        return Part(holding, ticks, refused, computed, holding.slots[codes[computed]])

    def _with_states(self, parts: list[Part]) -> list[Part]:
        """Some of them store states with their commits."""
        now_s = self.clock()
        unstored = [part.holding.ahead.unstored(now_s) for part in parts]
        shares = self.storing.shares(unstored, sum(len(part.ticks) for part in parts), self._scarce())
        for place, rows in shares.items():
            part = parts[place]
            written, reflected = part.holding.ahead.sweep(rows, part.ticks.ids[-1], now_s)
            parts[place] = replace(part, written=written, reflected=reflected)
        return parts

    # -- compute ------------------------------------------------------------------------------------------------------

    async def _compute(self) -> None:
        while (batch := await self._prepared.get()) is not None:
            self._wanted.set()
            started = self.metrics.vitals.computing_since = self.clock()
            with noted(batch.moments, "compute"):
                answer = await self.device.run(batch.work)
            self.metrics.vitals.computing_since = None
            self._observe(batch, answer, self.clock() - started)
            await self._computed.put((batch, answer))
        await self._computed.put(None)

    def _observe(self, batch: MicroBatch, answer: Answer, seconds: float) -> None:
        self.metrics.stage_seconds.labels("compute").observe(seconds)
        self.metrics.batch_ticks.observe(len(batch.work.values))
        self.metrics.batch_rows.observe(answer.rows)
        self._shed(batch.work, answer)
        self.metrics.depth.set(self.shedder.depth)

    def _shed(self, work: Work, answer: Answer) -> None:
        """Holds the graph's time for one round against the time between two ticks of one asset."""
        newest_ns = int(work.arrivals_ns.max(initial=0))
        if self._newest_ns and newest_ns > self._newest_ns:
            assets = sum(len(holding.assets) for holding in self.holdings.values())
            interval_ns = (newest_ns - self._newest_ns) * assets // len(work.values)
            now_ns = int(self.clock() * 1e9)
            self.shedder.observe(int(answer.seconds * 1e9) // answer.rounds, interval_ns, now_ns)
            self._tell_alert(self.shedder.alert(now_ns))
        self._newest_ns = max(newest_ns, self._newest_ns)

    def _tell_alert(self, alert: bool) -> None:
        if alert != self._sheds_long:
            self._sheds_long = alert
            says = {"depth": self.shedder.depth, "ratio": round(self.shedder.ratio, 2)}
            log.log(logging.WARNING if alert else logging.INFO, f"shedding_{'lasts' if alert else 'over'}", extra=says)

    # -- commit -------------------------------------------------------------------------------------------------------

    async def _commit(self) -> None:
        while (item := await self._computed.get()) is not None:
            batch, answer = item
            with self.metrics.stage_seconds.labels("commit").time(), noted(batch.moments, "commit"):
                late = await self._commit_parts(batch, answer)
            self._trip_s = self.clock() - batch.formed_s
            if self.tracing is not None:
                self.tracing.tell(batch)
            if not late and not any(part.holding.lost for part in batch.parts):
                if self.quality is not None:
                    self.quality.committed(batch.work, answer.results)
                if self.measures is not None:
                    self.measures.committed(batch, answer)

    async def _commit_parts(self, batch: MicroBatch, answer: Answer) -> bool:
        """Commits every part; True if one takes so long that it goes on beside the next micro-batches."""
        begun = {
            self._tasks.create_task(self._commit_part(part, i, batch.work, answer)): part.holding
            for i, part in enumerate(batch.parts)
        }
        _, late = await asyncio.wait(begun, timeout=STALL_S)
        for commit in late:
            self._hold_up(commit, begun[commit])
        return bool(late)

    def _hold_up(self, commit: asyncio.Task, holding: Holding) -> None:
        def go_on(_: asyncio.Task) -> None:
            holding.held_up -= 1
            self._arrived.set()

        holding.held_up += 1
        commit.add_done_callback(go_on)

    async def _commit_part(self, part: Part, index: int, work: Work, answer: Answer) -> None:
        holding = part.holding
        async with holding.turn:
            if not holding.lost:
                share = slice(work.bounds[index], work.bounds[index + 1])
                first, *states = commits_of(part, share, answer, index, self.knobs.limits)
                if await self._sent(holding, first):
                    holding.cursor = first.after
                    self._count(part, first)
                    if await self._all_sent(holding, states):
                        self.rows.stored(holding, part.written, part.reflected)
        self.rows.done(part.slots)
        self._settle(holding)

    async def _all_sent(self, holding: Holding, commits: Iterable[Commit]) -> bool:
        for commit in commits:
            if not await self._sent(holding, commit):
                return False
        return True

    async def _sent(self, holding: Holding, commit: Commit) -> bool:
        """Commits; False if the holding is lost by it."""
        try:
            outcome = await self._answer(holding, commit)
        except (StoreUnavailable, StoreFull, PartitionSealed) as error:
            self.lose(holding, str(error))
            return False
        self.metrics.commits.labels(outcome.value).inc()
        if outcome not in (Outcome.OK, Outcome.ALREADY):
            self.lose(holding, outcome.value)
            return False
        holding.attempts, holding.fresh_s = 1, self.clock()
        return True

    async def _answer(self, holding: Holding, commit: Commit) -> Outcome:
        """A full server took nothing: makes room, or waits with the commit in hand, until there is some."""
        while True:
            try:
                return await self.store.commit(holding.lease, commit)
            except StoreFull as error:
                self.metrics.store_refusals.labels("full").inc()
                self._crowded_until_s = self.clock() + CROWDED_S  # ticks that are in no state yet cannot make room
                if await self._make_room(holding.partition):
                    continue
                if not self._draining:
                    log.warning("store_full", extra={"partition": holding.partition, "why": str(error)})
                    await asyncio.sleep(FULL_PAUSE_S)
                if self._draining or holding.lost:
                    raise

    async def _make_room(self, wanting: int) -> bool:
        """Cuts history short, the wanting partition's if it has any, else that of another held here in its server."""
        for partition in (wanting, *(p for p in self.holdings if self.store.lie_together(wanting, p))):
            if gone := await self.store.make_room(partition):
                log.warning("history_cut", extra={"partition": partition, "entries": gone})
                return True
        return False

    def _count(self, part: Part, commit: Commit) -> None:
        self.metrics.ticks.inc(commit.applied)
        self.metrics.predictions.inc(len(commit.ids))
        if self.measures is not None:
            self.measures.count(len(commit.ids), len(commit.rejected))
        for rejected in commit.rejected:
            self.metrics.rejected.labels(_label(rejected.reason)).inc()
        self.metrics.tick_latency_seconds.observe(time.time() - part.ticks.arrivals_ns[0] / 1e9)

    def _settle(self, holding: Holding) -> None:
        holding.settle()
        if holding.lost and not holding.in_flight:
            self.device.table.forget(holding)

    def _forget(self, holding: Holding) -> None:
        """It gives no more ticks."""
        self.holdings.pop(holding.partition, None)
        self._resting.pop(holding, None)

    def lose(self, holding: Holding, why: str) -> None:
        """Throws away everything of a holding that may no longer be its worker's."""
        if holding.lost:
            return
        holding.lost = True
        holding.space.set()  # lets its reader end
        self._forget(holding)
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
    return {QUARANTINED: "quarantined", DEADLY: "deadly", OVER_QUOTA: "over_quota"}.get(reason, "malformed")
