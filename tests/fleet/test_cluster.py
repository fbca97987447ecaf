"""A fleet on a Redis Cluster: real workers while slots move and a shard fails over, and every command."""

import asyncio
import subprocess
import sys
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path
from random import Random

import pytest

from loadtests import chaos
from loadtests.arena import Shape
from loadtests.judge import Reference
from predictor_core import payload_fields
from state_store import RedisStateStore, TickProducer
from state_store.cluster import EmbeddedCluster
from state_store.keys import Keys
from state_store.slots import slot_of
from tests.fleet.conftest import Fleet, open_fleet
from tests.fleet.test_operations import CORRUPT, Operator
from worker.settings import load

CACHE = Path(__file__).parents[2] / ".predictor" / "cache"
SERVERS = chaos.servers_here()


def test_slots_that_move_and_a_shard_that_dies_lose_nothing_and_hold_nobody_up(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(chaos, "MOVES", (2, 2))
    reference = Reference(load({"worker": {"cache_dir": str(CACHE)}}))

    async def play() -> int:
        async with chaos.open_arena(Shape(executable=SERVERS[0], cluster=True), reference, CACHE) as arena:
            return await arena.play("h", [chaos.move_slots, chaos.fail_over_a_shard], Random(3))

    assert asyncio.run(play()) > 1000


def test_a_slot_left_open_holds_up_its_partition_only_and_a_repartition_goes_through(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(chaos, "OPEN_S", (2.0, 2.0))
    reference = Reference(load({"worker": {"cache_dir": str(CACHE)}}))

    async def play() -> int:
        async with chaos.open_arena(Shape(executable=SERVERS[-1], cluster=True), reference, CACHE) as arena:
            return await arena.play("h", [chaos.leave_a_slot_open, chaos.repartition], Random(2))

    assert asyncio.run(play()) > 500


@pytest.fixture
def fleet(tmp_path, program):
    with EmbeddedCluster(tmp_path / "redis", executable=SERVERS[-1]) as cluster:
        made = Fleet(cluster.url, partitions=4, lease_ms=1500)
        asyncio.run(open_fleet(made, program.layout_fingerprint, payload_fields(program.config.static())))
        try:
            yield made
        finally:
            made.stop()


@pytest.fixture
def operator(fleet, tmp_path, monkeypatch) -> Operator:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("USP_REDIS__URL", fleet.url)
    monkeypatch.setenv("USP_WORKER__CACHE_DIR", str(CACHE))
    return Operator(fleet, tmp_path)


def test_every_command_works_on_a_cluster(fleet, operator):
    assert operator.predictor("init", "--partitions", "4")["partitions"] == 4
    worker = fleet.start_worker()
    operator.feed(20)
    fleet.wait_until_idle()
    operator.predictor("state", "export", "b.uspb")
    whole = operator.predictor("state", "show", "EURUSD")
    lag = operator.predictor("lag")
    assert sum(row["applied"] for row in lag["partitions"]) == 80

    operator.stop(worker)
    operator.damage("EURUSD")
    worker = fleet.start_worker()
    operator.feed(2)
    fleet.wait_until_idle()
    assert operator.predictor("state", "rebuild", "EURUSD")["found"] == "corrupt"
    assert operator.predictor("rejected", "requeue", "--reason", CORRUPT)["requeued"] == 2
    assert operator.predictor("config", "set", "volatility_alpha=0.15", "--reason", "a test")["number"] == 1
    operator.feed(2)
    fleet.wait_until_idle()
    assert operator.predictor("rejected", "ls")["total"] == 0
    assert len(operator.predictor("config", "generations")["generations"]) == 1
    assert operator.predictor("verify")["agrees"]
    assert operator.predictor("hotpath", "status")["leader"] is not None
    top = subprocess.run([sys.executable, "-m", "worker", "top", "--seconds", "3"], capture_output=True, text=True)
    assert top.returncode == 0 and "98 ticks" in top.stderr, top

    operator.stop(worker)
    operator.predictor("state", "import", "b.uspb", "--namespace", "elsewhere")
    assert operator.predictor("state", "show", "EURUSD", "--namespace", "elsewhere") == whole
    operator.predictor("state", "import", "b.uspb")
    assert operator.predictor("state", "show", "EURUSD") == whole
    found = {finding["what"]: finding for finding in operator.predictor("doctor")["findings"]}
    assert found["redis cluster"]["level"] == "ok"
    counts = found["partitions by node"]["counts"]
    assert len(counts) == 3 and sum(counts.values()) == 4


PARTITIONS = 2  # lie on the second and the third node
REGISTRY = ("meta", "workers", "config")


async def test_a_frozen_node_that_has_only_the_registry_costs_no_lease(tmp_path, program, monkeypatch):
    """Nobody takes a partition over meanwhile, and none is lost: those held are renewed past it."""
    together = lambda name: all(slot_of(f"{name}:{key}".encode()) < 5461 for key in REGISTRY)  # noqa: E731
    namespace = next(filter(together, map("ns{}".format, count())))
    monkeypatch.setenv("USP_REDIS__NAMESPACE", namespace)
    async with AsyncExitStack() as stack:
        cluster = stack.enter_context(EmbeddedCluster(tmp_path / "redis", executable=SERVERS[-1]))
        registry = cluster.owner(slot_of(f"{namespace}:workers".encode()))
        healthy = next(node for node in cluster.nodes if node is not registry)
        assert all(cluster.owner(slot_of(Keys().of(p).ticks)) is not registry for p in range(PARTITIONS))
        store = RedisStateStore(healthy.url, namespace)
        stack.push_async_callback(store.close)
        layout, fields = program.layout_fingerprint, payload_fields(program.config.static())
        await store.open_fleet(PARTITIONS, layout, fields)
        made = Fleet(healthy.url, PARTITIONS, lease_ms=1500)
        stack.callback(made.stop)
        for _ in range(2):
            made.start_worker()

        async def probes() -> list:
            return [await store.probe(p) for p in range(PARTITIONS)]

        async def until(holds) -> list:
            async with asyncio.timeout(90):
                while not holds(found := await probes()):
                    await asyncio.sleep(0.05)
            return found

        held = await until(lambda found: len({probe.owner for probe in found if probe.lease_left_ms}) == 2)
        cluster.freeze(registry)
        stack.callback(lambda: registry in cluster._frozen and cluster.thaw(registry))
        for _ in range(40):  # four leases
            now = await probes()
            if not all(probe.lease_left_ms > 0 for probe in now):
                pytest.fail(f"a lease has ended: {now}, and the workers said: {made.stop()}")
            await asyncio.sleep(0.15)
        assert [(probe.owner, probe.epoch) for probe in now] == [(probe.owner, probe.epoch) for probe in held]
        cluster.thaw(registry)
        async with TickProducer(healthy.url, namespace) as producer:
            for number in range(40):
                await producer.send(f"asset-{number % 8}", number)
        now = await until(lambda found: not any(probe.backlog for probe in found))
        assert sum(probe.applied for probe in now) == 40
        assert [(probe.owner, probe.epoch) for probe in now] == [(probe.owner, probe.epoch) for probe in held]
