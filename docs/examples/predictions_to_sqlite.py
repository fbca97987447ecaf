"""Follows a fleet's predictions into SQLite: each is one row, once, whatever is killed and when.

    python predictions_to_sqlite.py redis://127.0.0.1:6390 predictions.db [SECONDS]     (0: ends when nothing waits)

Rows and the places to go on from are one transaction, so after a kill both are there or neither is. Should Redis
itself go back after a failover, what is made again meets the primary key.
"""

import asyncio
import sqlite3
import sys
import time
from contextlib import closing

from state_store import Prediction, PredictionReader, StoreUnavailable

TABLES = """
CREATE TABLE IF NOT EXISTS predictions (
    asset TEXT NOT NULL, timestamp_ns BIGINT NOT NULL, tick_id TEXT NOT NULL,
    prediction DOUBLE PRECISION NOT NULL, lower DOUBLE PRECISION NOT NULL, upper DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (asset, timestamp_ns)
);
CREATE TABLE IF NOT EXISTS cursors (fleet_partition INTEGER PRIMARY KEY, tick_id TEXT NOT NULL);
"""
ADD = "INSERT INTO predictions VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
MOVE = "INSERT INTO cursors VALUES (?, ?) ON CONFLICT (fleet_partition) DO UPDATE SET tick_id = excluded.tick_id"


def store(database: sqlite3.Connection, predictions: list[Prediction]) -> None:
    """Adds rows and moves the cursors, both or neither."""
    rows = [
        (p.asset, p.timestamp_ns, p.tick_id, p.reference_prediction, p.confidence_lower, p.confidence_upper)
        for p in predictions
    ]
    cursors = {p.partition: p.tick_id for p in predictions}  # the last of each partition
    with database:
        database.executemany(ADD, rows)
        database.executemany(MOVE, cursors.items())


async def follow(url: str, database: sqlite3.Connection, idle_s: float) -> None:
    """Goes on where the database says; a Redis that is away is waited for."""
    database.executescript(TABLES)
    cursors = dict(database.execute("SELECT fleet_partition, tick_id FROM cursors"))
    last = time.monotonic()
    async with PredictionReader(url, start=cursors) as reader:
        while True:
            try:
                predictions = await reader.read(block_ms=200)
            except StoreUnavailable as error:
                print(error, file=sys.stderr)
                await asyncio.sleep(1.0)
                continue
            if predictions:
                store(database, predictions)
                last = time.monotonic()
            elif time.monotonic() - last > idle_s:
                return


if __name__ == "__main__":
    idle_s = float(sys.argv[3]) if len(sys.argv) > 3 else float("inf")
    with closing(sqlite3.connect(sys.argv[2])) as database:
        asyncio.run(follow(sys.argv[1], database, idle_s))
