"""The life of a worker on one screen: compile, join, hold a fair share of the partitions, drain."""

import asyncio
import importlib.metadata
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

from predictor_core import Program, payload_fields
from scheduler.placement import Member, PlacementRules, View, plan
from state_store import (
    Held,
    Meta,
    PartitionMoved,
    PartitionSealed,
    StateStore,
    StoreFull,
    StoreUnavailable,
    WorkerInfo,
)
from worker.beside import Beside
from worker.device import Device
from worker.errors import WrongBits
from worker.garbage import give_back_memory, spare_the_collector, sweep
from worker.holding import Holding
from worker.hotpath.tuning import Tuning
from worker.metrics import Metrics
from worker.pace import account
from worker.pipeline import Pipeline
from worker.settings import Settings
from worker.shutdown import Shutdown
from worker.version import version
from worker.wiring import make_device, make_pipeline, make_store, make_tracing, make_tuning

BEATS_PER_LEASE = 10
MEASURE_S = 2.0
SETBACK_S_MAX = 5.0
T = TypeVar("T")

log = logging.getLogger(__name__)


async def run_worker(
    settings: Settings,
    metrics: Metrics,
    *,
    stop: asyncio.Event,
    on_progress: Callable[[str], None],
    partitions: int | None = None,
) -> None:
    """Serves the fleet until `stop`; then commits what is in hand, gives its leases back and returns.

    With `partitions` it makes the fleet first if it is not there.
    """
    on_progress("joining the fleet")
    tracing = make_tracing(settings)
    device, store = make_device(settings), make_store(settings)
    try:
        partitions = await join(store, device.program, partitions)  # a refusal comes before the long part
        on_progress("compiling the graph")
        await device.compile()
        describe(device, partitions, metrics)
        pipeline = make_pipeline(settings, store, device, metrics)
        pipeline.tracing = tracing
        tuning = make_tuning(settings, pipeline, metrics)
        worker = Worker(store, pipeline, settings, metrics, partitions, tuning, await compare(store, device, pipeline))
        spare_the_collector()
        give_back_memory()
        on_progress("ready")
        await worker.run(stop)
    finally:
        await store.close()
        device.close()
        if tracing is not None:
            await asyncio.to_thread(tracing.close)


async def join(store: StateStore, program: Program, partitions: int | None) -> int:
    """Makes the fleet, or checks that its states are this program's; returns the number of its partitions now."""
    partitions = partitions or (await store.read_meta()).partitions
    meta = await store.open_fleet(partitions, program.layout_fingerprint, payload_fields(program.config))
    return meta.partitions


async def compare(store: StateStore, device: Device, pipeline: Pipeline) -> dict[str, str]:
    """What this machine gives for the known inputs; raises WrongBits where another worker of the same build differs."""
    numbers = pipeline.generations.current.everyone
    mark = device.golden.mark(device.depths[-1], numbers).hex()
    mine = {"build": device.program.fingerprint.hex(), "made_by": numbers.made_by.hex(), "known_inputs": mark}
    for other in await store.workers():
        if other.info.get("made_by") == mine["made_by"] and other.info.get("known_inputs", mark) != mark:
            raise WrongBits(
                f"this machine gives other bytes for the known inputs than {other.name} does, which has the same build "
                f"{mine['build']} and the same numbers. One of the two counts wrong: test both machines, and take this "
                "worker out until then"
            )
    return mine


def describe(device: Device, partitions: int, metrics: Metrics) -> None:
    """What a dashboard is told once: the build, the fleet's size, the depth that shedding starts from."""
    program = device.program
    jaxlib, layout = importlib.metadata.version("jaxlib"), program.layout_fingerprint.hex()
    metrics.build.info({"version": version(), "jaxlib": jaxlib, "layout": layout})
    metrics.partitions.set(partitions)
    metrics.depth.set(device.depths[-1])
    metrics.depth_configured.set(device.depths[-1])
    metrics.band_level.set(program.config.confidence_level)


