"""Tenants that share a partition: one that sends more than its quota does not hold up the others."""

import json
import signal

import redis

from state_store.keys import Keys, partition_of
from tests.fleet.test_generation import START_NS
from worker.quotas import OVER_QUOTA

NOISY, QUIET, QUOTA, FLOOD = b"acme/EURUSD", b"other/4", 3, 400


def taken_over(worker, generation):
    for line in worker.stderr:
        if b'"generation_taken"' in line and json.loads(line)["generation"] == generation:
            return
    raise AssertionError(f"the worker ended before generation {generation}")


def test_a_tenant_beyond_its_quota_gets_dead_letters_and_the_others_their_predictions(fleet):
    home = partition_of(NOISY, fleet.partitions)
    assert partition_of(QUIET, fleet.partitions) == home
    keys = Keys().of(home)
    worker = fleet.start_worker()
    fleet.wait_until(lambda probes: all(probe.owner for probe in probes), "a worker")
    reason = ("--reason", "a test")
    assert "is no quota" in fleet.predictor("config", "quota", "acme", "many", *reason, code=2)["error"]
    assert "is no tenant" in fleet.predictor("config", "quota", "acme/EURUSD", "5", *reason, code=2)["error"]
    fleet.predictor("config", "quota", "acme", QUOTA, *reason)
    fleet.predictor("config", "set", "cusum_k=0.9", "--reason", "quotas stay")
    taken_over(worker, 2)

    with redis.Redis.from_url(fleet.url) as server:
        second = server.time()[0] + 100
        for number in range(2 * FLOOD):
            for place, asset in enumerate((NOISY, QUIET) if number % 100 == 0 else (NOISY,)):
                tick = {"a": asset, "y": number % 7, "t": START_NS + number}
                server.xadd(keys.ticks, tick, f"{second + number // FLOOD}000-{2 * number + place}")
        fleet.wait_until_idle()
        made = [(entry[b"a"], entry_id[:10]) for entry_id, entry in server.xrange(keys.predictions)]
        letters = server.xrange(keys.rejected)
    seconds = [str(second + each).encode() for each in (0, 1)]
    assert [made.count((NOISY, each)) for each in seconds] == [QUOTA, QUOTA]
    assert [made.count((QUIET, each)) for each in seconds] == [FLOOD // 100, FLOOD // 100]
    assert [letter[b"a"] for _, letter in letters] == [NOISY] * (2 * (FLOOD - QUOTA))
    assert {letter[b"reason"].decode() for _, letter in letters} == {OVER_QUOTA}
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0
    verdict = fleet.predictor("verify")
    assert verdict["agrees"] and verdict["predictions"] == len(made), verdict
    assert fleet.predictor("config", "quota", "acme", "none", *reason)["values"]["quotas"] == {}
