"""One seed, one history: a whole fleet, what happens to it, and the verdict.

The workers are the product's own (`worker.service.Worker` and all below it, up to the store's double and the toy
device). A plan drawn from the seed pauses and kills them at named points, starts and drains others, and does to the
server what the world does to servers. Then everything is made whole, the fleet works off what is left, and the judge
compares every byte.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import Context
from dataclasses import dataclass, field, replace
from random import Random
from types import SimpleNamespace

from scheduler.batching import BatchLimits
from scheduler.shedding import Shedder
from scheduler.storing import StoringRules
from state_store import MemoryStateStore, Meta, MoveRefused, Retention, StoreFull, StoreUnavailable
from state_store.outboxes import Outboxes
from tests.simulation.judge import Wrong, judge_fleet, judge_numbered
from tests.simulation.network import MOVING, POINTS, FaultyStore, Trace, Weather, Wire
from tests.simulation.producers import Feed, NumberedProducer, PlainClient
from tests.simulation.server import Server, WatchedStore
from tests.simulation.toy import DEADLY_VALUE, LAYOUT, TOY_GENERATIONS, ToyDevice
from tests.simulation.virtual import Process, Stuck, VirtualLoop
from worker.metrics import Metrics
from worker.pipeline import Pipeline
from worker.repartition import lead
from worker.service import Worker
from worker.settings import WorkerSettings

REWIND_MAX = 10_000
METRICS = Metrics()  # nobody looks at them here, and making them takes longer than a history


@dataclass(frozen=True)
class Cast:
    """What the parts are made of; the negative controls put in others."""

    store: Callable[..., MemoryStateStore] = WatchedStore
    faulty: Callable[..., FaultyStore] = FaultyStore
    pipeline: Callable[..., Pipeline] = Pipeline
    server: Callable[..., Server] = Server
    outboxes: Callable[..., Outboxes] = Outboxes


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
    storing: StoringRules = StoringRules(every=1)
    rest_s: float = 0.0
    workers_max: int = 12
    dooms: tuple[str, ...] = ()  # such as "kill at commit.before": for the first worker that comes there


EVENTS = (
    *("kill", "kill at a point", "kill at a point", "pause", "pause at a point", "zombie", "zombie at a point"),
    *("zombie at commit.before", "drain", "join", "restart", "cut", "full", "fail over"),
    *("repartition", "repartition", "repartition undone"),
)
NUMBERS = (1, 2, 3, 5)  # of partitions, to move to


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
            partitions_max=random.choice((1, 2, 4)), bytes_max=random.choice((150, 800_000)), tick_bytes=30,
        ),
        rows_kept=rows_max * random.choice((6, 100)),
        rest_s=random.choice((0.0, 0.05, 0.5)),
        storing=StoringRules(
            every=random.choice((1, 2, 8)), ticks_max=random.choice((6, 1_000)), late_s=random.choice((0.2, 15.0)),
            rows_at_once=rows_max,
        ),
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


@dataclass
class Operator:
    """Somebody who leads the fleet to another number of partitions."""

    process: Process
    wire: Wire
    task: asyncio.Task


class History:
    """Plays a plan; deterministic from its seed."""

    def __init__(
        self, seed: int, cast: Cast | None = None, change: Callable[[Plan], Plan] | None = None, trace: bool = False
    ) -> None:
        self.random = Random(seed)
        plan = draw_plan(self.random)
        self.plan, self.cast = change(plan) if change else plan, cast or Cast()
        self.loop = VirtualLoop(Random(self.random.random()))
        self.server = self.cast.server(self.loop.time)
        self.server.memory.meta = Meta(self.plan.partitions, LAYOUT, {})
        self.members: list[Member] = []
        self.operators: list[Operator] = []
        self.office = replace(self.plan.weather)  # where they sit
        self.numbers: dict[int, int] = {}  # of partitions, by generation: chosen once, by whoever leads there first
        self.over = False
        self.dooms = {}
        for doom in self.plan.dooms:
            act, _, point = doom.partition(" at ")
            self.dooms[point] = self._acts()[act]
        self.trace: Trace = (lambda text: print(f"{self.loop.time():10.4f} {text}")) if trace else (lambda text: None)
        assets = [b"asset/%d" % number for number in range(self.random.choice((2, 5, 9, 25)))]
        share = self.random.randrange(1, len(assets))
        self.numbered = [self._numbered("feed", assets[:share])]
        self.plain = PlainClient(self._feed(assets[share:]), self.server, self.server.meta, self._fork())

    def _fork(self) -> Random:
        return Random(self.random.random())

    def _feed(self, assets: list[bytes]) -> Feed:
        return Feed(assets, self.loop, self._fork())

    def _numbered(self, name: str, assets: list[bytes]) -> NumberedProducer:
        outboxes = self.cast.outboxes(self.server.meta, REWIND_MAX, lambda tick: tick[b"a"])
        loss = self.plan.weather.loss
        return NumberedProducer(name, self._feed(assets), outboxes, self.server, loss, self._fork())

    def run(self) -> None:
        """Plays to the end; raises what is wrong."""
        with _quiet():
            try:
                self.loop.run_until_complete(self._play())
            finally:
                self._clear_away()

    async def _play(self) -> None:
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
            storing=self.plan.storing,
            rest_s=self.plan.rest_s,
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

    def _tell_to_end(self, process: Process) -> None:
        next(member for member in self.members if member.process is process).stop.set()
        self._later(self.random.random() * self.plan.lease_ms / 1000, self._join)

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
        elif event == "repartition":
            self._repartition()
        elif event == "deadly tick":
            self._send_deadly()
        elif event == "deaths":
            await self._kill_in_turn()
        elif event in ("restart", "cut", "full", "fail over", "repartition undone"):
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
        if event == "repartition undone":
            await self._undo_a_repartition()
            return
        if event == "fail over":
            replica = server.copy()
            await asyncio.sleep(self.random.random() * self.plan.lease_ms / 1000)
            self.server.fail_over(replica, ahead_ms=self.random.choice((0, 0, 5, 700)))
        server.cut()
        if event == "restart" or (event == "fail over" and self.random.random() < 0.5):
            server.down = True
            await asyncio.sleep(length_s)
            server.down = False

    def _to_worker(self, event: str, member: Member) -> None:
        """Now, or at a point to come: it dies, or stops for less than a lease, or for longer; or it is told to end."""
        word, _, point = event.partition(" at ")
        if point:
            member.wire.doom[self.random.choice(POINTS) if point == "a point" else point] = self._acts()[word]
        else:
            self._acts()[word](member.process)

    def _acts(self) -> dict[str, Callable[[Process], None]]:
        short, long = self.random.random(), 1 + 2 * self.random.random()
        return {
            "kill": self._kill,
            "drain": self._tell_to_end,
            "pause": lambda process: self._pause(process, short),
            "zombie": lambda process: self._pause(process, long),
        }

    def _send_deadly(self) -> None:
        self.plain.append(self.plain.feed.tick() | {b"y": b"%d" % int(DEADLY_VALUE)})

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

    # -- operators ----------------------------------------------------------------------------------------------------

    def _repartition(self) -> None:
        """Somebody gives the command; it may die half-way, or stand still there, while others go on."""
        fate = self.random.choice((None, self._end, self._acts()["pause"], self._acts()["zombie"]))
        self._give_command(self.random.choice(NUMBERS), {self.random.choice(MOVING): fate} if fate else {})

    async def _undo_a_repartition(self) -> None:
        """The replica that is promoted has not heard of the move, or not all; producers work before and after."""
        replica, primary, generation = self.server.copy(), self.server.primary, self.server.meta.generation
        lease_s = self.plan.lease_ms / 1000
        self._repartition()
        for _ in range(60):
            await asyncio.sleep(lease_s / 20)
            if self.random.random() < 0.02:
                replica = self.server.copy()
            if self.server.meta.generation > generation:
                break
        await self._send_more(lease_s)
        if self.server.primary == primary:
            self.server.fail_over(replica, ahead_ms=0)
            if self.random.random() < 0.5:  # else the fleet may be led on before they have noticed
                await self._send_more(lease_s)

    async def _send_more(self, lease_s: float) -> None:
        await asyncio.gather(*(producer.send(3, lease_s / 4) for producer in self.numbered))

    def _give_command(self, partitions: int, doom: Mapping[str, Callable[[Process], None]]) -> None:
        process = Process(f"operator-{len(self.operators) + 1}")
        wire = Wire(process, self.server, self.office, self.loop, self._fork(), self.trace)
        wire.doom.update(doom)
        self.operators.append(Operator(process, wire, self.loop.spawn(self._lead(wire, partitions), process)))

    async def _lead(self, wire: Wire, partitions: int) -> None:
        """To the next generation of partitions; the command is given again until the fleet is there."""
        goal = self.server.meta.generation + 1
        say = lambda text: self.trace(f"{wire.process.name}: {text}")  # noqa: E731
        while (generation := self.server.meta.generation) < goal:
            others = [number for number in (partitions, *NUMBERS) if number != self.server.meta.partitions]
            store = self.cast.faulty(wire, self.plan.retention, self.cast.store)
            try:
                await lead(store, self.numbers.setdefault(generation + 1, others[0]), say)
            except (StoreUnavailable, StoreFull, MoveRefused) as error:
                say(repr(error))
                await asyncio.sleep(wire.random.random() * self.plan.lease_ms / 5000)

    def _end(self, process: Process) -> None:
        process.crashed = True
        self.trace(f"{process.name}: is dead")

    async def _end_moves(self, lease_s: float) -> None:
        """What was begun is done, and what a failover took back is done again."""
        while True:
            leading = [operator.task for operator in self.operators if not operator.process.crashed]
            late = (await asyncio.wait(leading, timeout=60 * lease_s))[1] if leading else set()
            if late:
                raise Wrong(f"the fleet does not get to its next partitions: {self.server.meta}")
            if self.server.meta.generation >= max(self.numbers, default=0):
                return
            self._give_command(self.plan.partitions, {})

    # -- the end ------------------------------------------------------------------------------------------------------

    async def _make_whole(self) -> None:
        """No more faults; one worker at least has a long life before it."""
        self.trace("no more faults")
        self.plan.weather.calm()
        self.office.calm()
        for each in (*self.members, *self.operators):
            each.wire.doom.clear()
        self.server.down = self.server.memory.full = False
        if not any(member.alive for member in self.members):
            assert self._join() is not None
        await self._end_moves(self.plan.lease_ms / 1000)
        for producer in self.numbered:
            await producer.send_last()
        self.plain.send_last()

    async def _work_off(self) -> None:
        lease_s = self.plan.lease_ms / 1000
        deadline_s = self.loop.time() + 60 * lease_s
        while not self._idle():
            self._fail_if_a_worker_ended()
            if self.loop.time() > deadline_s:
                raise Wrong(f"ticks are left after {60 * lease_s:.0f} s without faults: {self._waiting()}")
            await asyncio.sleep(lease_s / 4)

    def _waiting(self) -> dict[int, int]:
        meta = self.server.meta
        kept = {p: self.server.memory.partition(p, meta.generation) for p in range(meta.partitions)}
        return {p: each.backlog() or int(each.state_cursor != each.cursor) for p, each in kept.items()}

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
        judge_fleet(self.server)
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
        for each in (*self.members, *self.operators):
            loop.wake(each.process)
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
