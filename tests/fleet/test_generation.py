"""New numbers for a running fleet: taken over without a restart, kept by a successor, and verified byte by byte."""

import asyncio
import json
import signal

from state_store import RedisStateStore, TickProducer
from worker.recall import made_by

ASSETS = ["acme/EURUSD", "acme/GOLD", "USDJPY"]
START_NS = 1_600_000_000_000_000_000


def feed(fleet, first, count):
    async def send():
        async with TickProducer(fleet.url) as producer:
            for number in range(first, first + count):
                for asset in ASSETS:
                    await producer.send(asset, 100.0 + number % 7, START_NS + number)

    asyncio.run(send())
    fleet.wait_until_idle()


def marks(fleet):
    async def run():
        store = RedisStateStore(fleet.url)
        found = {}
        for partition in range(fleet.partitions):
            await store.acquire(partition, "looking", 1)  # gives nothing when a worker holds it; reading needs no lease
            for payload in (await store.predictions(partition, b"0-0", b"+")).values():
                found[made_by(payload)] = found.get(made_by(payload), 0) + 1
        await store.close()
        return sorted(found.values())

    return asyncio.run(run())


def publish_what_no_worker_can_follow(fleet):
    async def run():
        store = RedisStateStore(fleet.url)
        assert await store.publish_config(2, {"predictor": {"log_sig_depth": 2}}) == 3
        await store.close()

    asyncio.run(run())


def test_a_published_generation_is_taken_over_survives_a_kill_and_is_verified(fleet):
    worker = fleet.start_worker()
    feed(fleet, 1, 5)
    told = fleet.predictor("config", "set", "volatility_alpha=0.3", "--reason", "a test")
    assert told == {"number": 1, "values": {"predictor": {"volatility_alpha": 0.3}}}
    too_large = fleet.predictor("config", "set", "cusum_k=9", "--reason", "too large", code=2)
    assert "cusum_k must be" in too_large["error"]
    no_value = fleet.predictor("config", "set", "cusum_k", "--reason", "no value", code=2)
    assert "is not NAME=NUMBER" in no_value["error"]
    fleet.predictor("config", "set", "cusum_k=0.9", "--group", "acme", "--reason", "a test")
    while json.loads(next(line for line in worker.stderr if b'"generation_taken"' in line))["generation"] != 2:
        pass
    feed(fleet, 6, 5)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    fleet.start_worker()
    feed(fleet, 11, 5)
    publish_what_no_worker_can_follow(fleet)
    refused = next(line for line in fleet.workers[-1].stderr if b'"generation_refused"' in line)
    assert "log_sig_depth cannot change while the fleet runs" in json.loads(refused)["why"]
    feed(fleet, 16, 5)
    verdict = fleet.predictor("verify")
    assert verdict["agrees"], verdict
    assert verdict["predictions"] == 20 * len(ASSETS)
    assert marks(fleet) == [15, 15, 30]
    history = fleet.predictor("config", "generations")["generations"]
    assert [each["number"] for each in history] == [1, 2, 3]


def test_an_asset_that_gets_a_number_of_its_own_keeps_those_of_its_tenant(fleet):
    fleet.predictor("config", "set", "cusum_k=0.9", "--group", "acme", "--reason", "the tenant's")
    told = fleet.predictor("config", "set", "cusum_h=4.0", "--group", "acme/GOLD", "--reason", "its own")
    assert told["values"]["groups"] == {
        "acme": {"cusum_k": 0.9},
        "acme/GOLD": {"cusum_k": 0.9, "cusum_h": 4.0},
    }
