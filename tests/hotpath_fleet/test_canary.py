"""A candidate is tried on one group of partitions after the other; only what is clearly better becomes everyone's."""

import json

import pytest

from worker.hotpath.order import Order
from worker.hotpath.replay import replay
from worker.hotpath.view import canary as facts_of
from worker.hotpath.view import model

CANDIDATE = {"sinkhorn_epsilon_0": 0.05}
START = {"candidate": CANDIDATE, "knobs": [], "share": 4, "rotations": 3, "partitions": 16}


def by_epsilon(better):
    """A world in which the candidate's forecasts lose so much less, whoever has it."""
    return lambda numbers: 1.0 - better * (numbers.get("sinkhorn_epsilon_0") == 0.05)


async def begun(fleet, **changes):
    leader = fleet.leader()
    await fleet.window(leader)
    answer = await fleet.order(leader, "canary-start", **START | changes)
    assert answer["ok"], answer
    return leader


async def promoted(fleet, **settings):
    """A leader that has promoted the candidate on an operator's word."""
    leader = await begun(fleet, **settings)
    assert (await fleet.order(leader, "canary-promote"))["ok"]
    return leader


async def rollbacks(fleet):
    return [event for event in await fleet.audit() if event["event_type"] == "rollback"]


async def judged(fleet, leader, limit=120):
    """Until the trial's own verdict: what was promoted is everyone's then, and its watch not begun."""
    await fleet.until(leader, lambda: leader.term.canary.last, limit)
    return leader.term.canary.last


async def over(fleet, leader, limit=120):
    await fleet.until(leader, lambda: leader.term.canary.trial is None and leader.term.canary.wants is None, limit)
    return leader.term.canary.last


async def test_a_better_candidate_has_its_turns_and_becomes_everyones(open_fleet):
    async with open_fleet() as fleet:
        await fleet.numbers.publish_config(0, {"predictor": {"cusum_k": 0.6}, "groups": {"acme": {"cusum_h": 4.0}}})
        fleet.forecast_loss = by_epsilon(0.05)
        leader = await begun(fleet)
        last = await judged(fleet, leader)
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
        leader = await promoted(fleet)
        last = leader.term.canary.last
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


async def test_what_was_promoted_is_watched_in_the_mirror_and_kept_where_it_is_no_worse(open_fleet):
    async with open_fleet() as fleet:
        fleet.forecast_loss = by_epsilon(0.02)
        leader = await promoted(fleet)
        await fleet.until(leader, lambda: leader.term.canary.trial.round >= 0)
        watch = leader.term.canary.trial
        assert (watch.candidate, watch.control) == ({"sinkhorn_epsilon_0": 0.1}, CANDIDATE)
        newest = (await fleet.numbers.read_config()).values
        assert newest["predictor"] == CANDIDATE and newest["canary"]["numbers"] == {"sinkhorn_epsilon_0": 0.1}
        assert newest["canary"]["turn"] == watch.turn >= 0
        facts = facts_of(await fleet.store.show())
        assert facts["watching"] and facts["promoted"] == CANDIDATE and facts["former"] == watch.candidate
        assert model(await fleet.store.show()).startswith("watching sinkhorn_epsilon_0=0.05, round 2 of 13: group")
        assert (await over(fleet, leader))["kind"] == "kept"
        assert (await fleet.numbers.read_config()).values == {"predictor": CANDIDATE}
        assert await rollbacks(fleet) == []
        history = await fleet.numbers.config_history()
        assert sum("canary" in each.values and is_watch(each) for each in history) == 13


async def test_what_was_promoted_and_does_worse_is_taken_back_as_a_new_generation(open_fleet):
    async with open_fleet() as fleet:
        former = {"predictor": {"cusum_k": 0.6}, "groups": {"acme": {"cusum_h": 4.0}}}
        await fleet.numbers.publish_config(0, former)
        fleet.forecast_loss = by_epsilon(-0.05)
        leader = await promoted(fleet)
        last = await over(fleet, leader)
        assert last["kind"] == "taken_back" and last["p"] <= 0.01 and last["difference"] < 0
        newest = await fleet.numbers.read_config()
        assert newest.values == former and newest.number > 13
        (told,) = await rollbacks(fleet)
        assert (told["actor"], told["cause"]) == ("engine", "promotion")
        assert told["details"]["instead_of"] == CANDIDATE and told["details"]["p"] == last["p"]
        assert leader.report.metrics.rollbacks._children["promotion"]._value.get() == 1
        cooldown_us = leader.term.engine.executor.cooldown_end_us() - leader.term.now_us()
        assert 0 < cooldown_us <= 5_000_000


