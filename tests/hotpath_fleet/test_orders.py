"""Orders of operators: done once, audited with actor and reason, and refused in one line."""

import json

import pytest

from scheduler.hotpath import SafeModeReason
from scheduler.hotpath.safe_mode import ManualReset
from worker.hotpath.knobs import REGISTRY
from worker.hotpath.order import Order


async def test_a_pin_ends_the_probe_and_holds_through_a_rollback(open_fleet):
    async with open_fleet() as fleet:
        leader = await fleet.tuning()
        engine = leader.term.engine
        await fleet.until(leader, lambda: engine.executor.phase == "plus")
        generation = engine.snapshot().generation
        answer = await fleet.order(leader, "pin", knob="window_ms", value=70.0, jump=True)
        assert (answer["ok"], answer["generation"]) == (True, generation + 2)  # the probe's end, and the pin
        assert engine.executor.centre[0] == pytest.approx(0.7)
        await fleet.until(leader, lambda: engine.executor.phase == "plus")
        assert engine.proposer.current_perturbation()[1][0] == 0.0
        await fleet.order(leader, "rollback")
        assert REGISTRY.to_natives(engine.executor.centre)["window_ms"] == pytest.approx(70.0)
        assert (await fleet.order(leader, "unpin", knob="window_ms"))["ok"]
        k = engine.proposer.iteration()
        await fleet.until(leader, lambda: engine.proposer.iteration() > k + 1)
        assert engine.executor.centre[0] < 0.7
        assert [event["generation"] for event in await fleet.audit()] == sorted(
            event["generation"] for event in await fleet.audit()
        )


async def test_a_pin_without_a_jump_is_reached_in_steps_while_nothing_is_tuned(open_fleet):
    async with open_fleet() as fleet:
        leader = fleet.leader()
        await fleet.window(leader)
        assert (await fleet.order(leader, "pin", knob="window_ms", value=75.0))["ok"]
        path = []
        for _ in range(6):
            await fleet.window(leader)
            path.append(round(fleet.workers[0].follower.knobs.window_s * 1000))
        assert path == sorted(path) and path[-1] == 75 and len(set(path)) >= 3


async def test_paused_nothing_is_proposed_until_resume_and_a_rollback_still_works(open_fleet):
    async with open_fleet() as fleet:
        leader = await fleet.tuning()
        engine = leader.term.engine
        await fleet.until(leader, lambda: engine.executor.phase == "minus")
        await fleet.order(leader, "pause")
        generation = engine.snapshot().generation
        for _ in range(10):
            await fleet.window(leader)
        assert (engine.snapshot().generation, engine.executor.phase) == (generation, "centre")
        assert (await fleet.store.load()).mode == "paused"
        await leader.release()
        leader = fleet.leader("next")  # it survives a change of the leader
        await fleet.window(leader)
        assert (await fleet.order(leader, "rollback"))["generation"] == generation + 1
        await fleet.order(leader, "resume")
        await fleet.until(leader, lambda: leader.term.engine.executor.phase == "plus")


async def test_an_order_is_followed_once_however_often_it_is_given(open_fleet):
    async with open_fleet() as fleet:
        leader = await fleet.tuning()
        order = Order("the-same", "rollback", "ana", "a test").encode()
        for _ in range(3):
            await fleet.store.give(order)
            await leader.step()
        await leader.release()
        leader = fleet.leader("next")
        await fleet.store.give(order)
        await fleet.window(leader)
        rollbacks = [event for event in await fleet.audit() if event["event_type"] == "rollback"]
        assert [(event["actor"], event["cause"]) for event in rollbacks] == [("ana", "a test")]


async def test_a_rollback_to_a_generation_of_old(open_fleet, natives_of):
    async with open_fleet() as fleet:
        leader = await fleet.tuning()
        await fleet.until(leader, lambda: leader.term.engine.proposer.iteration() >= 3)
        old = json.loads(await fleet.store.document(3))
        answer = await fleet.order(leader, "rollback", to=3, centre=old["centre"])
        assert "has the values of generation 3" in answer["told"]
        assert natives_of(leader)["window_ms"] == pytest.approx(old["centre"]["window_ms"])


