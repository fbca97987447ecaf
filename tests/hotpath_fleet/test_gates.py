"""When the fleet is idle, or something keeps its machines busy, nothing is learned; limits are heeded all the same."""

from pathlib import Path

import pytest

from worker.hotpath.machine import machine_seconds

BUSY = {"machine_busy_s": 1.95, "machine_s": 2.0}


async def test_windows_of_a_saturated_machine_teach_nothing(open_fleet):
    async with open_fleet() as fleet:
        leader = await fleet.tuning()
        await fleet.until(leader, lambda: leader.term.engine.executor.phase == "plus")
        known = leader.term.engine.spsa_state()
        for _ in range(5):
            await fleet.window(leader, **BUSY)
        assert leader.term.engine.spsa_state() == known and leader.term.merger.counts["saturated"] == 5
        await fleet.until(leader, lambda: leader.term.engine.executor.phase == "minus", 6)


async def test_no_cycle_begins_on_a_saturated_machine(open_fleet):
    async with open_fleet() as fleet:
        leader = await fleet.tuning()
        await fleet.order(leader, "rollback")
        for _ in range(20):
            await fleet.window(leader, **BUSY)
        assert leader.report.gate == "graph or machine is saturated"
        assert leader.term.engine.executor.phase == "centre" and leader.term.engine.proposer.iteration() == 0


async def test_the_graphs_own_thread_may_be_what_is_saturated(open_fleet):
    async with open_fleet() as fleet:
        leader = fleet.leader()
        for _ in range(4):
            await fleet.window(leader, busy_s=0.96)
        assert leader.term.rehearsal.facts()["windows"] == 0
        for _ in range(4):
            await fleet.window(leader, busy_s=0.5)
        assert leader.term.rehearsal.facts()["windows"] == 4


async def test_a_probe_that_sees_nothing_but_saturation_is_given_up(open_fleet):
    async with open_fleet() as fleet:
        leader = await fleet.tuning()
        await fleet.until(leader, lambda: leader.term.engine.executor.phase == "plus")
        for _ in range(40):
            await fleet.window(leader, **BUSY)
        executor = leader.term.engine.executor
        assert executor.phase == "centre" and executor.safe_mode.reason.value == "eval_timeout"


async def test_a_limit_that_is_passed_is_heeded_under_saturation_too(open_fleet):
    async with open_fleet() as fleet:
        leader = await fleet.tuning()
        await fleet.until(leader, lambda: leader.term.engine.executor.phase == "plus")
        fleet.world = lambda knobs: 60_000.0
        for _ in range(3):
            await fleet.window(leader, **BUSY)
        assert leader.term.engine.executor.safe_mode.reason.value == "repeated_violations"


async def test_an_idle_fleet_teaches_nothing(open_fleet):
    async with open_fleet() as fleet:
        leader = fleet.leader(samples_min=5000)
        for _ in range(4):
            await fleet.window(leader)
        assert leader.term.rehearsal.facts()["windows"] == 0
        assert leader.term.merger.counts["too_few"] >= 3


async def test_the_limit_can_be_taken_away(open_fleet):
    async with open_fleet() as fleet:
        leader = fleet.leader(utilisation_max=1.0)
        for _ in range(4):
            await fleet.window(leader, **BUSY)
        assert leader.term.rehearsal.facts()["windows"] >= 3


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="only Linux tells")
def test_the_machines_processors_are_read_and_grow():
    before = machine_seconds()
    assert 0 < before[0] < before[1]
    for _ in range(200_000):
        pass
    assert machine_seconds()[1] >= before[1]


def test_busy_is_what_is_not_idle_and_guests_are_not_counted_twice(tmp_path):
    stat = tmp_path / "stat"
    stat.write_text("cpu  100 10 50 600 40 5 5 190 77 7\ncpu0 1 1 1\n")
    assert machine_seconds(stat) == (3.6, 10.0)
    stat.write_text("")
    assert machine_seconds(stat) == machine_seconds(tmp_path / "none") == (0.0, 0.0)