async def test_plain_harm_is_taken_back_in_the_first_round_of_the_watch(open_fleet):
    async with open_fleet() as fleet:
        fleet.forecast_loss = by_epsilon(-1.0)
        leader = await promoted(fleet)
        last = await over(fleet, leader, 20)
        assert (last["kind"], last["rounds"], last["p"]) == ("taken_back", 0, None)
        assert (await fleet.numbers.read_config()).values == {}


async def test_a_search_goes_to_the_other_side_after_a_promotion_was_taken_back(open_fleet):
    async with open_fleet() as fleet:
        leader = await begun(fleet, candidate={})
        first = leader.term.canary.trial
        fleet.forecast_loss = lambda numbers: 1.0 - 0.05 * (numbers.get("sinkhorn_epsilon_0") not in (None, 0.1))
        await judged(fleet, leader)
        assert leader.term.canary.last["kind"] == "better"
        fleet.forecast_loss = lambda numbers: 1.0 + 1.0 * (numbers.get("sinkhorn_epsilon_0") not in (None, 0.1))
        await fleet.until(leader, lambda: leader.term.canary.last["kind"] == "taken_back")
        taken_back_s = fleet.now_s
        await fleet.until(leader, lambda: leader.term.canary.trial is not None)
        assert fleet.now_s - taken_back_s >= 5  # the stable time after a rollback
        second = leader.term.canary.trial
        assert second.control == first.control
        for name, own in first.control.items():
            assert (first.candidate[name] - own) * (second.candidate[name] - own) < 0


async def test_one_promotion_too_many_taken_back_in_an_hour_stops_the_tuner(open_fleet):
    async with open_fleet() as fleet:
        fleet.forecast_loss = by_epsilon(-1.0)
        leader = fleet.leader()
        await fleet.window(leader)
        for _ in range(5):
            await fleet.order(leader, "canary-start", **START)
            await fleet.order(leader, "canary-promote")
            await over(fleet, leader, 20)
        latch = leader.term.engine.executor.safe_mode
        assert latch.reason.value == "repeated_violations" and latch.manual
        assert "safe mode" in (await fleet.order(leader, "canary-start", **START))["told"]
        assert (await fleet.numbers.read_config()).values == {}


@pytest.mark.parametrize(
    ("order", "told", "stays"),
    [
        ("pause", "paused", True),
        ("canary-abort", "a test", True),
        ("freeze", "frozen", False),
        ("rollback", "rollback", False),
        ("canary-rollback", "a test", False),
    ],
)
async def test_what_only_stops_keeps_a_promotion_and_what_leads_back_takes_it_back(open_fleet, order, told, stays):
    async with open_fleet() as fleet:
        leader = await promoted(fleet)
        await fleet.window(leader)
        assert (await fleet.order(leader, order))["ok"]
        last = await over(fleet, leader)
        assert (last["kind"], last["told"]) == ("aborted" if stays else "taken_back", told)
        assert (await fleet.numbers.read_config()).values == ({"predictor": CANDIDATE} if stays else {})
        back = await rollbacks(fleet)
        assert [event["actor"] for event in back] == ([] if stays else ["ana"])
        assert leader.term.engine.executor.breaker.count(leader.term.now_us()) == 0
        assert "nothing that was promoted is watched" in (await fleet.order(leader, "canary-rollback"))["told"]


async def test_what_a_dying_leader_has_taken_back_and_not_published_the_next_one_publishes(open_fleet):
    async with open_fleet() as fleet:
        leader = await promoted(fleet)
        await fleet.window(leader)
        order = Order("back", "canary-rollback", "ana", "a test")
        await fleet.store.give(order.encode())
        await leader.obey(await leader.look())  # written down, and not published
        assert (await fleet.numbers.read_config()).values["predictor"] == CANDIDATE
        await fleet.end_lease()
        await fleet.window(fleet.leader("next"))
        assert (await fleet.numbers.read_config()).values == {}
        (told,) = await rollbacks(fleet)
        assert (told["actor"], told["cause"]) == ("ana", "a test")


async def test_a_passed_limit_takes_back_what_is_still_watched(open_fleet):
    async with open_fleet() as fleet:
        leader = await promoted(fleet)
        fleet.world = lambda knobs: 60_000.0
        last = await over(fleet, leader)
        assert (last["kind"], last["told"]) == ("taken_back", "a limit was passed")
        assert (await fleet.numbers.read_config()).values == {}


