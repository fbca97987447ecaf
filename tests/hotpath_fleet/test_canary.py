"""A candidate is tried on one group of partitions after the other; only what is clearly better becomes everyone's."""

import json

import pytest

from worker.hotpath.replay import replay
from worker.hotpath.view import canary as facts_of

CANDIDATE = {"sinkhorn_epsilon_0": 0.05}
START = {"candidate": CANDIDATE, "knobs": [], "share": 4, "rotations": 3, "partitions": 16}


def by_epsilon(better):
    """A world in which the candidate's forecasts lose so much less."""
    return lambda numbers: 1.0 - better * ("sinkhorn_epsilon_0" in numbers)


async def begun(fleet, **changes):
    leader = fleet.leader()
    await fleet.window(leader)
    answer = await fleet.order(leader, "canary-start", **START | changes)
    assert answer["ok"], answer
    return leader


async def over(fleet, leader, limit=120):
    await fleet.until(leader, lambda: leader.term.canary.trial is None and leader.term.canary.wants is None, limit)
    return leader.term.canary.last


async def test_a_better_candidate_has_its_turns_and_becomes_everyones(open_fleet):
    async with open_fleet() as fleet:
        await fleet.numbers.publish_config(0, {"predictor": {"cusum_k": 0.6}, "groups": {"acme": {"cusum_h": 4.0}}})
        fleet.forecast_loss = by_epsilon(0.05)
        leader = await begun(fleet)
        last = await over(fleet, leader)
        assert last["kind"] == "better" and last["p"] <= 0.01
        history = await fleet.numbers.config_history()
        turns = [each.values["canary"]["turn"] for each in history if "canary" in each.values]
        assert turns[0] == -1
        assert all(sorted(turns[1 + at : 5 + at]) == [0, 1, 2, 3] for at in (0, 4, 8)) and len(turns) == 13
        assert history[-1].values == {
            "predictor": {"cusum_k": 0.6, "sinkhorn_epsilon_0": 0.05},
            "groups": {"acme": {"cusum_h": 4.0}},
        }


@pytest.mark.parametrize("better", [0.0, -0.02])
async def test_an_equal_or_a_worse_candidate_becomes_nobodys(open_fleet, better):
    async with open_fleet() as fleet:
        fleet.forecast_loss = by_epsilon(better)
        leader = await begun(fleet)
        last = await over(fleet, leader)
        assert last["kind"] == "no_better"
        assert (await fleet.numbers.read_config()).values == {}


async def test_a_harmful_candidate_is_out_in_its_first_round(open_fleet):
    async with open_fleet() as fleet:
        fleet.forecast_loss = by_epsilon(-1.0)
        leader = await begun(fleet)
        last = await over(fleet, leader)
        assert (last["kind"], last["rounds"]) == ("harmful", 0)
        assert (await fleet.numbers.read_config()).values == {}
        ended = [event for event in await fleet.audit() if event["event_type"] == "canary_ended"]
        assert len(ended) == 1 and ended[0]["cause"] == "harmful"


async def test_without_numbers_it_proposes_one_candidate_after_the_other(open_fleet):
    async with open_fleet() as fleet:
        leader = await begun(fleet, candidate={})
        first = leader.term.canary.trial
        assert set(first.candidate) == {"sinkhorn_epsilon_0", "volatility_alpha"}
        await fleet.until(leader, lambda: leader.term.canary.trials == 2, 120)
        second = leader.term.canary.trial
        for name, own in first.control.items():
            assert (first.candidate[name] - own) * (second.candidate[name] - own) < 0
        assert (await fleet.order(leader, "canary-abort"))["ok"]
        await over(fleet, leader)
        assert not leader.term.canary.knobs and (await fleet.numbers.read_config()).values == {}


async def test_an_operator_may_promote_before_the_verdict(open_fleet):
    async with open_fleet() as fleet:
        leader = await begun(fleet)
        assert (await fleet.order(leader, "canary-promote"))["ok"]
        last = await over(fleet, leader)
        assert (last["kind"], last["actor"], last["p"]) == ("better", "ana", None)
        assert (await fleet.numbers.read_config()).values == {"predictor": CANDIDATE}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"candidate": {"cusum_k": 0.9}}, "a canary tries no 'cusum_k'"),
        ({"candidate": {"sinkhorn_epsilon_0": 7.0}}, "sinkhorn_epsilon_0 must be in 0.01 to 1, got 7.0"),
        ({"candidate": {"sinkhorn_epsilon_0": True}}, "got True"),
        ({"partitions": 1}, "nothing to compare a canary with"),
    ],
)
async def test_what_cannot_be_tried_is_refused_and_changes_nothing(open_fleet, changes, told):
    async with open_fleet() as fleet:
        leader = fleet.leader()
        await fleet.window(leader)
        answer = await fleet.order(leader, "canary-start", **START | changes)
        assert not answer["ok"] and told in answer["told"]
        assert (await fleet.numbers.read_config()).number == 0