class Worker:
    """Keeps its leases fresh and moves towards the placement that all live workers agree on."""

    def __init__(
        self,
        store: StateStore,
        pipeline: Pipeline,
        settings: Settings,
        metrics: Metrics,
        partitions: int,
        tuning: Tuning | None = None,
        says: dict[str, str] | None = None,
    ) -> None:
        self.tuning, self.says = tuning, says or {}
        if tuning is not None:
            tuning.on_numbers = self._take_generation
        self.store, self.pipeline, self.settings, self.metrics = store, pipeline, settings.worker, metrics
        self.partitions = partitions
        self.fleet: Meta | None = None  # as of the last beat
        self.moving = asyncio.Lock()  # from one generation of partitions to the next
        self.clock = pipeline.clock
        self.since_ms: dict[int, int] = {}
        self.setbacks: dict[int, tuple[int, float]] = {}  # times lost before a commit, and when to try again
        self.sealed: set[int] = set()
        self.generation = 0  # of the configuration, as far as it was looked at
        self.measured_s = -MEASURE_S
        self.beat_s = settings.worker.lease_ms / 1000 / BEATS_PER_LEASE
        self.beside = Beside(metrics)

    async def run(self, stop: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as tasks:
            self.pipeline.start(tasks)
            self.beside.start(tasks)
            if self.tuning is not None:
                tasks.create_task(self.tuning.run(stop))
            keeping = tasks.create_task(self._keep(stop))
            while not stop.is_set():
                await self._beat()
                await _sleep_unless(stop, self.beat_s)
            await keeping
            await self.drain()

    async def drain(self) -> None:
        """Commits what was taken, then lets others have the partitions at once."""
        shutdown = Shutdown(self.metrics.shutdown, self.clock)
        await self.beside.end()  # what is just being acquired is given back too
        held = list(self.pipeline.holdings.values())
        shutdown.begin(sum(holding.buffered for holding in held), partitions=len(held))
        await self.pipeline.drain()
        shutdown.phase("drain")
        leases = [holding.lease for holding in (*held, *self.pipeline.lost)]
        await asyncio.gather(*(self._leave(self.store.release, lease) for lease in leases))
        await self._leave(self.store.deregister_worker, self.settings.name)
        shutdown.end(0)

    async def _leave(self, leave: Callable[[T], Awaitable[None]], what: T) -> None:
        try:
            await leave(what)
        except (StoreUnavailable, StoreFull) as error:
            log.warning("lease_left_to_expire", extra={"why": str(error)})

    async def _keep(self, stop: asyncio.Event) -> None:
        """What each lease needs by itself; it does not wait for the node that has the fleet's keys."""
        while not stop.is_set():
            async with self.moving:
                await self._give_back_lost()
                await self._renew()
            await _sleep_unless(stop, self.beat_s)

    async def _beat(self) -> None:
        try:
            await self._take_generation()
            await self._follow()
            await self._place()
            await self._measure()
            self.metrics.vitals.store_seen = self.clock()
        except (StoreUnavailable, StoreFull) as error:
            self.metrics.store_refusals.labels("full" if isinstance(error, StoreFull) else "unavailable").inc()
            log.warning("store_unavailable", extra={"why": str(error)})
        self._show()

    def _show(self) -> None:
        metrics, holdings = self.metrics, self.pipeline.holdings.values()
        metrics.held_partitions.set(len(holdings))
        metrics.quarantined_assets.set(sum(len(holding.quarantined) for holding in holdings))
        metrics.sealed_partitions.set(len(self.sealed))
        metrics.compilations.set(self.pipeline.device.program.compilations)

    async def _take_generation(self) -> None:
        """The newest numbers of the fleet hold from the next micro-batch on."""
        number = (await self.store.read_config()).number
        if number == self.generation:
            return
        generations = self.pipeline.generations
        generations.learn(await self.store.config_history())
        self.generation = number
        if generations.refused:
            log.error("generation_refused", extra={"generation": number, "why": generations.refused})
            return
        self.metrics.generation.set(number)
        log.info("generation_taken", extra={"generation": number})

    async def _follow(self) -> None:
        """Goes with the fleet to its next generation of partitions, where it has one; the old ones are drained."""
        meta = await self.store.read_meta()
        if self.fleet is not None and meta.generation == self.fleet.generation:
            return
        async with self.moving:
            for holding in list(self.pipeline.holdings.values()):
                await self.pipeline.let_go(holding)
            for holding in self.pipeline.lost:
                await holding.settled()
            await self.beside.end()
            for partition in list(self.since_ms):
                self._gone(partition)
            for each in (self.pipeline.lost, self.setbacks, self.sealed):
                each.clear()
            self.store.follow(meta)
            self.fleet, self.partitions = meta, meta.partitions
        self.metrics.partitions.set(meta.partitions)
        if meta.generation:
            log.info("fleet_followed", extra={"partitions": meta.partitions, "of_generation": meta.generation})

    async def _give_back_lost(self) -> None:
        """A lost lease that is still in this worker's name would only keep others, and itself, waiting."""
        lost = {holding.partition: partial(self._give_back, holding) for holding in self.pipeline.lost}
        await self.beside.each(lost, self.beat_s)
        if lost and not self.pipeline.lost:
            sweep()

    async def _give_back(self, holding: Holding) -> None:
        await holding.settled()
        await self.store.release(holding.lease)
        self.pipeline.lost.remove(holding)
        self._gone(holding.partition)
        self._set_back(holding)

    def _set_back(self, holding: Holding) -> None:
        """What is lost again and again before a commit, as while its keys are moved, is tried less and less often."""
        count = 1 + self.setbacks.get(holding.partition, (0, 0.0))[0] if holding.cursor == holding.lease.cursor else 0
        pause_s = min(self.beat_s * 2**count, SETBACK_S_MAX) if count > 1 else 0.0
        self.setbacks[holding.partition] = min(count, 32), self.clock() + pause_s

    def _gone(self, partition: int) -> None:
        """Another worker reports on it now, unless it was taken again meanwhile."""
        if partition in self.pipeline.holdings:
            return
        self.since_ms.pop(partition, None)
        self.metrics.backlog.forget(partition)
        self.metrics.oldest_age_seconds.forget(partition)

    async def _renew(self) -> None:
        """Commits renew by themselves; the idle ones are renewed here, three times a lease."""
        due_s = self.clock() - self.settings.lease_ms / 3000
        due = [holding for holding in self.pipeline.holdings.values() if holding.fresh_s <= due_s]
        await self.beside.each({holding.partition: partial(self._renew_one, holding) for holding in due}, self.beat_s)

    async def _renew_one(self, holding: Holding) -> None:
        cursor = holding.cursor
        answer = await self.store.renew(holding.lease)
        if isinstance(answer, Held):
            self.pipeline.lose(holding, "taken over")
        elif answer.cursor != cursor == holding.cursor:
            self.pipeline.lose(holding, "the server's cursor is another one")
        else:
            holding.fresh_s = self.clock()

    async def _place(self) -> None:
        held = self.pipeline.holdings
        generation = self.fleet.generation if self.fleet is not None else 0
        said = {"held": sorted(held), "generation": generation, "capacity": 1.0, "did": account(self.metrics)}
        said |= self.says
        await self.store.register_worker(self.settings.name, said)
        workers = await self.store.workers()
        view = self._view([worker for worker in workers if worker.info.get("generation", 0) == generation])
        moves = plan(self.settings.name, {p: self.since_ms[p] for p in held}, view, self._now_ms(), PlacementRules())
        given = [partition for partition in moves.release if partition in held]  # the others were lost just now
        await self.beside.each({p: partial(self._hand_over, held[p]) for p in given}, self.beat_s)
        lost = {holding.partition for holding in self.pipeline.lost}  # given back first, or the release would hit us
        now = self.clock()
        early = {partition for partition, (_, until) in self.setbacks.items() if now < until}
        taken = [p for p in moves.acquire[: self.settings.capacity - len(held)] if p not in lost | early]
        await self.beside.each({p: partial(self._acquire, p) for p in taken}, self.beat_s)
        wanted = {p: partial(self.store.want, p, self.settings.name) for p in moves.want}
        await self.beside.each(wanted, self.beat_s)

    def _view(self, workers: list[WorkerInfo]) -> View:
        live = [worker for worker in workers if worker.age_ms < self.settings.lease_ms]
        return View(
            partitions=self.partitions,
            members=[Member(worker.name, worker.info.get("capacity", 1.0)) for worker in live],
            owners={p: worker.name for worker in live for p in worker.info.get("held", ())},
            wanted_by={p: self.store.seen(p).wanted_by for p in self.pipeline.holdings},
        )

    async def _measure(self) -> None:
        """What waits in the partitions held here, as the server sees it."""
        if self.clock() - self.measured_s < MEASURE_S:
            return
        self.measured_s = self.clock()
        held = list(self.pipeline.holdings)
        await self.beside.each({partition: partial(self._measure_one, partition) for partition in held}, self.beat_s)

    async def _measure_one(self, partition: int) -> None:
        probe = await self.store.probe(partition)
        if partition in self.pipeline.holdings:
            self.metrics.backlog.labels(partition).set(probe.backlog)
            self.metrics.oldest_age_seconds.labels(partition).set(probe.oldest_ms / 1000)

    async def _acquire(self, partition: int) -> None:
        try:
            lease = await self.store.acquire(partition, self.settings.name, self.settings.lease_ms)
        except PartitionMoved:
            return  # the fleet is about to follow
        except PartitionSealed as error:
            if partition not in self.sealed:  # once, not at every beat
                log.error("partition_sealed", extra={"partition": partition, "why": str(error)})
            self.sealed.add(partition)
            return
        self.sealed.discard(partition)
        if isinstance(lease, Held):
            return
        self.metrics.lease_events.labels("acquired").inc()
        log.info("partition_acquired", extra={"partition": partition, "epoch": lease.epoch})
        self.since_ms[partition] = self._now_ms()
        self.pipeline.hold(Holding(lease))

    async def _hand_over(self, holding: Holding) -> None:
        await self.pipeline.let_go(holding)
        await self.store.release(holding.lease)
        self._gone(holding.partition)
        self.metrics.lease_events.labels("handed_over").inc()
        log.info("partition_handed_over", extra={"partition": holding.partition})

    def _now_ms(self) -> int:
        return int(self.clock() * 1000)


async def _sleep_unless(stop: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()
