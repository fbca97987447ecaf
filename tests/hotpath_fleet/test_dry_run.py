"""Observe-only: measured, rehearsed, audited; nothing changed."""

import pytest

from worker.hotpath.knobs import REGISTRY


async def test_a_hundred_cycles_write_no_configuration(open_fleet):
    async with open_fleet() as fleet:
        leader = fleet.leader()
        while leader.term is None or leader.term.rehearsal._engine.proposer.iteration() < 100:
            await fleet.window(leader)
        assert leader.term.rehearsal._engine.snapshot().generation >= 300
        loaded = await fleet.store.load()
        assert (loaded.generation, loaded.document) == (0, b"")
        assert not any(worker.swaps for worker in fleet.workers)
        told = [event for event in await fleet.audit() if event["event_type"] == "proposal"]
        assert len(told) >= 300
        assert all(event["details"]["dry_run"] is True for event in told)
        assert {event["generation"] for event in told} == {0}
        assert told[-1]["details"]["sigma_y"] >= 0 and told[-1]["details"]["windows"] > 100


async def test_its_measurements_survive_the_leader(open_fleet):
    async with open_fleet() as fleet:
        leader = fleet.leader()
        for _ in range(20):
            await fleet.window(leader)
        windows = leader.term.rehearsal.facts()["windows"]
        await leader.release()
        following = fleet.leader("next")
        await fleet.window(following)
        assert following.term.rehearsal.facts()["windows"] >= windows - 5  # since the last thing worth a write


async def test_noise_found_by_the_dry_run_lengthens_the_probe(open_fleet):
    async with open_fleet() as fleet:
        leader = fleet.leader()
        for number in range(20):
            await fleet.window(leader, ages_s=0.5 if number % 4 < 2 else 0.1)
        sigma = leader.term.rehearsal.facts()["sigma_y"]
        assert sigma > 0.03
        assert (await fleet.order(leader, "dry-run-off"))["ok"]
        assert leader.term.gains.perturbation_scale == pytest.approx(0.05)  # the longest that the guardrails allow
        assert leader.term.references.loss == 1.0
        assert leader.term.engine.executor.baseline.params == leader.term.engine.executor.centre


async def test_on_again_it_ends_the_probe_and_keeps_what_was_learned(open_fleet):
    async with open_fleet() as fleet:
        leader = await fleet.tuning()
        engine = leader.term.engine
        await fleet.until(leader, lambda: engine.proposer.iteration() >= 3 and engine.executor.phase == "plus")
        await fleet.order(leader, "dry-run-on")
        generation, centre = engine.snapshot().generation, engine.executor.centre
        for _ in range(20):
            await fleet.window(leader)
        assert (await fleet.store.load()).generation == generation
        window_ms = REGISTRY.to_natives(centre)["window_ms"]
        assert fleet.workers[0].follower.knobs.window_s * 1000 == pytest.approx(window_ms)
        await fleet.order(leader, "dry-run-off")
        await fleet.until(leader, lambda: leader.term.engine.proposer.iteration() >= 4)
