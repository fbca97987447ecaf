"""A real server, leaders on a clock that the test owns, and workers whose latency depends on their knobs."""

import itertools
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import numpy as np
import pytest

from predictor_core import PredictorConfig
from scheduler.batching import BatchLimits
from scheduler.hotpath import LatencyHistogram
from scheduler.hotpath.trial import Sums
from state_store import EmbeddedRedis, RedisStateStore
from state_store.hotpath.store import HotpathStore
from worker.hotpath.archive import events
from worker.hotpath.digest import WorkerDigest
from worker.hotpath.follower import Follower
from worker.hotpath.knobs import REGISTRY, Knobs
from worker.hotpath.leader import Leader
from worker.hotpath.model_knobs import model_of
from worker.hotpath.order import Order
from worker.settings import HotpathSettings

NATIVES = {"window_ms": 40.0, "ticks_max": 1024, "read_ahead": 8192}
MODEL = model_of(PredictorConfig())
SETTINGS = HotpathSettings(
    poll_s=0.05,
    digest_s=1.0,
    digests_per_side=2,
    settle_s=0.0,
    patience_s=10.0,
    lease_ms=600_000,
    samples_min=1,
    preset="balanced",
    hourly_budget=100.0,
    learning_rate=1.0,
    canary_round_s=2.0,
    canary_scored_min=200,
    canary_patience_s=60.0,
)


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    with EmbeddedRedis(tmp_path_factory.mktemp("redis"), port=0) as running:
        yield running


_namespaces = itertools.count()


@pytest.fixture
def namespace() -> str:
    return f"hot{next(_namespaces)}"


class FakeWorker:
    """Follows documents as a worker does; its latency is what `world` makes of its knobs."""

    def __init__(self, fleet: "Fleet", name: str, world: Callable[[Knobs], float]):
        self.fleet, self.name, self.world = fleet, name, world
        self.swaps: list[Knobs] = []
        limits = BatchLimits(ticks_max=1024, buffered_max=8192)
        self.follower = Follower(fleet.namespace, Knobs(limits, 0.04), lambda knobs, _: self.swaps.append(knobs))

    async def look(self) -> None:
        follower, store = self.follower, self.fleet.store
        found = await store.follow(self.name, self._ack(), *follower.pair)
        confirmed = found.leader_left_ms > 0 and found.document is None
        follower.hear(self.fleet.now_s, confirmed, found.frozen, found.configured)
        if found.document is not None and follower.offer(found.document, self.fleet.now_s):
            await store.follow(self.name, self._ack(), *follower.pair)

    async def measure(self, **changes) -> None:
        changes |= await self.fleet.losses()
        digest = digest_of(self.follower.knobs, self.world(self.follower.knobs), **changes)
        await self.fleet.store.send_digest(self.name, digest.encode())

    def _ack(self) -> str:
        fence, generation = self.follower.knobs.pair
        return json.dumps({"fence": fence, "generation": generation})


def digest_of(knobs: Knobs, latency_ms: float, count: int = 1000, **changes) -> WorkerDigest:
    latency = LatencyHistogram()
    latency.record(np.full(count, latency_ms * 1e6))
    values = {
        "fence": knobs.fence,
        "generation": knobs.generation,
        "since_us": 10_000_000,
        "window_us": 1_000_000,
        "latency": latency,
        "ages_s": 0.1,
        "age_max_s": 0.1,
        "batches": 1,
        "cpu_s": 0.1,
        "predictions": count,
        "error": 1.0,
        "naive": 1.0,
    }
    return WorkerDigest(**values | changes)


def by_window(knobs: Knobs) -> float:
    """A world in which a shorter window is better."""
    return 20.0 + knobs.window_s * 1000


