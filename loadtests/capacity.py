"""What a fleet can take and what it needs, from a handful of prices. Pure.

Everybody's CPU per tick is a price for each tick and one for each commit, shared by the ticks that the commit carries:

    graph | rest of a worker | Redis        microseconds per tick = each_tick + each_commit / ticks_per_commit

A worker's graph and the rest of it take turns, Redis has one core, and all of them share the cores of a machine:

    ticks/s = min(workers / (graph + rest),  1 / Redis,  cores / (graph + rest + Redis + load))
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

PARTIES = ("graph", "worker", "server")


@dataclass(frozen=True)
class Price:
    """Microseconds of CPU."""

    each_tick: float
    each_commit: float

    def at(self, ticks_per_commit: float) -> float:
        return self.each_tick + self.each_commit / ticks_per_commit


@dataclass(frozen=True)
class Observation:
    """One run: how many ticks a commit carried, and microseconds of CPU per tick of each party."""

    ticks_per_commit: float
    us_per_tick: Mapping[str, float]


@dataclass(frozen=True)
class Sizes:
    """Bytes: what a tick moves and leaves, what an asset takes."""

    in_per_tick: float  # into Redis, from everybody
    out_per_tick: float  # out of Redis, to everybody
    file_per_tick: float  # of the append-only file
    asset: float  # state and latest prediction in Redis
    kept_tick: float  # of a log, behind the cursor
    kept_prediction: float
    row: float  # an asset's in a worker


@dataclass(frozen=True)
class Model:
    """The prices of all, and what producer and reader cost for each tick."""

    prices: Mapping[str, Price]
    load_us: float
    sizes: Sizes

    def us_per_tick(self, ticks_per_commit: float) -> dict[str, float]:
        return {party: price.at(ticks_per_commit) for party, price in self.prices.items()}

    def throughput(self, workers: int, cores: float, ticks_per_commit: float) -> float:
        """Ticks per second of one Redis and its workers on a machine with so many cores free."""
        us = self.us_per_tick(ticks_per_commit)
        worker = us["graph"] + us["worker"]
        bounds = (workers / worker, 1 / us["server"], cores / (worker + us["server"] + self.load_us))
        return 1e6 * min(bounds)

    def bound(self, workers: int, cores: float, ticks_per_commit: float) -> str:
        """Which of the three it is."""
        us = self.us_per_tick(ticks_per_commit)
        worker = us["graph"] + us["worker"]
        bounds = {
            "workers": workers / worker,
            "Redis": 1 / us["server"],
            "cores": cores / (worker + us["server"] + self.load_us),
        }
        return min(bounds, key=lambda name: bounds[name])


@dataclass(frozen=True)
class Demand:
    """What a cluster is to carry."""

    ticks_per_second: float
    assets: int
    ticks_per_commit: float
    utilisation: float = 0.7  # of a core, so that a takeover and a bad minute have room
    partitions_per_shard: int = 16
    ticks_kept: int = 100_000  # of each partition
    predictions_kept: int = 100_000


@dataclass(frozen=True)
class Need:
    """Machines and wires."""

    shards: int
    workers: int
    worker_cores: float
    redis_in_bytes_per_s: float
    redis_out_bytes_per_s: float
    file_bytes_per_s: float
    redis_bytes: float  # of all shards together
    row_bytes: float  # of all workers together


def need(model: Model, demand: Demand) -> Need:
    """What it takes, with every core used as far as `utilisation`."""
    us, sizes, rate = model.us_per_tick(demand.ticks_per_commit), model.sizes, demand.ticks_per_second
    room_us = 1e6 * demand.utilisation
    worker_us = us["graph"] + us["worker"]
    shards = math.ceil(rate * us["server"] / room_us)
    partitions = shards * demand.partitions_per_shard
    logs = demand.ticks_kept * sizes.kept_tick + demand.predictions_kept * sizes.kept_prediction
    return Need(
        shards=shards,
        workers=math.ceil(rate * worker_us / room_us),
        worker_cores=rate * worker_us / room_us,
        redis_in_bytes_per_s=rate * sizes.in_per_tick,
        redis_out_bytes_per_s=rate * sizes.out_per_tick,
        file_bytes_per_s=rate * sizes.file_per_tick,
        redis_bytes=demand.assets * sizes.asset + partitions * logs,
        row_bytes=demand.assets * sizes.row,
    )


def calibrated(few: Observation, many: Observation) -> dict[str, Price]:
    """The prices that explain two runs whose commits carried few and many ticks; none is below zero."""
    shares = 1 / few.ticks_per_commit, 1 / many.ticks_per_commit
    assert shares[0] > shares[1], "the two runs must differ in the ticks of a commit"
    prices = {}
    for party in PARTIES:
        at_few, at_many = few.us_per_tick[party], many.us_per_tick[party]
        each_commit = max(0.0, (at_few - at_many) / (shares[0] - shares[1]))
        prices[party] = Price(max(0.0, at_many - each_commit * shares[1]), each_commit)
    return prices
