"""Objectives of different versions are never compared: each event names its own, and a new one begins anew."""

from scheduler.hotpath.objective import TRANSPORT
from worker.hotpath.fleet import References, ruler_of
from worker.hotpath.replay import replay
from worker.settings import HotpathSettings


def test_the_version_is_that_of_weights_targets_limits_and_references(monkeypatch):
    aims, references = HotpathSettings(), References(1.0, 2.0)
    known = ruler_of(aims, references)
    assert known == ruler_of(HotpathSettings(digest_s=3.0, seed=5), References(1.0, 2.0))  # none of them is a ruler
    others = {
        ruler_of(aims, None),
        ruler_of(aims, References(1.0, 2.1)),
        ruler_of(HotpathSettings(lag_target_s=2.0), references),
        ruler_of(HotpathSettings(p99_limit_ms=500.0), references),
    }
    monkeypatch.setitem(TRANSPORT, "lag", 0.26)
    assert len(others | {known, ruler_of(aims, references)}) == 6


async def test_every_event_says_by_which_objective_it_was_measured(open_fleet):
    async with open_fleet() as fleet:
        leader = await fleet.tuning()
        await fleet.until(leader, lambda: leader.term.engine.proposer.iteration() >= 1)
        ruler = leader.term.engine.executor.ruler
        assert ruler == ruler_of(leader.settings, leader.term.references)
        found = [(event["event_type"], event["objective"]) for event in await fleet.audit()]
        assert all(version for kind, version in found[2:]) and found[-1][1] == ruler
        assert {version for kind, version in found if kind == "apply"} == {ruler}


async def test_a_leader_with_other_targets_forgets_what_was_measured_and_keeps_the_knobs(open_fleet):
    async with open_fleet() as fleet:
        old = await fleet.tuning(name="old")
        await fleet.until(old, lambda: old.term.engine.proposer.iteration() >= 4)
        known, before = old.term.engine.executor, old.term.engine.executor.ruler
        assert known.control_safety.regression.reference is not None
        await old.release()
        fleet.world = lambda knobs: 20.0 + 1000 * knobs.window_s
        new = fleet.leader("new", p95_target_ms=5.0, p99_target_ms=10.0)  # every objective is many times worse
        await fleet.window(new)
        executor, proposer = new.term.engine.executor, new.term.engine.proposer
        assert executor.centre == known.centre and proposer.iteration() == 0
        assert executor.control_safety.regression.reference is None
        assert executor.run_id != known.run_id and executor.ruler not in ("", before)
        told = [event for event in await fleet.audit() if event["event_type"] == "objective_changed"]
        assert [event["details"] for event in told] == [{"before": before}]
        await fleet.until(new, lambda: proposer.iteration() >= 4)
        assert executor.rolled_back_us is None and executor.safe_mode is None
        names = [event["proposal_id"] for event in await fleet.audit() if event["event_type"] == "apply"]
        assert len(names) == len(set(names))
        await new.release()
        same = fleet.leader("same", p95_target_ms=5.0, p99_target_ms=10.0)
        await fleet.window(same)
        assert same.term.engine.proposer.iteration() >= 4
        await fleet.window(same)
        found = replay(fleet.directory)
        assert found.agrees and found.terms == 3, found.difference


async def test_a_dry_run_with_other_targets_is_measured_again(open_fleet):
    async with open_fleet() as fleet:
        old = fleet.leader("old")
        for _ in range(6):
            await fleet.window(old)
        await old.release()
        new = fleet.leader("new", lag_target_s=9.0)
        await fleet.window(new)
        assert new.term.observing and new.term.rehearsal.facts()["windows"] <= 1