class Fleet:
    """One namespace, its workers, and as many leaders as a test wants."""

    def __init__(self, url: str, namespace: str, directory):
        self.url, self.namespace, self.directory = url, namespace, directory
        self.store = HotpathStore(url, namespace)
        self.stores: list = [self.store]
        self.now_s = 1000.0
        self.world = by_window
        self.workers = [FakeWorker(self, f"w{number}", self._latency) for number in range(2)]
        self.orders = itertools.count()
        self.numbers = RedisStateStore(url, namespace)
        self.stores.append(self.numbers)
        self.chance = random.Random(1)
        self.forecast_loss: Callable[[dict], float] = lambda numbers: 1.0

    async def losses(self) -> dict:
        """What a worker tells of its forecasts while a canary is tried."""
        found = await self.numbers.read_config()
        canary = found.values.get("canary")
        if canary is None:
            return {}
        told = {}
        everyone = found.values.get("predictor", {})
        for group in range(canary["of"]):
            numbers = {**everyone, **(canary["numbers"] if group == canary["turn"] else {})}
            loss = self.forecast_loss(numbers) + 0.1 * group + 0.01 * self.chance.random()
            told[group] = Sums(100, 100 * loss, 100.0, 98)
        return {"numbers": found.number, "losses": told}

    def join(self, name: str) -> None:
        """One worker more."""
        self.workers.append(FakeWorker(self, name, self._latency))

    def _latency(self, knobs: Knobs) -> float:
        return self.world(knobs)

    def leader(self, name: str = "w0", store: HotpathStore | None = None, **settings) -> Leader:
        given = SETTINGS.model_copy(update={"directory": self.directory, **settings})
        if store is None:
            store = HotpathStore(self.url, self.namespace, audit_max=given.audit_max)
            self.stores.append(store)
        numbers = RedisStateStore(self.url, self.namespace)
        self.stores.append(numbers)
        return Leader(store, numbers, given, self.namespace, name, dict(NATIVES), MODEL, lambda: self.now_s)

    async def window(self, leader: Leader | None, **changes) -> None:
        """One second: every worker looks and tells, and the leader does what is to be done."""
        for worker in self.workers:
            await worker.look()
            await worker.measure(**changes)
        self.now_s += 1.0
        if leader is not None:
            await leader.step()

    async def until(self, leader: Leader, holds: Callable[[], object], limit: int = 200) -> None:
        for _ in range(limit):
            await self.window(leader)
            if holds():
                return
        raise AssertionError(f"not within {limit} windows: {leader.report.encode(leader.term)}")

    async def tuning(self, **settings) -> Leader:
        """A leader whose dry run is over."""
        leader = self.leader(**settings)
        for _ in range(3 * leader.settings.digests_per_side):
            await self.window(leader)
        assert (await self.order(leader, "dry-run-off"))["ok"]
        return leader

    async def order(self, leader: Leader, name: str, **args) -> dict:
        """Gives an order and lets the leader follow it."""
        order = Order(f"order-{next(self.orders)}", name, "ana", "a test", args.pop("expect", None), args)
        await self.store.give(order.encode())
        await leader.step()
        return json.loads(await self.store.answer(order.id) or b"{}")

    async def audit(self) -> list[dict]:
        """All of it, on disk or not yet."""
        archived = list(events(self.directory)) if self.directory.is_dir() else []
        seen = {event["id"] for event in archived}
        waiting = [(name, json.loads(event)) for name, event in await self.store.unarchived("0-0")]
        return archived + [{"id": name, **event} for name, event in waiting if name not in seen]

    async def end_lease(self) -> None:
        """As if its time were over: whoever held it hears that it has none."""
        await self.store._call("HSET", self.store.keys.leader, "until", "0")

    async def close(self) -> None:
        for store in self.stores:
            await store.close()


@pytest.fixture
def open_fleet(server, namespace, tmp_path):
    @asynccontextmanager
    async def opened() -> AsyncIterator[Fleet]:
        fleet = Fleet(server.url, namespace, tmp_path / "hotpath")
        try:
            yield fleet
        finally:
            await fleet.close()

    return opened


@pytest.fixture(name="digest_of")
def _digest_of():
    return digest_of


@pytest.fixture
def natives_of():
    return lambda leader: REGISTRY.to_natives(leader.term.engine.executor.centre)
