"""A file through a fleet, looked at with the commands: tail says what replay says, verify agrees, and sees a change."""

import asyncio
import json
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from state_store.logs import Looking


@pytest.fixture
def file(tmp_path):
    rng = np.random.default_rng(5)
    lines, values = ["asset,timestamp_ns,value"], np.full(12, 100.0)
    for number in range(600):
        asset = int(rng.integers(12))
        values[asset] += rng.standard_normal()
        lines.append(f"té/{asset},{1_600_000_000_000_000_000 + number},{float(values[asset])!r}")
    lines.append("té/0,1600000000000000000,1.0")  # goes back in time: a dead letter
    path = tmp_path / "ticks.csv"
    path.write_text("\n".join(lines))
    return path


def ask(fleet, *words):
    async def run():
        async with Looking(fleet.url) as looking:
            return await looking.ask(*words)

    return asyncio.run(run())


def with_depths(file, told):
    """The file with the depth that each prediction was made at: a busy machine may have made it lower."""
    depths = {(line["asset"], str(line["timestamp_ns"])): line["depth"] for line in map(json.loads, told.splitlines())}
    head, *rows = file.read_text().splitlines()
    rows = [f"{row},{depths.get(tuple(row.split(',')[:2]), 3)}" for row in rows]
    path = file.with_name("depths.csv")
    path.write_text("\n".join([f"{head},depth", *rows]))
    return path


def unplaced(lines):
    """The same lines without what only a fleet can know, in an order of their own."""
    rows = [json.loads(line) | {"partition": None, "tick_id": None} for line in lines.splitlines()]
    return sorted(json.dumps(row) for row in rows)


def test_tail_says_what_replay_says_and_verify_sees_every_change(fleet, file):
    worker = fleet.start_worker(http_port=0)
    address = next(json.loads(line)["http"] for line in worker.stderr if b'"started"' in line)
    assert fleet.predictor("feed", "--csv", file)["ticks_taken"] == 601
    fleet.wait_until_idle()

    told, _ = fleet.say("tail", "--from", "0", "--until-idle", "0.5", "--json")
    assert unplaced(told) == unplaced(fleet.say("replay", with_depths(file, told), "--json")[0])
    assert len(told.splitlines()) == 600

    with urllib.request.urlopen(f"{address}/metrics", timeout=5) as page:
        metrics = page.read().decode()
    assert "predictor_predictions_total 600.0" in metrics
    assert 'predictor_rejected_total{reason="late"} 1.0' in metrics
    assert "601 ticks" in fleet.say("top", "--seconds", "1.5")[1]

    verdict = fleet.predictor("verify")
    assert verdict["agrees"]
    counts = {name: verdict[name] for name in ("ticks", "predictions", "rejected", "states")}
    assert counts == {"ticks": 601, "predictions": 600, "rejected": 1, "states": 12}

    first = json.loads(told.splitlines()[0])
    keys = f"usp:{{{first['partition']}}}"
    ask(fleet, "XDEL", f"{keys}:predictions", json.loads(told.splitlines()[1])["tick_id"])
    record = ask(fleet, "HGET", f"{keys}:states", first["asset"])
    ask(fleet, "HSET", f"{keys}:states", first["asset"], record[:-20] + bytes(20))
    verdict = fleet.predictor("verify", code=1)
    assert (verdict["missing"], verdict["states_differing"], verdict["differing"]) == (1, 1, 0)


def test_a_worker_runs_the_graph_in_a_thread_of_its_own_that_can_be_told_apart(fleet):
    worker = fleet.start_worker()
    fleet.wait_until(lambda probes: all(probe.owner for probe in probes), "the first leases")
    names = [(task / "comm").read_text() for task in Path(f"/proc/{worker.pid}/task").iterdir()]
    assert names.count("tf_XLAEigen\n") == 1, names