async def test_a_second_one_is_refused_and_the_transport_waits(open_fleet):
    async with open_fleet() as fleet:
        leader = await fleet.tuning()
        await fleet.until(leader, lambda: leader.term.engine.executor.phase == "plus")
        assert (await fleet.order(leader, "canary-start", **START))["ok"]
        assert leader.term.engine.executor.phase == "centre"
        assert "under way" in (await fleet.order(leader, "canary-start", **START))["told"]
        for _ in range(6):
            await fleet.window(leader)
        assert leader.report.gate == "a canary is under way" and leader.term.engine.executor.phase == "centre"
        await fleet.order(leader, "canary-abort")
        await fleet.until(leader, lambda: leader.term.engine.executor.phase == "plus")


@pytest.mark.parametrize(("order", "why"), [("pause", "paused"), ("freeze", "frozen"), ("rollback", "rollback")])
async def test_what_stops_the_tuner_stops_the_canary(open_fleet, order, why):
    async with open_fleet() as fleet:
        leader = await begun(fleet)
        await fleet.order(leader, order)
        last = await over(fleet, leader)
        assert (last["kind"], last["told"]) == ("aborted", why)
        assert "canary" not in (await fleet.numbers.read_config()).values


async def test_a_passed_limit_stops_the_canary(open_fleet):
    async with open_fleet() as fleet:
        leader = await begun(fleet)
        fleet.world = lambda knobs: 60_000.0
        last = await over(fleet, leader)
        assert (last["kind"], last["told"]) == ("aborted", "a limit was passed")


async def test_numbers_published_by_somebody_else_end_it_and_stay(open_fleet):
    async with open_fleet() as fleet:
        leader = await begun(fleet)
        await fleet.window(leader)
        known = await fleet.numbers.read_config()
        await fleet.numbers.publish_config(known.number, {"predictor": {"cusum_k": 0.7}})
        last = await over(fleet, leader)
        assert last["kind"] == "superseded"
        newest = await fleet.numbers.read_config()
        assert newest.values == {"predictor": {"cusum_k": 0.7}}


async def test_a_group_without_forecasts_ends_it_with_its_name(open_fleet):
    async with open_fleet() as fleet:
        leader = await begun(fleet, partitions=16, share=4)
        fleet.losses = none_of
        last = await over(fleet, leader)
        assert last["kind"] == "too_few" and "group" in last["told"]


async def none_of():
    return {}


async def test_the_next_leader_goes_on_with_the_round_that_was_begun(open_fleet):
    async with open_fleet() as fleet:
        fleet.forecast_loss = by_epsilon(0.05)
        leader = await begun(fleet)
        for number in range(40):
            await fleet.window(leader)
            if number % 3 == 2 and leader.term.canary.trial is not None:
                before = leader.term.canary.trial.round
                await fleet.end_lease()
                leader = fleet.leader(f"next{number}")
                await fleet.window(leader)
                trial = leader.term.canary.trial
                assert trial is None or trial.round >= before
        last = await over(fleet, leader)
        assert last["kind"] == "better"
        history = await fleet.numbers.config_history()
        assert sum("canary" in each.values for each in history) == 13


async def test_a_canary_that_nobody_leads_any_more_is_ended_by_the_next_leader(open_fleet):
    async with open_fleet() as fleet:
        stale = {"trial": "x", "numbers": CANDIDATE, "of": 4, "turn": 2}
        await fleet.numbers.publish_config(0, {"predictor": {"cusum_k": 0.6}, "canary": stale})
        leader = fleet.leader()
        await fleet.window(leader)
        await fleet.window(leader)
        assert (await fleet.numbers.read_config()).values == {"predictor": {"cusum_k": 0.6}}


async def test_status_tells_what_is_tried(open_fleet):
    async with open_fleet() as fleet:
        leader = await begun(fleet)
        for _ in range(5):
            await fleet.window(leader)
        facts = facts_of(await fleet.store.show())
        assert facts["trying"] and facts["candidate"] == CANDIDATE and facts["control"] == {"sinkhorn_epsilon_0": 0.1}
        assert (facts["rounds"], facts["groups"]) == (13, 4) and facts["round"] >= 2


async def test_every_decision_of_a_canary_is_made_again_from_the_archive(open_fleet):
    async with open_fleet() as fleet:
        fleet.forecast_loss = by_epsilon(0.05)
        leader = await begun(fleet)
        await over(fleet, leader)
        await fleet.window(leader)
        found = replay(fleet.directory)
        assert found.agrees and found.terms == 1, json.dumps(found.difference)[:2000]
        assert found.events >= 28
