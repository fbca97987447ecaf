"""What happens to the fleet during a probe is not taken for its effect: the cycle ends, and nothing is learned."""

import json
from dataclasses import replace

import pytest

from worker.hotpath.traffic import Traffic

SIDE = {"digests_per_side": 5}
STEP_S = 3600


async def vanish(fleet):
    """One of two workers is gone without a word, and has been silent for long enough that all know."""
    worker = fleet.workers.pop()
    await fleet.store._call("HSET", fleet.store.keys.acks, worker.name, '0 {"fence": 0, "generation": 0}')


def aborts(audit):
    return [event["cause"] for event in audit if event["event_type"] == "abort" and event["actor"] == "engine"]


def learned(leader):
    return leader.term.engine.proposer.iteration(), leader.term.engine.executor.centre


async def measuring(fleet, leader, windows):
    """A later cycle of which so many windows were measured, and what was known when it began."""
    engine = leader.term.engine
    await fleet.until(leader, lambda: engine.proposer.iteration() >= 2 and engine.executor.phase == "plus")
    known = learned(leader)
    for _ in range(windows):
        await fleet.window(leader)
    assert learned(leader) == known and engine.executor.phase == ("plus" if windows < 5 else "minus")
    return known


@pytest.mark.parametrize("windows", [2, 7])
async def test_when_half_the_workers_vanish_the_probe_under_way_ends_and_teaches_nothing(open_fleet, windows):
    async with open_fleet() as fleet:
        leader = await fleet.tuning(**SIDE, settle_s=5.0)
        known = await measuring(fleet, leader, windows)
        fleet.world = lambda knobs: 2 * (20.0 + 1000 * knobs.window_s)  # the rest has twice the work
        await vanish(fleet)
        await fleet.window(leader)
        assert learned(leader) == known and leader.term.engine.executor.phase == "centre"
        assert aborts(await fleet.audit()) == ["workers came or went"]
        assert json.loads(leader.report.encode(leader.term))["gate"] == "workers came or went"
        for worker in fleet.workers:
            await worker.look()
            assert worker.follower.knobs.pair == leader.term.pair
        await fleet.until(leader, lambda: leader.term.engine.proposer.iteration() > known[0])


async def test_when_too_few_are_left_it_waits_thrice_and_then_stays_at_the_centre(open_fleet):
    async with open_fleet() as fleet:
        leader = await fleet.tuning(**SIDE, samples_min=1500)
        known = await measuring(fleet, leader, 3)
        await vanish(fleet)
        for _ in range(50):
            await fleet.window(leader)
        executor = leader.term.engine.executor
        assert learned(leader) == known and executor.phase == "centre"
        assert executor.safe_mode.reason.value == "eval_timeout"
        assert leader.term.merger.counts["too_few"] > 0


@pytest.mark.parametrize("windows", [2, 4, 6, 8])
@pytest.mark.parametrize("factor", [2.0, 0.5], ids=["doubles", "halves"])
async def test_when_the_traffic_changes_the_probe_ends_and_teaches_nothing(open_fleet, factor, windows):
    async with open_fleet() as fleet:
        leader = await fleet.tuning(**SIDE, traffic_shift=1.7)
        known = await measuring(fleet, leader, windows)
        fleet.world = lambda knobs: factor * (20.0 + 1000 * knobs.window_s)
        changed = {"count": int(1000 * factor)}
        generation = leader.term.engine.snapshot().generation
        for _ in range(2):
            await fleet.window(leader, **changed)
        changes = [event for event in await fleet.audit() if event["generation"] > generation]
        assert aborts(changes) == ["the traffic changed"]
        assert learned(leader) == known
        for _ in range(60):
            await fleet.window(leader, **changed)
        told = await fleet.audit()
        assert sum(event["event_type"] == "rollback" for event in told) <= 1
        assert aborts(told).count("the traffic changed") == 1
        assert leader.term.engine.proposer.iteration() > known[0]


