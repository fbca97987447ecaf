"""Real processes, hurt in every way once: the calm reference finds every tick answered, once, in order, to the byte."""

import asyncio
from pathlib import Path
from random import Random

import pytest

from loadtests import chaos
from loadtests.arena import Failed, Shape
from loadtests.judge import Reference
from worker.settings import load

SERVERS = chaos.servers_here()
CACHE = Path(__file__).parents[2] / ".predictor" / "cache"


@pytest.fixture(scope="module")
def reference():
    return Reference(load({"worker": {"cache_dir": str(CACHE)}}))


@pytest.fixture
def survives(reference, tmp_path, monkeypatch):
    """Plays one history with these faults on a fresh fleet."""
    monkeypatch.chdir(tmp_path)
    for name, value in {"DOWN_S": (3.0, 3.0), "KILLS": (1, 1), "FULL_BURST": 8000, "ROOM_BYTES": 1 << 19}.items():
        monkeypatch.setattr(chaos, name, value)

    def plays(*names, server=None, spoil=None, workers=2):
        async def play():
            async with chaos.open_arena(Shape(executable=server, workers=workers), reference, CACHE) as arena:
                faults = [chaos.FAULTS[name] for name in names]
                return await arena.play("h", [*faults, spoil] if spoil else faults, Random(1))

        return asyncio.run(play())

    return plays


def test_killed_frozen_and_ended_workers_and_a_redis_restarted_cut_short_and_replaced_lose_nothing(survives):
    assert survives("kill", "zombie", "term", "restart", "cut-file", "fail-over", server=SERVERS[0]) > 3000


def test_broken_and_crawling_connections_a_flushed_script_cache_and_a_full_redis_lose_nothing(survives):
    assert survives("cut", "slow", "flush", "full", server=SERVERS[-1]) > 5000


def test_the_judge_sees_a_tick_a_prediction_a_byte_and_a_state_that_are_not_as_they_should_be(survives):
    async def spoil(history):
        history.feed.finish()
        await history.feed.over.wait()
        await history.arena.idle()
        ask = history.arena.ask
        history.feed.sent["never sent"] = [(1.0, 1)]
        ((first, _),) = await ask("XRANGE", "usp:{0}:predictions", "-", "+", "COUNT", "1")
        await ask("XDEL", "usp:{0}:predictions", first)
        (last, fields), (before, _) = await ask("XREVRANGE", "usp:{1}:predictions", "+", "-", "COUNT", "2")
        await ask("XDEL", "usp:{1}:predictions", last)
        await ask("XSETID", "usp:{1}:predictions", before)
        await ask("XADD", "usp:{1}:predictions", last, *(field.replace(b"\x00\x00", b"\x00\x01") for field in fields))
        one, other = (await ask("HKEYS", "usp:{2}:states"))[:2]
        await ask("HSET", "usp:{2}:states", one, await ask("HGET", "usp:{2}:states", other))

    with pytest.raises(Failed) as failed:
        survives(spoil=spoil, workers=1)
    said = str(failed.value)
    assert "1 assets whose ticks are not in the log as they were sent: never sent" in said
    assert "1 partition 0: ticks without a prediction" in said
    assert "1 partition 1: predictions of other bytes than the reference's" in said
    assert "1 partition 2: states of other bytes than the reference's" in said
    assert "partition 3" not in said