async def test_numbers_published_by_somebody_else_end_a_watch_and_stay(open_fleet):
    async with open_fleet() as fleet:
        leader = await promoted(fleet)
        await fleet.window(leader)
        known = await fleet.numbers.read_config()
        await fleet.numbers.publish_config(known.number, {"predictor": {"cusum_k": 0.7}})
        assert (await over(fleet, leader))["kind"] == "superseded"
        await fleet.window(leader)
        assert (await fleet.numbers.read_config()).values == {"predictor": {"cusum_k": 0.7}}
        assert await rollbacks(fleet) == []


async def test_leaders_that_die_in_every_round_of_a_watch_take_back_once(open_fleet):
    async with open_fleet() as fleet:
        fleet.forecast_loss = by_epsilon(-0.05)
        leader = await promoted(fleet)
        for life in range(60):
            for _ in range(2 + life % 3):  # windows: so that a round is at another point each time
                await fleet.window(leader)
            if leader.term.canary.trial is None and leader.term.canary.wants is None:
                break
            await fleet.end_lease()
            leader = fleet.leader(f"next{life}")
        assert (await fleet.numbers.read_config()).values == {}
        assert len(await rollbacks(fleet)) == 1
        assert leader.term.engine.executor.cooldown_end_us() > leader.term.now_us() - 60_000_000
        history = await fleet.numbers.config_history()
        assert sum("canary" in each.values and is_watch(each) for each in history) == 13


async def test_a_round_whose_answer_was_lost_does_not_keep_a_promotion_from_being_taken_back(open_fleet):
    async with open_fleet() as fleet:
        leader = await promoted(fleet)
        canary = leader.term.canary
        assert canary.wants["canary"]["trial"] == canary.trial.name and canary.trial.watch
        await fleet.numbers.publish_config(canary.base, canary.wants)  # as it was, but nobody heard the answer
        await fleet.order(leader, "canary-rollback")
        await over(fleet, leader)
        assert (await fleet.numbers.read_config()).values == {}


async def test_a_pinned_number_is_everyones_and_no_canary_tries_another(open_fleet):
    async with open_fleet() as fleet:
        leader = await begun(fleet)
        far = await fleet.order(leader, "pin", knob="volatility_alpha", value=0.3)
        assert not far["ok"] and "volatility_alpha is 0.1, more than a step away" in far["told"]
        assert leader.term.canary.trial is not None  # what is refused changes nothing
        assert (await fleet.order(leader, "pin", knob="volatility_alpha", value=0.12))["ok"]
        last = await over(fleet, leader)
        assert (last["kind"], last["told"]) == ("aborted", "volatility_alpha is pinned")
        assert (await fleet.numbers.read_config()).values == {"predictor": {"volatility_alpha": 0.12}}
        assert facts_of(await fleet.store.show())["pinned"] == ["volatility_alpha"]
        refused = await fleet.order(leader, "canary-start", **START | {"candidate": {"volatility_alpha": 0.2}})
        assert refused["told"] == "volatility_alpha is pinned: predictor hotpath unpin"
        assert (await fleet.order(leader, "canary-start", **START | {"candidate": {}}))["ok"]
        assert set(leader.term.canary.trial.candidate) == {"sinkhorn_epsilon_0"}
        await fleet.order(leader, "canary-abort")
        assert (await fleet.order(leader, "unpin", knob="volatility_alpha"))["told"].endswith("may be tried again")
        assert (await fleet.order(leader, "unpin", knob="volatility_alpha"))["told"].endswith("was not pinned")
        assert (await fleet.order(leader, "pin", knob="volatility_alpha", value=0.3, jump=True))["ok"]
        await fleet.window(leader)
        assert (await fleet.numbers.read_config()).values == {"predictor": {"volatility_alpha": 0.3}}
        pins = [event["details"] for event in await fleet.audit() if event["details"].get("command") == "pin"]
        assert [bool(each.get("refused")) for each in pins] == [True, False, False]
        assert all(each["command_id"] for each in pins)


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
        assert leader.term.canary.last["kind"] == "better"
        history = await fleet.numbers.config_history()
        assert sum("canary" in each.values and not is_watch(each) for each in history) == 13


def is_watch(generation):
    return generation.values["canary"]["trial"].endswith(":watch")


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


async def test_every_decision_of_a_canary_and_its_watch_is_made_again_from_the_archive(open_fleet):
    async with open_fleet() as fleet:
        fleet.forecast_loss = by_epsilon(0.05)
        leader = await begun(fleet)
        await judged(fleet, leader)
        fleet.forecast_loss = by_epsilon(-1.0)
        assert (await over(fleet, leader))["kind"] == "taken_back"
        await fleet.window(leader)
        found = replay(fleet.directory)
        assert found.agrees and found.terms == 1, json.dumps(found.difference)[:2000]
        assert found.events >= 28