@pytest.mark.parametrize(
    ("name", "args", "told"),
    [
        ("rollback", {}, "there is no baseline: predictor hotpath set-baseline"),
        ("pin", {"knob": "speed", "value": 1}, "there is no knob 'speed': window_ms, ticks_max, read_ahead"),
        ("pin", {"knob": "window_ms", "value": 101}, "window_ms must be in 0 to 100 ms, got 101"),
        ("pin", {"knob": "window_ms", "value": "1"}, "'1' is no number"),
        ("dry-run-off", {}, "the dry run has not measured enough yet"),
        ("pause", {"expect": 9}, "the generation is 0, not 9: look again"),
    ],
)
async def test_what_cannot_be_done_is_refused_audited_and_changes_nothing(open_fleet, name, args, told):
    async with open_fleet() as fleet:
        leader = fleet.leader()
        await fleet.window(leader)
        answer = await fleet.order(leader, name, **args)
        assert (answer["ok"], answer["generation"]) == (False, 0)
        assert told in answer["told"]
        audit = await fleet.audit()
        assert told in audit[-1]["details"]["refused"] and audit[-1]["actor"] == "ana"


async def test_set_baseline_is_refused_in_a_probe_and_moves_where_rollbacks_lead(open_fleet, natives_of):
    async with open_fleet() as fleet:
        leader = await fleet.tuning()
        engine = leader.term.engine
        await fleet.until(leader, lambda: engine.executor.phase == "plus")
        assert "a probe is under way" in (await fleet.order(leader, "set-baseline"))["told"]
        await fleet.until(leader, lambda: engine.proposer.iteration() == 1 and engine.executor.phase == "centre")
        await fleet.order(leader, "set-baseline")
        there = natives_of(leader)
        await fleet.until(leader, lambda: engine.proposer.iteration() >= 3)
        assert natives_of(leader) != there
        await fleet.order(leader, "rollback")
        assert natives_of(leader) == there


async def test_only_an_operator_opens_a_manual_latch(open_fleet):
    async with open_fleet() as fleet:
        leader = await fleet.tuning()
        engine = leader.term.engine
        engine.executor.enter_safe_mode(leader.term.now_us(), SafeModeReason.REPEATED_VIOLATIONS, ManualReset())
        for _ in range(30):
            await fleet.window(leader)
        assert "safe mode holds (repeated_violations)" in (await fleet.order(leader, "resume"))["told"]
        assert (await fleet.order(leader, "reset-safe-mode"))["told"] == "left safe mode (repeated_violations)"
        await fleet.until(leader, lambda: engine.executor.phase == "plus")


async def test_frozen_workers_leave_what_they_follow_and_the_probe_ends(open_fleet):
    async with open_fleet() as fleet:
        leader = await fleet.tuning()
        await fleet.until(leader, lambda: leader.term.engine.executor.phase == "plus")
        engine = leader.term.engine
        await fleet.store.freeze("smoke")
        await fleet.order(leader, "freeze", on=True)
        for _ in range(5):
            await fleet.window(leader)
        assert engine.executor.phase == "centre"
        assert all(worker.follower.knobs is worker.follower.base for worker in fleet.workers)
        assert "frozen" in (await fleet.order(leader, "resume"))["told"]
        await fleet.store.freeze("")
        await fleet.order(leader, "freeze", on=False)
        await fleet.until(leader, lambda: engine.executor.phase == "plus")


async def test_nonsense_among_the_orders_is_passed_over(open_fleet):
    async with open_fleet() as fleet:
        leader = fleet.leader()
        await fleet.window(leader)
        for junk in (b"", b"[]", b"{}", b'{"id": 1}', Order("x", "explode", "a", "b").encode(), b"\xff"):
            await fleet.store.give(junk)
        assert (await fleet.order(leader, "pause"))["ok"]
