"""A fleet on a Redis Cluster: real workers while slots move and a shard fails over, and every command."""

import asyncio
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from loadtests import chaos
from loadtests.arena import Shape
from loadtests.judge import Reference
from predictor_core import payload_fields
from state_store.cluster import EmbeddedCluster
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