async def test_a_burst_of_one_window_ends_nothing(open_fleet):
    async with open_fleet() as fleet:
        leader = await fleet.tuning(**SIDE)
        known = await measuring(fleet, leader, 3)
        await fleet.window(leader, count=5000)
        await fleet.until(leader, lambda: leader.term.engine.proposer.iteration() > known[0])
        assert aborts(await fleet.audit()) == []


def test_traffic_is_held_against_that_of_its_own_cycle():
    traffic = Traffic(1.7)
    assert not any(traffic.shifted(1, rate) for rate in (100, 120, 90, 160, 160, 100, 169))
    assert [traffic.shifted(2, rate) for rate in (1000, 1000, 2000, 2000)] == [False, False, False, True]
    assert [traffic.shifted(3, rate) for rate in (10, 4, 4)] == [False, False, True]
    assert not any(traffic.shifted(4, 0.0) for _ in range(1000))


class SteppedStore:
    """The server's clock is another by so many seconds, from `step` on; acks and digests of before are of before."""

    def __init__(self, store):
        self._store, self._s, self._looks = store, 0, 0

    def step(self, seconds):
        self._s, self._looks = seconds, 0

    def __getattr__(self, name):
        return getattr(self._store, name)

    async def lead(self, *words):
        granted = await self._store.lead(*words)
        return replace(granted, now_us=granted.now_us + self._s * 1_000_000)

    async def look(self, digest_id, *words):
        self._looks += 1
        seen = await self._store.look(self._moved(digest_id, -1), *words)
        by_ms = 1000 * self._s if self._looks > 1 else 0
        return replace(
            seen,
            now_us=seen.now_us + self._s * 1_000_000,
            acks={name: (ms + by_ms, said) for name, (ms, said) in seen.acks.items()},
            digests=[(self._moved(entry_id, 1), *rest) for entry_id, *rest in seen.digests],
        )

    def _moved(self, entry_id, way):
        """Ids of a stream never go back, whatever the clock does."""
        ms, seq = map(int, entry_id.split("-"))
        return f"{max(0, ms + way * 1000 * max(0, self._s))}-{seq}"


@pytest.mark.parametrize("step_s", [STEP_S, -STEP_S], ids=["forward", "back"])
async def test_a_step_of_the_servers_clock_moves_no_knob(open_fleet, step_s):
    async with open_fleet() as fleet:
        stepped = SteppedStore(fleet.store)
        leader = await fleet.tuning(**SIDE, store=stepped)
        known = await measuring(fleet, leader, 3)
        stepped.step(step_s)
        await fleet.window(leader)
        executor = leader.term.engine.executor
        assert learned(leader) == known
        assert executor.phase == ("centre" if step_s > 0 else "plus")  # forward: all seem to have been silent for long
        await fleet.until(leader, lambda: leader.term.engine.proposer.iteration() > known[0])
        assert executor.safe_mode is None and executor.rolled_back_us is None


@pytest.mark.parametrize("step_s", [STEP_S, -STEP_S], ids=["forward", "back"])
async def test_a_leader_that_takes_over_after_a_step_ends_the_probe_and_goes_on(open_fleet, step_s):
    async with open_fleet() as fleet:
        known = await measuring(fleet, await fleet.tuning(**SIDE, name="old"), 3)
        await fleet.end_lease()
        stepped = SteppedStore(fleet.store)
        stepped.step(step_s)
        new = fleet.leader("new", stepped, **SIDE)
        await fleet.window(new)
        assert learned(new) == known
        changed = [event for event in await fleet.audit() if event["generation"] != event["base_generation"]]
        assert changed[-1]["event_type"] == "abort"
        await fleet.until(new, lambda: new.term.engine.proposer.iteration() > known[0])
        moments = [event["timestamp_us"] for event in await fleet.audit()]
        assert moments == sorted(moments)
