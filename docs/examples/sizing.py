"""Says how much memory a fleet's Redis needs, from what one entry of each kind takes in a real server.

    python sizing.py [--ticks-kept N] [--predictions-kept N] [--partitions P] [--config FILE]
"""

import argparse
import asyncio
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from predictor_core import PredictorConfig, Program
from state_store import EmbeddedRedis
from state_store.logs import Looking
from worker.settings import load

ASSETS = (1_000, 10_000, 100_000)
SAMPLE = 1_000  # Entries written to learn what one takes.
SAFETY = 1.3  # Buffers of clients and of the append-only file, fragmentation, the commit in hand.


@dataclass(frozen=True)
class EntryBytes:
    """What one entry takes in memory, with all that the server keeps around it."""

    asset: float  # its state and its newest prediction
    tick: float
    prediction: float


@dataclass(frozen=True)
class Memory:
    """What a fleet takes, in bytes."""

    assets: float
    ticks: float
    predictions: float

    @property
    def maxmemory(self) -> float:
        return SAFETY * (self.assets + self.ticks + self.predictions)


def memory(entry: EntryBytes, assets: int, partitions: int, ticks_kept: int, predictions_kept: int) -> Memory:
    """What is kept for good: a row for each asset, and a full log of each kind in every partition."""
    ticks, predictions = partitions * ticks_kept, partitions * predictions_kept
    return Memory(entry.asset * assets, entry.tick * ticks, entry.prediction * predictions)


async def measure(config: PredictorConfig) -> EntryBytes:
    """Writes entries of this configuration's sizes into a server of its own, and asks it what they take."""
    program = Program(config)
    with tempfile.TemporaryDirectory() as folder, EmbeddedRedis(Path(folder)) as server:
        async with Looking(server.url) as redis:
            for k in range(SAMPLE):
                asset, moment = f"asset-{k:05}", str(1_760_000_000_000_000_000 + k)
                payload = os.urandom(program.payload_bytes)
                await redis.ask("HSET", "states", asset, os.urandom(program.record_bytes))
                await redis.ask("HSET", "latest", asset, os.urandom(18) + payload)
                await redis.ask("XADD", "ticks", "*", "a", asset, "y", f"{k / 7}", "t", moment)
                await redis.ask("XADD", "predictions", "*", "a", asset, "t", moment, "p", payload)
            each = {
                key: await redis.ask("MEMORY", "USAGE", key, "SAMPLES", "0") / SAMPLE
                for key in ("states", "latest", "ticks", "predictions")
            }
    return EntryBytes(each["states"] + each["latest"], each["ticks"], each["predictions"])


def table(entry: EntryBytes, partitions: int, ticks_kept: int, predictions_kept: int) -> str:
    """One line for each number of assets, in megabytes."""
    lines = ["| assets | states | ticks | predictions | maxmemory |", "|---|---|---|---|---|"]
    for assets in ASSETS:
        takes = memory(entry, assets, partitions, ticks_kept, predictions_kept)
        numbers = (takes.assets, takes.ticks, takes.predictions, takes.maxmemory)
        lines.append(f"| {assets:,} | " + " | ".join(f"{number / 1e6:,.0f} MB" for number in numbers) + " |")
    return "\n".join(lines)


def main() -> None:
    worker = load().worker
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ticks-kept", type=int, default=worker.ticks_kept)
    parser.add_argument("--predictions-kept", type=int, default=worker.predictions_kept)
    parser.add_argument("--partitions", type=int, default=16)
    parser.add_argument("--config", type=Path)
    given = parser.parse_args()
    entry = asyncio.run(measure(load(file=given.config).config()))
    print(f"bytes each: asset {entry.asset:,.0f}, tick {entry.tick:,.0f}, prediction {entry.prediction:,.0f}\n")
    print(table(entry, given.partitions, given.ticks_kept, given.predictions_kept))


if __name__ == "__main__":
    main()
