"""What the fleet does when telemetry stops, lies or turns worse, and when the audit cannot be archived."""

import json

from worker.hotpath.archive import events, examine


async def test_when_telemetry_stops_the_probe_ends_in_safe_mode(open_fleet):
    async with open_fleet() as fleet:
        leader = await fleet.tuning()
        engine = leader.term.engine
        await fleet.until(leader, lambda: engine.executor.phase == "plus")
        for _ in range(40):
            for worker in fleet.workers:
                await worker.look()
            fleet.now_s += 1.0
            await leader.step()
        assert engine.executor.phase == "centre"
        assert engine.executor.safe_mode.reason.value == "eval_timeout"


async def test_poisoned_telemetry_moves_nothing(open_fleet, digest_of):
    async with open_fleet() as fleet:
        leader = await fleet.tuning()
        for _ in range(60):
            poisoned = digest_of(fleet.workers[0].follower.knobs, 1.0, cpu_s=float("nan"))
            for payload in (b"", b"junk", poisoned.encode()):
                await fleet.store.send_digest("evil", payload)
            await fleet.window(leader)
        assert leader.term.merger.counts["quarantined"] > 0
        await fleet.until(leader, lambda: leader.term.engine.proposer.iteration() >= 5)
        assert leader.term.engine.executor.safe_mode is None


async def test_when_the_world_turns_worse_it_goes_back_to_the_baseline(open_fleet, natives_of):
    async with open_fleet() as fleet:
        leader = await fleet.tuning()
        engine = leader.term.engine
        baseline = natives_of(leader)
        await fleet.until(leader, lambda: engine.proposer.iteration() >= 8)
        assert natives_of(leader) != baseline
        fleet.world = lambda knobs: 300.0 - knobs.window_s
        await fleet.until(leader, lambda: any_rollback(leader), 100)
        told = [event for event in await fleet.audit() if event["event_type"] == "rollback"]
        assert told[0]["cause"] == "objective_regression" and told[0]["actor"] == "engine"
        assert told[0]["details"]["objective"] > told[0]["details"]["reference"]
        assert leader.report.metrics.rollbacks._children["objective_regression"]._value.get() == 1


def any_rollback(leader):
    return leader.term.engine.executor.rolled_back_us is not None


async def test_a_broken_limit_ends_the_probe_and_far_beyond_it_all_goes_back(open_fleet):
    async with open_fleet() as fleet:
        leader = await fleet.tuning(p99_limit_ms=200.0)
        engine = leader.term.engine
        await fleet.until(leader, lambda: engine.executor.phase == "plus")
        generation = engine.snapshot().generation
        fleet.world = lambda knobs: 250.0 if engine.executor.phase != "centre" else 30.0
        await fleet.until(leader, lambda: engine.snapshot().generation == generation + 1)
        assert (engine.executor.phase, engine.executor.rolled_back_us) == ("centre", None)
        fleet.world = lambda knobs: 400.0
        await fleet.until(leader, lambda: any_rollback(leader))
        assert engine.executor.safe_mode.reason.value == "repeated_violations"


async def test_an_audit_that_cannot_be_archived_stops_tuning_and_loses_nothing(open_fleet, tmp_path):
    async with open_fleet() as fleet:
        (tmp_path / "blocked").write_text("a file where the directory should be")
        leader = fleet.leader(audit_max=30, directory=tmp_path / "blocked")
        for _ in range(6):
            await fleet.window(leader)
        await fleet.order(leader, "dry-run-off")
        for _ in range(80):
            await fleet.window(leader)
        executor = leader.term.engine.executor
        loaded = await fleet.store.load()
        assert executor.safe_mode.reason.value == "audit_queue_full" and executor.phase == "centre"
        assert 30 <= loaded.audit_length <= 30 + 8
        assert (await fleet.order(leader, "rollback"))["ok"]
        (tmp_path / "blocked").unlink()
        await fleet.until(leader, lambda: leader.term.engine.executor.phase == "plus")
        archived = list(events(tmp_path / "blocked"))
        seqs = [event["seq"] for event in archived if event["event_type"] != "inputs"]
        assert len(seqs) == len(set(seqs)) and seqs == sorted(seqs)
        assert examine(tmp_path / "blocked").whole
        assert {"safe_mode_entered", "safe_mode_exited", "rollback", "apply"} <= {e["event_type"] for e in archived}


async def test_nothing_new_begins_right_after_a_worker_came(open_fleet):
    async with open_fleet() as fleet:
        leader = await fleet.tuning(settle_s=5.0)
        engine = leader.term.engine
        await fleet.until(leader, lambda: engine.proposer.iteration() >= 1)
        fleet.join("w9")
        await fleet.until(leader, lambda: engine.executor.phase == "centre")
        await fleet.window(leader)
        assert json.loads(leader.report.encode(leader.term))["gate"] == "workers came or went"
        await fleet.until(leader, lambda: engine.executor.phase == "plus")
