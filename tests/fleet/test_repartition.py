"""A fleet under load gets other numbers of partitions while workers and the command are killed; nothing is lost."""

import asyncio
import io
import json
import re
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, redirect_stderr, redirect_stdout

import pytest
import redis
from redis.asyncio import Redis, ResponseError

from state_store import PredictionReader, TickProducer
from state_store.keys import Keys, partition_of
from worker import cli
from worker.repartition import move
from worker.settings import load

START_NS = 1_600_000_000_000_000_000
ASSETS = 24
PATIENCE_S = 60.0


class Market:
    """Two senders, each with its own assets, and one reader that follows from the beginning."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.sent: dict[str, list[int]] = defaultdict(list)
        self.read: dict[str, list[int]] = defaultdict(list)
        self.turned_away = 0  # Plain ticks that a closed partition refused.
        self._over = asyncio.Event()

    @property
    def total(self) -> int:
        return sum(map(len, self.sent.values()))

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Market"]:
        """While the block runs both senders send; at its end all that they have is flushed."""
        senders = [asyncio.create_task(work) for work in (self._produce(), self._add_plainly())]
        reading = asyncio.create_task(self._read())
        try:
            yield self
            self._over.set()
            await asyncio.gather(*senders)
            await self.until(lambda: sum(map(len, self.read.values())) >= self.total, "every prediction")
        finally:
            for task in (*senders, reading):
                task.cancel()
            await asyncio.gather(*senders, reading, return_exceptions=True)

    async def until(self, condition, what: str) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                await asyncio.sleep(0.02)
        assert condition(), what

    async def more(self, ticks: int) -> None:
        """Until so many more were sent."""
        goal = self.total + ticks
        await self.until(lambda: self.total >= goal, "more ticks")

    def _next(self, sender: str, number: int) -> tuple[str, float, int]:
        asset = f"{sender}/{number % ASSETS}"
        time_ns = START_NS + 1_000_000 * number
        return asset, 100.0 + number % 7 + number % ASSETS, time_ns

    async def _produce(self) -> None:
        number = 0
        async with TickProducer(self.url) as producer:
            while not self._over.is_set():
                for _ in range(4):
                    asset, value, time_ns = self._next("producer", number)
                    await producer.send(asset, value, time_ns)
                    self.sent[asset].append(time_ns)
                    number += 1
                await asyncio.sleep(0.02)
            await producer.flush()
            assert producer.accepted == producer.sent == number

    async def _add_plainly(self) -> None:
        """What docs/protocol.md tells a client in another language to do."""
        number, redis = 0, Redis.from_url(self.url)
        keys, partitions = await self._meta(redis)
        while not self._over.is_set():
            asset, value, time_ns = self._next("plain", number)
            try:
                key = keys.of(partition_of(asset.encode(), partitions)).ticks
                await redis.xadd(key, {"a": asset, "y": value, "t": time_ns})
            except ResponseError as error:
                assert "exhausted the last possible ID" in str(error)
                self.turned_away += 1
                await asyncio.sleep(0.05)
                keys, partitions = await self._meta(redis)
                continue
            self.sent[asset].append(time_ns)
            number += 1
            await asyncio.sleep(0.01)
        await redis.aclose()

    async def _meta(self, redis: Redis) -> tuple[Keys, int]:
        meta = await redis.hgetall("usp:meta")
        return Keys("usp", int(meta.get(b"generation", 0))), int(meta[b"partitions"])

    async def _read(self) -> None:
        async with PredictionReader(self.url, start="0", block_ms=100) as reader:
            async for prediction in reader:
                self.read[prediction.asset].append(prediction.timestamp_ns)


class Mover:
    """The command, in a process of its own, to be killed."""

    def __init__(self, url: str, partitions: int) -> None:
        command = [sys.executable, "-m", "worker", "repartition", str(partitions), "--redis", url, "--json"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    async def says(self, pattern: str) -> None:
        """Waits for a line of its progress."""
        while line := await asyncio.to_thread(self.process.stderr.readline):
            if re.search(pattern, line):
                return
        pytest.fail(f"it ended without saying {pattern!r}")

    async def killed(self) -> None:
        self.process.kill()
        await asyncio.to_thread(self.process.communicate)


def predictor(url: str, *words: str, code: int = 0) -> dict:
    """Runs a command in this process, where JAX is loaded already."""
    out, err = io.StringIO(), io.StringIO()
    argv, sys.argv = sys.argv, ["predictor", *words, "--redis", url, "--json"]
    try:
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as end:
            cli.main()
    finally:
        sys.argv = argv
    assert int(end.value.code or 0) == code, (words, out.getvalue(), err.getvalue())
    return json.loads(out.getvalue()) if out.getvalue() else {"error": err.getvalue()}


async def move_twice_under_fire(fleet) -> Market:
    doomed = fleet.start_worker()
    market = Market(fleet.url)
    async with market.open():
        await market.until(lambda: sum(map(len, market.read.values())) > 100, "a fleet at work")
        first = Mover(fleet.url, 7)
        await first.says("closing the old ones")
        doomed.send_signal(signal.SIGKILL)
        fleet.start_worker()  # It joins half-way, and drains what the first left.
        await first.says("partition .: worked off")
        await first.killed()
        second = Mover(fleet.url, 7)
        await second.says("states copied")
        await second.killed()
        settings = load({"redis": {"url": fleet.url}})
        assert (await move(settings, 7))["partitions"] == 7
        await market.more(100)
        third = Mover(fleet.url, 3)
        await third.says("closing the old ones")
        await third.killed()
        done = await asyncio.gather(move(settings, 3), move(settings, 3))  # twice at once
        assert {each["generation"] for each in done} == {2}
        await market.more(100)
    return market


def test_every_tick_is_predicted_once_in_order_and_to_the_byte_over_three_generations(fleet):
    market = asyncio.run(move_twice_under_fire(fleet))
    assert market.turned_away > 0
    assert market.read == market.sent
    verified = predictor(fleet.url, "verify")
    assert verified["agrees"] and verified["predictions"] == verified["ticks"] == market.total


def test_the_command_says_what_it_does_and_what_it_will_not_do(fleet):
    def told(*words: str, code: int = 0) -> dict:
        return predictor(fleet.url, "repartition", *words, code=code)

    assert told("--status")["next_partitions"] is None
    for wrong in ([], ["7", "--status"], ["7", "--discard-rejected"]):
        assert len(told(*wrong, code=2)["error"].splitlines()) == 1
    with redis.Redis.from_url(fleet.url) as server:
        server.xadd("usp:{2}:ticks", {"a": "x", "y": "1", "t": "1"})
        server.xadd("usp:{1}:rejected", {"a": "x", "reason": "late", "payload": ""})
        mover = Mover(fleet.url, 7)
        asyncio.run(mover.says("partition 2: 1 ticks wait and nobody holds it: start a worker"))
        asyncio.run(mover.killed())
        standing = told("--status")
        assert (standing["next_partitions"], standing["closed"], standing["worked_off"]) == (7, 4, 3)
        assert "on its way to 7 partitions" in told("5", code=1)["error"]
        server.hset("usp:{2}:control", mapping={"cursor": server.xinfo_stream("usp:{2}:ticks")["last-entry"][0]})
        assert told("7")["past"] == [4] and told("7")["generation"] == 1
        counts = predictor(fleet.url, "rejected", "ls")["counts"]
        assert counts == [{"partition": 1, "generation": 0, "reason": "late", "count": 1}]
        assert "hold 1 dead letters" in told("--clean", code=2)["error"]
        assert told("--clean", "--discard-rejected")["rejected_removed"] == 1
        assert server.keys("usp:{1}:*") and not server.exists("usp:{1}:rejected")
        server.hset("usp:{1.4}:control", "seal", "look at it")
        assert "is sealed (look at it)" in told("5", code=3)["error"]
        assert not server.hexists("usp:meta", "next_partitions")
    assert len(predictor(fleet.url, "lag", "--interval", "0.1")["partitions"]) == 7
    verified = predictor(fleet.url, "verify", code=1)
    assert "were removed" in verified["unverified"][0]
