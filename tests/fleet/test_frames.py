"""Ticks in frames through real workers, one of them killed: the very bytes that each tick alone gives."""

import asyncio
import csv
import signal
import sys
import time

import numpy as np
import pytest

from state_store.logs import Logs, Looking
from worker import cli

ASSETS, ROUNDS = 40, 40
BEFORE_NS = 3600 * 10**9
NEVER_STALE = ("USP_PREDICTOR__STALENESS_TTL_NS", str(10**15))  # Whenever the ticks arrive, they give the same.


def test_frames_give_the_bytes_of_ticks_that_are_sent_alone(fleet, tmp_path, monkeypatch):
    monkeypatch.setenv(*NEVER_STALE)
    halves = [[write(tmp_path, kind, half) for kind in ("alone", "framed")] for half in (0, 1)]
    doomed = fleet.start_worker()
    feed(fleet, *halves[0])
    fleet.wait_until(lambda probes: any(probe.applied for probe in probes), "a first commit")
    doomed.send_signal(signal.SIGKILL)
    feed(fleet, *halves[1])
    fleet.start_worker()
    probes = fleet.wait_until_idle()
    sent, entries = (sum(getattr(probe, name) for probe in probes) for name in ("added", "length"))
    assert sent == 4 * ASSETS * ROUNDS and entries < sent * 0.6
    made = asyncio.run(predictions(fleet))
    for asset in range(ASSETS):
        assert made[b"alone/%d" % asset] == made[b"framed/%d" % asset] and len(made[b"alone/%d" % asset]) == 2 * ROUNDS
    predictor("verify", "--redis", fleet.url)


def write(folder, kind: str, half: int):
    """Random walks in turn, the same for both kinds."""
    path, begin_ns = folder / f"{kind}-{half}.csv", time.time_ns() // 10**12 * 10**12 - BEFORE_NS
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["asset", "timestamp_ns", "value"])
        for number in range(half * ROUNDS, (half + 1) * ROUNDS):
            for asset, move in enumerate(np.random.default_rng(number).standard_normal(ASSETS)):
                rows.writerow([f"{kind}/{asset}", begin_ns + number * 10**6, 100 + number * 0.01 + move])
    return path


def feed(fleet, alone, framed) -> None:
    predictor("feed", "--redis", fleet.url, "--csv", alone)
    predictor("feed", "--redis", fleet.url, "--csv", framed, "--frames")


def predictor(*words) -> None:
    """Runs a command in this process, where JAX is loaded already."""
    argv, sys.argv = sys.argv, ["predictor", *map(str, words)]
    try:
        with pytest.raises(SystemExit) as end:
            cli.main()
    finally:
        sys.argv = argv
    assert not end.value.code, words


async def predictions(fleet) -> dict[bytes, list[bytes]]:
    """Of each asset, in turn."""
    made: dict[bytes, list[bytes]] = {}
    async with Looking(fleet.url) as looking:
        for partition in range(fleet.partitions):
            async for page in Logs(looking, "usp").pages(partition, "predictions"):
                for _, fields in page:
                    made.setdefault(fields[b"a"], []).append(fields[b"p"])
    return made
