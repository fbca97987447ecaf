"""A fleet that loses its workers gives, byte for byte, what one calm process gives."""

import asyncio
import csv
import json
import signal
import time

import numpy as np
import redis

from state_store import TickProducer

ASSETS, ROUNDS = 60, 40


def test_a_fleet_that_loses_its_workers_gives_the_bytes_of_one_calm_process(fleet, tmp_path):
    doomed, retiring = fleet.start_worker(), fleet.start_worker()
    fleet.wait_until(lambda probes: len({p.owner for p in probes if p.owner}) == 2, "two owners")
    asyncio.run(feed(fleet.url, 0, ROUNDS // 2))
    doomed.send_signal(signal.SIGKILL)
    asyncio.run(feed(fleet.url, ROUNDS // 2, ROUNDS * 3 // 4))
    fleet.start_worker()
    fleet.wait_until(lambda probes: len({p.owner for p in probes if p.owner}) == 2, "a successor")
    retiring.send_signal(signal.SIGTERM)
    asyncio.run(feed(fleet.url, ROUNDS * 3 // 4, ROUNDS))
    fleet.wait_until_idle()
    assert retiring.wait(10) == 0

    ticks, predictions = read_back(fleet)
    assert len(ticks) == ASSETS * ROUNDS
    assert [key for key, _ in predictions] == [key for key, _ in ticks]
    fleet_lines = lines(fleet, "tail", "--from", "0", "--until-idle", "1")
    line_of = {(line["partition"], line["tick_id"]): line for line in fleet_lines}
    depths = [line_of[key]["depth"] for key, _ in ticks]
    write_ticks(tmp_path / "ticks.csv", ticks, depths)
    calm_lines = lines(fleet, "replay", tmp_path / "ticks.csv")
    assert len(calm_lines) == len(fleet_lines) == ASSETS * ROUNDS
    for (key, _), calm in zip(ticks, calm_lines, strict=True):
        assert {**line_of[key], "partition": None, "tick_id": None} == calm

    assert fleet.predictor("verify")["agrees"]


async def feed(url: str, first: int, last: int) -> None:
    """Random walks, one value each an asset and round, at event times that are now."""
    async with TickProducer(url, name="feed") as producer:
        for number in range(first, last):
            moves = np.random.default_rng(number).standard_normal(ASSETS)
            for asset, move in enumerate(moves):
                await producer.send(f"asset/{asset}", 100.0 + number * 0.01 + move, timestamp_ns=time.time_ns())
            await producer.flush()


def read_back(fleet) -> tuple[list, list]:
    """Every tick and every prediction, partition after partition, as ((partition, id), fields)."""
    with redis.Redis.from_url(fleet.url, decode_responses=False) as client:
        logs = [
            [
                ((p, tick.decode()), fields)
                for p in range(fleet.partitions)
                for tick, fields in client.xrange(f"usp:{{{p}}}:{log}")
            ]
            for log in ("ticks", "predictions")
        ]
    return logs[0], logs[1]


def write_ticks(path, ticks: list, depths: list[int]) -> None:
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["asset", "timestamp_ns", "value", "arrival_ns", "depth"])
        for ((_, tick), fields), depth in zip(ticks, depths, strict=True):
            arrival_ns = int(tick.partition("-")[0]) * 1_000_000
            rows.writerow([fields[b"a"].decode(), fields[b"t"].decode(), fields[b"y"].decode(), arrival_ns, depth])


def lines(fleet, *words) -> list[dict]:
    out, _ = fleet.say(*words, "--json")
    return [json.loads(line) for line in out.splitlines()]
