"""One leader: it observes, and tunes when told to."""

from dataclasses import replace

from scheduler.hotpath import AdaptiveEngineConfig
from worker.hotpath.engine import engine_config, first_gains
from worker.settings import HotpathSettings


async def test_a_new_fleet_only_observes(open_fleet):
    async with open_fleet() as fleet:
        leader = fleet.leader()
        for _ in range(30):
            await fleet.window(leader)
        loaded = await fleet.store.load()
        assert (loaded.generation, loaded.document, loaded.mode) == (0, b"", "observe")
        assert leader.term.rehearsal.facts()["windows"] >= 28


async def test_turned_on_it_finds_the_better_window(open_fleet, natives_of):
    async with open_fleet() as fleet:
        leader = await fleet.tuning()
        await fleet.until(leader, lambda: natives_of(leader)["window_ms"] < 10, 300)
        assert leader.term.engine.executor.safe_mode is None


def test_the_defaults_are_those_of_a_fleet():
    settings = HotpathSettings()
    wanted = replace(AdaptiveEngineConfig.for_fleet(), audit_queue_capacity=settings.audit_max)
    assert engine_config(settings, first_gains(settings)) == wanted
