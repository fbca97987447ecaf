"""The life of a worker on one screen: compile, join, hold a fair share of the partitions, drain."""

import asyncio
import logging
from collections.abc import Callable

from predictor_core import Program, payload_fields
from scheduler.placement import Member, PlacementRules, View, plan
from state_store import Held, PartitionSealed, StateStore, StoreFull, StoreUnavailable, WorkerInfo
from worker.garbage import spare_the_collector
from worker.holding import Holding
from worker.hotpath.tuning import Tuning
from worker.metrics import Metrics
from worker.pipeline import Pipeline
from worker.settings import Settings
from worker.shutdown import Shutdown
from worker.wiring import make_device, make_pipeline, make_store, make_tuning

BEATS_PER_LEASE = 10
MEASURE_S = 2.0

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
    device, store = make_device(settings), make_store(settings)
    try:
        partitions = await join(store, device.program, partitions)  # a refusal comes before the long part
        on_progress("compiling the graph")
        await device.compile()
        metrics.compilations.set(device.program.compilations)
        pipeline = make_pipeline(settings, store, device, metrics)
        tuning = make_tuning(settings, pipeline, metrics)
        worker = Worker(store, pipeline, settings, metrics, partitions, tuning)
        spare_the_collector()
        on_progress("ready")
        await worker.run(stop)
    finally:
        await store.close()
        device.close()


async def join(store: StateStore, program: Program, partitions: int | None) -> int:
    """Makes the fleet, or checks that its states are this program's; returns the number of partitions."""
    partitions = partitions or (await store.read_meta()).partitions
    await store.open_fleet(partitions, program.layout_fingerprint, payload_fields(program.config))
    return partitions


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
    ) -> None:
        self.tuning = tuning
        self.store, self.pipeline, self.settings, self.metrics = store, pipeline, settings.worker, metrics
        self.partitions = partitions
        self.clock = pipeline.clock
        self.since_ms: dict[int, int] = {}
        self.sealed: set[int] = set()
        self.generation = 0  # of the configuration, as far as it was looked at
        self.measured_s = -MEASURE_S
        self.beat_s = settings.worker.lease_ms / 1000 / BEATS_PER_LEASE

    async def run(self, stop: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as tasks:
            self.pipeline.start(tasks)
            if self.tuning is not None:
                tasks.create_task(self.tuning.run(stop))
            while not stop.is_set():
                await self._beat()
                await _sleep_unless(stop, self.beat_s)
            await self.drain()

    async def drain(self) -> None:
        """Commits what was taken, then lets others have the partitions at once."""
        held = list(self.pipeline.holdings.values())
        shutdown = Shutdown(self.metrics.shutdown, self.clock)
        shutdown.begin(sum(holding.buffered for holding in held), partitions=len(held))
        await self.pipeline.drain()
        shutdown.phase("drain")
        try:
            for holding in [*held, *self.pipeline.lost]:
                await self.store.release(holding.lease)
            await self.store.deregister_worker(self.settings.name)
        except (StoreUnavailable, StoreFull) as error:
            log.warning("leases_left_to_expire", extra={"why": str(error)})
        shutdown.end(0)

    async def _beat(self) -> None:
        try:
            await self._take_generation()
            await self._give_back_lost()
            await self._renew()
            await self._place()
            await self._measure()
            self.metrics.vitals.store_seen = self.clock()
        except (StoreUnavailable, StoreFull) as error:
            log.warning("store_unavailable", extra={"why": str(error)})
        self.metrics.held_partitions.set(len(self.pipeline.holdings))

    async def _take_generation(self) -> None:
        """The newest numbers of the fleet hold from the next micro-batch on."""
        number = (await self.store.read_config()).number
        if number == self.generation:
            return
        self.generation = number
        generations = self.pipeline.generations
        generations.learn(await self.store.config_history())
        if generations.refused:
            log.error("generation_refused", extra={"generation": number, "why": generations.refused})
            return
        self.metrics.generation.set(number)
        log.info("generation_taken", extra={"generation": number})

    async def _give_back_lost(self) -> None:
        """A lost lease that is still in this worker's name would only keep others, and itself, waiting."""
        while self.pipeline.lost:
            holding = self.pipeline.lost[0]
            await holding.settled()
            await self.store.release(holding.lease)
            self.pipeline.lost.pop(0)
            self._gone(holding.partition)

    def _gone(self, partition: int) -> None:
        """Another worker reports on it now."""
        self.since_ms.pop(partition, None)
        self.metrics.backlog.forget(partition)
        self.metrics.oldest_age_seconds.forget(partition)

    async def _renew(self) -> None:
        """Commits renew by themselves; the idle ones are renewed here, three times a lease."""
        due_s = self.clock() - self.settings.lease_ms / 3000
        for holding in list(self.pipeline.holdings.values()):
            if holding.fresh_s > due_s:
                continue
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
        await self.store.register_worker(self.settings.name, {"held": sorted(held), "capacity": 1.0})
        view = self._view(await self.store.workers())
        moves = plan(self.settings.name, {p: self.since_ms[p] for p in held}, view, self._now_ms(), PlacementRules())
        for partition in moves.release:
            if partition in held:  # else it was lost while another was handed over
                await self._hand_over(held[partition])
        lost = {holding.partition for holding in self.pipeline.lost}  # given back first, or the release would hit us
        for partition in moves.acquire[: self.settings.capacity - len(held)]:
            if partition not in lost:
                await self._acquire(partition)
        for partition in moves.want:
            await self.store.want(partition, self.settings.name)

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
        for partition in list(self.pipeline.holdings):
            probe = await self.store.probe(partition)
            self.metrics.backlog.labels(partition).set(probe.backlog)
            self.metrics.oldest_age_seconds.labels(partition).set(probe.oldest_ms / 1000)

    async def _acquire(self, partition: int) -> None:
        try:
            lease = await self.store.acquire(partition, self.settings.name, self.settings.lease_ms)
        except PartitionSealed as error:
            if partition not in self.sealed:  # once, not at every beat
                log.error("partition_sealed", extra={"partition": partition, "why": str(error)})
            self.sealed.add(partition)
            return
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
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        pass
