"""One seed, one history: a whole fleet, what happens to it, and the verdict.

The workers are the product's own (`worker.service.Worker` and all below it, up to the store's double and the toy
device). A plan drawn from the seed pauses and kills them at named points, starts and drains others, and does to the
server what the world does to servers. Then everything is made whole, the fleet works off what is left, and the judge
compares every byte.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import Context
from dataclasses import dataclass, field
from random import Random
from types import SimpleNamespace

from scheduler.batching import BatchLimits
from scheduler.shedding import Shedder
from state_store import MemoryStateStore, Retention
from state_store.keys import partition_of
from tests.simulation.judge import Wrong, judge_numbered, judge_partition
from tests.simulation.network import POINTS, FaultyStore, Trace, Weather, Wire
from tests.simulation.producers import Feed, NumberedProducer, PlainClient
from tests.simulation.server import Server, WatchedStore
from tests.simulation.toy import DEADLY_VALUE, LAYOUT, TOY_GENERATIONS, ToyDevice
from tests.simulation.virtual import Process, Stuck, VirtualLoop
from worker.metrics import Metrics
from worker.pipeline import Pipeline
from worker.service import Worker
from worker.settings import WorkerSettings

METRICS = Metrics()  # nobody looks at them here, and making them takes longer than a history


@dataclass(frozen=True)
class Cast:
    """What the parts are made of; the negative controls put in others."""

    store: Callable[..., MemoryStateStore] = WatchedStore
    faulty: Callable[..., FaultyStore] = FaultyStore
    pipeline: Callable[..., Pipeline] = Pipeline


@dataclass(frozen=True)
class Plan:
    """All that a seed decides before anything begins."""

    lease_ms: int
    span_s: float
    partitions: int
    workers: int
    ticks: int
    limits: BatchLimits
    rows_kept: int
    retention: Retention
    events: tuple[str, ...]
    weather: Weather
    state_every: int = 1
    workers_max: int = 12
    dooms: tuple[str, ...] = ()  # such as "kill at commit.before": for the first worker that comes there


EVENTS = (
    *("kill", "kill at a point", "kill at a point", "pause", "pause at a point", "zombie", "zombie at a point"),
    *("zombie at commit.before", "drain", "join", "restart", "cut", "full", "fail over"),
)


def draw_plan(random: Random) -> Plan:
    lease_ms = random.choice((1_000, 5_000, 20_000))
    rows_max = random.choice((2, 3, 64))
    return Plan(
        lease_ms=lease_ms,
        span_s=lease_ms / 1000 * random.choice((0.5, 1.5, 3.0)),
        partitions=random.choice((1, 2, 3)),
        workers=random.choice((1, 2, 2, 3)),
        ticks=random.randrange(10, 50),
        limits=BatchLimits(
            rows_max=rows_max, ticks_max=random.choice((1, 4, 64)), ticks_per_asset_max=random.choice((1, 3, 16)),
            read_max=random.choice((2, 8, 64)), buffered_max=random.choice((8, 64)),
        ),
        rows_kept=rows_max * random.choice((6, 100)),
        state_every=random.choice((1, 2, 8)),
        retention=Retention(ticks=random.choice((0, 8, 100_000))),
        events=tuple(random.choice(EVENTS) for _ in range(random.choice((0, 1, 2, 4, 6)))),
        weather=Weather(
            loss=random.choice((0.0, 0.01, 0.05, 0.2)),
            slow=random.choice((0.0, 0.0, 0.02, 0.1)),
            slow_s=random.choice((0.1, 1.0, 2.0)) * lease_ms / 1000,
            late_copies=random.choice((0.0, 0.1, 0.5)),
            usual_s=random.choice((0.0005, 0.004, 0.05)),
        ),
    )  # fmt: skip


@dataclass
class Member:
    """A worker process of the history."""

    process: Process
    wire: Wire
    pipeline: Pipeline
    stop: asyncio.Event
    task: asyncio.Task = field(init=False)

    @property
    def alive(self) -> bool:
        return not (self.process.crashed or self.stop.is_set())

    @property
    def asleep(self) -> bool:
        return self.process.paused and not self.process.crashed


class History:
    """Plays a plan; deterministic from its seed."""

    def __init__(
        self, seed: int, cast: Cast | None = None, change: Callable[[Plan], Plan] | None = None, trace: bool = False
    ) -> None:
        self.random = Random(seed)
        plan = draw_plan(self.random)
        self.plan, self.cast = change(plan) if change else plan, cast or Cast()
        self.loop = VirtualLoop(Random(self.random.random()))
        self.server = Server(self.loop.time)
        self.members: list[Member] = []
        self.over = False
        self.dooms = {}
        for doom in self.plan.dooms:
            act, _, point = doom.partition(" at ")
            self.dooms[point] = self._acts()[act]
        self.trace: Trace = (lambda text: print(f"{self.loop.time():10.4f} {text}")) if trace else (lambda text: None)
        assets = [b"asset/%d" % number for number in range(self.random.choice((2, 5, 9, 25)))]
        share = self.random.randrange(1, len(assets))
        self.numbered = [self._numbered("feed", assets[:share])]
        self.plain = PlainClient(self._feed(assets[share:]), self.plan.partitions, self.server, self._fork())

    def _fork(self) -> Random:
        return Random(self.random.random())

    def _feed(self, assets: list[bytes]) -> Feed:
        return Feed(assets, self.loop, self._fork())

    def _numbered(self, name: str, assets: list[bytes]) -> NumberedProducer:
        loss = self.plan.weather.loss
        return NumberedProducer(name, self._feed(assets), self.plan.partitions, self.server, loss, self._fork())

    def run(self) -> None:
        """Plays to the end; raises what is wrong."""
        with _quiet():
            try:
                self.loop.run_until_complete(self._play())
            finally:
                self._clear_away()

    async def _play(self) -> None:
        await MemoryStateStore(self.server.memory).open_fleet(self.plan.partitions, LAYOUT, {})
        for _ in range(self.plan.workers):
            self._join()
        span_s, share = self.plan.span_s, self.plan.ticks // 2
        sending = [producer.send(share, span_s) for producer in [*self.numbered, self.plain]]
        await asyncio.gather(*sending, *(self._happens(event) for event in self.plan.events))
        await self._make_whole()
        await self._work_off()
        await self._stop_all()
        self._judge()

    # -- workers ------------------------------------------------------------------------------------------------------

    def _join(self) -> Member | None:
        if self.over or len(self.members) >= self.plan.workers_max:
            return None
        process = Process(f"worker-{len(self.members) + 1}")
        wire = Wire(process, self.server, self.plan.weather, self.loop, self._fork(), self.trace)
        wire.dooms.append(self.dooms)
        device = ToyDevice(self.plan.rows_kept, wire.compute, lambda: self._kill(process))
        store = self.cast.faulty(wire, self.plan.retention, self.cast.store)
        ahead_s = self.random.random() * 1e4
        pipeline = self.cast.pipeline(
            *(store, device, self.plan.limits, Shedder(), METRICS, TOY_GENERATIONS),
            clock=lambda: ahead_s + self.loop.time(),
            state_every=self.plan.state_every,
        )
        settings = WorkerSettings.model_construct(name=process.name, lease_ms=self.plan.lease_ms, capacity=256)
        member = Member(process, wire, pipeline, asyncio.Event())
        worker = Worker(store, pipeline, SimpleNamespace(worker=settings), METRICS, self.plan.partitions)
        member.task = self.loop.spawn(worker.run(member.stop), process)
        self.members.append(member)
        self.trace(f"{process.name}: joins")
        return member

    def _kill(self, process: Process) -> None:
        process.crashed = True
        self.trace(f"{process.name}: is dead")
        self._later(self.random.random() * self.plan.lease_ms / 500, self._join)

    def _pause(self, process: Process, leases: float) -> None:
        process.paused = True
        self.trace(f"{process.name}: is paused for {leases:.1f} leases")
        self._later(leases * self.plan.lease_ms / 1000, self._wake, process)

    def _wake(self, process: Process) -> None:
        if process.paused and not process.crashed:
            self.trace(f"{process.name}: wakes")
            self.loop.wake(process)

    def _later(self, seconds: float, act: Callable, *arguments: Process) -> None:
        self.loop.call_later(seconds, act, *arguments, context=Context())  # outside of any process

    # -- what happens -------------------------------------------------------------------------------------------------

    async def _happens(self, event: str) -> None:
        await asyncio.sleep(self.random.random() * self.plan.span_s)
        self.trace(f"it happens: {event}")
        alive = [member for member in self.members if member.alive]
        if event == "join" or not alive:
            self._join()
        elif event == "deadly tick":
            self._send_deadly()
        elif event == "deaths":
            await self._kill_in_turn()
        elif event in ("restart", "cut", "full", "fail over"):
            await self._to_server(event)
        else:
            self._to_worker(event, self.random.choice(alive))

    async def _to_server(self, event: str) -> None:
        server, length_s = self.server, self.random.random() * self.plan.lease_ms / 500
        if event == "full":
            server.memory.full = True
            await asyncio.sleep(length_s)
            server.memory.full = False
            return
        if event == "fail over":
            replica = server.copy()
            await asyncio.sleep(self.random.random() * self.plan.lease_ms / 1000)
            server.fail_over(replica, ahead_ms=self.random.choice((0, 0, 5, 700)))
        server.cut()
        if event == "restart" or (event == "fail over" and self.random.random() < 0.5):
            server.down = True
            await asyncio.sleep(length_s)
            server.down = False

    def _to_worker(self, event: str, member: Member) -> None:
        """Now, or at a point to come: it dies, or stops for less than a lease, or for longer; or it is told to end."""
        word, _, point = event.partition(" at ")
        if word == "drain":
            member.stop.set()
            self._later(self.random.random() * self.plan.lease_ms / 1000, self._join)
        elif point:
            member.wire.doom[self.random.choice(POINTS) if point == "a point" else point] = self._acts()[word]
        else:
            self._acts()[word](member.process)

    def _acts(self) -> dict[str, Callable[[Process], None]]:
        short, long = self.random.random(), 1 + 2 * self.random.random()
        return {
            "kill": self._kill,
            "pause": lambda process: self._pause(process, short),
            "zombie": lambda process: self._pause(process, long),
        }

    def _send_deadly(self) -> None:
        tick = self.plain.feed.tick() | {b"y": b"%d" % int(DEADLY_VALUE)}
        self.server.append(partition_of(tick[b"a"], self.plan.partitions), tick)

    async def _kill_in_turn(self) -> None:
        """Ten workers die, each as soon as it holds something; the next one lives."""
        for _ in range(10):
            self._kill((await self._owner()).process)
        await self._owner()
        await asyncio.sleep(self.plan.lease_ms / 1000)

    async def _owner(self) -> Member:
        while not (owners := [member for member in self.members if member.alive and member.pipeline.holdings]):
            await asyncio.sleep(self.plan.lease_ms / 5000)
        return owners[0]

    # -- the end ------------------------------------------------------------------------------------------------------

    async def _make_whole(self) -> None:
        """No more faults; one worker at least has a long life before it."""
        self.trace("no more faults")
        self.plan.weather.calm()
        for member in self.members:
            member.wire.doom.clear()
        self.server.down = self.server.memory.full = False
        for producer in self.numbered:
            await producer.send_last()
        if not any(member.alive for member in self.members):
            assert self._join() is not None

    async def _work_off(self) -> None:
        lease_s = self.plan.lease_ms / 1000
        deadline_s = self.loop.time() + 60 * lease_s
        while not self._idle():
            self._fail_if_a_worker_ended()
            if self.loop.time() > deadline_s:
                raise Wrong(f"ticks are left after {60 * lease_s:.0f} s without faults: {self._waiting()}")
            await asyncio.sleep(lease_s / 4)

    def _waiting(self) -> dict[int, int]:
        return {p: self.server.memory.partition(p).backlog() for p in range(self.plan.partitions)}

    def _idle(self) -> bool:
        asleep = any(member.asleep for member in self.members)
        return not asleep and not any(self._waiting().values())

    def _fail_if_a_worker_ended(self) -> None:
        for member in self.members:
            if member.task.done() and (error := member.task.exception()) is not None:
                raise Wrong(f"{member.process.name} ended by {_root(error)!r}") from error

    async def _stop_all(self) -> None:
        """SIGTERM to all that are alive; each ends by itself, soon."""
        self.over = True
        for member in self.members:
            member.stop.set()
        ending = [member.task for member in self.members if not member.process.crashed]
        _, late = await asyncio.wait(ending, timeout=3 * self.plan.lease_ms / 1000 + 10)
        self._fail_if_a_worker_ended()
        if late := [member for member in self.members if member.task in late and not member.process.crashed]:
            raise Wrong(f"a drain did not end: {[member.process.name for member in late]}")

    def _judge(self) -> None:
        for partition in range(self.plan.partitions):
            judge_partition(self.server, partition, self.plan.partitions)
        judge_numbered(self.server, self.numbered)
        for member in self.members:
            if not member.process.crashed:
                self._judge_member(member)
        if self.server.memory.fouls:
            raise Wrong("; ".join(self.server.memory.fouls))
        if self.loop.faults:
            raise Wrong(f"nobody took notice of {self.loop.faults}")

    def _judge_member(self, member: Member) -> None:
        pipeline, name = member.pipeline, member.process.name
        table = pipeline.device.table
        if len(table) or table.busy.any():
            raise Wrong(f"{name} ended with {len(table)} slots taken and {int(table.busy.sum())} busy")
        if any(holding.in_flight for holding in [*pipeline.holdings.values(), *pipeline.lost]):
            raise Wrong(f"{name} ended with micro-batches in flight")
        left = [task.get_coro() for task, process in self.loop.tasks.items() if process is member.process]
        if left:
            raise Wrong(f"{name} ended and left {left}")

    def _clear_away(self) -> None:
        """Ends what the dead left, so that nothing of a history outlives it."""
        loop = self.loop
        self.server.down = True
        for member in self.members:
            loop.wake(member.process)
        self.over = True
        for member in self.members:
            member.wire.dooms.clear()
        # In an order that the seed decides; some wait, when cancelled, for one that was cancelled before them.
        while left := [*loop.tasks] or [*asyncio.all_tasks(loop)]:
            with suppress(Stuck):
                loop.run_until_complete(_end(left))
        loop.close()


async def _end(tasks: list[asyncio.Task]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _root(error: BaseException) -> BaseException:
    """The first failure inside the groups that it travelled in."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the workers' logs of thousands of histories out of the way."""
    log = logging.getLogger("worker")
    before = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        log.setLevel(before)
